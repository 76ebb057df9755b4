#!/usr/bin/env python3
"""Makes the calls to AWS that accepting a push makes, with boto3: what the benchmark compares a start with.

It asks Lambda's Runtime API for events by itself, and takes the same ones. Its calls are of the same number, order and size,
one after the other, as a function in Python usually makes them. It checks nothing of what it is sent.
"""

import base64
import hashlib
import http.client
import json
import os

import boto3
from botocore.config import Config
from botocore.handlers import add_expect_header

TABLE = os.environ["TABLE"]
QUEUES = ("webhook", "slack-webhook", "discord-webhook")

config = Config(s3={"addressing_style": "path"}, retries={"mode": "standard"})
dynamodb = boto3.client("dynamodb", config=config)
s3 = boto3.client("s3", config=config)
sqs = boto3.client("sqs", config=config)
# The bucket of the benchmark is not asked whether it would take a body.
s3.meta.events.unregister("before-call.s3", add_expect_header)


def key(partition: str, sort: str = "row") -> dict:
    return {"pk": {"S": partition}, "sk": {"S": sort}}


def accept(event: dict) -> dict:
    body = event["body"].encode()
    envelope = json.loads(body)
    statement = json.loads(base64.b64decode(envelope["payload"]))
    digest = hashlib.sha256(body).hexdigest()
    dynamodb.get_item(TableName=TABLE, Key=key("compared"))
    keys = [key(f"compared/{name}/{digest}") for name in ("attestation", "plan", "workflow", "day")]
    dynamodb.batch_get_item(RequestItems={TABLE: {"Keys": keys, "ConsistentRead": True}})
    for selector in ("project/name", "project/*", "*"):
        dynamodb.query(
            TableName=TABLE,
            ConsistentRead=True,
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues={":pk": {"S": f"compared/workflow/{selector}"}},
        )
    s3.put_object(
        Bucket=os.environ["BUCKET"],
        Key=f"compared/sha256/{digest}",
        Body=body,
        ChecksumSHA256=base64.b64encode(bytes.fromhex(digest)).decode(),
    )
    text = {"S": json.dumps(statement["predicateType"]) + "-" * 600}
    rows = ("attestation", "received", "plan", "subject", *QUEUES)
    writes = [
        {
            "Put": {
                "TableName": TABLE,
                "Item": {**key(f"compared/{row}/{digest}"), "etag": {"S": digest}, "row": text},
                "ConditionExpression": "attribute_not_exists(pk) OR expires_at < :now",
                "ExpressionAttributeValues": {":now": {"N": "0"}},
            }
        }
        for row in rows
    ]
    dynamodb.transact_write_items(TransactItems=writes)
    for queue in QUEUES:
        message = json.dumps({"delivery": digest, "organization": "compared", "attempt": 1})
        sqs.send_message_batch(
            QueueUrl=os.environ["QUEUE_URL_PREFIX"] + queue, Entries=[{"Id": "0", "MessageBody": message}]
        )
    dynamodb.update_item(
        TableName=TABLE,
        Key=key("compared/day"),
        UpdateExpression="SET #expires = :expires ADD #0 :0, #1 :1",
        ExpressionAttributeNames={"#expires": "expires_at", "#0": "attestations", "#1": "bytes"},
        ExpressionAttributeValues={":expires": {"N": "4102444800"}, ":0": {"N": "1"}, ":1": {"N": str(len(body))}},
    )
    return {"statusCode": 202, "body": json.dumps({"attestation": f"sha256:{digest}"})}


def main() -> None:
    runtime = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
    while True:
        runtime.request("GET", "/2018-06-01/runtime/invocation/next")
        response = runtime.getresponse()
        event = json.loads(response.read())
        invocation = response.headers["lambda-runtime-aws-request-id"]
        answer = json.dumps(accept(event))
        runtime.request("POST", f"/2018-06-01/runtime/invocation/{invocation}/response", answer)
        runtime.getresponse().read()


main()
