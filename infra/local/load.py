#!/usr/bin/env python3
"""Puts load on a separate stack, checks that every delivery arrives once, and measures the latency.

    infra/local/load.py                      the scenarios below
    infra/local/load.py --attachments 10 --rate 5 --count 200 [--size 20000] [--organizations 2]

Each scenario posts attestations at a rate, follows every delivery from its 202 to a receiver that counts, and
ends with an audit of the ledger. One line each: what was accepted, delivered, delivered twice, lost; the time from
the 202 to the first attempt's arrival; deliveries a second, from the first 202 to the last arrival. The exit
code is 1 when something was lost, refused or sent twice, or when an audit found something.

The emulator is one Python process that shares two cores with everything else, and it has no fair queues: what is
measured here is that nothing is lost and how this machine copes, not how fast AWS is.
"""

import argparse
import json
import statistics
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from cloud import ROOT
from traffic.api import Api
from traffic.arrivals import Receiver, no_plan
from traffic.attestations import Sbom, envelope
from traffic.audit import Audit, audit
from traffic.picture import arrivals
from traffic.posting import Job, Posted, post
from traffic.report import percentile, say, seconds, table
from traffic.stack import Stack

PROJECT = "load"
# What cannot be explained by this machine being slow counts as lost.
ARRIVAL_SECS = 240
FINAL_SECS = 60


@dataclass(frozen=True)
class Load:
    """Attestations of one organization and workflow."""

    name: str
    organization: str
    attachments: int
    count: int
    rate: float
    size_bytes: int = 0
    sbom: Sbom | None = None
    inline: bool = False
    # How often its registration's key is replaced while it is posted, the old one being refused at once.
    rotations: int = 0

    @property
    def workflow(self) -> str:
        return f"{PROJECT}/{self.name.replace(' ', '-').replace(',', '')}"

    @property
    def steps(self) -> tuple[str, ...]:
        return ("attestation", "sbom:sbom") if self.sbom else ("attestation",)

    def body(self, run: int) -> bytes:
        return envelope(self.workflow, f"{self.name} {run}", self.size_bytes, self.sbom, self.inline)


@dataclass
class Outcome:
    load: Load
    posted: Posted
    delivered: int = 0
    duplicates: int = 0
    lost: int = 0
    # Requests with a key that was replaced.
    denied: int = 0
    latencies: list[float] = field(default_factory=list)
    per_second: float = 0.0
    audit: Audit | None = None

    @property
    def deliveries(self) -> int:
        return sum(len(one.deliveries) for one in self.posted.accepted)

    @property
    def failed(self) -> bool:
        return bool(self.lost or self.duplicates or self.posted.refused or self.audit.violations)


def scenarios() -> list[tuple[Load, ...]]:
    """Those of a tuple run at the same time."""
    large = Sbom.of(4_000_000)
    # Base64 twice makes sixteen of nine: more does not fit into the 6 MiB that a body may have.
    inline = Sbom.of(3_300_000, seed=1)
    # At a rate that leaves this machine some air, so that latency is not a matter of the backlog.
    quiet = {"attachments": 1, "count": 40, "rate": 2.0}
    return [
        (Load("1 attachment", "load", 1, 200, 8.0),),
        (Load("10 attachments", "load", 10, 40, 1.5),),
        (Load("100 attachments", "load", 100, 4, 0.15),),
        (Load("1,000 attachments", "load", 1000, 1, 1.0),),
        (Load("SBOM of 4 MB, uploaded", "load", 1, 10, 0.5, sbom=large),),
        (Load("SBOM of 3.3 MB, inline", "load", 1, 10, 0.5, sbom=inline, inline=True),),
        (Load("a key replaced 5 times", "rotating", 1, 200, 8.0, rotations=5),),
        (Load("quiet, alone", "quiet", **quiet),),
        (Load("quiet, beside the flood", "quiet", **quiet), Load("the flood", "flood", 10, 100, 5.0)),
    ]


def custom(arguments: argparse.Namespace) -> list[tuple[Load, ...]]:
    organizations = range(1, arguments.organizations + 1)
    count, rate = arguments.count, arguments.rate / arguments.organizations
    return [
        tuple(
            Load(f"organization {n}", f"load-{n}", arguments.attachments, count, rate, arguments.size)
            for n in organizations
        )
    ]


