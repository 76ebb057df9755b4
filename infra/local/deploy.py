"""Deploys a template to a local cloud: infra/template.yaml, or that of a release.

    .venv/sam/bin/python infra/local/deploy.py [--directory .local] [--stack chainloop] [--template infra/template.yaml]
                                               [--parameter NAME=VALUE]…

The same `sam deploy` as on AWS. Running it again deploys what has changed, or nothing. What a shell
needs to work with the stack is then in <directory>/env: `. .local/env`.
"""

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from pathlib import Path

import boto3
from botocore.exceptions import ClientError
from samcli.yamlhelper import yaml_parse

from cloud import ROOT, Cloud

REGION = "us-east-1"
ARTIFACTS = "artifacts"
# The access key of the emulator's root user; see cloud.py.
ROOT_USER = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}


def main() -> None:
    parser = argparse.ArgumentParser(description="Deploys to a local cloud.")
    parser.add_argument("--directory", type=Path, default=ROOT / ".local")
    parser.add_argument("--stack", default="chainloop")
    parser.add_argument("--template", type=Path, default=ROOT / "infra/template.yaml")
    parser.add_argument("--parameter", action="append", default=[], help="of the template, as NAME=VALUE")
    arguments = parser.parse_args()
    cloud = Cloud(arguments.directory)
    if not cloud.healthy():
        sys.exit("the local cloud is down: infra/local/cloud.py up")

    started = time.monotonic()
    make_artifacts_bucket(cloud)
    sam_deploy(cloud, arguments.stack, arguments.template.resolve(), arguments.parameter)
    outputs = stack_outputs(cloud, arguments.stack)
    write_env(cloud, outputs)
    print(f"deployed {arguments.stack} in {time.monotonic() - started:.1f} s; next: . {cloud.directory}/env")


def client(cloud: Cloud, service: str):
    return boto3.client(
        service,
        endpoint_url=cloud.url,
        region_name=REGION,
        aws_access_key_id=ROOT_USER["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=ROOT_USER["AWS_SECRET_ACCESS_KEY"],
    )


def make_artifacts_bucket(cloud: Cloud) -> None:
    s3 = client(cloud, "s3")
    try:
        s3.head_bucket(Bucket=ARTIFACTS)
    except ClientError:
        s3.create_bucket(Bucket=ARTIFACTS)


API_ID = "c4a17001"


def local_template(cloud: Cloud, original: Path) -> Path:
    """The template without what the emulator cannot do. The template itself knows of no emulator: it has nothing to leave
    out on AWS by mistake."""
    template = yaml_parse(original.read_text())
    resources = template["Resources"]
    # A loop stays a loop, as AWS gets it.
    loops = [loop[2] for name, loop in resources.items() if name.startswith("Fn::ForEach::")]
    for part in (resources, *loops):
        for name, resource in list(part.items()):
            if name.startswith("Fn::ForEach::"):
                continue
            properties = resource["Properties"]
            is_sum = resource["Type"] == "AWS::CloudWatch::Alarm" and "Metrics" in properties
            # The emulator is asked over plain http, on loopback.
            if is_sum or resource["Type"] in ("AWS::S3::BucketPolicy", "AWS::SQS::QueuePolicy"):
                del part[name]
            # Nor does it move aliases in steps: an alias leads to its new version at once.
            if resource["Type"].startswith("AWS::CodeDeploy::"):
                del part[name]
            resource.pop("UpdatePolicy", None)
            # It runs no extensions, and takes no condition for their layers.
            properties.pop("Layers", None)
            if "CodeUri" in properties:
                properties["CodeUri"] = absolute(properties["CodeUri"], original.parent)
            variables = properties.get("Environment", {}).get("Variables", {})
            if "CONSOLE_URL" in variables:
                variables["CONSOLE_URL"] = f"{cloud.url}/_aws/execute-api/{API_ID}/$default/console"
    # Becomes the API's id, so that its address survives a new start.
    resources["Api"]["Properties"]["Tags"] = {"ms-custom-id": API_ID}
    path = cloud.directory / "template.json"
    path.write_text(json.dumps(template, indent=1))
    return path


def absolute(code, folder: Path):
    """Makes a path absolute, also where the loop joins it from parts: the local template stands in another folder."""
    match code:
        case str():
            return str((folder / code).resolve())
        case {"Fn::Join": [separator, [begin, *rest]]}:
            return {"Fn::Join": [separator, [absolute(begin, folder), *rest]]}
    return code


def sam_deploy(cloud: Cloud, stack: str, template: Path, parameters: list[str]) -> None:
    command = [
        ROOT / ".venv/sam/bin/sam", "deploy",
        "--template-file", local_template(cloud, template),
        "--stack-name", stack,
        "--s3-bucket", ARTIFACTS,
        "--region", REGION,
        # Without it SAM does not upload the zips of the loop's functions.
        "--language-extensions",
        "--capabilities", "CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND",
        "--no-confirm-changeset",
        "--no-fail-on-empty-changeset",
        # A first deployment that fails would otherwise have to be deleted by hand.
        "--on-failure", "DELETE",
        "--parameter-overrides",
        # Its tests make more of everything, and faster, than people do.
        "Quotas=registrations=10000,intakes=10000,tokens=10000,checks=6000",
        f"Architecture={'arm64' if platform.machine() in ('aarch64', 'arm64') else 'x86_64'}",
        *parameters,
    ]  # fmt: skip
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(cloud.directory / "tmp"),
        "LANG": "C.UTF-8",
        "SAM_CLI_TELEMETRY": "0",
        "AWS_ENDPOINT_URL": cloud.url,
        **ROOT_USER,
    }
    log = cloud.directory / "deploy.log"
    with log.open("wb") as output:
        code = subprocess.call(command, env=environment, cwd=cloud.directory, stdout=output, stderr=subprocess.STDOUT)
    if code:
        sys.stdout.write(where_it_failed(log.read_text()))
        sys.exit(f"sam deploy failed; its output is in {log}")


