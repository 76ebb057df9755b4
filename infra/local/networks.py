#!/usr/bin/env python3
"""Delivers to a private network: refused at first, then through the list of allowed networks, then through a proxy.

    infra/local/networks.py

Runs in a network namespace of its own, where the machine has a private address: nothing outside of it sees or reaches
what listens there. Each step deploys with other parameters, tries what is hostile, and looks at what arrived.
"""

import base64
import fcntl
import http.server
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

from cloud import ROOT
from traffic.api import Api, Refused
from traffic.attestations import envelope
from traffic.report import say
from traffic.stack import Stack

ADDRESS = "10.20.1.2"
LISTED, OTHER = 8080, 8081
# Resolved by the proxy alone.
NAME = "dt.corp.invalid"
LIST = f"http:10.20.0.0/16:{LISTED}"
CREDENTIALS = "egress:canary-password"
ARRIVAL_SECS = 60
# From linux/sockios.h and linux/if.h.
SIOCSIFFLAGS, SIOCSIFADDR, IFF_UP, IFF_RUNNING = 0x8914, 0x8916, 0x1, 0x40
WORKFLOW = "networks/build"
# Exit code where nothing could be tried, as other test programs have it.
NOT_RUN = 77

# Hosts that no list may allow. Loopback is not among them: the local cloud is this machine.
NEVER = """
    169.254.169.254 169.254.170.2 169.254.100.1 169.254.0.1 2852039166 0xa9fea9fe 0xa9.0xfe.0xa9.0xfe 0251.0376.0251.0376
    169.254.43518 [fe80::1] [fd00:ec2::254] [fd00:ec2::253] [::ffff:169.254.169.254] [::ffff:a9fe:a9fe]
    [64:ff9b::a9fe:a9fe] [64:ff9b:1::a9fe:a9fe] [2002:a9fe:a9fe::1] [2001:0:a9fe:a9fe::1] [::a9fe:a9fe]
    [::ffff:127.0.0.1] [::ffff:7f00:1] [64:ff9b::7f00:1] [::7f00:1] [2002:7f00:1::1]
    [::ffff:10.20.1.2] [64:ff9b::a14:102] [2002:a14:102::1] [::a14:102]
    0.0.0.0 0 0.1.2.3 [::] 224.0.0.1 239.255.255.250 [ff02::1] [ff0e::1] 240.0.0.1 255.255.255.255
    192.0.0.170 192.0.2.1 198.51.100.1 203.0.113.1 192.88.99.1 [2001:db8::1] [100::1] [fec0::1] [4000::1] [3fff::1]
""".split()
# Addresses and ports that are not in the list, and what is no destination at all.
UNLISTED = [
    "https://10.21.0.1", "https://192.168.1.1", "https://172.16.0.1", "https://100.64.0.1", "https://[fd12::1]",
    f"http://{ADDRESS}:{OTHER}", f"https://{ADDRESS}", f"http://{ADDRESS}", f"http://{ADDRESS}:9001",
    "http://127.0.0.1:9001", "https://8.8.8.8:22", "http://8.8.8.8:8080",
    "https://169.254.169.254:8443", "http://169.254.169.254:8080/latest/meta-data", "http://[fd00:ec2::254]:8080",
]  # fmt: skip
HOSTILE = [f"{scheme}://{host}" for host in NEVER for scheme in ("https", "http")] + UNLISTED


class Receiver(http.server.BaseHTTPRequestHandler):
    """Counts what comes."""

    paths: list[str] = []

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.paths.append(self.path)
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class Proxy:
    """A proxy that knows one name, asks for credentials, and keeps what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.run, daemon=True).start()

    def run(self) -> None:
        while True:
            stream, _ = self.listener.accept()
            threading.Thread(target=self.serve, args=[stream], daemon=True).start()

    def serve(self, stream: socket.socket) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += stream.recv(4096)
        words = head.decode().split(" ")
        target = words[1]
        if f"Basic {encoded()}\r\n" not in head.decode():
            stream.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n\r\n")
            stream.close()
            return
        self.asked.append(target)
        host, _, port = target.rpartition(":")
        peer = socket.create_connection((ADDRESS if host == NAME else host, int(port)))
        stream.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        threading.Thread(target=copy, args=[peer, stream], daemon=True).start()
        copy(stream, peer)


def encoded() -> str:
    """The credentials as they are sent."""
    return base64.b64encode(CREDENTIALS.encode()).decode()


def copy(source: socket.socket, target: socket.socket) -> None:
    try:
        while piece := source.recv(65536):
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def refused(api: Api, name: str, url: str) -> str:
    """Why this URL is refused: the answer's text."""
    try:
        api.register(name, url)
    except Refused as answer:
        if answer.status in (400, 422):
            return answer.text
        raise
    sys.exit(f"{url} was registered")


