"""Walks through the console in a browser, on a local cloud: finds a failed delivery, sees why, delivers it again.

    .venv/sam/bin/python infra/local/console.py [--keep]

On a cloud of its own. Looks besides whether names from outside stay text, whether anything leaves the API's origin,
whether axe-core finds what keeps people out, in light and dark, wide and narrow, and how long the first view takes.
REFRESH=1 writes the pictures of docs/console.md. With --keep the stack stays, for a person to look at.
"""

import argparse
import base64
import hashlib
import http.server
import json
import os
import re
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from urllib.parse import urlencode

from browser import BROWSER, Browser, Failed, Page
from cloud import ROOT
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from provider import CLIENT, Provider
from traffic.api import Api
from traffic.attestations import Sbom, envelope
from traffic.report import say
from traffic.stack import Stack

AXE = ROOT / ".venv/axe/node_modules/axe-core/axe.min.js"
# As infra/test.sh takes it.
NOT_RUN = 77
# Pictures of docs/console.md: view, width, dark, and height at most.
FOLDER = ROOT / "docs/console"
PICTURES = {
    "deliveries": ("deliveries", 1280, False, 900),
    "delivery": ("delivery", 1280, True, 800),
    "attestation": ("attestation", 1280, False, 1000),
    "narrow": ("deliveries", 360, False, 900),
}
PICTURE_MAX_BYTES = 150_000
# Of every page, for whoever wants to see it.
LOOKED_AT = ROOT / ".local/console-pictures"
WIDTHS = (360, 1280)
FIRST_VIEW_MAX_BYTES = 100_000
SCHEDULE_SECS = 3
ENDS_IN_SECS = 60

MARKUP = "<img src=x onerror=alert(1)>"
# What turns the reading direction, and hides. The API refuses control characters in names, and not elsewhere.
HIDDEN = "exe\u202egnp.\u200b"
BELL = "rings\u0007"
HEBREW = "חנות"
GERMAN = "Rindfleischetikettierungsüberwachungsaufgabenübertragungsgesetzprüfungskommission"
WHY = "quota of this project is used up"
PROVIDER = "login.identity.example.org"


class Site(http.server.BaseHTTPRequestHandler):
    """A third party that answers as it is told."""

    status = 200

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        is_refused = self.status >= 400 and "open" not in self.path
        body = f"{WHY} {MARKUP} {HIDDEN}".encode() if is_refused else b"{}"
        self.send_response(self.status if is_refused else 200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Own(Stack):
    """With a provider to sign in at."""

    provider: Provider

    def deploy(self, **parameters: str) -> None:
        provider = {"SignInIssuer": self.provider.issuer, "SignInClientId": CLIENT, "SignInScopes": "openid,groups"}
        super().deploy(**provider, **parameters)

    def start(self) -> None:
        self.script(sys.executable, "cloud.py", "up", "--ephemeral", "--schedule-secs", str(SCHEDULE_SECS))

    def open(self, *words: str) -> str:
        """The address that `chainloop open` prints."""
        done = self.chainloop("default", "open", "--print", *words)
        if done.returncode:
            sys.exit(f"chainloop open {words}: {done.stderr}")
        return done.stdout.strip()


def expect(what: str, is_so: object) -> None:
    if not is_so:
        raise Failed(what)


def signed(document: bytes, key: ec.EllipticCurvePrivateKey) -> bytes:
    """An envelope with a signature by a key."""
    said = json.loads(document)
    kind, payload = said["payloadType"], base64.b64decode(said["payload"])
    text = b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)
    signature = key.sign(text, ec.ECDSA(hashes.SHA256()))
    said["signatures"] = [{"keyid": "", "sig": base64.b64encode(signature).decode()}]
    return json.dumps(said).encode()


