"""Demo: register, attach, push, and show the deliveries. Two integrations, one workflow, one attestation.

    .venv/sam/bin/python infra/local/demo.py [--directory .local]
                         [--attestation FILE] [--material NAME=FILE]...

Runs the `chainloop` commands of an operator, then checks the deliveries: the SBOM in the bucket, byte for byte
under its digest, and the envelope in the webhook's body. Without --attestation it creates an SBOM of this workspace
and an attestation over it.
"""

import argparse
import base64
import hashlib
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import boto3
from botocore.exceptions import ClientError

from cloud import ROOT, Cloud

BUCKET = "guac"
BOLD, DIM, OFF = ("\033[1m", "\033[2m", "\033[0m") if sys.stdout.isatty() else ("", "", "")


def main() -> None:
    parser = argparse.ArgumentParser(description="Demo: register, attach, push, and show the deliveries.")
    parser.add_argument("--directory", type=Path, default=ROOT / ".local")
    parser.add_argument("--attestation", type=Path)
    parser.add_argument("--material", action="append", default=[], metavar="NAME=FILE")
    arguments = parser.parse_args()
    Demo(arguments.directory.resolve()).run(arguments.attestation, arguments.material)


class Demo:
    def __init__(self, directory: Path):
        self.directory = directory
        self.cloud = Cloud(directory)
        self.environment = dict(os.environ)
        self.s3 = boto3.client(
            "s3",
            endpoint_url=self.cloud.url,
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )

    def run(self, attestation: Path | None, materials: list[str]) -> None:
        say("List the available integrations")
        self.chainloop("integration", "available", "list")

        say("Register a bucket that GUAC collects from, and a webhook")
        try:
            self.s3.head_bucket(Bucket=BUCKET)
        except ClientError:
            self.s3.create_bucket(Bucket=BUCKET)
        self.register_guac()
        self.register_webhook()

        if attestation is None:
            say("Create an SBOM of this workspace, and an attestation over it")
            attestation, materials = self.make()

        workflow = workflow_of(attestation)
        say(f"Attach both to the workflow {workflow}")
        self.attach("guac", workflow)
        self.attach("receiver", workflow, "--opt", "send_sbom=true")

        say("Push the materials, then the attestation, byte for byte")
        before = set(self.received())
        options = [word for material in materials for word in ("--material", material)]
        self.chainloop("attestation", "push", attestation, *options, "--wait")

        say("Check the deliveries")
        self.check(attestation, materials, before)

    def register_guac(self) -> None:
        if self.is_registered("guac"):
            return
        self.chainloop(
            "integration", "registered", "add", "guac", "--name", "guac",
            "--opt", f"endpoint={self.cloud.url}", "--opt", f"bucket={BUCKET}",
            "--opt", "access_key_id=test", "--opt", "credentials=env:AWS_SECRET_ACCESS_KEY",
        )  # fmt: skip

    def register_webhook(self) -> None:
        if self.is_registered("receiver"):
            return
        port = (self.directory / "receiver.port").read_text()
        url = self.directory / "receiver.url"
        url.write_text(f"http://127.0.0.1:{port}/chainloop")
        # From a file: what is typed stays in the shell's history, and a webhook's URL is a secret.
        self.chainloop(
            "integration", "registered", "add", "webhook", "--name", "receiver", "--opt", f"url=@{url}"
        )

    def is_registered(self, name: str) -> bool:
        listed = self.ask("integration", "registered", "list")
        return any(registration["name"] == name for registration in listed)

    def attach(self, registration: str, workflow: str, *options: str) -> None:
        listed = self.ask("integration", "attached", "list", "--workflow", workflow)
        if any(attachment["integration"]["name"] == registration for attachment in listed):
            return
        self.chainloop(
            "integration", "attached", "add", "--workflow", workflow, "--integration", registration, *options
        )

    def make(self) -> tuple[Path, list[str]]:
        sbom = self.directory / "sbom.cdx.json"
        syft = ROOT / ".venv/syft/bin/syft"
        command = [syft, "scan", f"file:{ROOT}/Cargo.lock", "--quiet", "--output", f"cyclonedx-json={sbom}"]
        show([Path(syft.name), *command[1:]])
        # It asks for a newer version of itself unless told otherwise.
        subprocess.run(command, check=True, env={**self.environment, "SYFT_CHECK_FOR_APP_UPDATE": "false"})
        attestation = self.directory / "attestation.json"
        self.chainloop(
            "attestation", "craft", "--project", "chainloop-integrations", "--workflow", "build",
            "--material", f"sbom=SBOM_CYCLONEDX_JSON:{sbom}", attestation,
        )  # fmt: skip
        return attestation, [f"sbom={sbom}"]

    def received(self) -> list[Path]:
        return sorted((self.directory / "received").glob("*.json"))

    def check(self, attestation: Path, materials: list[str], before: set[Path]) -> None:
        pushed = envelope_of(attestation)
        for material in materials:
            file = Path(material.split("=", 1)[1])
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            name = f"chainloop/sboms/{digest}.cdx.json"
            stored = self.s3.get_object(Bucket=BUCKET, Key=name)["Body"].read()
            if stored != file.read_bytes():
                sys.exit(f"s3://{BUCKET}/{name} is not {file}")
            print(f"  s3://{BUCKET}/{name}\n    {len(stored)} bytes, the SBOM byte for byte")
        arrived = [path for path in self.received() if path not in before]
        bodies = {path: json.loads(json.loads(path.read_text())["body"]) for path in arrived}
        kinds = [body["Kind"] for body in bodies.values()]
        for path, body in bodies.items():
            if body["Kind"] == "ATTESTATION":
                data = json.loads(base64.b64decode(body["Data"]))
                if data["Envelope"]["payload"] != pushed["payload"]:
                    sys.exit(f"{path} does not hold the envelope")
            print(f"  {path.relative_to(ROOT) if path.is_relative_to(ROOT) else path}\n    {body['Kind']}")
        # An attestation that was pushed before is not sent again.
        if arrived and "ATTESTATION" not in kinds:
            sys.exit("the webhook did not get the attestation")

    def chainloop(self, *words: str | Path) -> None:
        show(["chainloop", *words])
        code = subprocess.call([ROOT / "target/bin/chainloop", *words], env=self.environment)
        if code:
            sys.exit(code)

    def ask(self, *words: str) -> list[dict]:
        command = [ROOT / "target/bin/chainloop", *words, "--output", "json", "--quiet"]
        return json.loads(subprocess.check_output(command, env=self.environment)) or []


def say(text: str) -> None:
    print(f"\n{BOLD}{text}{OFF}", flush=True)


def show(words: list[str | Path]) -> None:
    print(f"{DIM}$ {shlex.join(map(str, words))}{OFF}", flush=True)


def envelope_of(attestation: Path) -> dict:
    document = json.loads(attestation.read_bytes())
    return document.get("dsseEnvelope", document)


def workflow_of(attestation: Path) -> str:
    """`project/name`, as the attestation says it."""
    statement = json.loads(base64.b64decode(envelope_of(attestation)["payload"]))
    metadata = statement["predicate"]["metadata"]
    return f"{metadata['project']}/{metadata.get('workflowName') or metadata['name']}"


if __name__ == "__main__":
    main()
