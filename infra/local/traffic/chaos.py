"""Functions killed while they work, and the emulator stopped and started, in the midst of traffic."""

import random
import threading
import time
from dataclasses import dataclass, field

from traffic import processes
from traffic.arrivals import Kill
from traffic.posting import Posted
from traffic.report import say
from traffic.stack import STACK, Stack

LOOK_SECS = 0.02
PAUSED_SECS = 1.0


@dataclass(eq=False)
class Killer(threading.Thread):
    """Kills a function's process at moments at which it works, until it is told to end."""

    stack: Stack
    function: str
    # How long it waits between kills, on average, and which share of the chances it takes.
    gap_secs: float
    share: float
    seed: int
    running: threading.Event
    kills: list[Kill] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(daemon=True)
        self.ended = threading.Event()

    def run(self) -> None:
        draw = random.Random(self.seed)
        next_kill = time.monotonic() + draw.expovariate(1 / self.gap_secs)
        ticks: dict[int, int] = {}
        while not self.ended.wait(LOOK_SECS):
            emulator = self.stack.cloud.pid()
            if not self.running.is_set() or emulator is None or time.monotonic() < next_kill:
                ticks.clear()
                continue
            for pid in processes.of_function(f"{STACK}-{self.function}", emulator):
                now = processes.cpu_ticks(pid)
                worked = now > ticks.get(pid, now)
                ticks[pid] = now
                if not worked or draw.random() > self.share:
                    continue
                if processes.kill(pid, emulator):
                    self.kills.append(Kill(time.monotonic(), pid))
                    next_kill = time.monotonic() + draw.expovariate(1 / self.gap_secs)
                    break

    def end(self) -> None:
        self.ended.set()
        self.join()


def restart(stack: Stack, gate: threading.Event, posted: Posted) -> tuple[list[Kill], float]:
    """Stops the emulator and starts it again; what it ran is killed by that. Nothing is posted meanwhile: the
    emulator writes down what it has when it is asked to end, and a 202 after that moment would be its own loss."""
    gate.clear()
    settle(posted)
    running = processes.children(stack.emulator())
    began = time.monotonic()
    stack.stop()
    stopped = time.monotonic()
    stack.start()
    took = time.monotonic() - began
    say(f"the emulator was stopped and started within {took:.1f} s")
    gate.set()
    # A process may have gone on sending until the very end.
    return [Kill(stopped, pid) for pid in running], took


def settle(posted: Posted) -> None:
    """Waits until no post is under way, as far as can be seen: no 202 and no error for a second."""
    before = -1
    while (now := len(posted.accepted) + sum(posted.errors.values())) != before:
        before = now
        time.sleep(PAUSED_SECS)