class Shop:
    """An organization with something of everything."""

    def __init__(self, stack: Own, site: str):
        self.api = api = Api(stack.api, stack.token("default"))
        self.key = ec.generate_private_key(ec.SECP256R1())
        pem = self.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        signer = {"kind": "key", "name": "release", "pem": pem}
        policy = {"name": "release", "workflow": "shop/*", "mode": "warn", "threshold": 1, "signers": [signer]}
        api.post("/trust-policies", policy)
        self.hook = api.register("build-events", f"{site}/hook")
        self.archive = api.register("evidence-archive", f"{site}/open")
        self.mirror = api.register("audit-mirror", f"{site}/open")
        about = {"description": f"Keeps SBOMs for ten years. {GERMAN}"}
        api.call("PATCH", f"/registrations/{self.archive}", json.dumps(about).encode())
        api.attach(self.hook, "*")
        api.attach(self.archive, "shop/*", send_attestation=True, send_sbom=True)
        self.hostile = ""
        self.sbom = Sbom.of(20_000, seed=1)
        api.upload(self.sbom.digest, self.sbom.content)

    def push(self, workflow: str, run: str, **more: object) -> str:
        document = signed(envelope(workflow, run, **more), self.key)
        return self.api.call("POST", "/attestations", document)["attestation"]

    def ends(self, attestation: str) -> list[dict]:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            found = self.api.pages("/deliveries", attestation=attestation)
            if found and all(one["state"] in ("delivered", "failed", "skipped", "cancelled") for one in found):
                return found
            time.sleep(0.2)
        raise Failed(f"not final: {found}")

    def fill(self) -> None:
        """Delivered and failed, with long names and names from right to left."""
        for run in range(1, 6):
            self.ends(self.push("shop/nightly", f"build-{run}", sbom=self.sbom))
        self.ends(self.push(f"{HEBREW}/{HEBREW} לילית", "1"))
        self.ends(self.push(f"behörde/{GERMAN}", "1"))
        Site.status = 400
        self.release = self.push("shop/release", "v1.4.2", sbom=self.sbom)
        self.failed = next(one for one in self.ends(self.release) if one["registration"] == self.hook)
        expect(f"it failed: {self.failed}", self.failed["state"] == "failed")
        Site.status = 200
        self.api.post("/audits", {})
        until = time.monotonic() + 60
        while not any(job["kind"] == "audit" and job["state"] == "done" for job in self.api.pages("/jobs")):
            expect("an audit ends", time.monotonic() < until)
            time.sleep(0.2)
        self.api.post(f"/registrations/{self.mirror}/pause", {"reason": "maintenance until Friday"})


    def fill_hostile(self) -> None:
        """Names that want to be more than text."""
        self.hostile = self.push(f"{MARKUP}/{HIDDEN}", BELL)
        self.ends(self.hostile)
        self.api.post(f"/registrations/{self.mirror}/resume", {})
        self.api.post(f"/registrations/{self.mirror}/pause", {"reason": f"{MARKUP} {HIDDEN}"})


