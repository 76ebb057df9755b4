"""Deletes a stack, and what it leaves behind as far as that is told.

    .venv/sam/bin/python infra/undeploy.py STACK [--remove table,bucket,secrets,key] [--confirm STACK]

Without --remove, the table, the bucket, the secrets and the key of receipts stay: they are the record of what was delivered. Whatever is
deleted is listed first, and --confirm, or the answer to a question, has to repeat the stack's name. Running it again goes
on where it ended, also when the stack itself is gone.
"""

import argparse
import os
import sys
import time
from dataclasses import dataclass, field
from itertools import islice

import boto3
from botocore.exceptions import ClientError

REMOVABLE = ("table", "bucket", "secrets", "key")
# Deleted secrets can be restored for as long as those that the functions delete.
SECRET_DAYS = 7
# KMS deletes no key sooner.
KEY_DAYS = 7
STACK_SECS = 3600


@dataclass
class Left:
    """What belongs to a stack of this name, and is not deleted with it."""

    stack_id: str | None = None
    status: str = "does not exist"
    tables: list[str] = field(default_factory=list)
    buckets: list[str] = field(default_factory=list)
    secrets: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    log_groups: list[str] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description="Deletes a stack.")
    parser.add_argument("stack")
    parser.add_argument("--remove", default="", help=f"what else to delete, of {', '.join(REMOVABLE)}")
    parser.add_argument("--confirm", help="the stack's name, instead of a question")
    arguments = parser.parse_args()
    remove = arguments.remove.replace(",", " ").split()
    if unknown := set(remove) - set(REMOVABLE):
        sys.exit(f"--remove takes {', '.join(REMOVABLE)}, not {', '.join(sorted(unknown))}")
    # boto3 does not read AWS_REGION by itself.
    session = boto3.Session(region_name=os.environ.get("AWS_REGION") or None)
    if not session.region_name:
        sys.exit("no region is configured: set AWS_REGION, AWS_DEFAULT_REGION or the region of the profile")

    left = find(session, arguments.stack)
    show(session, arguments.stack, left, remove)
    if not left.stack_id and not any((left.tables, left.buckets, left.secrets, left.keys)):
        sys.exit(f"nothing of a stack {arguments.stack} is in {session.region_name}")
    if not left.stack_id and not remove:
        sys.exit("the stack is gone; --remove deletes what it left")
    refuse_what_others_use(session, arguments.stack, left, remove)
    confirm(arguments.stack, arguments.confirm)
    if "table" in remove:
        # First, because CloudFormation deletes the table of a stack that failed to be made.
        unprotect(session, left.tables)
    if left.stack_id:
        delete_stack(session, left.stack_id)
    complete = all([REMOVERS[name](session, left) for name in remove])
    for group in left.log_groups:
        complete = not log_group_exists(session, group) and complete
    if not complete:
        sys.exit("not all of it could be deleted; run it again later")


# --- what there is ------------------------------------------------------------------------------------


def find(session: boto3.Session, stack: str) -> Left:
    cloudformation = session.client("cloudformation")
    left = Left()
    pages = cloudformation.get_paginator("list_stacks").paginate()
    for summary in (one for page in pages for one in page["StackSummaries"] if one["StackName"] == stack):
        if summary["StackStatus"] == "DELETE_COMPLETE":
            resources = kept_resources(cloudformation, summary["StackId"])
        else:
            left.stack_id, left.status = summary["StackId"], summary["StackStatus"]
            pages = cloudformation.get_paginator("list_stack_resources").paginate(StackName=summary["StackId"])
            resources = [one for page in pages for one in page["StackResourceSummaries"]]
        for resource in (one for one in resources if one.get("PhysicalResourceId")):
            match resource["ResourceType"]:
                case "AWS::DynamoDB::Table":
                    left.tables.append(resource["PhysicalResourceId"])
                case "AWS::S3::Bucket":
                    left.buckets.append(resource["PhysicalResourceId"])
                case "AWS::KMS::Key":
                    left.keys.append(resource["PhysicalResourceId"])
                case "AWS::Logs::LogGroup":
                    left.log_groups.append(resource["PhysicalResourceId"])
        described = cloudformation.describe_stacks(StackName=summary["StackId"])["Stacks"][0]
        given = {one["ParameterKey"]: one["ParameterValue"] for one in described.get("Parameters", [])}
        left.tables += [given["ExistingTable"]] if given.get("ExistingTable") else []
        left.buckets += [given["ExistingBucket"]] if given.get("ExistingBucket") else []
    left.tables = [name for name in sorted(set(left.tables)) if table_of(session, name)]
    left.buckets = [name for name in sorted(set(left.buckets)) if bucket_exists(session, name)]
    left.keys = [key for key in sorted(set(left.keys)) if key_exists(session, key)]
    prefix = f"chainloop-integrations/{stack}/"
    pages = session.client("secretsmanager").get_paginator("list_secrets")
    for page in pages.paginate(Filters=[{"Key": "name", "Values": [prefix]}]):
        left.secrets += [secret["Name"] for secret in page["SecretList"] if secret["Name"].startswith(prefix)]
    return left


