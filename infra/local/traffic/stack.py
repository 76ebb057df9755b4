"""A stack of one's own on a local cloud of one's own: made, restarted, and gone at the end."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

from cloud import ROOT, Cloud
from traffic.report import say

# What the emulator takes as the root user's signature: it looks at the access key only.
ROOT_USER = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/{}/aws4_request, SignedHeaders=host, Signature=0"
STACK = "load"


class Stack:
    def __init__(self, directory: Path, ephemeral: bool):
        self.directory = directory.resolve()
        self.cloud = Cloud(self.directory)
        self.ephemeral = ephemeral
        self.tokens: dict[str, str] = {}

    def __enter__(self) -> "Stack":
        # Asked to end, it takes down what it has brought up.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        try:
            self.up()
        except BaseException:
            self.down()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind and issubclass(kind, Exception):
            say(f"the logs are in {self.keep_logs()}")
        self.down()

    def up(self) -> None:
        # Nothing of an earlier run that was cut off.
        self.down()
        self.start()
        self.deploy()
        pattern = re.compile(r"^export (\w+)='?([^'\n]*)'?$", re.MULTILINE)
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "CHAINLOOP_"))},
            **dict(pattern.findall((self.directory / "env").read_text())),
        }
        # The release before writes the short names.
        url = "CHAINLOOP_INTEGRATIONS_URL"
        self.api = self.environment[url if url in self.environment else "CHAINLOOP_URL"]

    def deploy(self, **parameters: str) -> None:
        """Deploys with these parameters of the template; those of the last time stay."""
        options = [option for name, value in parameters.items() for option in ("--parameter", f"{name}={value}")]
        self.script(ROOT / ".venv/sam/bin/python", "deploy.py", "--stack", STACK, *options)

    def start(self) -> None:
        self.script(sys.executable, "cloud.py", "up", *(["--ephemeral"] if self.ephemeral else []))

    def stop(self) -> None:
        self.script(sys.executable, "cloud.py", "down")

    def down(self) -> None:
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def keep_logs(self) -> Path:
        """Out of the directory that goes: for whoever looks into a run that failed."""
        kept = self.directory.with_name(f"{self.directory.name}-failed")
        kept.mkdir(exist_ok=True)
        for log in (self.cloud.log_file, self.directory / "receiver.lines"):
            if log.exists():
                shutil.copy(log, kept)
        return kept

    def script(self, python: str | Path, name: str, *options: str) -> None:
        command = [python, Path(__file__).parents[1] / name, *options]
        done = subprocess.run([*command, "--directory", self.directory], capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{name} {' '.join(options)}: {done.stdout}{done.stderr}")

    def token(self, organization: str) -> str:
        """An admin's, of an organization that is made when it is first asked for."""
        if organization not in self.tokens:
            said = self.chainloop(None, "bootstrap", "--organization", organization, "--new-token").stdout
            self.tokens[organization] = said.strip().rpartition("=")[2]
        return self.tokens[organization]

    def chainloop(self, organization: str | None, *words: str) -> subprocess.CompletedProcess:
        token = {"CHAINLOOP_INTEGRATIONS_TOKEN": self.token(organization)} if organization else {}
        command = [ROOT / "target/bin/chainloop", *words]
        return subprocess.run(command, env={**self.environment, **token}, capture_output=True, text=True)

    def emulator(self) -> int:
        pid = self.cloud.pid()
        if pid is None:
            sys.exit(f"the local cloud has ended, see {self.keep_logs()}")
        return pid

    def aws(self, service: str, method: str, path: str, body: dict | None = None, target: str = "") -> dict:
        """A call to the emulator itself, as its root user."""
        headers = {"Authorization": ROOT_USER.format(service), "Content-Type": "application/x-amz-json-1.0"}
        if target:
            headers["X-Amz-Target"] = target
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.cloud.url + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or b"{}")

    def switch(self, queue: str, on: bool) -> None:
        """Lets a queue's function take its messages, or not."""
        mappings = "/2015-03-31/event-source-mappings/"
        for mapping in self.aws("lambda", "GET", mappings)["EventSourceMappings"]:
            if mapping["EventSourceArn"].endswith(f":{STACK}-{queue}"):
                self.aws("lambda", "PUT", mappings + mapping["UUID"], {"Enabled": on})

    def messages(self, queue: str) -> dict[str, int]:
        """How many there are: to be taken, taken, and not yet to be taken."""
        body = {"QueueUrl": f"{self.cloud.url}/000000000000/{STACK}-{queue}", "AttributeNames": ["All"]}
        said = self.aws("sqs", "POST", "/", body, "AmazonSQS.GetQueueAttributes")["Attributes"]
        names = {"visible": "", "taken": "NotVisible", "delayed": "Delayed"}
        return {name: int(said[f"ApproximateNumberOfMessages{end}"]) for name, end in names.items()}

    def log(self) -> str:
        return self.cloud.log_file.read_text(errors="replace")
