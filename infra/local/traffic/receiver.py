"""A third party that counts: every request becomes a line of a log, and it misbehaves where it is told to.

    python3 -m traffic.receiver PLAN LOG

Prints its port, listens on loopback, and ends when its standard input does, so with whoever started it.

PLAN is a JSON file: {"seed", "cloud", "most_kills", "kill_gap_secs", "paths": {<first segment of the path>:
[{"do", "share", "until"}]}}. For each request the rules of its path are gone through in order; one applies for a
`share` of the requests, drawn from the seed, the message's id and how often it came, and `until` a moment of
the monotonic clock. Where none applies the answer is 200. With a "cloud" (its directory), the process behind each
connection is looked up, and `kill` and `kill-late` may be done. After a `GET /revoke/KEY` whoever has that key in
`x-key` is answered 401.

LOG gets JSON lines, times by the monotonic clock, which all processes of a machine share:
{"at", "n", "id", "path", "pid", "bytes"} for a request, {"at", "n", "end"} for its end, and
{"at", "killed", "by"} for a process that was killed.
"""

import asyncio
import json
import os
import random
import socket
import struct
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from cloud import Cloud
from traffic import processes

HANG_SECS = 12  # the client waits for 10 s
DRIP_SECS = 0.25
DRIP_BYTES = 200
HUGE_BYTES = 1_000_000_000
RETRY_AFTER_SECS = 5


@dataclass
class Peer:
    plan: dict
    log: TextIO
    cloud: Cloud | None
    requests: int = 0
    kills: int = 0
    last_kill: float = 0.0
    seen: dict[str, int] = field(default_factory=dict)
    revoked: set[str] = field(default_factory=set)

    def note(self, **fields) -> None:
        self.log.write(json.dumps({"at": time.monotonic(), **fields}) + "\n")

    def emulator(self) -> int | None:
        return self.cloud.pid() if self.cloud else None

    def behaviour(self, path: str, message: str) -> str:
        # The check at a registration.
        if message.startswith("test_"):
            return "ok"
        times = self.seen[message] = self.seen.get(message, 0) + 1
        draw = random.Random(f"{self.plan['seed']} {path} {message} {times}").random()
        now = time.monotonic()
        for rule in self.plan["paths"].get(path, []):
            if now < rule["until"] and (draw := draw - rule["share"]) < 0:
                return rule["do"]
        return "ok"

    def may_kill(self) -> bool:
        now = time.monotonic()
        if self.kills >= self.plan["most_kills"] or now - self.last_kill < self.plan["kill_gap_secs"]:
            return False
        self.last_kill = now
        return True

    def kill(self, pid: int | None, number: int) -> bool:
        emulator = self.emulator()
        if pid is None or emulator is None or not processes.kill(pid, emulator):
            return False
        self.kills += 1
        self.note(killed=pid, by=number)
        return True

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port, own = writer.get_extra_info("peername")[1], writer.get_extra_info("sockname")[1]
        emulator = self.emulator()
        pid = processes.behind(port, own, emulator) if emulator else None
        try:
            while await self.request(reader, writer, pid):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pid: int | None) -> bool:
        """Takes one request; whether the connection may be used for another."""
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        except asyncio.IncompleteReadError:
            return False
        target, headers = parse(head)
        path, _, rest = target.strip("/").partition("/")
        if path == "revoke":
            self.revoked.add(rest)
            return await answer("ok", writer)
        size = int(headers.get("content-length", 0))
        message = headers.get("webhook-id", "")
        do = "denied" if headers.get("x-key") in self.revoked else self.behaviour(path, message)
        self.requests += 1
        number = self.requests
        if do == "reset-early":
            self.note(n=number, id=message, path=path, pid=pid, bytes=0)
            self.note(n=number, end=do)
            reset(writer)
            return False
        await reader.readexactly(size)
        self.note(n=number, id=message, path=path, pid=pid, bytes=size)
        end = "gone away"
        try:
            if do in ("kill", "kill-late") and not self.may_kill():
                do = "ok"
            if do == "kill" and not self.kill(pid, number):
                do = "ok"
            again = await answer(do, writer)
            end = do
            if do == "kill-late":
                self.kill(pid, number)
            return again
        finally:
            self.note(n=number, end=end)


async def answer(do: str, writer: asyncio.StreamWriter) -> bool:
    match do:
        case "ok" | "kill-late":
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        case "busy":
            after = f"retry-after: {RETRY_AFTER_SECS}\r\n".encode()
            writer.write(b"HTTP/1.1 429 Too Many Requests\r\n" + after + b"content-length: 0\r\n\r\n")
        case "down":
            writer.write(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n")
        case "denied":
            writer.write(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n")
        case "gone":
            writer.write(b"HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n")
        case "kill":
            return False
        case "hang":
            await asyncio.sleep(HANG_SECS)
            return False
        case "reset":
            reset(writer)
            return False
        case "drip" | "huge":
            return await answer_at_length(do, writer)
    await writer.drain()
    return True


async def answer_at_length(do: str, writer: asyncio.StreamWriter) -> bool:
    """A good status whose body nobody should wait for: the client has to cut it off."""
    piece, pause, size = (b"x", DRIP_SECS, DRIP_BYTES) if do == "drip" else (b"y" * 65_536, 0.0, HUGE_BYTES)
    writer.write(f"HTTP/1.1 200 OK\r\ncontent-length: {size}\r\n\r\n".encode())
    try:
        for _ in range(0, size, len(piece)):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)
    except ConnectionError:
        pass  # cut off, as it should be
    return False


def parse(head: str) -> tuple[str, dict[str, str]]:
    first, *lines = head.split("\r\n")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    return first.split(" ")[1], headers


def reset(writer: asyncio.StreamWriter) -> None:
    """Closes so that the other side sees a reset instead of an end."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def serve(plan: dict, log: TextIO) -> None:
    peer = Peer(plan, log, Cloud(Path(plan["cloud"])) if plan["cloud"] else None)
    server = await asyncio.start_server(peer.connection, "127.0.0.1", 0, limit=1 << 20, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    # Its parent holds the other end: when that is gone there is nobody to count for.
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    # At once: whoever is still connected is nobody's concern any more.
    os._exit(0)


def main() -> None:
    plan, log = sys.argv[1:]
    with open(log, "a", buffering=1) as lines:
        try:
            asyncio.run(serve(json.loads(Path(plan).read_text()), lines))
        except KeyboardInterrupt:
            pass


if __name__ == "__main__":
    main()
