#!/usr/bin/env python3
"""Measures the duration of each command, against a separate local cloud.

    infra/local/bench.py [--runs 20] [--only registered]

One line each: the median, and how many times the floor that is. The floor is measured in the same run and before
each command anew, since this machine is never the same: the start of a process that asks nobody (`chainloop
--version`), and for a command that asks the API one bare request to it (`GET /v1/integrations`, over a new connection).
A command that asks twice has two of them to wait for.

What waits for the reconciler or a third party is left out: jobs, `delivery follow`, `--wait`.
"""

import argparse
import http.client
import json
import statistics
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path

from cloud import ROOT
from traffic.arrivals import Receiver, no_plan
from traffic.report import say, table
from traffic.stack import Stack

ORGANIZATION = "bench"
# {n} is the run's number; the others are what `prepare` has made.
ALONE = [
    "--help",
    "version",
    "completion bash",
    "attestation craft {directory}/crafted-{n}.json --project bench --workflow nightly",
]
ASKING = [
    "auth status",
    "integration available list",
    "integration available describe --name webhook",
    "integration registered add webhook --name hook-{n} --opt url=@{directory}/url.txt",
    "integration registered list",
    "integration registered describe hook-{n}",
    "integration registered rotate hook-{n} --opt url=@{directory}/url.txt",
    "integration registered pause hook-{n}",
    "integration registered resume hook-{n}",
    "integration registered delete --name hook-{n} -y",
    "integration attached add --workflow other/{n} --integration hook",
    "integration attached list",
    "integration attached preview --id {attachment} --attestation {attestation}",
    "attestation push {directory}/crafted-{n}.json",
    "attestation list",
    "attestation describe {attestation}",
    "attestation download {attestation}",
    "workflow list",
    "delivery list",
    "delivery describe {delivery}",
    "job list",
    "audit list",
    "intake create --name intake-{n}",
    "intake list",
    "intake delete --name intake-{n} -y",
    "organization api-token create --name token-{n} --role viewer",
    "organization api-token list",
    "organization api-token rotate token-{n}",
    "organization api-token revoke token-{n} -y",
]


class Bench:
    def __init__(self, stack: Stack, receiver: Receiver):
        self.stack = stack
        self.environment = {**stack.environment, "CHAINLOOP_INTEGRATIONS_TOKEN": stack.token(ORGANIZATION)}
        self.names = {"directory": str(stack.directory)}
        (stack.directory / "url.txt").write_text(receiver.url(ORGANIZATION))

    def prepare(self) -> None:
        """One delivery that there is something to see of."""
        self.ask("integration registered add webhook --name hook --opt url=@{directory}/url.txt")
        attached = self.ask("integration attached add --workflow bench/nightly --integration hook")
        self.ask("attestation craft {directory}/first.json --project bench --workflow nightly", json_wanted=False)
        pushed = self.ask("attestation push {directory}/first.json --wait")
        self.names |= {
            "attachment": attached[0]["id"],
            "attestation": pushed["attestation"],
            "delivery": pushed["deliveries"][0]["id"],
        }

    def ask(self, line: str, json_wanted: bool = True):
        said = self.run(f"{line} -o json" if json_wanted else line, 0)
        return json.loads(said) if json_wanted else None

    def run(self, line: str, n: int) -> bytes:
        words = [word.format(n=n, **self.names) for word in line.split()]
        done = subprocess.run([ROOT / "target/bin/chainloop", *words], env=self.environment, capture_output=True)
        if done.returncode:
            sys.exit(f"chainloop {' '.join(words)}: {done.stderr.decode()}")
        return done.stdout

    def request(self, _: int) -> None:
        url = urllib.parse.urlsplit(self.stack.api)
        connection = http.client.HTTPConnection(url.hostname, url.port)
        headers = {"authorization": f"Bearer {self.environment['CHAINLOOP_INTEGRATIONS_TOKEN']}"}
        connection.request("GET", f"{url.path}/v1/integrations", headers=headers)
        answer = connection.getresponse()
        answer.read()
        connection.close()
        if answer.status != 200:
            sys.exit(f"GET /v1/integrations: {answer.status}")

    def line(self, command: str, asks: bool, runs: int) -> list[str]:
        floor = median(lambda n: self.run("--version", n), runs)
        if asks:
            floor += median(self.request, runs)
        took = median(lambda n: self.run(command, n), runs)
        name = command.split(" --")[0].split(" hook-")[0].split(" token-")[0].split(" {")[0]
        return [name, f"{took:.1f}", f"{floor:.1f}", f"{took / floor:.1f}"]


def median(act: Callable[[int], object], runs: int) -> float:
    """Milliseconds."""
    times = []
    for n in range(runs):
        began = time.perf_counter()
        act(n)
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures the duration of each command.")
    parser.add_argument("--directory", type=Path, default=ROOT / ".local/bench")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--only", default="", help="only commands that contain this text, with those that they depend on")
    arguments = parser.parse_args()
    say("starting a fresh local cloud")
    try:
        with Stack(arguments.directory, ephemeral=True) as stack, Receiver(stack.directory, no_plan()) as receiver:
            bench = Bench(stack, receiver)
            bench.prepare()
            lines = []
            for asks, commands in ((False, ALONE), (True, ASKING)):
                for command in commands:
                    if arguments.only in command:
                        say(command)
                        lines.append(bench.line(command, asks, arguments.runs))
    except KeyboardInterrupt:
        sys.exit(130)
    print(table(["chainloop …", "p50 ms", "floor ms", "ratio"], lines))


if __name__ == "__main__":
    main()
