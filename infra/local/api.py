#!/usr/bin/env python3
"""Tests a deployed API against its OpenAPI description, with valid and invalid requests.

    . .local/env && .venv/schemathesis/bin/python infra/local/api.py [--directory .local]

Looks whether docs/openapi.json is valid OpenAPI and is what the stack serves, makes an organization of its own with
something of everything in it, and lets schemathesis loose on that: no 5xx, no answer that is not described, nothing
accepted that the description forbids, nothing without a token. What is not held, and why, is in
infra/schemathesis.toml. A seed decides what is sent, as far as that does not follow from the ids that were answered.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from openapi_spec_validator import validate

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs/openapi.json"
# Some of each are deleted, paused, revoked … on the way.
EACH = 12


def main() -> None:
    parser = argparse.ArgumentParser(description="Tests a deployed API against its OpenAPI description.")
    parser.add_argument("--directory", type=Path, default=ROOT / ".local")
    directory = parser.parse_args().directory.resolve()
    document = json.loads(DOCUMENT.read_text())
    validate(document)
    url = os.environ["CHAINLOOP_INTEGRATIONS_URL"].rstrip("/")
    with urllib.request.urlopen(f"{url}/v1/openapi.json") as answer:
        served = json.load(answer)
    if served != document:
        sys.exit("GET /v1/openapi.json differs from docs/openapi.json: deploy again")
    receiver = ROOT / "infra/local/receiver.py"
    subprocess.run([sys.executable, receiver, "up", "--directory", directory], check=True)
    try:
        port = (directory / "receiver.port").read_text()
        api = Api(url, token())
        with tempfile.TemporaryDirectory() as folder:
            furnish(api, f"http://127.0.0.1:{port}/", Path(folder))
            code = run(api, Path(folder))
    finally:
        subprocess.run([sys.executable, receiver, "down", "--directory", directory], check=True)
    sys.exit(code)


def token() -> str:
    """An admin's, of an organization of its own."""
    command = [os.environ.get("CHAINLOOP", "chainloop"), "bootstrap", "--output", "json"]
    command += ["--organization", f"openapi-{time.time_ns()}"]
    return json.loads(subprocess.check_output(command))["token"]


class Api:
    def __init__(self, url: str, token: str):
        self.url = url
        self.token = token
        # What must not be printed.
        self.secrets = [token]

    def ask(self, method: str, path: str, body: object = None) -> dict:
        request = urllib.request.Request(self.url + path, method=method)
        request.add_header("authorization", f"Bearer {self.token}")
        data = None
        if body is not None:
            request.add_header("content-type", "application/json")
            data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        with urllib.request.urlopen(request, data) as answer:
            return json.load(answer)


def furnish(api: Api, receiver: str, folder: Path) -> None:
    """Makes something of everything, and writes down how it is called, for schemathesis to ask for."""
    names = [f"sample-{number}" for number in range(EACH)]
    for name in names:
        body = {"integration": "webhook", "name": name, "inputs": {"url": receiver + name}}
        api.ask("POST", "/v1/registrations", body)
    attachments = []
    for name in names:
        body = {"registration": name, "workflow": "shop/nightly"}
        attachments.append(api.ask("POST", "/v1/attachments", body)["id"])
    event = json.loads((ROOT / "events/attestations/push.json").read_text())
    pushed = api.ask("POST", "/v1/attestations", event["body"])
    material = "sha256:" + "0" * 64
    deliveries = api.ask("GET", "/v1/deliveries?limit=100")["items"]
    for name in names:
        api.ask("POST", "/v1/tokens", {"name": name, "role": "viewer"})
        api.secrets.append(api.ask("POST", "/v1/intakes", {"name": name})["token"])
    jobs = [api.ask("POST", "/v1/audits")["id"] for _ in range(3)]
    for dictionary, words in {
        "names": names,
        "intakes": api.secrets[1:],
        "attachments": attachments,
        "deliveries": [delivery["id"] for delivery in deliveries],
        "digests": [pushed["attestation"], pushed["received"], material],
        "jobs": jobs,
    }.items():
        (folder / f"{dictionary}.txt").write_text("".join(f"{json.dumps(word)}\n" for word in words))


def run(api: Api, folder: Path) -> int:
    config = (ROOT / "infra/schemathesis.toml").read_text()
    (folder / "schemathesis.toml").write_text(config)
    environment = dict(os.environ, SCHEMATHESIS_TOKEN=api.token, NO_COLOR="1")
    command = [Path(sys.executable).parent / "schemathesis", "--config-file", "schemathesis.toml"]
    command += ["run", DOCUMENT, "--url", api.url]
    began = time.monotonic()
    # In a folder of its own, where it may leave what it likes. What it says is looked at before it is shown.
    ran = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said, leaked = ran.stdout, False
    for secret in api.secrets:
        leaked |= secret in said
        said = said.replace(secret, "…")
    print(said)
    if leaked:
        sys.exit("schemathesis printed a token")
    # The token was not revoked on the way, so all of it was asked; and whatever was, every delivery is accounted for.
    audit = api.ask("POST", "/v1/audits")
    if audit.get("violations"):
        sys.exit("\n".join(["the audit found:", *audit["violations"]]))
    print(f"in {time.monotonic() - began:.0f} s; the audit is {audit['state']} and found nothing")
    return ran.returncode


if __name__ == "__main__":
    main()