def kept_resources(cloudformation, stack_id: str) -> list[dict]:
    """What the deletion of a stack left, which AWS remembers for 90 days."""
    pages = cloudformation.get_paginator("describe_stack_events").paginate(StackName=stack_id)
    events = [event for page in pages for event in page["StackEvents"]]
    return [event for event in events if event["ResourceStatus"] == "DELETE_SKIPPED"]


def show(session: boto3.Session, stack: str, left: Left, remove: list[str]) -> None:
    def line(kind: str, name: str, detail: str) -> None:
        ending = "WILL BE DELETED" if kind in remove else f"stays; REMOVE={kind} deletes it"
        print(f"  {kind:8} {name}: {detail}; {ending}")

    where = os.environ.get("AWS_ENDPOINT_URL") or session.region_name
    print(f"stack {stack} in {where}: {left.status}")
    for name in left.tables:
        table = table_of(session, name)
        protected = ", protected" if table.get("DeletionProtectionEnabled") else ""
        line("table", name, f"about {table.get('ItemCount', 0)} rows{protected}")
    for name in left.buckets:
        objects, older, size = contents(session, name)
        locked = ", with Object Lock" if has_lock(session, name) else ""
        line("bucket", name, f"{objects} objects, {older} older versions and markers, {size} bytes{locked}")
    if left.secrets:
        line("secrets", f"chainloop-integrations/{stack}/", f"{len(left.secrets)} secrets")
        for name in left.secrets:
            print(f"           {name}")
    for key in left.keys:
        line("key", key, "signs receipts")
    if left.stack_id:
        print(f"  log groups: {len(left.log_groups)}, deleted with the stack")


def table_of(session: boto3.Session, name: str) -> dict | None:
    try:
        return session.client("dynamodb").describe_table(TableName=name)["Table"]
    except ClientError as error:
        if error.response["Error"]["Code"] == "ResourceNotFoundException":
            return None
        raise


def bucket_exists(session: boto3.Session, name: str) -> bool:
    try:
        session.client("s3").head_bucket(Bucket=name)
    except ClientError as error:
        if error.response["Error"]["Code"] in ("404", "NoSuchBucket"):
            return False
        raise
    return True


def key_exists(session: boto3.Session, key: str) -> bool:
    try:
        found = session.client("kms").describe_key(KeyId=key)["KeyMetadata"]
    except ClientError as error:
        if error.response["Error"]["Code"] == "NotFoundException":
            return False
        raise
    return found["KeyState"] != "PendingDeletion"


def log_group_exists(session: boto3.Session, name: str) -> bool:
    found = session.client("logs").describe_log_groups(logGroupNamePrefix=name)["logGroups"]
    is_there = any(group["logGroupName"] == name for group in found)
    if is_there:
        print(f"the log group {name} is still there: `aws logs delete-log-group --log-group-name {name}`")
    return is_there


def versions(session: boto3.Session, bucket: str):
    for page in session.client("s3").get_paginator("list_object_versions").paginate(Bucket=bucket):
        yield from page.get("Versions", [])
        yield from page.get("DeleteMarkers", [])


def contents(session: boto3.Session, bucket: str) -> tuple[int, int, int]:
    objects = older = size = 0
    for version in versions(session, bucket):
        is_object = version["IsLatest"] and "Size" in version
        objects += is_object
        older += not is_object
        size += version.get("Size", 0)
    return objects, older, size


def has_lock(session: boto3.Session, bucket: str) -> bool:
    try:
        session.client("s3").get_object_lock_configuration(Bucket=bucket)
    except ClientError as error:
        if error.response["Error"]["Code"] == "ObjectLockConfigurationNotFoundError":
            return False
        raise
    return True


