#!/usr/bin/env python3
"""The local cloud: an AWS emulator on this machine, reachable from this machine only.

    infra/local/cloud.py up      [--directory .local] [--ephemeral] [--schedule-secs N] [--endpoint URL]
    infra/local/cloud.py down    [--directory .local]
    infra/local/cloud.py status  [--directory .local]

A directory is a cloud: its port, its process id, its log and its data are in it. Tests use
another one (`--directory .local/test --ephemeral`), so that they never meet an operator's data.

Credentials. The emulator enforces the functions' IAM policies. It takes the access key `test` for
the account's root user, who may do everything: `sam deploy` and `chainloop bootstrap` use it. A
function is given a session of its own role in AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and
AWS_SESSION_TOKEN, as on AWS, and may do what the template grants that role and nothing else.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv/ministack/bin/python"
START_SECS = 30
STOP_SECS = 30


class Cloud:
    def __init__(self, directory: Path):
        self.directory = directory.resolve()
        self.port_file = self.directory / "port"
        self.pid_file = self.directory / "pid"
        self.log_file = self.directory / "cloud.log"

    @property
    def port(self) -> int:
        return int(self.port_file.read_text())

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def pid(self) -> int | None:
        """The emulator's process id, if it is alive and this cloud's: ids are used again."""
        try:
            pid = int(self.pid_file.read_text())
            process = Path(f"/proc/{pid}")
            ours = b"emulator.py" in (process / "cmdline").read_bytes()
            here = (process / "cwd").readlink() == self.directory
        except (OSError, ValueError):
            return None
        return pid if ours and here else None

    def healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/_ministack/health", timeout=2) as answer:
                return answer.status == 200 and isinstance(json.load(answer), dict)
        except (OSError, urllib.error.URLError, ValueError):
            return False

    def environment(self, ephemeral: bool, schedule_secs: int | None, endpoint: str | None) -> dict[str, str]:
        """All of it, since functions inherit what the emulator has: nothing of the caller's."""
        temporary = self.directory / "tmp"
        # What a killed emulator left behind: unpacked functions.
        shutil.rmtree(temporary, ignore_errors=True)
        for path in (temporary, self.directory / "state", self.directory / "objects"):
            path.mkdir(parents=True, exist_ok=True)
        persist = "0" if ephemeral else "1"
        return {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(temporary),
            "TMPDIR": str(temporary),
            "LANG": "C.UTF-8",
            "PYTHONUNBUFFERED": "1",
            "GATEWAY_PORT": str(self.port),
            "BIND_HOST": "127.0.0.1",
            "MINISTACK_HOST": "localhost",
            # Functions learn from it where AWS is.
            "AWS_ENDPOINT_URL": endpoint or self.url,
            # These two would listen on all addresses.
            "IOT_MTLS_ENABLED": "0",
            "SFTP_ENABLED": "0",
            "STATE_DIR": str(self.directory / "state"),
            "S3_DATA_DIR": str(self.directory / "objects"),
            "PERSIST_STATE": persist,
            "S3_PERSIST": persist,
            "AUTH": "true",
            **({} if schedule_secs is None else {"SCHEDULE_SECS": str(schedule_secs)}),
        }

    def up(self, ephemeral: bool, schedule_secs: int | None = None, endpoint: str | None = None) -> None:
        if self.pid() and self.healthy():
            print(f"local cloud is up at {self.url}")
            return
        if not PYTHON.exists():
            sys.exit("the emulator is not installed: infra/local/venv.sh ministack")
        self.choose_port()
        started = time.monotonic()
        with self.log_file.open("ab") as log:
            process = subprocess.Popen(
                [PYTHON, Path(__file__).with_name("emulator.py")],
                env=self.environment(ephemeral, schedule_secs, endpoint),
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Its own session: Ctrl-C in the terminal that started it is not for it.
                start_new_session=True,
            )
        self.pid_file.write_text(str(process.pid))
        while not self.healthy():
            if process.poll() is not None:
                self.pid_file.unlink()
                sys.exit(f"the local cloud exited at startup, see {self.log_file}")
            if time.monotonic() - started > START_SECS:
                sys.exit(f"the local cloud does not respond at {self.url}, see {self.log_file}")
            time.sleep(0.05)
        print(f"local cloud is up at {self.url} after {time.monotonic() - started:.1f} s")

    def choose_port(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        if not self.port_file.exists():
            self.port_file.write_text(str(free_port()))

    def down(self) -> None:
        pid = self.pid()
        if pid is None:
            self.pid_file.unlink(missing_ok=True)
            print("local cloud is down")
            return
        started = time.monotonic()
        # Not SIGKILL, ever: the emulator writes its state when it is asked to end.
        os.kill(pid, signal.SIGTERM)
        while self.pid() is not None:
            if time.monotonic() - started > STOP_SECS:
                sys.exit(f"the local cloud (process {pid}) does not stop, see {self.log_file}")
            time.sleep(0.05)
        self.pid_file.unlink(missing_ok=True)
        print(f"local cloud is down after {time.monotonic() - started:.1f} s")

    def status(self) -> None:
        pid = self.pid()
        if pid is None or not self.healthy():
            sys.exit("local cloud is down")
        print(f"local cloud is up at {self.url}, process {pid}, log {self.log_file}")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def main() -> None:
    parser = argparse.ArgumentParser(description="Controls the local cloud.")
    parser.add_argument("command", choices=["up", "down", "status"])
    parser.add_argument("--directory", type=Path, default=ROOT / ".local")
    parser.add_argument("--ephemeral", action="store_true", help="discard all data on `down`")
    parser.add_argument(
        "--schedule-secs", type=int, help="run what has a schedule so often, not each minute: the reconciler"
    )
    parser.add_argument("--endpoint", help="where functions find AWS, if it is something before this cloud")
    arguments = parser.parse_args()
    cloud = Cloud(arguments.directory)
    match arguments.command:
        case "up":
            cloud.up(arguments.ephemeral, arguments.schedule_secs, arguments.endpoint)
        case "down":
            cloud.down()
        case "status":
            cloud.status()


if __name__ == "__main__":
    main()