@dataclass
class Run:
    stack: Stack
    receiver: Receiver
    apis: dict[str, Api] = field(default_factory=dict)
    registrations: dict[str, str] = field(default_factory=dict)

    def prepare(self, loads: tuple[Load, ...]) -> None:
        for load in loads:
            if load.organization not in self.apis:
                api = self.apis[load.organization] = Api(self.stack.api, self.stack.token(load.organization))
                url = self.receiver.url(load.organization)
                self.registrations[load.organization] = api.register(
                    load.organization, url, f"{load.organization}-0"
                )
            api, registration = self.apis[load.organization], self.registrations[load.organization]
            with ThreadPoolExecutor(4) as pool:
                attach = lambda _: api.attach(registration, load.workflow, send_sbom=load.sbom is not None)
                for done, _ in enumerate(pool.map(attach, range(load.attachments)), 1):
                    if done % 250 == 0:
                        say(f"{load.name}: {done} of {load.attachments} attached")
            if load.sbom and not load.inline:
                api.upload(load.sbom.digest, load.sbom.content)

    def run(self, loads: tuple[Load, ...]) -> list[Outcome]:
        name = " and ".join(load.name for load in loads)
        say(f"{name}: attaching")
        self.prepare(loads)
        say(f"{name}: posting")
        with ThreadPoolExecutor(len(loads)) as pool:
            outcomes = list(pool.map(self.post, loads))
        messages = {message for one in outcomes for accepted in one.posted.accepted for message in accepted.messages}
        last = 0.0

        def progress(missing: int) -> None:
            nonlocal last
            if time.monotonic() - last > 5:
                last = time.monotonic()
                say(f"{name}: {len(messages) - missing} of {len(messages)} requests have arrived")

        self.receiver.wait_for(messages, time.monotonic() + ARRIVAL_SECS, progress)
        for one in outcomes:
            until = time.monotonic() + FINAL_SECS
            one.audit = audit(self.stack, self.apis, one.posted.accepted, until, lambda _: None)
        # What was sent twice came meanwhile.
        self.receiver.look()
        for one in outcomes:
            self.count(one)
        return outcomes

    def post(self, load: Load) -> Outcome:
        api = self.apis[load.organization]
        jobs = [
            Job(load.organization, api, lambda run=run: load.body(run), load.steps) for run in range(load.count)
        ]
        rotating = threading.Thread(target=self.rotate, args=(load,), daemon=True)
        rotating.start()
        posted = post(jobs, load.rate)
        rotating.join()
        return Outcome(load, posted)

    def rotate(self, load: Load) -> None:
        for number in range(load.rotations):
            time.sleep(load.count / load.rate / (load.rotations + 1))
            url, name = self.receiver.url(load.organization), load.organization
            self.apis[name].rotate(self.registrations[name], url, f"{name}-{number + 1}")
            self.receiver.revoke(f"{name}-{number}")

    def count(self, outcome: Outcome) -> None:
        last = 0.0
        for accepted in outcome.posted.accepted:
            for messages in accepted.deliveries.values():
                arrivals = [self.receiver.of(message) for message in messages]
                outcome.denied += sum(one.end == "denied" for came in arrivals for one in came)
                arrivals = [[one for one in came if one.end != "denied"] for came in arrivals]
                if all(arrivals):
                    outcome.delivered += 1
                    first = min(one[0].at for one in arrivals)
                    # It may arrive before its 202 does.
                    outcome.latencies.append(max(0.0, first - accepted.at))
                    last = max(last, *(one[0].at for one in arrivals))
                else:
                    outcome.lost += 1
                outcome.duplicates += sum(max(0, len(one) - 1) for one in arrivals)
        if outcome.delivered:
            # From the first post, since a promise of a thousand deliveries takes long to be made.
            first = min(one.at - one.took for one in outcome.posted.accepted)
            outcome.per_second = outcome.delivered / (last - first)


HEAD = ["scenario", "posted", "accepted", "deliveries", "delivered", "twice", "lost", "errors",
        "202 in", "p50", "p95", "p99", "per s", "audit"]  # fmt: skip


def line(outcome: Outcome) -> list[str]:
    posted = outcome.posted
    took = [one.took for one in posted.accepted]
    numbers = (
        outcome.load.count, len(posted.accepted), outcome.deliveries, outcome.delivered,
        outcome.duplicates, outcome.lost, sum(posted.errors.values()),
    )  # fmt: skip
    times = (statistics.median(took) if took else None, *(percentile(outcome.latencies, of) for of in (50, 95, 99)))
    return [
        outcome.load.name,
        *map(str, numbers),
        *map(seconds, times),
        f"{outcome.per_second:.1f}",
        str(len(outcome.audit.violations) or "holds"),
    ]


