"""A browser without a window: Debian's Chromium, by the DevTools protocol over two pipes.

It is in .venv/chromium, put there by infra/local/debian.sh. What its pages request, and what they complain about, is
kept for whoever asks.
"""

import base64
import fcntl
import itertools
import json
import os
import queue
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from cloud import ROOT

PLACE = ROOT / ".venv/chromium"
BROWSER = PLACE / "usr/lib/chromium/chromium-headless-shell"
ANSWER_SECS = 30
READY_SECS = 15
# One font everywhere, since pictures of pages are kept; those of the machine where it has no letters.
FONTS = f"""<?xml version="1.0"?>
<fontconfig>
<dir>{PLACE}/usr/share/fonts</dir><dir>/usr/share/fonts</dir>
<cachedir>{PLACE}/fonts</cachedir>
<alias><family>system-ui</family><prefer><family>Inter</family></prefer></alias>
<alias><family>monospace</family><prefer><family>DejaVu Sans Mono</family></prefer></alias>
</fontconfig>
"""


class Failed(Exception):
    pass


class Browser:
    def __enter__(self) -> "Browser":
        self.home = tempfile.TemporaryDirectory()
        fonts = Path(self.home.name) / "fonts.conf"
        fonts.write_text(FONTS)
        libraries = PLACE / "usr/lib/x86_64-linux-gnu"
        environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": self.home.name,
            "LANG": "C.UTF-8",
            "TZ": "UTC",
            "LD_LIBRARY_PATH": f"{libraries}:{libraries}/pulseaudio",
            "FONTCONFIG_FILE": str(fonts),
        }
        command = [
            BROWSER,
            "--remote-debugging-pipe",
            f"--user-data-dir={self.home.name}/profile",
            # For root, which has none; it opens our own pages alone.
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--no-first-run",
            "--disable-background-networking",
            "about:blank",
        ]
        (commands, self.commands), (self.answers, answers) = os.pipe(), os.pipe()

        def pipes() -> None:
            """The protocol's: it reads from the descriptor 3, and writes to 4."""
            high = [fcntl.fcntl(one, fcntl.F_DUPFD, 10) for one in (commands, answers)]
            for own, wanted in zip(high, (3, 4)):
                os.dup2(own, wanted)

        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, env=environment, close_fds=False, preexec_fn=pipes, **quiet)
        os.close(commands)
        os.close(answers)
        self.numbers = itertools.count(1)
        self.waiting: dict[int, queue.Queue] = {}
        self.pages: dict[str, Page] = {}
        threading.Thread(target=self.read, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.commands)
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.home.cleanup()

    def read(self) -> None:
        rest = b""
        while piece := os.read(self.answers, 1 << 16):
            *messages, rest = (rest + piece).split(b"\0")
            for message in map(json.loads, messages):
                if "id" in message:
                    self.waiting[message["id"]].put(message)
                elif page := self.pages.get(message.get("sessionId", "")):
                    page.hear(message["method"], message["params"])
        for one in self.waiting.values():
            one.put({"error": {"message": "the browser has ended"}})

    def call(self, method: str, session: str | None = None, **parameters: object) -> dict:
        number = next(self.numbers)
        answer = self.waiting[number] = queue.Queue()
        message = {"id": number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self.commands, json.dumps(message).encode() + b"\0")
        found = answer.get(timeout=ANSWER_SECS)
        del self.waiting[number]
        if "error" in found:
            raise Failed(f"{method}: {found['error']['message']}")
        return found["result"]

    def page(self) -> "Page":
        """A tab in a profile of its own, which shares nothing with others."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self.pages[session] = Page(self, session)
        for domain in ("Page", "Network", "Runtime", "Log", "Audits", "Performance"):
            page.call(f"{domain}.enable")
        return page


class Page:
    def __init__(self, browser: Browser, session: str):
        self.browser, self.session = browser, session
        # Addresses that were requested, bytes that came, and complaints: of the console, exceptions, policies.
        self.requested: list[str] = []
        self.bytes = 0
        self.complaints: list[str] = []

    def call(self, method: str, **parameters: object) -> dict:
        return self.browser.call(method, self.session, **parameters)

    def hear(self, event: str, told: dict) -> None:
        match event:
            case "Network.requestWillBeSent":
                self.requested.append(told["request"]["url"])
            case "Network.loadingFinished":
                self.bytes += told["encodedDataLength"]
            case "Runtime.exceptionThrown":
                self.complaints.append(told["exceptionDetails"]["exception"].get("description", "an exception"))
            case "Runtime.consoleAPICalled":
                self.complaints.append(f"console.{told['type']}: {told['args']}")
            case "Log.entryAdded":
                entry = told["entry"]
                # That a request was refused is what a walk may be about.
                if entry["level"] in ("error", "warning") and entry["source"] != "network":
                    self.complaints.append(f"{entry['source']}: {entry['text']}")
            case "Audits.issueAdded":
                if told["issue"]["code"] == "ContentSecurityPolicyIssue":
                    self.complaints.append(f"the page's policy: {told['issue']['details']}")

    def evaluate(self, script: str) -> object:
        """The value of an expression, which may be a promise."""
        done = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in done:
            details = done["exceptionDetails"]
            raise Failed(f"{script[:200]}: {details.get('exception', {}).get('description', details['text'])}")
        return done["result"].get("value")

    def wait(self, script: str, secs: float = READY_SECS) -> None:
        """Waits until an expression is something. A page that is being replaced is nothing."""
        until = time.monotonic() + secs
        while True:
            try:
                if self.evaluate(f"Boolean({script})"):
                    return
            except Failed:
                pass
            if time.monotonic() > until:
                text = self.evaluate("document.body.innerText")
                raise Failed(f"not so after {secs:g} s: {script}\n{self.evaluate('location.href')}\n{text}")
            time.sleep(0.05)

    def open(self, address: str) -> None:
        # A new document also where only the fragment is another.
        self.call("Page.navigate", url="about:blank")
        self.wait("location.href === 'about:blank' && document.readyState === 'complete'")
        self.call("Page.navigate", url=address)
        self.wait("location.href !== 'about:blank' && document.readyState === 'complete'")

    def look(self, width: int, dark: bool) -> None:
        """How wide the window is, and which colours are preferred."""
        metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def press(self, key: str) -> None:
        # A form is submitted by the character that the key gives.
        number, text = {"Tab": (9, ""), "Enter": (13, "\r")}[key]
        for kind in ("keyDown", "keyUp"):
            given = {"text": text} if kind == "keyDown" and text else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=number, **given)

    def picture(self, tallest: int) -> bytes:
        """A PNG of the page from its top."""
        height = min(tallest, self.evaluate("document.documentElement.scrollHeight"))
        width = self.evaluate("innerWidth")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        taken = self.call("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        return base64.b64decode(taken["data"])
