#!/usr/bin/env python3
"""The kill run: kills functions during deliveries, and checks that no delivery is lost.

    infra/local/kill.py [--attestations 720] [--stopped-minutes 3] [--json FILE]

On a cloud of its own, attestations are posted in bursts, each to three webhooks. The third parties hang, reset,
refuse, drip and answer a gigabyte, and kill the very process that sends to them, before they answer or right after,
so between the request and the ledger. The functions that accept and that reconcile are killed while they work, and
in the middle the emulator is stopped and started. Then the same attestation is posted a hundred times at once, and at
last a queue stands still for some minutes. When everything is final the receiver's count is held against the ledger:

- nothing lost: what was accepted is final, and what the ledger calls delivered was taken by its receiver
- each request that came twice has its reason: the one before was refused, or got no answer, or was in flight when its
  process was killed; so duplicates are at most the sends in flight at kills
- a queue that stood still bred no messages: at most two for each delivery

The tail takes some minutes: a killed attempt is found by its lease, 160 s, and what a killed process had received and
not yet claimed shows up again after the queue's visibility timeout, 13 minutes.
"""

import argparse
import collections
import json
import re
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from cloud import ROOT
from traffic import chaos, verdict
from traffic.api import Api
from traffic.arrivals import Kill, Receiver
from traffic.attestations import envelope
from traffic.audit import Audit, audit
from traffic.posting import Accepted, Job, Posted, post
from traffic.report import percentile, say, table
from traffic.stack import Stack

ORGANIZATION = "kill"
QUEUE = "webhook"
RATE, BURST = 2.8, 7
SEED = 20
# Third parties, and what they do with which share of their requests.
PARTIES = {
    "killing": [("kill", 0.25), ("kill-late", 0.25)],
    "moody": [
        ("hang", 0.05), ("reset", 0.04), ("reset-early", 0.04), ("busy", 0.06), ("down", 0.05),
        ("drip", 0.04), ("huge", 0.04), ("kill", 0.08), ("kill-late", 0.08),
    ],  # fmt: skip
    "steady": [],
}
GONE = "gone"
MOST_KILLS, KILL_GAP_SECS = 160, 0.3
LEAST_KILLS = 100
ATTESTATIONS = 720
IDENTICAL = 100
BACKLOG, BACKLOG_RATE = 100, 8.0
# Lease, visibility, and a first retry or two; what is open after that is stuck.
TAIL_SECS = 960
BACKLOG_SECS = 240


@dataclass
class Findings:
    """Lines of the final table, and which of them are wrong."""

    lines: list[tuple[str, str, str, bool]] = field(default_factory=list)

    def note(self, what: str, found: object, wanted: str = "", holds: bool = True) -> None:
        self.lines.append((what, str(found), wanted, holds))

    @property
    def hold(self) -> bool:
        return all(holds for *_, holds in self.lines)


