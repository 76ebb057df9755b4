"""Makes each operator event happen on a local cloud, and sees it arrive at a site by SNS and in a queue by EventBridge. Before
that, the table refuses most writes for some seconds while attestations are pushed, and in the end all have arrived once.

    .venv/sam/bin/python infra/local/events.py

On a cloud of its own, whose reconciler runs every five seconds, and whose functions ask it through a proxy.
"""

import http.server
import json
import re
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cloud import ROOT
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from deploy import client
from faults import Throttled
from traffic.api import Api
from traffic.arrivals import message_id
from traffic.attestations import envelope
from traffic.report import say
from traffic.stack import STACK, Stack

WORKFLOW = "shop/nightly"
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
ARRIVAL_SECS = 60
SCHEDULE_SECS = 5
# Shares of the table's writes that are refused, each for so many seconds: all for longer than a function repeats a
# write, so that requests fail, and then most.
THROTTLING = [(1.0, 9), (0.8, 6)]
# Each of an organization of its own, whose quota is ten.
PUSHERS = 4
MOST_PUSHES = 7


class Site(http.server.BaseHTTPRequestHandler):
    """A third party that answers as it is told at one path, and an endpoint that a topic posts to."""

    status = 200
    told: list[str] = []
    confirmations: list[str] = []
    received: Counter[str] = Counter()
    spans: list[dict] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        status = self.status if self.path == "/hook" else 200
        if self.path == "/v1/traces":
            for resource in json.loads(body)["resourceSpans"]:
                self.spans.extend(resource["scopeSpans"][0]["spans"])
        elif self.path == "/topic":
            message = json.loads(body)
            if message["Type"] == "SubscriptionConfirmation":
                self.confirmations.append(message["Token"])
            else:
                self.told.append(json.loads(message["Message"]))
        elif status == 200:
            self.received[self.headers["webhook-id"]] += 1
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class Told(Stack):
    """A stack whose alarms go to a topic that a site subscribes to."""

    def __init__(self, url: str):
        super().__init__(ROOT / ".local/events", ephemeral=True)
        self.url = url

    def start(self) -> None:
        self.cloud.choose_port()
        self.table = Throttled(self.cloud.url, seed=1).__enter__()
        options = ["--ephemeral", "--schedule-secs", str(SCHEDULE_SECS), "--endpoint", self.table.url]
        self.script(sys.executable, "cloud.py", "up", *options)
        sns = client(self.cloud, "sns")
        self.topic = sns.create_topic(Name="on-call")["TopicArn"]
        sns.subscribe(TopicArn=self.topic, Protocol="http", Endpoint=self.url)
        wait("the topic's question", lambda: Site.confirmations)
        sns.confirm_subscription(TopicArn=self.topic, Token=Site.confirmations[0])

    def deploy(self, **parameters: str) -> None:
        endpoint = self.url.removesuffix("/topic")
        super().deploy(AlarmTopicArn=self.topic, Quotas="attestations=10", OtlpEndpoint=endpoint, **parameters)

    def listen(self) -> None:
        """A rule of EventBridge as an operator writes it."""
        sqs, events = client(self.cloud, "sqs"), client(self.cloud, "events")
        self.queue = sqs.create_queue(QueueName="heard")["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=self.queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        events.put_rule(Name="heard", EventPattern=json.dumps({"source": ["chainloop-integrations"]}))
        events.put_targets(Rule="heard", Targets=[{"Id": "queue", "Arn": arn}])

    def heard(self) -> list[dict]:
        answer = client(self.cloud, "sqs").receive_message(QueueUrl=self.queue, MaxNumberOfMessages=10)
        events = [json.loads(message["Body"]) for message in answer.get("Messages", [])]
        # The emulator's schedule runs rules that have none, too.
        return [event for event in events if event["source"] == "chainloop-integrations"]

    def lines(self, function: str) -> list[str]:
        """The log of a function."""
        logs = client(self.cloud, "logs").get_paginator("filter_log_events")
        pages = logs.paginate(logGroupName=f"/aws/lambda/{STACK}-{function}")
        return [event["message"] for page in pages for event in page["events"]]

    def metrics(self, name: str) -> int:
        """The sum of a metric in the log of the function that delivers to webhooks."""
        lines = [json.loads(line) for line in self.lines("deliver-webhook") if '"CloudWatchMetrics"' in line]
        return sum(line.get(name, 0) for line in lines if line["Stack"] == STACK)


def wait(what: str, ready, secs: float = ARRIVAL_SECS):
    until = time.monotonic() + secs
    while not (found := ready()):
        if time.monotonic() > until:
            sys.exit(f"{what}: not there after {secs:g} s")
        time.sleep(0.3)
    return found


def expect(what: str, found: object, expected: object) -> None:
    if found != expected:
        sys.exit(f"{what}: expected {expected!r}, found {found!r}")


class Walk:
    def __init__(self, stack: Told, api: Api, registration: str):
        self.stack, self.api, self.registration = stack, api, registration
        self.runs = 0
        self.events: list[dict] = []

    def push(self, number: int) -> None:
        for _ in range(number):
            self.runs += 1
            self.api.call("POST", "/attestations", envelope(WORKFLOW, f"run-{self.runs}"))

    def arrives(self, event: str, title: str, count: int | None = None) -> None:
        def heard() -> dict | None:
            self.events += self.stack.heard()
            return next((one for one in self.events if one["detail"]["event"] == event), None)

        found = wait(f"{event} by EventBridge", heard)
        expect(f"{event}: its detail-type", found["detail-type"], title)
        detail = found["detail"]
        expect(f"{event}: its stack", detail["stack"], STACK)
        if count:
            expect(f"{event}: its count", detail["count"], count)
        wait(f"{event} at the site: {detail['summary']}", lambda: detail["summary"] in Site.told)
        say(detail["summary"])


class Pusher:
    """Pushes attestations of one organization by the command line, while the table refuses writes."""

    def __init__(self, stack: Told, organization: str, base: str):
        self.stack, self.organization = stack, organization
        api = Api(stack.api, stack.token(organization))
        api.attach(api.register("hook", f"{base}/{organization}"), WORKFLOW)
        self.accepted: list[dict] = []
        self.refused: list[str] = []
        # Requests, by the status of their answers.
        self.answers: Counter[str] = Counter()

    def push(self, path: str) -> bool:
        done = self.stack.chainloop(self.organization, "attestation", "push", path, "--debug", "-o", "json")
        self.answers.update(re.findall(r"^DBG POST .*: (\d{3}),", done.stderr, re.MULTILINE))
        if done.returncode == 0:
            self.accepted.append(json.loads(done.stdout))
        elif "try again" not in done.stderr:
            sys.exit(f"a push was refused without a word on what to do: {done.stderr}")
        return done.returncode == 0

    def push_while(self, is_going) -> None:
        for run in range(MOST_PUSHES):
            if not is_going():
                break
            path = str(self.stack.directory / f"{self.organization}-{run}.json")
            Path(path).write_bytes(envelope(WORKFLOW, f"{self.organization}-{run}"))
            if not self.push(path):
                self.refused.append(path)


def throttle(stack: Told, base: str) -> list[Pusher]:
    """Refuses most of the table's writes while attestations are pushed. What was refused is pushed again then."""
    pushers = [Pusher(stack, f"throttled-{number}", base) for number in range(PUSHERS)]
    stack.table.share = THROTTLING[0][0]
    with ThreadPoolExecutor(PUSHERS) as pool:
        pushing = [pool.submit(pusher.push_while, lambda: stack.table.share) for pusher in pushers]
        for stack.table.share, secs in THROTTLING:
            time.sleep(secs)
        stack.table.share = 0.0
        for one in pushing:
            one.result()
    given = sum(stack.table.given.values())
    accepted, refused = (sum(map(len, lists)) for lists in zip(*((one.accepted, one.refused) for one in pushers)))
    answers = sum((pusher.answers for pusher in pushers), Counter())
    secs = sum(secs for _, secs in THROTTLING)
    say(f"{given} writes throttled in {secs} s: {dict(stack.table.given)}")
    say(f"{accepted} pushes accepted, {refused} refused; answers: {dict(answers)}")
    if not accepted or not answers["503"]:
        sys.exit("throttling has to be so that some pushes are accepted, and some answered 503")
    for pusher in pushers:
        for path in pusher.refused:
            if not pusher.push(path):
                sys.exit(f"{path} is refused, although the table takes writes")
    return pushers


def settle(stack: Told, pushers: list[Pusher]) -> int:
    """Waits until all that was accepted has arrived, once each. Returns how many deliveries that were."""
    deliveries = [one["id"] for pusher in pushers for push in pusher.accepted for one in push["deliveries"]]
    messages = [message_id(id) for id in deliveries]
    wait("each delivery at the site", lambda: all(Site.received[message] for message in messages))
    for pusher in pushers:
        audited = stack.chainloop(pusher.organization, "delivery", "audit")
        if audited.returncode:
            sys.exit(f"the audit of {pusher.organization}: {audited.stdout}{audited.stderr}")
    if twice := [message for message in messages if Site.received[message] != 1]:
        sys.exit(f"delivered more than once: {twice}")
    refusals = sum("The platform could not be reached" in line for line in stack.lines("attestations"))
    returned = sum("Gave a message back" in line for line in stack.lines("deliver-webhook"))
    say(f"all {len(messages)} deliveries arrived once; in the logs: {refusals} refusals, {returned} messages given back")
    if not refusals:
        sys.exit("a table that refuses is not in the log")
    return len(messages)


def ends_in(secs: int) -> str:
    """The certificate of an authority that ends then, in PEM."""
    key = Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "authority")])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    made = made.not_valid_before(now).not_valid_after(now + timedelta(seconds=secs))
    made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return made.sign(key, None).public_bytes(Encoding.PEM).decode()


