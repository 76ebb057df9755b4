"""Refuses reservations of concurrency that the account has no room for, before anything is deployed.

    .venv/sam/bin/python infra/concurrency.py STACK [NAME=VALUE]…

Lambda keeps 100 for functions without a reservation. What other functions of the account have reserved counts; what this
stack has reserved is made anew. Parameters that are not named are those that the stack has.
"""

import os
import sys

import boto3
from botocore.exceptions import ClientError

KEPT = 100
# How many functions each of the template's parameters is for.
PARAMETERS = {"AcceptConcurrency": 1, "ApiConcurrency": 4, "AuthorizerConcurrency": 1, "ReconcilerConcurrency": 1}


def main() -> None:
    stack, *given = sys.argv[1:]
    # boto3 does not read AWS_REGION by itself.
    session = boto3.Session(region_name=os.environ.get("AWS_REGION") or None)
    parameters = {**deployed(session, stack), **dict(one.split("=", 1) for one in given)}
    # SAM takes an empty parameter as two quotes alone.
    wanted = {
        name: int((parameters.get(name) or "").strip('"') or 0) * functions for name, functions in PARAMETERS.items()
    }
    if not any(wanted.values()):
        return
    client = session.client("lambda")
    settings = client.get_account_settings()["AccountLimit"]
    limit = settings["ConcurrentExecutions"]
    others = limit - settings["UnreservedConcurrentExecutions"] - reserved(client, stack)
    if others + sum(wanted.values()) > limit - KEPT:
        parts = " + ".join(f"{number} of {name}" for name, number in wanted.items() if number)
        sys.exit(
            f"the account's concurrency is {limit}, of which Lambda keeps {KEPT} for functions without a reservation and "
            f"others have reserved {others}: there is no room for {parts}"
        )


def deployed(session: boto3.Session, stack: str) -> dict[str, str]:
    """The parameters of the stack, if it is there."""
    try:
        described = session.client("cloudformation").describe_stacks(StackName=stack)["Stacks"]
    except ClientError:
        return {}
    return {one["ParameterKey"]: one["ParameterValue"] for one in described[0].get("Parameters", [])}


def reserved(client, stack: str) -> int:
    """What the stack's functions have reserved."""
    total = 0
    for function in ("attestations", "attachments", "authorizer", "deliveries", "organization", "reconciler", "registrations"):
        try:
            answer = client.get_function_concurrency(FunctionName=f"{stack}-{function}")
        except client.exceptions.ResourceNotFoundException:
            continue
        total += answer.get("ReservedConcurrentExecutions", 0)
    return total


if __name__ == "__main__":
    main()
