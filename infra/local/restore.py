"""Walks the restoration in docs/operations.md: a stack is lost, and made again over what was stored.

    .venv/sam/bin/python infra/local/restore.py

On a local cloud of its own. The emulator restores a table as it is at the moment, whatever time it is told.
"""

import http.server
import json
import subprocess
import sys
import threading
import time

from cloud import ROOT
from deploy import client
from traffic.api import Api, secrets
from traffic.attestations import envelope
from traffic.report import say
from traffic.stack import STACK, Stack

WORKFLOW = "shop/nightly"
RESTORED = "restored"
ARRIVAL_SECS = 60


class Receiver(http.server.BaseHTTPRequestHandler):
    """Keeps the id and the key of each request."""

    received: list[tuple[str, str]] = []

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.received.append((self.headers["webhook-id"], self.headers["x-key"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def expect(what: str, found: object, expected: object) -> None:
    if found != expected:
        sys.exit(f"{what}: expected {expected!r}, found {found!r}")


def push(api: Api, run: str, key: str) -> dict:
    """Pushes an attestation, and waits until its one delivery has arrived, with the secret of the time."""
    pushed = api.call("POST", "/attestations", envelope(WORKFLOW, run))
    until = time.monotonic() + ARRIVAL_SECS
    while True:
        deliveries = api.pages("/deliveries", attestation=pushed["attestation"])
        if [one["state"] for one in deliveries] == ["delivered"]:
            delivery = deliveries[0]
            keys = {used for message, used in Receiver.received if delivery["id"] in message}
            expect("the key that it arrived with", keys, {key})
            return delivery
        if time.monotonic() > until:
            sys.exit(f"not delivered after {ARRIVAL_SECS} s: {json.dumps(deliveries)}")
        time.sleep(0.2)


def rows(table: str, dynamodb) -> set[tuple[str, str]]:
    pages = dynamodb.get_paginator("scan").paginate(TableName=table, ProjectionExpression="pk, sk")
    return {(row["pk"]["S"], row["sk"]["S"]) for page in pages for row in page["Items"]}


def restore_table(dynamodb, lost: str) -> None:
    """As the page says; all but the first of these is what a restored table does not have by itself."""
    dynamodb.restore_table_to_point_in_time(
        SourceTableName=lost, TargetTableName=RESTORED, UseLatestRestorableTime=True
    )
    dynamodb.get_waiter("table_exists").wait(TableName=RESTORED)
    dynamodb.update_time_to_live(
        TableName=RESTORED, TimeToLiveSpecification={"Enabled": True, "AttributeName": "expires_at"}
    )
    dynamodb.update_continuous_backups(
        TableName=RESTORED, PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": True}
    )
    dynamodb.update_table(TableName=RESTORED, DeletionProtectionEnabled=True)
    indexes = [{i["IndexName"] for i in described(dynamodb, name)["GlobalSecondaryIndexes"]} for name in (lost, RESTORED)]
    expect("the restored table's indexes", indexes[1], indexes[0])


def described(dynamodb, table: str) -> dict:
    return dynamodb.describe_table(TableName=table)["Table"]


def undeploy(stack: Stack, *options: str) -> None:
    command = [sys.executable, ROOT / "infra/undeploy.py", STACK, "--confirm", STACK, *options]
    done = subprocess.run(command, env=stack.environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"undeploy: {done.stdout}{done.stderr}")


def main() -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/hook"

    with Stack(ROOT / ".local/restore", ephemeral=True) as stack:
        dynamodb = client(stack.cloud, "dynamodb")
        lost, bucket = stack.environment["CHAINLOOP_INTEGRATIONS_TABLE"], stack.environment["CHAINLOOP_BUCKET"]
        api = Api(stack.api, stack.token("default"))
        registration = api.register("receiver", url, "before")
        api.attach(registration, WORKFLOW)
        before = push(api, "run-1", "before")
        say("delivered before the loss")

        restore_table(dynamodb, lost)
        kept = rows(RESTORED, dynamodb)
        # The secrets are lost as well: nothing of AWS restores them.
        # The key goes by choice: the emulator forgets what a deleted stack left once its name is taken again.
        undeploy(stack, "--remove", "table,secrets,key")
        say(f"restored {len(kept)} rows, and lost the stack, its table and its secrets")

        stack.deploy(ExistingTable=RESTORED, ExistingBucket=bucket)
        again = api.pages("/registrations")
        expect("the registrations", [one["id"] for one in again], [registration])
        found = api.call("GET", f"/deliveries/{before['id']}")
        expect("the delivery before the loss", found["state"], "delivered")
        command = ["attestation", "download", before["attestation"], str(stack.directory / "envelope.json")]
        downloaded = stack.chainloop("default", *command)
        expect(f"the download ({downloaded.stderr})", downloaded.returncode, 0)
        expect("its bytes", (stack.directory / "envelope.json").read_bytes(), envelope(WORKFLOW, "run-1"))

        # Told again, as whoever restores has to.
        api.rotate(registration, url, "after")
        push(api, "run-2", "after")
        if not kept < rows(RESTORED, dynamodb):
            sys.exit("the new stack does not write to the restored table")
        audit = stack.chainloop("default", "delivery", "audit")
        expect(f"the audit ({audit.stdout}{audit.stderr})", audit.returncode, 0)
        say("delivered after it, and every delivery is accounted for")

        # What the stack was given can be removed like what it makes.
        undeploy(stack, "--remove", "table,bucket,secrets,key")
        left = dynamodb.list_tables()["TableNames"], client(stack.cloud, "s3").list_buckets()["Buckets"]
        expect("the tables left", left[0], [])
        kms = client(stack.cloud, "kms")
        keys = [kms.describe_key(KeyId=one["KeyId"])["KeyMetadata"] for one in kms.list_keys()["Keys"]]
        # That of the lost stack, too.
        expect("the keys left", [one["KeyState"] for one in keys if one["KeyUsage"] == "SIGN_VERIFY"], ["PendingDeletion"] * 2)
        expect("the buckets left", [one["Name"] for one in left[1] if one["Name"] != "artifacts"], [])
    say("all as expected")


if __name__ == "__main__":
    main()