def as_json(outcome: Outcome) -> dict:
    took = [one.took for one in outcome.posted.accepted]
    return {
        "scenario": outcome.load.name,
        "attachments": outcome.load.attachments,
        "rate": outcome.load.rate,
        "posted": outcome.load.count,
        "accepted": len(outcome.posted.accepted),
        "deliveries": outcome.deliveries,
        "delivered": outcome.delivered,
        "duplicates": outcome.duplicates,
        "denied": outcome.denied,
        "lost": outcome.lost,
        "errors": dict(outcome.posted.errors),
        "behind_secs": round(outcome.posted.behind_secs, 3),
        "accept_secs": {f"p{of}": percentile(took, of) for of in (50, 95, 99)},
        "first_attempt_secs": {f"p{of}": percentile(outcome.latencies, of) for of in (50, 95, 99)},
        "deliveries_per_sec": round(outcome.per_second, 2),
        "audit": outcome.audit.used,
        "violations": outcome.audit.violations,
    }


def report(outcomes: list[Outcome]) -> None:
    print(table(HEAD, [line(outcome) for outcome in outcomes]))
    print("\nAll times in seconds. `202 in` is the median duration of a post; p50, p95 and p99 are from the 202 to the first")
    print("attempt's arrival; `per s` counts deliveries from the first post to the last arrival.")
    print(f"Audit: {outcomes[0].audit.used}.")
    if any(outcome.load.name == "the flood" for outcome in outcomes):
        print("The emulator has no fair queues: the quiet organization waits behind the flood here; AWS prefers it.")
    for outcome in outcomes:
        if outcome.load.rotations:
            times, denied = outcome.load.rotations, outcome.denied
            print(f"{outcome.load.name}: {times} rotations; {denied} requests had a key that was already revoked.")
        if outcome.posted.behind_secs > 1:
            print(f"{outcome.load.name}: posts were up to {outcome.posted.behind_secs:.1f} s behind their rate.")
        for kind, count in outcome.posted.errors.items():
            print(f"{outcome.load.name}: {count} × {kind} instead of a 202.")
        for violation in outcome.audit.violations[:20]:
            print(f"{outcome.load.name}: {violation}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Puts load on a separate stack.")
    parser.add_argument("--directory", type=Path, default=ROOT / ".local/load")
    parser.add_argument("--only", help="only scenarios whose name contains this text")
    parser.add_argument("--attachments", type=int, help="run one custom scenario instead")
    parser.add_argument("--count", type=int, default=100, help="attestations per organization")
    parser.add_argument("--rate", type=float, default=5.0, help="attestations per second, in total")
    parser.add_argument("--size", type=int, default=0, help="size of an envelope in bytes")
    parser.add_argument("--organizations", type=int, default=1)
    parser.add_argument("--json", type=Path, help="output file for the results as JSON")
    parser.add_argument("--picture", type=Path, help="output file for a picture of the times, as SVG")
    arguments = parser.parse_args()

    wanted = custom(arguments) if arguments.attachments else scenarios()
    if arguments.only:
        wanted = [loads for loads in wanted if any(arguments.only in load.name for load in loads)]
    say("starting a fresh local cloud")
    try:
        with Stack(arguments.directory, ephemeral=True) as stack, Receiver(stack.directory, no_plan()) as receiver:
            run = Run(stack, receiver)
            outcomes = [outcome for loads in wanted for outcome in run.run(loads)]
            if any(outcome.failed for outcome in outcomes):
                say(f"the logs are in {stack.keep_logs()}")
    except KeyboardInterrupt:
        sys.exit(130)
    if arguments.json:
        arguments.json.write_text(json.dumps([as_json(outcome) for outcome in outcomes], indent=2) + "\n")
    if arguments.picture:
        # Others measure something else than the fan-out.
        plain = [outcome for outcome in outcomes if not (outcome.load.sbom or outcome.load.rotations)]
        lines = [(outcome.load.name, outcome.latencies) for outcome in plain if outcome.latencies]
        arguments.picture.write_text(arrivals("Deliveries that have arrived", lines))
    report(outcomes)
    sys.exit(any(outcome.failed for outcome in outcomes))


if __name__ == "__main__":
    main()
