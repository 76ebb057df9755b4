"""Records a session of the command line on a local cloud: docs/pictures/session.svg.

    .venv/sam/bin/python infra/local/recording.py

On a cloud of its own. infra/local/recording.txt has what is typed; a line that begins with `!` runs unseen. What stands
below a command is what it printed to a terminal, as fast as it did. The pace of typing and of reading is made up.
"""

import http.server
import os
import pty
import re
import struct
import sys
import termios
import threading
import time
from fcntl import ioctl
from pathlib import Path

from cloud import ROOT
from deploy import client
from terminal import COLUMNS, ROWS, Film
from traffic.attestations import Sbom
from traffic.report import say
from traffic.stack import Stack

SESSION = Path(__file__).with_suffix(".txt")
PICTURE = ROOT / "docs/pictures/session.svg"
PICTURE_MAX_BYTES = 150_000
SECRET_PATH = "services/T024/B7QX"
TYPING_SECS, READING_SECS_A_ROW, LAST_SECS = 0.022, 0.12, 6.0


class Receiver(http.server.BaseHTTPRequestHandler):
    """A third party that refuses while a file says so."""

    refuses: Path

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        refuses = self.refuses.exists()
        body = b"the monthly quota of this project is used up" if refuses else b"{}"
        self.send_response(403 if refuses else 200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Session:
    def __init__(self, folder: Path, environment: dict[str, str], sbom: Sbom):
        self.folder, self.environment, self.sbom = folder, environment, sbom
        self.film, self.printed = Film(), ""
        self.commands: list[str] = []

    def play(self, line: str) -> None:
        """Types a line, or a command that goes on over several, and runs it."""
        if line.startswith("!"):
            self.run(line[1:])
            return
        if line.startswith("#"):
            self.film.type(line, "$ ", "comment", TYPING_SECS)
            return
        failed = re.search(r"│ (\w+) +│\S* failed ", self.printed)
        command = line.format(failed=failed and failed[1], sbom=self.sbom.digest)
        self.commands.append(command)
        for prompt, typed in zip(["$ ", *["    "] * 9], command.split("\n    ")):
            self.film.type(typed, prompt, "typed", TYPING_SECS)
        began = time.monotonic()
        output = self.run(command)
        self.printed += output
        self.film.wait(time.monotonic() - began)
        self.film.print(output)
        self.film.wait(1 + READING_SECS_A_ROW * output.count("\n"))

    def run(self, command: str) -> str:
        """What it prints to a terminal."""
        pid, terminal = pty.fork()
        if pid == 0:
            ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
            os.chdir(self.folder)
            os.execve("/bin/sh", ["sh", "-c", command], self.environment)
        output = b""
        try:
            while piece := os.read(terminal, 1 << 16):
                output += piece
        except OSError:
            pass  # The end, as Linux tells it.
        os.close(terminal)
        # 3 says that a delivery failed.
        if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) not in (0, 3):
            sys.exit(f"{command}: {output.decode()}")
        return output.decode()


def main() -> None:
    with Stack(ROOT / ".local/recording", ephemeral=True) as stack:
        folder = stack.directory / "session"
        folder.mkdir()
        Receiver.refuses = folder / "refuses"
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        client(stack.cloud, "s3").create_bucket(Bucket="shop-sboms")
        sbom = Sbom.of(20_000)
        (folder / "shop.cdx.json").write_bytes(sbom.content)
        (folder / "url.txt").write_text(f"http://127.0.0.1:{server.server_port}/{SECRET_PATH}")
        token = stack.token("default")
        environment = {name: value for name, value in stack.environment.items() if name != "NO_COLOR"}
        environment |= {"TERM": "xterm-256color", "CHAINLOOP_INTEGRATIONS_TOKEN": token, "HOME": str(folder)}
        environment |= {"S3": stack.cloud.url, "S3_SECRET": environment["AWS_SECRET_ACCESS_KEY"]}
        environment["PATH"] = f"{ROOT}/target/bin:{environment['PATH']}"
        session = Session(folder, environment, sbom)
        say("deployed")
        for line in re.findall(r"^\S.*(?:\n    .*)*", SESSION.read_text(), re.MULTILINE):
            session.play(line)
        session.film.wait(LAST_SECS)
    description = "The commands: " + "; ".join(re.sub(r" \\\n *", " ", one) for one in session.commands)
    svg = session.film.svg("A session of the chainloop command: register, attach, push, find what failed and why, redeliver", description)
    if any(secret in svg for secret in (token, SECRET_PATH)):
        sys.exit("a secret is in the picture")
    if len(svg.encode()) > PICTURE_MAX_BYTES:
        sys.exit(f"{len(svg.encode())} bytes are too many")
    PICTURE.write_text(svg)
    say(f"wrote {PICTURE.relative_to(ROOT)}: {len(svg.encode())} bytes, {session.film.seconds:.0f} s")


if __name__ == "__main__":
    main()