class KillRun:
    def __init__(self, stack: Stack, arguments: argparse.Namespace):
        self.stack, self.arguments = stack, arguments
        self.chaos_secs = arguments.attestations / RATE + 10
        self.posted = Posted()
        self.restarts: list[Kill] = []
        self.findings = Findings()

    def run(self) -> None:
        self.api = Api(self.stack.api, self.stack.token(ORGANIZATION))
        # A few seconds for what comes before the first post.
        until = time.monotonic() + self.chaos_secs + 5
        with Receiver(self.stack.directory, plan(self.stack, until)) as self.receiver:
            self.attach()
            self.chaos(until)
            everything = self.posted.accepted + self.identical()
            self.resume(until)
            self.wait(everything, TAIL_SECS)
            # Only now, so that what the kills left behind has not waited for it.
            backlog = self.backlog()
            everything += backlog
            self.judge(everything, backlog, self.wait(everything, BACKLOG_SECS))

    def resume(self, until: float) -> None:
        """As an operator would when third parties are back: what was paused, by itself, goes on."""
        time.sleep(max(0.0, until - time.monotonic()))
        self.paused = 0
        for registration in self.api.pages("/registrations"):
            if registration["paused"]:
                self.paused += 1
                self.api.post(f"/registrations/{registration['id']}/resume", {"per_second": 50})

    def attach(self) -> None:
        for path in (*PARTIES, GONE):
            registration = self.api.register(path, self.receiver.url(path))
            for workflow in ("kill/backlog", "kill/run") if path in PARTIES else ("kill/gone",):
                self.api.attach(registration, workflow)

    def job(self, workflow: str, run: str) -> Job:
        return Job(ORGANIZATION, self.api, lambda: envelope(workflow, run))

    def chaos(self, until: float) -> None:
        jobs = [self.job("kill/run", f"run {n}") for n in range(self.arguments.attestations)]
        # A few to somebody who says that it is gone: the first fails, and the others are held.
        jobs[20:20] = [self.job("kill/gone", f"gone {n}") for n in range(10)]
        gate = threading.Event()
        gate.set()
        killers = [
            chaos.Killer(self.stack, "attestations", 5.0, 1.0, SEED, gate),
            # It works once a minute, for a moment.
            chaos.Killer(self.stack, "reconciler", 1.0, 0.6, SEED + 1, gate),
        ]
        posting = threading.Thread(
            target=post, args=(jobs, RATE, 8, 300.0, gate, self.posted, BURST), daemon=True
        )
        for thread in (posting, *killers):
            thread.start()
        half = time.monotonic() + self.chaos_secs / 2
        while posting.is_alive():
            posting.join(10)
            self.receiver.look()
            say(
                f"{len(self.posted.accepted)} of {len(jobs)} accepted, {len(self.receiver.arrivals)} requests, "
                f"{len(self.receiver.kills)} deliveries killed, {len(killers[0].kills)} posts, "
                f"{len(killers[1].kills)} reconcilers"
            )
            if time.monotonic() > half and not self.restarts:
                self.restarts, _ = chaos.restart(self.stack, gate, self.posted)
        time.sleep(max(0.0, until - time.monotonic()))
        for killer in killers:
            killer.end()
        self.receiver.look()
        posts, reconcilers = (len(killer.kills) for killer in killers)
        kills = len(self.receiver.kills)
        self.findings.note("attestations accepted", len(self.posted.accepted), f"{len(jobs)}", not self.posted.refused)
        errors = ", ".join(f"{count} × {kind}" for kind, count in self.posted.errors.most_common()) or "none"
        self.findings.note("posts that got no 202 and were repeated", errors)
        # A shorter run than the default one kills as many as it comes to.
        least = LEAST_KILLS if self.arguments.attestations >= ATTESTATIONS else 1
        self.findings.note("delivery functions killed", kills, f"≥ {least}", kills >= least)
        self.findings.note("functions that accept killed", posts)
        self.findings.note("reconcilers killed", reconcilers)
        self.findings.note("the emulator stopped and started", f"once, with {len(self.restarts)} functions running")

    def identical(self) -> list[Accepted]:
        body = envelope("kill/run", "the same, a hundred times")
        posted = post([Job(ORGANIZATION, self.api, lambda: body)] * IDENTICAL, 1000.0, threads=20)
        ids = {id for one in posted.accepted for id in one.deliveries}
        firsts = sum(not one.repeated for one in posted.accepted)
        found = f"{len(posted.accepted)} × 202, {firsts} first, {len(ids)} deliveries"
        wanted = f"{IDENTICAL} × 202, 1 first, {len(PARTIES)} deliveries"
        self.findings.note(f"{IDENTICAL} identical posts at once", found, wanted, found == wanted)
        return posted.accepted[:1]

    def backlog(self) -> list[Accepted]:
        """A queue that stands still, with deliveries waiting in it."""
        minutes = self.arguments.stopped_minutes
        if not minutes:
            return []
        self.stack.switch(QUEUE, on=False)
        resume = time.monotonic() + 60 * minutes
        jobs = [self.job("kill/backlog", f"backlog {n}") for n in range(BACKLOG)]
        posted = post(jobs, BACKLOG_RATE, patience_secs=60.0)
        while (left := resume - time.monotonic()) > 0:
            say(f"the queue stays stopped for {left:.0f} s: {self.stack.messages(QUEUE)}")
            time.sleep(min(30.0, left))
        self.stack.switch(QUEUE, on=True)
        say("the queue is running again")
        return posted.accepted

    def wait(self, everything: list[Accepted], secs: float) -> Audit:
        until = time.monotonic() + secs
        last = 0.0

        def progress(left: int) -> None:
            nonlocal last
            if time.monotonic() - last > 15:
                last = time.monotonic()
                say(f"{left} deliveries not final; {until - last:.0f} s left")

        return audit(self.stack, {ORGANIZATION: self.api}, everything, until, progress)

    def judge(self, everything: list[Accepted], backlog: list[Accepted], said: Audit) -> None:
        time.sleep(2)
        self.receiver.look()
        note = self.findings.note
        promised = {id: messages for one in everything for id, messages in one.deliveries.items()}
        rows = {id: row for id, row in said.rows.items() if id in promised}
        states = collections.Counter(row["state"] for row in rows.values())
        note("deliveries", f"{len(promised)}: " + ", ".join(f"{count} {state}" for state, count in states.items()))

        taken = {message for message, came in self.receiver.by_message.items() if any(one.answered for one in came)}
        open_ones = [id for id in promised if id not in rows or rows[id]["state"] in ("pending", "delivering")]
        untrue = [
            id for id, row in rows.items() if row["state"] == "delivered" and not set(promised[id]) <= taken
        ]
        gone = sum(any(one.end == "gone" for one in came) for came in self.receiver.by_message.values())
        failed = [row for row in rows.values() if row["state"] in ("failed", "skipped", "cancelled")]
        wrong = [
            f"{row['id']}: {row['state']}, {row['reason']}" for row in failed if "410" not in (row["reason"] or "")
        ]
        lost = len(open_ones) + len(untrue) + len(wrong)
        note("lost", lost, "0", lost == 0)
        refused = len(failed) - len(wrong)
        note("failed, since the third party said it is gone", refused, str(gone), refused == gone)
        note("registrations paused by that, and resumed", self.paused, "≥ 1", self.paused >= 1)

        kills = verdict.Kills(self.receiver.kills + self.restarts)
        arrivals = [one for came in self.receiver.by_message.values() for one in came]
        flying = verdict.in_flight(arrivals, kills)
        repeats = verdict.repeats(self.receiver.by_message, kills)
        note("requests at the third parties", len(arrivals))
        note("  came again after a refusal (429, 503)", repeats.refused)
        note("  came again after a hang or a reset (sent, no answer)", repeats.unanswered)
        note("  came again after a kill", repeats.killed, f"≤ {flying} in flight at kills", repeats.killed <= flying)
        note("  came again without a reason", len(repeats.unexplained), "0", not repeats.unexplained)
        unknown = self.unknown(repeats, promised)
        note("  of these, no reason in the ledger", len(unknown), "0", not unknown)
        if times := list(repeats.recovered_secs.values()):
            note("from a kill to the next attempt, s", f"p50 {percentile(times, 50):.0f}, longest {max(times):.0f}")
        waited = self.waited(everything, taken)
        times = (f"p{of} {percentile(waited, of):.1f}" for of in (50, 95, 99, 100))
        note("from the 202 to delivered, s", ", ".join(times))
        if backlog:
            self.judge_backlog({id for one in backlog for id in one.deliveries})
        note("violations at the audit", len(said.violations), "0", not said.violations)
        self.audited_by = said.used
        self.details = {
            "open": open_ones, "delivered and not taken": untrue, "final for another reason": wrong,
            "without a reason": repeats.unexplained, "no reason in the ledger": unknown,
            "audit": said.violations, "slowest to be sent again after a kill": slowest(repeats),
        }  # fmt: skip

    def unknown(self, repeats: verdict.Repeats, promised: dict[str, tuple[str, ...]]) -> list[str]:
        """Deliveries that came again after a kill, and the ledger knows of no crash and of no answer that was lost:
        a connection may break a moment before its process is killed, for a reason of its own."""
        again = [id for id, messages in promised.items() if any(one in repeats.recovered_secs for one in messages)]
        attempts = {id: self.api.call("GET", f"/deliveries/{id}")["attempts"] for id in again}
        reasons = {"crashed", "unanswered"}
        return [id for id, list in attempts.items() if not reasons & {attempt["ending"] for attempt in list}]

    def waited(self, everything: list[Accepted], taken: set[str]) -> list[float]:
        of = self.receiver.of
        return [
            max(0.0, next(came.at for came in of(message) if came.answered) - one.at)
            for one in everything
            for message in one.messages
            if message in taken
        ]

    def judge_backlog(self, ids: set[str]) -> None:
        """Each message that a function gets leads to one line of its log, whether it is claimed or not."""
        lines = self.stack.log().splitlines()
        named = re.compile(r'"message":"(?:Recorded|Nothing to claim)".*"delivery\.id":"([^"]+)"')
        got = sum(1 for line in lines if (found := named.search(line)) and found[1] in ids)
        minutes = self.arguments.stopped_minutes
        found = f"{got} messages for {len(ids)} deliveries"
        holds = len(ids) <= got <= 2 * len(ids)
        self.findings.note(f"a queue that stood still for {minutes:g} min", found, f"≤ {2 * len(ids)}", holds)