def refuse_what_others_use(session: boto3.Session, stack: str, left: Left, remove: list[str]) -> None:
    """Another stack may have been given the table or the bucket that this one left."""
    doomed = (left.tables if "table" in remove else []) + (left.buckets if "bucket" in remove else [])
    pages = session.client("cloudformation").get_paginator("describe_stacks").paginate()
    for other in (one for page in pages for one in page["Stacks"] if one["StackName"] != stack):
        used = {parameter.get("ParameterValue") for parameter in other.get("Parameters", [])}
        used |= {output.get("OutputValue") for output in other.get("Outputs", [])}
        for name in used.intersection(doomed):
            sys.exit(f"nothing was deleted: the stack {other['StackName']} uses {name}")


def confirm(stack: str, given: str | None) -> None:
    if given is None:
        if not sys.stdin.isatty():
            sys.exit(f"nothing was deleted: confirm with CONFIRM={stack}")
        given = input("Type the stack's name to delete this: ")
    if given != stack:
        sys.exit("nothing was deleted: that is not the stack's name")


# --- deleting -----------------------------------------------------------------------------------------


def delete_stack(session: boto3.Session, stack_id: str) -> None:
    cloudformation = session.client("cloudformation")
    cloudformation.delete_stack(StackName=stack_id)
    started = time.monotonic()
    print("deleting the stack", flush=True)
    # Network interfaces of functions in a VPC take up to twenty minutes.
    while time.monotonic() - started < STACK_SECS:
        described = cloudformation.describe_stacks(StackName=stack_id)["Stacks"][0]
        match described["StackStatus"]:
            case "DELETE_COMPLETE":
                print(f"deleted the stack in {time.monotonic() - started:.0f} s")
                return
            case "DELETE_FAILED":
                sys.exit(f"the stack could not be deleted: {described.get('StackStatusReason', 'see its events')}")
        time.sleep(2)
    sys.exit(f"the stack is not deleted after {STACK_SECS} s; run it again")


def unprotect(session: boto3.Session, tables: list[str]) -> None:
    dynamodb = session.client("dynamodb")
    for name in tables:
        if table_of(session, name).get("DeletionProtectionEnabled"):
            dynamodb.update_table(TableName=name, DeletionProtectionEnabled=False)
            dynamodb.get_waiter("table_exists").wait(TableName=name)


def remove_tables(session: boto3.Session, left: Left) -> bool:
    dynamodb = session.client("dynamodb")
    for name in (name for name in left.tables if table_of(session, name)):
        dynamodb.delete_table(TableName=name)
        dynamodb.get_waiter("table_not_exists").wait(TableName=name)
        print(f"deleted the table {name}")
    return True


def remove_buckets(session: boto3.Session, left: Left) -> bool:
    return all([remove_bucket(session, name) for name in left.buckets if bucket_exists(session, name)])


def remove_bucket(session: boto3.Session, name: str) -> bool:
    s3 = session.client("s3")
    kept = []
    found = ({"Key": version["Key"], "VersionId": version["VersionId"]} for version in versions(session, name))
    while objects := list(islice(found, 1000)):
        answer = s3.delete_objects(Bucket=name, Delete={"Objects": objects, "Quiet": True})
        kept += answer.get("Errors", [])
    if kept:
        print(f"the bucket {name} stays, with {len(kept)} versions that S3 does not delete")
        for error in islice(kept, 3):
            print(f"  {error['Key']} {error['VersionId']}: {error['Code']}{locked_until(s3, name, error)}")
        return False
    s3.delete_bucket(Bucket=name)
    print(f"deleted the bucket {name}")
    return True


def locked_until(s3, bucket: str, version: dict) -> str:
    try:
        locked = s3.get_object_retention(Bucket=bucket, Key=version["Key"], VersionId=version["VersionId"])["Retention"]
    except ClientError:
        return ""
    return f", locked until {locked['RetainUntilDate']:%Y-%m-%d}"


def remove_secrets(session: boto3.Session, left: Left) -> bool:
    secrets = session.client("secretsmanager")
    for name in left.secrets:
        secrets.delete_secret(SecretId=name, RecoveryWindowInDays=SECRET_DAYS)
    if left.secrets:
        print(f"deleted {len(left.secrets)} secrets, which can be restored for {SECRET_DAYS} days")
    return True


def remove_keys(session: boto3.Session, left: Left) -> bool:
    kms = session.client("kms")
    for key in (key for key in left.keys if key_exists(session, key)):
        kms.schedule_key_deletion(KeyId=key, PendingWindowInDays=KEY_DAYS)
        print(f"the key {key} is deleted in {KEY_DAYS} days: `aws kms cancel-key-deletion --key-id {key}` keeps it")
    return True


REMOVERS = {"table": remove_tables, "bucket": remove_buckets, "secrets": remove_secrets, "key": remove_keys}


if __name__ == "__main__":
    try:
        main()
    except ClientError as error:
        sys.exit(str(error))
