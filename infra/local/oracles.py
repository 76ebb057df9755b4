"""Runs the suite of what all platforms share against more than the local cloud: another emulator, and AWS's faults.

    .venv/sam/bin/python infra/local/oracles.py [--directory .local/test] [--seed N]…

With the stack `test` deployed in the directory. The other emulator is moto, with table, bucket and queues as in the template.
The faults are those of infra/local/faults.py, before the local cloud, in the order of each seed.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import boto3
from samcli.yamlhelper import yaml_parse

from cloud import ROOT, Cloud
from deploy import REGION, ROOT_USER, stack_outputs
from faults import FAULTS, Corrected, Proxy

TEST = "platforms::the_deployed_cloud_is_a_platform"
STACK = "test"
START_SECS = 30


def main() -> None:
    parser = argparse.ArgumentParser(description="Runs the platform's suite against other clouds.")
    parser.add_argument("--directory", type=Path, default=ROOT / ".local/test")
    parser.add_argument("--seed", type=int, action="append", help="of the faults")
    arguments = parser.parse_args()
    with moto(arguments.directory) as url:
        settings = make_resources(url)
        with Corrected(url) as proxy:
            suite("moto", proxy.url, settings)
    cloud = Cloud(arguments.directory)
    outputs = stack_outputs(cloud, STACK)
    settings = {
        "CHAINLOOP_INTEGRATIONS_TABLE": outputs["TableName"],
        "CHAINLOOP_BUCKET": outputs["BucketName"],
        "CHAINLOOP_RECEIPT_KEY": outputs["ReceiptKeyArn"],
    }
    given: Counter[str] = Counter()
    for seed in arguments.seed or [1, 2, 3]:
        with Proxy(cloud.url, seed) as proxy:
            suite(f"the local cloud with faults, seed {seed}", proxy.url, settings)
            given += proxy.given
    print("faults given: " + ", ".join(f"{count} × {name}" for name, count in sorted(given.items())))
    every = {name for names in FAULTS.values() for name in names} | {"still_deleted"}
    if never := sorted(every - given.keys()):
        sys.exit(f"never given: {', '.join(never)}")


def suite(what: str, url: str, settings: dict[str, str]) -> None:
    environment = {**os.environ, **ROOT_USER, **settings}
    environment |= {"AWS_ENDPOINT_URL": url, "AWS_REGION": REGION, "CHAINLOOP_STACK": STACK}
    command = [ROOT / "infra/run-tests.sh", "--no-tests", "pass", "-E", f"test(={TEST})"]
    started = time.monotonic()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    output = done.stdout + done.stderr
    # No test of that name would pass as well.
    if done.returncode or output.count("1 test run: 1 passed") != 1:
        sys.exit(f"{output}\nthe suite failed over {what}")
    print(f"the suite holds over {what} ({time.monotonic() - started:.0f} s)", flush=True)


@contextmanager
def moto(directory: Path):
    """An emulator at an address on loopback, ended at the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [ROOT / ".venv/moto/bin/python", "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)]
    # The account that the suite's queues are of.
    environment = {"PATH": os.environ["PATH"], "MOTO_ACCOUNT_ID": "000000000000"}
    log = directory / "moto.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        until = time.monotonic() + START_SECS
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            if process.poll() is not None or time.monotonic() > until:
                sys.exit(f"moto does not start: {log}")
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=START_SECS)


def make_resources(url: str) -> dict[str, str]:
    """Table, bucket and queues as in the template."""
    template = yaml_parse((ROOT / "infra/template.yaml").read_text())
    table = template["Resources"]["Table"]["Properties"]

    def client(service: str):
        keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
        return boto3.client(service, endpoint_url=url, region_name=REGION, **keys)

    made = {name: table[name] for name in ("AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes", "BillingMode")}
    # A function of CloudFormation, and of no meaning here.
    for index in made["GlobalSecondaryIndexes"]:
        index.pop("WarmThroughput", None)
    client("dynamodb").create_table(TableName=f"{STACK}-table", **made)
    client("s3").create_bucket(Bucket=f"{STACK}-bucket")
    for integration in template["Mappings"]["Integrations"].values():
        client("sqs").create_queue(QueueName=f"{STACK}-{integration['Id']}")
    # No key: moto 5.2.5 signs a digest as if it were the message.
    return {
        "CHAINLOOP_INTEGRATIONS_TABLE": f"{STACK}-table",
        "CHAINLOOP_BUCKET": f"{STACK}-bucket",
        "CHAINLOOP_RECEIPT_KEY": "none",
    }


if __name__ == "__main__":
    main()