def where_it_failed(output: str) -> str:
    """The first failed resource with its reason, or else the end: a roll-back is long and says nothing."""
    lines = output.splitlines(keepends=True)
    first = next((at for at, line in enumerate(lines) if "_FAILED" in line), len(lines) - 12)
    return "".join(lines[max(first, 0) : first + 12])


def stack_outputs(cloud: Cloud, stack: str) -> dict[str, str]:
    described = client(cloud, "cloudformation").describe_stacks(StackName=stack)
    return {output["OutputKey"]: output["OutputValue"] for output in described["Stacks"][0]["Outputs"]}


def write_env(cloud: Cloud, outputs: dict[str, str]) -> None:
    variables = {
        "CHAINLOOP_INTEGRATIONS_URL": f"{cloud.url}/_aws/execute-api/{outputs['ApiId']}/$default",
        "CHAINLOOP_STACK": outputs["StackName"],
        "CHAINLOOP_INTEGRATIONS_TABLE": outputs["TableName"],
        "CHAINLOOP_BUCKET": outputs["BucketName"],
        # The release before has none.
        "CHAINLOOP_RECEIPT_KEY": outputs.get("ReceiptKeyArn", ""),
        "AWS_ENDPOINT_URL": cloud.url,
        "AWS_REGION": REGION,
        **ROOT_USER,
    }
    lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    binaries = shlex.quote(str(ROOT / "target/bin"))
    # Once, however often the file is read.
    lines.append(f'case ":$PATH:" in *:{binaries}:*) ;; *) export PATH={binaries}:"$PATH" ;; esac')
    # Others add lines of their own (`chainloop bootstrap` its token, which is shown once): they stay.
    path = cloud.directory / "env"
    ours = (*(f"export {name}=" for name in variables), 'case ":$PATH:"')
    if path.exists():
        lines += [line for line in path.read_text().splitlines() if line and not line.startswith(ours)]
    # Made readable for its owner alone before a token comes into it.
    path.touch(mode=0o600)
    path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