def expect(said: str, *parts: str) -> None:
    for part in parts:
        if part not in said:
            sys.exit(f"expected {part!r} in {said}")


def hostile(api: Api) -> None:
    for number, url in enumerate(HOSTILE):
        expect(refused(api, f"hostile-{number}", url), "not allowed")
    say(f"{len(HOSTILE)} hostile URLs are refused")


def deliver(api: Api, name: str, url: str, number: int) -> None:
    """Registers, attaches, posts an attestation, and waits until it is there."""
    path = f"/{name}"
    attachment = api.attach(api.register(name, url + path), WORKFLOW, send_attestation=True)
    before = Receiver.paths.count(path)
    api.call("POST", "/attestations", envelope(WORKFLOW, f"run-{number}"))
    until = time.monotonic() + ARRIVAL_SECS
    while Receiver.paths.count(path) == before:
        if time.monotonic() > until:
            sys.exit(f"nothing came to {url} within {ARRIVAL_SECS} s")
        time.sleep(0.2)
    api.call("DELETE", f"/attachments/{attachment}")


def give_address() -> None:
    """Brings loopback up, with the private address beside its own."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        family = struct.pack("HH4s8x", socket.AF_INET, 0, socket.inet_aton(ADDRESS))
        fcntl.ioctl(control, SIOCSIFADDR, struct.pack("16s16s", b"lo:0", family))
        for name in (b"lo", b"lo:0"):
            fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH14x", name, IFF_UP | IFF_RUNNING))


def main() -> None:
    if os.environ.get("IN_NAMESPACE") is None:
        # With users of its own, so that nobody needs to be root.
        unshare = ["unshare", "--map-root-user", "--net"]
        if subprocess.run([*unshare, "true"], capture_output=True).returncode:
            print("NOT RUN: this machine lets nobody make a network namespace (unshare --map-root-user --net)")
            sys.exit(NOT_RUN)
        command = [*unshare, sys.executable, *sys.argv]
        sys.exit(subprocess.call(command, env={**os.environ, "IN_NAMESPACE": "1"}))
    give_address()
    for port in (LISTED, OTHER):
        server = http.server.ThreadingHTTPServer((ADDRESS, port), Receiver)
        threading.Thread(target=server.serve_forever, daemon=True).start()
    proxy = Proxy()
    url = f"http://{ADDRESS}:{LISTED}"
    named = f"http://{NAME}:{LISTED}"

    with Stack(ROOT / ".local/networks", ephemeral=True) as stack:
        api = Api(stack.api, stack.token("default"))
        expect(refused(api, "early", url), "a private address is not allowed", "AllowedPrivateCidrs")
        hostile(api)

        stack.deploy(AllowedPrivateCidrs=LIST)
        deliver(api, "listed", url, 1)
        say(f"delivered to {url} by the list {LIST}")
        hostile(api)
        expect(refused(api, "unresolved", named), "its name could not be resolved")

        stack.deploy(HttpsProxy=proxy.url, ProxyNames="*.corp.invalid")
        expect(refused(api, "unauthorized", url), "the proxy refused with status 407")
        secret = {"Name": "egress-proxy", "SecretString": CREDENTIALS}
        arn = stack.aws("secretsmanager", "POST", "/", secret, "secretsmanager.CreateSecret")["ARN"]
        stack.deploy(HttpsProxySecret=arn)
        deliver(api, "by-address", url, 2)
        deliver(api, "by-name", named, 3)
        if set(proxy.asked) != {f"{ADDRESS}:{LISTED}", f"{NAME}:{LISTED}"}:
            sys.exit(f"the proxy was asked for {proxy.asked}")
        say("delivered through the proxy, by address and by a name that it alone can resolve")
        asked = len(proxy.asked)
        hostile(api)
        if len(proxy.asked) != asked:
            sys.exit(f"the proxy was asked for {proxy.asked[asked:]}")
        for secret in ("canary-password", encoded()):
            if secret in stack.log():
                sys.exit("a log has the proxy's credentials")
    say("all as expected")


if __name__ == "__main__":
    main()
