#!/usr/bin/env python3
"""Upgrades a stack from the release before and rolls it back, under load, and checks that nothing is lost.

    infra/local/upgrade.py

On a cloud of its own, the release before is deployed (infra/previous-release; it is built once). While attestations are
posted to webhooks, one of which refuses some at first, this release is deployed over it, then the release before again,
then this one with its functions behind aliases. In the end every attestation that was accepted has to be delivered, each
request that came twice has to have its reason in the ledger, and the audit has to hold. Exit code 77: the history has no
such release here.
"""

import os
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

from cloud import ROOT
from traffic.api import Api, Refused
from traffic.arrivals import Receiver
from traffic.attestations import envelope
from traffic.audit import audit
from traffic.posting import Job, Posted, post
from traffic.report import say
from traffic.stack import STACK, Stack

NOT_RUN = 77
ORGANIZATION = "upgrade"
WORKFLOW = "shop/nightly"
RATE = 3.0
# Between two deployments, and after the last one.
PHASE_SECS = 15
PATIENCE_SECS = 120.0
TAIL_SECS = 60
# Lease of an attempt, and the reconciler's time: whose function the emulator ended is tried again after it.
LEASE_SECS = 240
# An answer that was lost: the third party may have it, and gets it again.
REASONS = {"crashed", "unanswered"}
PYTHON = ROOT / ".venv/sam/bin/python"


def previous_release() -> Path:
    """The release before: its source, with its functions built."""
    name, commit = (ROOT / "infra/previous-release").read_text().splitlines()[-1].split()
    known = subprocess.run(["git", "cat-file", "-e", f"{commit}^{{commit}}"], cwd=ROOT, capture_output=True)
    if known.returncode:
        print(f"NOT RUN: this clone has no release {name}")
        sys.exit(NOT_RUN)
    source = ROOT / ".local/previous" / commit
    if (source / "target/lambda/reconciler/bootstrap.zip").exists():
        return source
    shutil.rmtree(source, ignore_errors=True)
    source.mkdir(parents=True)
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=True)
    subprocess.run(["tar", "-x", "-C", source], input=archive.stdout, check=True)
    (source / ".venv").symlink_to(ROOT / ".venv")
    say(f"building release {name}, the first time up to ten minutes")
    environment = {
        **os.environ,
        "PATH": f"{ROOT}/.venv/cargo-lambda/bin:{os.environ['PATH']}",
        # Its own: cargo takes the crates of both releases for the same, and one built here for one of there.
        "CARGO_TARGET_DIR": str(source / "target"),
    }
    command = ["cargo", "lambda", "build", "--output-format", "zip", "--compiler", "cargo", "--profile", "local"]
    command += ["--package", "functions"]
    built = subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True)
    if built.returncode:
        sys.exit(built.stderr)
    return source


class Released(Stack):
    """A stack of one release at a time."""

    def __init__(self, directory: Path, release: Path):
        super().__init__(directory, ephemeral=True)
        self.release = release

    def deploy(self, **parameters: str) -> None:
        command = [PYTHON, self.release / "infra/local/deploy.py", "--stack", STACK, "--directory", self.directory]
        command += [option for name, value in parameters.items() for option in ("--parameter", f"{name}={value}")]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"deploy {self.release}: {done.stdout}{done.stderr}")

    def code(self) -> str:
        """A digest of the code that accepts."""
        path = f"/2015-03-31/functions/{STACK}-attestations/configuration"
        return self.aws("lambda", "GET", path)["CodeSha256"]


