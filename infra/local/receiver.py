#!/usr/bin/env python3
"""Local webhook receiver: stores every request as a file, and responds with 200.

    infra/local/receiver.py up|down [--directory .local]

Requests are in <directory>/received/<number>.json as {"headers", "body"}; the port is in
<directory>/receiver.port. It listens on loopback only.
"""

import argparse
import http.server
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
START_SECS = 10
MOST_BYTES = 200 * 1024 * 1024


class Receiver(http.server.BaseHTTPRequestHandler):
    directory: Path

    def do_POST(self) -> None:
        size = int(self.headers.get("content-length", 0))
        if size > MOST_BYTES:
            self.send_error(413)
            return
        body = self.rfile.read(size).decode("utf-8", "replace")
        received = {"headers": dict(self.headers), "body": body}
        number = sum(1 for _ in self.directory.iterdir()) + 1
        (self.directory / f"{number:05}.json").write_text(json.dumps(received))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_) -> None:
        """Says nothing: what came is in the files."""


def serve(directory: Path, port: int) -> None:
    Receiver.directory = directory / "received"
    Receiver.directory.mkdir(parents=True, exist_ok=True)
    server = http.server.HTTPServer(("127.0.0.1", port), Receiver)
    (directory / "receiver.port").write_text(str(server.server_port))
    server.serve_forever()


def pid(directory: Path) -> int | None:
    try:
        number = int((directory / "receiver.pid").read_text())
        ours = b"receiver.py" in Path(f"/proc/{number}/cmdline").read_bytes()
    except (OSError, ValueError):
        return None
    return number if ours else None


def up(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    if pid(directory):
        return
    # The same port again, so that what was registered stays true.
    port_file = directory / "receiver.port"
    port = port_file.read_text() if port_file.exists() else "0"
    port_file.unlink(missing_ok=True)
    process = subprocess.Popen(
        [sys.executable, __file__, "serve", "--directory", directory, "--port", port],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=(directory / "receiver.log").open("ab"),
        start_new_session=True,
    )
    (directory / "receiver.pid").write_text(str(process.pid))
    started = time.monotonic()
    while not port_file.exists():
        if process.poll() is not None or time.monotonic() - started > START_SECS:
            port_file.write_text(port)
            sys.exit(f"the receiver did not start, see {directory}/receiver.log")
        time.sleep(0.02)


def down(directory: Path) -> None:
    if number := pid(directory):
        os.kill(number, signal.SIGTERM)
    (directory / "receiver.pid").unlink(missing_ok=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Local webhook receiver.")
    parser.add_argument("command", choices=["up", "down", "serve"])
    parser.add_argument("--directory", type=Path, default=ROOT / ".local")
    parser.add_argument("--port", type=int, default=0)
    arguments = parser.parse_args()
    directory = arguments.directory.resolve()
    match arguments.command:
        case "up":
            up(directory)
        case "down":
            down(directory)
        case "serve":
            serve(directory, arguments.port)


if __name__ == "__main__":
    main()
