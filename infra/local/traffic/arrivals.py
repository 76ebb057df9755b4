"""What the receiver saw, as its log tells it."""

import json
import re
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

LOCAL = Path(__file__).resolve().parents[1]
STOP_SECS = 10


@dataclass
class Arrival:
    """A request as the receiver had it: by the monotonic clock, from which process, and how it ended."""

    number: int
    message: str
    path: str
    at: float
    pid: int | None
    ended_at: float | None = None
    end: str | None = None

    @property
    def answered(self) -> bool:
        """A status of success was sent; that it arrived is not known."""
        return self.end in ("ok", "kill-late", "drip", "huge")


@dataclass
class Kill:
    at: float
    pid: int


@dataclass
class Receiver:
    """A receiver in a process of its own, so that counting does not slow down posting."""

    directory: Path
    plan: dict
    arrivals: dict[int, Arrival] = field(default_factory=dict)
    by_message: dict[str, list[Arrival]] = field(default_factory=dict)
    kills: list[Kill] = field(default_factory=list)

    def __enter__(self) -> "Receiver":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        plan, self.log = self.directory / "receiver.plan", self.directory / "receiver.lines"
        plan.write_text(json.dumps(self.plan))
        self.log.write_text("")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "traffic.receiver", plan, self.log],
            cwd=LOCAL,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Ctrl-C is for us: it ends when we do.
            start_new_session=True,
        )
        self.port = int(self.process.stdout.readline())
        self.lines = self.log.open()

    def stop(self) -> None:
        self.process.stdin.close()
        try:
            self.process.wait(STOP_SECS)
        except subprocess.TimeoutExpired:
            self.process.kill()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}/{path}"

    def look(self) -> None:
        """Reads what is new."""
        while True:
            place = self.lines.tell()
            line = self.lines.readline()
            if not line.endswith("\n"):
                self.lines.seek(place)
                return
            self.take(json.loads(line))

    def take(self, line: dict) -> None:
        if "killed" in line:
            self.kills.append(Kill(line["at"], line["killed"]))
        elif "end" in line:
            arrival = self.arrivals[line["n"]]
            arrival.ended_at, arrival.end = line["at"], line["end"]
        # The check at a registration is no delivery.
        elif not line["id"].startswith("test_"):
            arrival = Arrival(line["n"], line["id"], line["path"], line["at"], line["pid"])
            self.by_message.setdefault(arrival.message, []).append(arrival)
            self.arrivals[arrival.number] = arrival
        else:
            self.arrivals[line["n"]] = Arrival(line["n"], line["id"], line["path"], line["at"], line["pid"])

    def revoke(self, key: str) -> None:
        """From now on whoever sends this key is refused."""
        with urllib.request.urlopen(self.url(f"revoke/{key}"), timeout=STOP_SECS):
            pass

    def of(self, message: str) -> list[Arrival]:
        return self.by_message.get(message, [])

    def wait_for(self, messages: set[str], until: float, say=lambda missing: None) -> set[str]:
        """Waits until each has been answered with success once; gives those that were not."""
        missing = set(messages)
        while True:
            self.look()
            missing = {message for message in missing if not any(one.answered for one in self.of(message))}
            say(len(missing))
            if not missing or time.monotonic() > until:
                return missing
            time.sleep(0.2)


def message_id(delivery: str, step: str = "attestation") -> str:
    """The `webhook-id` of a delivery's step."""
    return f"{re.sub('[^A-Za-z0-9]', '-', delivery)}_{sha256(step.encode()).hexdigest()[:12]}"


def no_plan() -> dict:
    """Answers 200, always."""
    return {"seed": 0, "cloud": None, "most_kills": 0, "kill_gap_secs": 0, "paths": {}}
