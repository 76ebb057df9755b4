"""Posts attestations at a rate, from a few threads, and remembers what was promised for each."""

import collections
import http.client
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from traffic.api import Api, Refused
from traffic.arrivals import message_id

PAUSE_SECS = 0.5


@dataclass(frozen=True)
class Job:
    organization: str
    api: Api
    body: Callable[[], bytes]
    # What each delivery is made of: a message each.
    steps: tuple[str, ...] = ("attestation",)


@dataclass(frozen=True)
class Accepted:
    """A 202: when it came, and the messages that it promises, by delivery."""

    organization: str
    attestation: str
    at: float
    took: float
    deliveries: dict[str, tuple[str, ...]]
    repeated: bool

    @property
    def messages(self) -> list[str]:
        return [message for messages in self.deliveries.values() for message in messages]


@dataclass
class Posted:
    accepted: list[Accepted] = field(default_factory=list)
    # By what they were: a status, or how the connection failed.
    errors: collections.Counter = field(default_factory=collections.Counter)
    # Given up, so never promised.
    refused: int = 0
    # How far the last post was behind the rate.
    behind_secs: float = 0.0


def post(
    jobs: list[Job],
    rate: float,
    threads: int = 4,
    patience_secs: float = 0.0,
    gate: threading.Event | None = None,
    posted: Posted | None = None,
    burst: int = 1,
) -> Posted:
    """Posts each job when its time has come, `burst` of them together. What gets no 202 is posted again for
    `patience_secs`; while `gate` is not set nothing is begun."""
    posted = posted if posted is not None else Posted()
    lock = threading.Lock()
    waiting = collections.deque(enumerate(jobs))
    began = time.monotonic()

    def work() -> None:
        while True:
            with lock:
                if not waiting:
                    return
                index, job = waiting.popleft()
            due = began + index // burst * burst / rate
            time.sleep(max(0.0, due - time.monotonic()))
            if gate:
                gate.wait()
            with lock:
                posted.behind_secs = max(posted.behind_secs, time.monotonic() - due)
            one(job)

    def one(job: Job) -> None:
        body = job.body()
        until = time.monotonic() + patience_secs
        while True:
            started = time.monotonic()
            try:
                said = job.api.call("POST", "/attestations", body)
            except (Refused, OSError, http.client.HTTPException) as error:
                kind = str(error.status) if isinstance(error, Refused) else type(error).__name__
                final = isinstance(error, Refused) and error.status < 500 and error.status != 429
                with lock:
                    posted.errors[kind] += 1
                    if final or time.monotonic() > until:
                        posted.refused += 1
                        return
                time.sleep(PAUSE_SECS)
                continue
            now = time.monotonic()
            ids = [delivery["id"] for delivery in said["deliveries"]]
            deliveries = {id: tuple(message_id(id, step) for step in job.steps) for id in ids}
            with lock:
                posted.accepted.append(
                    Accepted(job.organization, said["attestation"], now, now - started, deliveries, said["repeated"])
                )
            return

    workers = [threading.Thread(target=work, daemon=True) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return posted