class Walk:
    def __init__(self, stack: Own, shop: Shop, browser: Browser):
        self.stack, self.shop, self.browser = stack, shop, browser
        self.base = f"{stack.api}/console"
        self.pages: list[Page] = []

    def page(self, address: str) -> Page:
        page = self.browser.page()
        self.pages.append(page)
        page.look(1280, dark=False)
        page.open(address)
        return page

    def at(self, page: Page, **query: str) -> None:
        """Shows a view by its address."""
        page.open(f"{self.base}?{urlencode(query)}")
        self.shown(page)

    def shown(self, page: Page) -> None:
        page.wait("document.readyState === 'complete' && document.querySelector('#status')?.textContent === 'Loaded'")

    def text(self, page: Page) -> str:
        return page.evaluate("document.querySelector('main').innerText")

    def buttons(self, page: Page) -> set[str]:
        return set(page.evaluate("[...document.querySelectorAll('button')].map((one) => one.textContent)"))

    def click(self, page: Page, button: str) -> None:
        found = f"[...document.querySelectorAll('button')].findLast((one) => one.textContent === {json.dumps(button)})"
        page.wait(found)
        page.evaluate(f"{found}.click()")

    def sure(self, page: Page, button: str) -> None:
        """Presses a button that asks, and says yes."""
        self.click(page, button)
        page.wait("document.querySelector('dialog[open] form button')")
        page.evaluate("document.querySelector('dialog form button').click()")

    # --- what happens ------------------------------------------------------------------------------------

    def sign_in(self) -> Page:
        page = self.page(self.base)
        page.wait("document.querySelector('h1')?.textContent === 'Sign in'")
        expect("the field hides the token", page.evaluate("document.querySelector('#token').type === 'password'"))
        expect("it says how to get one", "chainloop open" in self.text(page))
        self.type(page, "cli_of-nobody")
        page.wait("document.querySelector('main').innerText.includes('expired, or is unknown')")
        expect("the wrong token is forgotten", page.evaluate("sessionStorage.length === 0"))
        text = self.stack.open().partition("#token=")[2]
        self.type(page, text)
        self.shown(page)
        expect("signed in", "Deliveries" in self.text(page))
        self.click(page, "Sign out")
        page.wait("document.querySelector('#token')")
        expect("signed out", page.evaluate("sessionStorage.length === 0"))
        say("signed in and out by the form")
        return page

    def type(self, page: Page, text: str) -> None:
        page.evaluate(f"document.querySelector('#token').value = {json.dumps(text)}")
        self.click(page, "Sign in")

    # --- by the identity provider --------------------------------------------------------------------------

    def by_provider(self, page: Page, organization: str = "default") -> None:
        """Presses the button that leads to the provider, which sends the browser back at once."""
        button = f"Sign in with {self.stack.provider.issuer.removeprefix('http://')}"
        page.wait("document.querySelector('#organization')")
        page.evaluate(f"document.querySelector('#organization').value = {json.dumps(organization)}")
        self.click(page, button)

    def refused_by(self, page: Page, part: str) -> None:
        page.wait(f"document.querySelector('[role=alert]')?.textContent.includes({json.dumps(part)})")
        left = page.evaluate("[...new URLSearchParams(location.search).keys()]")
        expect(f"what the provider sent is out of the address: {left}", not {"code", "error", "iss"} & set(left))
        expect("nobody is signed in", page.evaluate("sessionStorage.length === 0"))

    def as_person(self) -> Page:
        provider = self.stack.provider
        rules = [
            {"claims": {"groups": {"exact": "on-call"}}, "role": "operator"},
            {"claims": {"groups": {"exact": "everybody"}}, "role": "viewer"},
        ]
        issuer = {"name": "people", "issuer": provider.issuer, "audience": CLIENT, "rules": rules}
        self.shop.api.post("/issuers", issuer)
        deep = f"{self.base}?{urlencode({'registrations': 'evidence-archive'})}"
        page = self.page(deep)
        provider.person = {"sub": "00u1", "groups": ["everybody", "on-call"]}
        self.by_provider(page)
        self.shown(page)
        address = page.evaluate("location.href")
        expect(f"signed in where it began: {address}", address == deep)
        expect("and sees it", "evidence-archive" in self.text(page))
        bearer = page.evaluate("document.querySelector('#bearer').innerText")
        expect(f"with the group's role: {bearer}", "people, operator" in bearer)
        expect("the button to act is there", "Pause" in self.buttons(page))
        kept = page.evaluate("Object.keys(sessionStorage)")
        expect(f"the tab keeps the token alone: {kept}", kept == ["chainloop-token"])
        self.click(page, "Sign out")
        provider.person = {"sub": "00u2", "groups": ["everybody"]}
        self.by_provider(page)
        self.shown(page)
        expect("the last organization is remembered, and a viewer views", "Pause" not in self.buttons(page))
        self.click(page, "Sign out")
        provider.person = {"sub": "00u3", "groups": ["strangers"]}
        self.by_provider(page)
        self.refused_by(page, 'no rule of the organization "default" lets you in')
        expect("what it was about stays", page.evaluate("location.href") == deep)
        self.by_provider(page, "nobodys")
        self.refused_by(page, 'There is no organization "nobodys"')
        provider.error = {"error": "access_denied", "error_description": "The user said no"}
        self.by_provider(page)
        self.refused_by(page, "denied access")
        provider.error = {"error": "temporarily_unavailable", "error_description": f"{MARKUP} {HIDDEN}"}
        self.by_provider(page)
        self.refused_by(page, f"temporarily_unavailable: {MARKUP} exe⟨U+202E⟩gnp.⟨U+200B⟩")
        provider.error, provider.nonce = {}, "of-another-sign-in"
        self.by_provider(page)
        self.refused_by(page, "its nonce is not that of this one")
        provider.nonce = ""
        say("signed in by the identity provider, and each refusal told")
        return page

    def of_another_tab(self, page: Page) -> None:
        """An address with a code that this tab did not ask for: an attacker's, or a thief's."""
        for query in ({"code": "c", "state": "s"}, {"error": "access_denied", "state": "s"}):
            page.open(f"{self.base}?{urlencode(query)}")
            self.refused_by(page, "was not begun in this tab")
        # Begun here, and the state is another: what was begun ends.
        begun = {name: "x" * 43 for name in ("verifier", "nonce")} | {"place": "?registrations"}
        page.evaluate(f"sessionStorage.setItem('chainloop-sign-in', {json.dumps(json.dumps(begun))})")
        page.open(f"{self.base}?{urlencode({'code': 'c', 'state': 's'})}")
        self.refused_by(page, "was not begun in this tab")
        # The function refuses by itself what the page let through.
        brought = {"code": "c", "state": "s", "verifier": "x" * 43, "nonce": "x" * 43, "redirect_uri": self.base}
        for body in (brought, {name: value for name, value in brought.items() if name != "state"}):
            request = urllib.request.Request(f"{self.base}/sign-in", json.dumps(body).encode(), method="POST")
            try:
                urllib.request.urlopen(request, timeout=30)
                raise Failed("the function took a state of another sign-in")
            except urllib.error.HTTPError as refused:
                problem = json.loads(refused.read())
                expect(f"{refused.code} {problem}", (refused.code, problem["code"]) == (400, "sign-in-refused"))
        say("a code of another tab is refused by the page and by the function")

    def as_viewer(self) -> None:
        page = self.page(self.stack.open())
        self.shown(page)
        expect("the token is out of the address", page.evaluate("location.href") == self.base)
        self.at(page, delivery=self.shop.failed["id"])
        buttons = self.buttons(page)
        self.at(page, registrations=self.shop.hook)
        buttons |= self.buttons(page)
        expect(f"a viewer gets no button that changes something: {buttons}", buttons == {"Copy", "Sign out"})
        say("a viewer looks, and changes nothing")

    def as_operator(self) -> Page:
        """The way of somebody who is on call."""
        page = self.page(self.stack.open("--act"))
        self.shown(page)
        text = self.text(page)
        for part in ("audit-mirror was paused", "attestations accounted for, 0 not", "failed", "answered 400"):
            expect(f"the first view says: {part}\n{text}", part in text)
        first = "document.querySelector('tbody tr')"
        expect("failed deliveries stand first", page.evaluate(f"{first}.innerText.includes('failed')"))
        page.evaluate(f"{first}.querySelector('a').click()")
        page.wait("document.querySelector('h1')?.textContent.startsWith('Delivery')")
        self.shown(page)
        text = self.text(page)
        for part in ("status 400", "build-events", "shop/release", "Attempt 1"):
            expect(f"the delivery says: {part}\n{text}", part in text)
        answer = page.evaluate("document.querySelector('.timeline pre').textContent")
        expect(f"the third party's words are text: {answer!r}", f"{WHY} {MARKUP}" in answer)
        failed = page.evaluate("location.search")
        self.sure(page, "Redeliver")
        page.wait(f"location.search !== {json.dumps(failed)} && document.querySelector('h1 .badge')")
        page.wait("document.querySelector('h1 .badge').textContent === 'delivered'", 30)
        say("failed, why, redelivered, delivered")
        return page

    def filters(self, page: Page) -> None:
        self.at(page)
        page.evaluate("document.querySelector('[name=state]').value = 'delivered'")
        page.evaluate("document.querySelector('[name=workflow]').value = 'shop/nightly'")
        page.evaluate("document.querySelector('.filters').requestSubmit()")
        page.wait("location.search")
        self.shown(page)
        asked = page.evaluate("location.search")
        expect(f"the address has what is asked for: {asked}", asked == "?state=delivered&workflow=shop%2Fnightly")
        rows = page.evaluate("[...document.querySelectorAll('tbody tr')].map((one) => one.innerText)")
        fitting = [row for row in rows if "delivered" in row and "shop/nightly" in row]
        expect(f"all fit: {rows}", len(rows) == len(fitting) == 10)
        command = page.evaluate("document.querySelector('.command code').textContent")
        expect(command, command == "chainloop delivery list --state delivered --workflow shop/nightly")
        self.at(page, state="delivered", registration="build-events", since="1h")
        shown = page.evaluate("document.querySelector('[name=registration]').value")
        expect("the form shows the filter of the address", shown == "build-events")
        rows = page.evaluate("document.querySelectorAll('tbody tr').length")
        expect(f"as many as were delivered: {rows}", rows >= 8)
        self.at(page, registration="build-events", status="4xx")
        rows = page.evaluate("[...document.querySelectorAll('tbody tr')].map((one) => one.innerText)")
        expect(f"those that were refused: {rows}", rows and all("answered 400" in row for row in rows))
        command = page.evaluate("document.querySelector('.command code').textContent")
        expect(command, command == "chainloop delivery list --integration build-events --status 4xx")
        self.at(page, integration=self.shop.failed["integration"], until="1d")
        expect("an empty list says what to do", "Take a filter away" in self.text(page))
        page.open(f"{self.base}?since=yesterday")
        page.wait("document.querySelector('[role=alert]')")
        expect("a wrong filter is told", "such as 30m, 2h or 7d" in self.text(page))
        page.open(f"{self.base}?registration=nobody")
        page.wait("document.querySelector('[role=alert]')")
        say("filters are in the address")

    def attestation(self, page: Page) -> None:
        self.at(page, attestation=self.shop.release)
        text = self.text(page)
        digest = self.shop.sbom.digest
        signed = ("verified", "release: sha256:")
        material = ("SBOM_CYCLONEDX_JSON", digest, "kept, by its digest")
        for part in ("shop/release", "v1.4.2", *signed, *material, "delivered", "failed"):
            expect(f"the attestation says: {part}\n{text}", part in text)
        self.at(page, where=digest)
        text = self.text(page)
        for part in ("evidence-archive", "build-events", "its receipt names the digest"):
            expect(f"where says: {part}\n{text}", part in text)
        self.at(page, where=f"sha256:{hashlib.sha256(b'nothing').hexdigest()}")
        expect("an unknown digest is told", "No attestation that is kept" in self.text(page))
        page.open(f"{self.base}?delivery=nothing")
        page.wait("document.querySelector('[role=alert]')")
        expect("an unknown delivery is told, with what to do", "Check the address" in self.text(page))
        say("attestations, and where a digest went")

    def newcomer(self) -> None:
        """Why is the SBOM of an image missing? Asked with the image's digest alone; it was promised, and not uploaded."""
        image = f"sha256:{hashlib.sha256(b'an image').hexdigest()}"
        sbom = Sbom.of(1_000, seed=2)
        self.shop.push("shop/nightly", "build-6", sbom=sbom, image=image)
        page = self.page(self.stack.open())
        self.shown(page)
        page.evaluate("[...document.querySelectorAll('nav a')].find((one) => one.textContent === 'Where').click()")
        page.wait("document.querySelector('[name=where]')")
        page.evaluate("document.querySelector('[name=where]').focus()")
        page.call("Input.insertText", text=image)
        page.press("Enter")
        page.wait("new URLSearchParams(location.search).get('where')")
        self.shown(page)
        until = time.monotonic() + 30
        while f"waiting for {sbom.digest}, which is not uploaded yet" not in self.text(page):
            expect(f"the third step says why:\n{self.text(page)}", time.monotonic() < until)
            time.sleep(1)
            page.evaluate("location.reload()")
            self.shown(page)
        LOOKED_AT.mkdir(parents=True, exist_ok=True)
        (LOOKED_AT / "newcomer.png").write_bytes(page.picture(tallest=3000))
        say("why an SBOM is missing, in three steps: open, Where, paste")

    def registrations(self, page: Page) -> None:
        self.at(page, registrations="")
        expect("all are there", page.evaluate("document.querySelectorAll('tbody tr').length") == 3)
        self.at(page, registrations="evidence-archive")
        text = self.text(page)
        for part in ("shop/*", "closed", "Last delivered", "6 delivered"):
            expect(f"the registration says: {part}\n{text}", part in text)
        expect("with bars", page.evaluate("document.querySelectorAll('svg.bars rect').length") >= 1)
        self.click(page, "Pause")
        page.wait("document.querySelector('dialog[open] [name=reason]')")
        page.evaluate("document.querySelector('[name=reason]').value = 'while we move'")
        page.evaluate("document.querySelector('dialog form button').click()")
        page.wait("document.querySelector('main').innerText.includes('while we move')")
        self.sure(page, "Resume")
        page.wait("document.querySelector('dd .badge')?.textContent === 'active'")
        self.sure(page, "Test")
        page.wait("document.querySelector('h1')?.textContent.startsWith('Delivery')")
        page.wait("document.querySelector('h1 .badge').textContent === 'delivered'", 30)
        say("tested, paused and resumed")

    def down(self, page: Page) -> None:
        """A destination that is down: its circuit opens, the others wait, and one of them is cancelled."""
        Site.status = 503
        pushed = [self.shop.push("shop/nightly", f"down-{run}") for run in range(8)]
        try:
            def told() -> bool:
                self.at(page)
                return "audit-mirror" in self.text(page) and "build-events is down" in self.text(page)

            until = time.monotonic() + 60
            while not told():
                expect("the first view says what is down", time.monotonic() < until)
                time.sleep(1)
            self.at(page, registrations="")
            expect("the list tells which is down", re.search(r"build-events.*down", self.text(page), re.DOTALL))
            self.at(page, registrations="build-events")
            is_open = "[...document.querySelectorAll('.box .badge')].some((one) => /open$/.test(one.textContent))"
            expect("the registration tells its circuit", "Failing since" in self.text(page) and page.evaluate(is_open))
            self.at(page, state="pending", registration="build-events")
            page.evaluate("document.querySelector('tbody tr a').click()")
            page.wait("document.querySelector('h1')?.textContent.startsWith('Delivery')")
            self.shown(page)
            self.sure(page, "Cancel")
            page.wait("document.querySelector('h1 .badge')?.textContent === 'cancelled'", 30)
        finally:
            Site.status = 200
        for one in pushed:
            for own in self.shop.api.pages("/deliveries", attestation=one):
                if own["state"] == "pending":
                    self.shop.api.post(f"/deliveries/{own['id']}/redeliver", {})
        say("a destination that is down is told, and what waits for it cancelled")

    def hostile(self, page: Page) -> None:
        self.at(page, attestation=self.shop.hostile)
        text = page.evaluate("document.querySelector('main').textContent")
        for part in (MARKUP, "exe⟨U+202E⟩gnp.⟨U+200B⟩", "rings⟨U+0007⟩"):
            expect(f"{part} is text: {text}", part in text)
        self.at(page)
        text = page.evaluate("document.querySelector('main').textContent")
        expect("hidden characters are shown", "⟨U+202E⟩" in text and "\u202e" not in text)
        elements = page.evaluate("document.querySelectorAll('main img, main script, main iframe').length")
        expect("nothing became markup", elements == 0)
        isolated = page.evaluate("[...document.querySelectorAll('bdi')].map((one) => one.textContent)")
        expect("a name from right to left stands by itself", any(one.startswith(HEBREW) for one in isolated))
        page.open(f"{self.base}?{urlencode({'delivery': MARKUP})}")
        page.wait("document.querySelector('[role=alert]')")
        expect("nor of the address", page.evaluate("document.querySelectorAll('main img').length") == 0)
        say("hostile names are text")

    def keyboard(self, page: Page) -> None:
        self.at(page)
        page.press("Tab")
        expect("the first key leads past the navigation", page.evaluate("document.activeElement.className") == "skip")
        seen = page.evaluate("document.activeElement.getBoundingClientRect().top >= 0")
        expect("and is seen", seen)
        reached = set()
        for _ in range(30):
            page.press("Tab")
            reached.add(page.evaluate("document.activeElement.name || document.activeElement.textContent"))
            outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            focused = page.evaluate("document.activeElement.outerHTML")
            expect(f"the focus is seen: {focused}", outline not in ("none", ""))
        for one in ("Registrations", "state", "Filter", "Sign out"):
            expect(f"the keyboard reaches {one}: {reached}", one in reached)
        say("by keyboard alone")

    def small(self) -> None:
        page = self.browser.page()
        self.pages.append(page)
        page.call("Network.setCacheDisabled", cacheDisabled=True)
        page.open(self.stack.open())
        self.shown(page)
        metrics = {one["name"]: one["value"] for one in page.call("Performance.getMetrics")["metrics"]}
        script, files = metrics["ScriptDuration"], [one for one in page.requested if "/v1/" not in one]
        took = f"{page.bytes:,} bytes with the API's answers, {script * 1000:.0f} ms of script"
        say(f"first view: {len(files)} files, {took}")
        expect("the first view is small", 0 < page.bytes < FIRST_VIEW_MAX_BYTES)

    def expired(self, ends_at: float) -> None:
        page = self.page(f"{self.base}?registrations#token={self.short}")
        if time.time() < ends_at:
            say(f"waits {ends_at - time.time():.0f} s for a token to end")
            time.sleep(max(0.0, ends_at - time.time()))
            page.open(f"{self.base}?registrations")
        page.wait("document.querySelector('main').innerText.includes('expired, or is unknown')")
        expect("it offers the form", page.evaluate("document.querySelector('#token') !== null"))
        self.type(page, self.stack.open().partition("#token=")[2])
        self.shown(page)
        expect("and goes on where it was", page.evaluate("document.querySelector('h1').textContent") == "Registrations")
        say("an expired token is told")

    def documents(self) -> None:
        """Takes the pictures of docs/console.md."""
        page = self.page(self.stack.open("--act"))
        for name, (view, width, dark, tallest) in PICTURES.items():
            page.look(width, dark)
            self.at(page, **self.views()[view])
            self.document(page, name, tallest)
        page = self.page(self.base)
        self.offers(page)
        self.document(page, "sign-in", 500)

    def document(self, page: Page, name: str, tallest: int) -> None:
        content = page.picture(tallest)
        expect(f"{name}: {len(content)} bytes are too many", len(content) < PICTURE_MAX_BYTES)
        FOLDER.mkdir(exist_ok=True)
        (FOLDER / f"{name}.png").write_bytes(content)

    def offers(self, page: Page) -> None:
        """Waits for the way to the provider, and gives that a name as they have it."""
        page.wait("document.querySelector('form.sign-in bdi')")
        page.evaluate(f"document.querySelector('form.sign-in bdi').textContent = {json.dumps(PROVIDER)}")

    # --- how it looks ------------------------------------------------------------------------------------

    def views(self) -> dict[str, dict[str, str]]:
        return {
            "deliveries": {},
            "filtered": {"state": "failed"},
            "delivery": {"delivery": self.shop.failed["id"]},
            "attestation": {"attestation": self.shop.release},
            "hostile": {"attestation": self.shop.hostile},
            "registrations": {"registrations": ""},
            "registration": {"registrations": self.shop.archive},
            "where": {"where": self.shop.sbom.digest},
        }

    def looks(self, page: Page, signed_out: Page, refused: Page) -> None:
        """Each view in light and dark, wide and narrow."""
        count = 0
        for dark in (False, True):
            for width in WIDTHS:
                for name, query in self.views().items():
                    page.look(width, dark)
                    self.at(page, **query)
                    self.look(page, name, width, dark)
                    count += 1
                signed_out.look(width, dark)
                signed_out.open(self.base)
                signed_out.wait("document.querySelector('#token')")
                self.offers(signed_out)
                self.look(signed_out, "sign-in", width, dark)
                refused.look(width, dark)
                refused.open(f"{self.base}?state=failed")
                self.by_provider(refused)
                self.refused_by(refused, "lets you in")
                refused.wait("document.querySelector('#organization')")
                self.look(refused, "sign-in-refused", width, dark)
                count += 2
        say(f"axe-core finds nothing in {count} pages")

    def look(self, page: Page, name: str, width: int, dark: bool) -> None:
        what = f"{name}, {width} px, {'dark' if dark else 'light'}"
        found = page.evaluate("document.documentElement.scrollWidth")
        expect(f"{what}: the page is {found} px wide", found <= width)
        self.axe(page, what)
        LOOKED_AT.mkdir(parents=True, exist_ok=True)
        (LOOKED_AT / f"{name}-{width}{'-dark' if dark else ''}.png").write_bytes(page.picture(tallest=3000))
        if name == "registration" and width == WIDTHS[0]:
            page.evaluate("[...document.querySelectorAll('button')].find((one) => one.textContent === 'Pause').click()")
            self.axe(page, f"{what}, with a question")

    def axe(self, page: Page, what: str) -> None:
        page.evaluate(AXE.read_text() + "; true")
        violations = page.evaluate("axe.run(document).then((found) => found.violations)")
        told = [f"{one['id']}: {one['help']}: {[node['html'] for node in one['nodes']][:3]}" for one in violations]
        expect(f"{what}:\n" + "\n".join(told), not told)

    def nothing_leaves(self) -> None:
        for page in self.pages:
            # Whoever signs in goes there, and the page does not ask it anything.
            own = (f"{self.stack.api}/", "about:", f"{self.stack.provider.issuer}/authorize?")
            elsewhere = [one for one in page.requested if not one.startswith(own)]
            expect(f"requested elsewhere: {elsewhere}", not elsewhere)
            expect(f"complaints: {page.complaints}", not page.complaints)
        say("nothing left the origin, and nothing was complained of")