def main() -> None:
    previous = previous_release()
    with Released(ROOT / ".local/upgrade", previous) as stack:
        api = Api(stack.api, stack.token(ORGANIZATION))
        busy = [{"do": "busy", "share": 0.2, "until": time.monotonic() + 6 * PHASE_SECS}]
        plan = {"seed": 7, "cloud": None, "most_kills": 0, "kill_gap_secs": 0, "paths": {"busy": busy, "steady": []}}
        with Receiver(stack.directory, plan) as receiver:
            for path in plan["paths"]:
                api.attach(api.register(path, receiver.url(path)), WORKFLOW)
            posted, wrong = Posted(), []
            going = threading.Event()
            going.set()
            posting = threading.Thread(target=keep_posting, args=(api, posted, going), daemon=True)
            posting.start()
            codes = [stack.code()]
            steps = {"Rollout": "Linear10PercentEvery1Minute", "Revision": "again"}
            for release, parameters, what in [
                (ROOT, {}, "upgraded"),
                (previous, {}, "rolled back"),
                (ROOT, steps, "upgraded again, behind aliases"),
            ]:
                time.sleep(PHASE_SECS)
                stack.release = release
                stack.deploy(**parameters)
                codes.append(stack.code())
                say(f"{what}; {len(posted.accepted)} accepted; other answers: {dict(posted.errors)}")
            time.sleep(PHASE_SECS)
            going.clear()
            posting.join()
            if not (codes[0] == codes[2] != codes[1] == codes[3]):
                wrong.append(f"the code of the functions did not change: {codes}")
            follow(stack, api, posted)
            until = time.monotonic() + TAIL_SECS + LEASE_SECS
            said = audit(stack, {ORGANIZATION: api}, posted.accepted, until, lambda left: None)
            receiver.look()
            wrong += judge(api, receiver, posted, said)
    if wrong:
        sys.exit("\n".join(wrong))


def follow(stack: Stack, api: Api, posted: Posted) -> None:
    """Waits for what is under way. What is left waits for a later retry, or its message was with a function that the emulator
    ended while it was replaced, which AWS does not, and shows up again after 13 minutes. All of it is sent again now, as an
    operator can."""
    until = time.monotonic() + TAIL_SECS
    rows = audit(stack, {ORGANIZATION: api}, posted.accepted, until, lambda left: None).rows
    waiting = [row for row in rows.values() if row["state"] == "pending"]
    for row in waiting:
        try:
            api.post(f"/deliveries/{row['id']}/redeliver", {})
        except Refused as refused:
            # Its attempt has begun meanwhile.
            if refused.status != 409:
                raise
    if waiting:
        # One that no function claimed has no reason.
        reasons = Counter((row["reason"] or "nobody claimed it").split(":")[0] for row in waiting)
        say("sent again: " + ", ".join(f"{count} × {reason}" for reason, count in reasons.most_common()))


def keep_posting(api: Api, posted: Posted, going: threading.Event) -> None:
    number = 0
    while going.is_set():
        jobs = [
            Job(ORGANIZATION, api, lambda run=f"run-{number}-{one}": envelope(WORKFLOW, run)) for one in range(6)
        ]
        post(jobs, RATE, 4, PATIENCE_SECS, posted=posted)
        number += 1


def judge(api: Api, receiver: Receiver, posted: Posted, said) -> list[str]:
    wrong = list(said.violations)
    if posted.refused:
        wrong.append(f"{posted.refused} posts were never accepted: {dict(posted.errors)}")
    repeated = explained = 0
    for one in posted.accepted:
        for id, messages in one.deliveries.items():
            state = said.rows[id]["state"] if id in said.rows else "missing"
            if state != "delivered":
                wrong.append(f"{id}: {state}")
            came = [arrival for message in messages for arrival in receiver.of(message) if arrival.answered]
            if not came:
                wrong.append(f"{id}: its receiver has no request of it")
            if len(came) > 1:
                repeated += 1
                ends = {attempt["ending"] for attempt in api.call("GET", f"/deliveries/{id}")["attempts"]}
                explained += bool(ends & REASONS)
    if repeated > explained:
        wrong.append(f"{repeated - explained} deliveries came twice without a reason in the ledger")
    deliveries = sum(len(one.deliveries) for one in posted.accepted)
    say(f"{len(posted.accepted)} attestations, {deliveries} deliveries: none lost, {repeated} came twice with a reason")
    return wrong


if __name__ == "__main__":
    main()
