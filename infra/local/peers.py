#!/usr/bin/env python3
"""Local third parties to deliver to: one of each kind, on loopback.

    infra/local/peers.py up|down [--directory .local]

Where they are, and what registering them takes, is in <directory>/peers/env: `. .local/peers/env`. What they are
sent is kept below <directory>/peers/received until they are started again.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
START_SECS = 60
STOP_SECS = 10


def pid(directory: Path) -> int | None:
    """The process id, if it is alive and ours: ids are used again."""
    try:
        number = int((directory / "pid").read_text())
        ours = os.fsencode(directory) in Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    return number if ours else None


def up(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    if not pid(directory):
        start(directory)
    print("third parties are up:\n")
    for line in (directory / "env").read_text().splitlines():
        print(f"  {line.removeprefix('export ')}")
    print(f"\nnext: . {directory}/env; received requests are in {directory}/received")


def start(directory: Path) -> None:
    (directory / "env").unlink(missing_ok=True)
    log = directory / "peers.log"
    # What they keep goes with them.
    temporary = directory / "tmp"
    temporary.mkdir(exist_ok=True)
    process = subprocess.Popen(
        [ROOT / "target/bin/peers", directory],
        env={**os.environ, "TMPDIR": str(temporary)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=log.open("wb"),
        # A group of its own: those that it starts end with it.
        start_new_session=True,
    )
    (directory / "pid").write_text(str(process.pid))
    started = time.monotonic()
    while not (directory / "env").exists():
        if process.poll() is not None or time.monotonic() - started > START_SECS:
            down(directory)
            sys.exit(f"the third parties did not start, see {log}")
        time.sleep(0.05)


def down(directory: Path) -> None:
    if number := pid(directory):
        os.killpg(number, signal.SIGTERM)
        until = time.monotonic() + STOP_SECS
        while pid(directory) and time.monotonic() < until:
            time.sleep(0.05)
    (directory / "pid").unlink(missing_ok=True)
    shutil.rmtree(directory / "tmp", ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Local third parties to deliver to.")
    parser.add_argument("command", choices=["up", "down"])
    parser.add_argument("--directory", type=Path, default=ROOT / ".local")
    arguments = parser.parse_args()
    directory = arguments.directory.resolve() / "peers"
    up(directory) if arguments.command == "up" else down(directory)


if __name__ == "__main__":
    main()