def main() -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{server.server_port}"

    with Told(f"{base}/topic") as stack:
        stack.listen()
        api = Api(stack.api, stack.token("default"))
        registration = api.register("hook", f"{base}/hook")
        api.attach(registration, WORKFLOW)
        walk = Walk(stack, api, registration)
        pushers = throttle(stack, base)
        api.post("/tokens", {"name": "nightly", "role": "viewer", "expires_in_secs": 60})
        api.post("/intakes", {"name": "production", "expires_in_secs": 60})
        cas = {"cas_url": "https://cas.example.org", "cas_token": "unused", "cas_ca_certificates": ends_in(secs=60)}
        api.post("/intakes", {"name": "staging"} | cas)

        Site.status = 400
        api.headers["traceparent"] = f"00-{TRACE}-{SPAN}-01"
        walk.push(1)
        api.headers.clear()
        walk.arrives("delivery-failed", "Delivery Failed", 1)
        wait("the spans of a push and of its attempt", lambda: len(Site.spans) == 2)
        push, attempt = Site.spans
        expect("the trace of both", {push["traceId"], attempt["traceId"]}, {TRACE})
        expect("a push within its sender's span", (push["name"], push["parentSpanId"]), ("POST /v1/attestations", SPAN))
        within = ("deliver", push["spanId"], 2)
        told = (attempt["name"].split()[0], attempt["parentSpanId"], attempt["status"]["code"])
        expect("a failed attempt within the push's span", told, within)
        say("one trace from the push to the attempt")
        Site.status = 503
        walk.push(5)
        walk.arrives("circuit-open", "Circuit Open")
        Site.status = 200
        walk.arrives("circuit-closed", "Circuit Closed")
        api.post(f"/registrations/{registration}/pause", {"reason": "maintenance"})
        api.post(f"/registrations/{registration}/resume", {"per_second": 50})
        walk.arrives("registration-paused", "Registration Paused")
        walk.arrives("registration-resumed", "Registration Resumed")
        walk.push(3)
        walk.arrives("quota-near", "Quota Near")
        walk.arrives("token-expiring", "Token Expiring")
        walk.arrives("intake-expiring", "Intake Expiring")
        walk.arrives("certificate-expiring", "Certificate Expiring")

        throttled = settle(stack, pushers)
        # What the alarms look at.
        wait("a failed delivery in the metrics", lambda: stack.metrics("Failed") == 1)
        wait("deliveries in the metrics", lambda: stack.metrics("Delivered") == 8 + throttled)
        if stack.metrics("Retried") < 5:
            sys.exit("five deliveries were retried, and the metrics have fewer")
    say("all as expected")


if __name__ == "__main__":
    main()