def slowest(repeats: verdict.Repeats) -> list[str]:
    longest = sorted(repeats.recovered_secs.items(), key=lambda one: -one[1])[:5]
    return [f"{message}: {secs:.0f} s" for message, secs in longest]


def plan(stack: Stack, until: float) -> dict:
    paths = {
        path: [{"do": do, "share": share, "until": until} for do, share in rules] for path, rules in PARTIES.items()
    }
    paths[GONE] = [{"do": "gone", "share": 1.0, "until": until}]
    return {
        "seed": SEED,
        "cloud": str(stack.directory),
        "most_kills": MOST_KILLS,
        "kill_gap_secs": KILL_GAP_SECS,
        "paths": paths,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="The kill run.")
    parser.add_argument("--directory", type=Path, default=ROOT / ".local/kill")
    parser.add_argument("--attestations", type=int, default=ATTESTATIONS, help="number of attestations; each goes to three webhooks")
    parser.add_argument("--stopped-minutes", type=float, default=3, help="duration of the queue's stop, or 0")
    parser.add_argument("--json", type=Path, help="output file for the results as JSON")
    arguments = parser.parse_args()
    try:
        # Not ephemeral: it is stopped in the middle, and has to keep what it has.
        with Stack(arguments.directory, ephemeral=False) as stack:
            run = KillRun(stack, arguments)
            say(f"seed {SEED}; killing for {run.chaos_secs:.0f} s, then waiting for at most {TAIL_SECS} s")
            run.run()
            if not run.findings.hold:
                say(f"the logs are in {stack.keep_logs()}")
    except KeyboardInterrupt:
        sys.exit(130)
    lines = [[what, found, wanted, "ok" if holds else "WRONG"] for what, found, wanted, holds in run.findings.lines]
    print(table(["kill run", "found", "wanted", ""], lines))
    print(f"\nAudit: {run.audited_by}.")
    print(f"In flight: without a response yet, or with one less than {verdict.RECORDING_SECS:g} s before the kill.")
    for name, details in run.details.items():
        for detail in details[:20]:
            print(f"{name}: {detail}")
    if arguments.json:
        results = {what.strip(): {"found": found, "holds": holds} for what, found, _, holds in run.findings.lines}
        arguments.json.write_text(json.dumps({**results, "details": run.details}, indent=2) + "\n")
    sys.exit(not run.findings.hold)


if __name__ == "__main__":
    main()