def walk(stack: Own, shop: Shop, browser: Browser) -> None:
    own = Walk(stack, shop, browser)
    token = {"token": shop.api.token, "role": "viewer", "expires_in_secs": ENDS_IN_SECS}
    own.short = shop.api.post("/tokens/exchange", token)["text"]
    ends_at = time.time() + ENDS_IN_SECS + 1
    if os.environ.get("REFRESH"):
        own.documents()
    signed_out = own.sign_in()
    refused = own.as_person()
    own.of_another_tab(refused)
    own.as_viewer()
    page = own.as_operator()
    shop.fill_hostile()
    steps: list[Callable[[Page], None]] = [own.filters, own.attestation, own.registrations, own.hostile, own.keyboard]
    for step in steps:
        step(page)
    own.newcomer()
    own.small()
    own.looks(page, signed_out, refused)
    own.down(page)
    own.expired(ends_at)
    own.nothing_leaves()


def main() -> None:
    parser = argparse.ArgumentParser(description="Walks through the console in a browser.")
    parser.add_argument("--keep", action="store_true", help="keep the stack until Ctrl-C, for a person to look at")
    arguments = parser.parse_args()
    if not (BROWSER.exists() and AXE.exists()):
        print("not run: there is no browser here; infra/local/debian.sh chromium says why", file=sys.stderr)
        sys.exit(NOT_RUN)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Own.provider = Provider()
    with Own(ROOT / ".local/console", ephemeral=True) as stack:
        shop = Shop(stack, f"http://127.0.0.1:{server.server_port}")
        shop.fill()
        say("deployed and filled")
        try:
            with Browser() as browser:
                walk(stack, shop, browser)
        finally:
            if arguments.keep:
                print(stack.open("--act"), flush=True)
                threading.Event().wait()
    say("all as expected")


if __name__ == "__main__":
    main()
