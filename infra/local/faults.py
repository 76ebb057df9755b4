"""A proxy before a local cloud that gives answers that only AWS gives: throttling, conflicts, lost answers, hangs.

Each fault is one that AWS documents, in AWS's own words. A caller that behaves repeats the call, and finds what it asked for.
"""

import http.client
import http.server
import json
import random
import re
import threading
import time
from collections import Counter
from urllib.parse import urlsplit

# How many of the calls get a fault, and how many of the same kind of call in a row at most: callers give up some time.
SHARE = 0.3
IN_A_ROW = 2
# Longer than a caller of DynamoDB, SQS or Secrets Manager waits for one attempt.
HANG_SECS = 2.5
# How long a secret that was restored still counts as deleted.
LAG_CALLS = 2


class Call:
    """A request, with the service and the operation that it is for."""

    def __init__(self, handler: http.server.BaseHTTPRequestHandler):
        self.method, self.path = handler.command, handler.path
        self.headers = {name: value for name, value in handler.headers.items() if name.lower() != "connection"}
        self.body = handler.rfile.read(int(handler.headers.get("content-length", 0)))
        scope = re.search(r"Credential=[^/]+/\d+/[^/]+/([^/]+)/", handler.headers.get("authorization", ""))
        self.service = scope[1] if scope else "unsigned"
        self.operation = handler.headers.get("x-amz-target", "").split(".")[-1] or self.s3_operation()

    def s3_operation(self) -> str:
        query = urlsplit(self.path).query
        what = "Part" if "partNumber=" in query else "Upload" if "uploadId=" in query else "Object"
        return f"{self.method}{what}"

    def json(self) -> dict:
        return json.loads(self.body)

    def with_json(self, body: dict) -> "Call":
        changed = object.__new__(Call)
        changed.__dict__.update(self.__dict__, body=json.dumps(body).encode())
        changed.headers = {name: value for name, value in self.headers.items() if name.lower() != "content-length"}
        changed.headers["content-length"] = str(len(changed.body))
        return changed


class Answer:
    """A response; `cut` ends the connection after so many bytes of the body."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes, cut: int | None = None):
        self.status, self.headers, self.body, self.cut = status, headers, body, cut


LOST = Answer(0, {}, b"")


def refused(code: str, status: int = 400, **more: object) -> Answer:
    """An error as DynamoDB, SQS and Secrets Manager word it."""
    body = json.dumps({"__type": f"com.amazonaws#{code}", "message": "injected", **more}).encode()
    return Answer(status, {"content-type": "application/x-amz-json-1.0", "x-amzn-errortype": code}, body)


def refused_by_s3(code: str, status: int) -> Answer:
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>injected</Message></Error>'
    return Answer(status, {"content-type": "application/xml"}, body.encode())


class Proxy:
    """Passes calls on to a cloud at this address, or gives them a fault instead."""

    def __init__(self, cloud: str, seed: int):
        self.cloud = urlsplit(cloud)
        self.random = random.Random(seed)
        self.lock = threading.Lock()
        # Faults given, by their names; and how many calls of a kind got one in a row.
        self.given: Counter[str] = Counter()
        self.in_a_row: Counter[tuple[str, str]] = Counter()
        self.restored: Counter[str] = Counter()
        self.repeatable: dict[str, Answer] = {}
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                call = Call(self)
                answer = proxy.answer(call)
                if answer is LOST:
                    self.close_connection = True
                    return
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                if not (self.command == "HEAD" or "content-length" in {name.lower() for name in answer.headers}):
                    self.send_header("content-length", str(len(answer.body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(answer.body[: answer.cut])
                self.close_connection = self.close_connection or answer.cut is not None

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> "Proxy":
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def answer(self, call: Call) -> Answer:
        name = self.choose(call)
        if name is None:
            return self.passed_on(call)
        return getattr(self, name)(call)

    def choose(self, call: Call) -> str | None:
        """The name of the fault that this call gets, if any."""
        kind = (call.service, call.operation)
        with self.lock:
            if kind == ("secretsmanager", "PutSecretValue") and self.restored[secret(call)]:
                self.restored[secret(call)] -= 1
                self.given["still_deleted"] += 1
                return "still_deleted"
            able = FAULTS.get(kind, []) + FAULTS.get((call.service, "any"), [])
            # Those of which none was given yet come first, and at once, so that a run has all.
            rarest = min((self.given[name] for name in able), default=None)
            spared = rarest != 0 and self.random.random() > SHARE
            if rarest is None or spared or self.in_a_row[kind] >= IN_A_ROW:
                self.in_a_row[kind] = 0
                return None
            self.in_a_row[kind] += 1
            chosen = self.random.choice([name for name in able if self.given[name] == rarest])
            self.given[chosen] += 1
            return chosen

    def passed_on(self, call: Call) -> Answer:
        # Secrets Manager does nothing again for a token that it knows; emulators do.
        token = call.json().get("ClientRequestToken") if call.service == "secretsmanager" else None
        if token in self.repeatable:
            return self.repeatable[token]
        answer = self.asked(call)
        if token and answer.status == 200:
            self.repeatable[token] = answer
        return answer

    def asked(self, call: Call) -> Answer:
        """The cloud's own answer."""
        connection = http.client.HTTPConnection(self.cloud.hostname, self.cloud.port, timeout=60)
        try:
            connection.request(call.method, call.path, call.body, call.headers)
            response = connection.getresponse()
            body = response.read()
        finally:
            connection.close()
        skipped = {"connection", "transfer-encoding", "date", "server"}
        headers = {name: value for name, value in response.getheaders() if name.lower() not in skipped}
        if call.service == "secretsmanager" and call.operation == "RestoreSecret" and response.status == 200:
            with self.lock:
                self.restored[secret(call)] = LAG_CALLS
        return Answer(response.status, headers, body)

    # Of every service.

    def unavailable(self, call: Call) -> Answer:
        return refused_by_s3("SlowDown", 503) if call.service == "s3" else refused("InternalServerError", 500)

    def throttled(self, call: Call) -> Answer:
        """Refused for its rate, as a service of JSON says it."""
        return refused("ThrottlingException")

    def lost_before(self, call: Call) -> Answer:
        """The connection ends before anything happened."""
        return LOST

    def lost_after(self, call: Call) -> Answer:
        """It happened; the answer gets lost."""
        self.passed_on(call)
        return LOST

    def hangs(self, call: Call) -> Answer:
        """It happened; the answer comes after the caller has given up this attempt."""
        self.passed_on(call)
        time.sleep(HANG_SECS)
        return LOST

    # DynamoDB.

    def exceeds_its_share(self, call: Call) -> Answer:
        return refused("ProvisionedThroughputExceededException")

    def row_is_in_a_transaction(self, call: Call) -> Answer:
        return refused("TransactionConflictException")

    def cancelled(self, call: Call, code: str) -> Answer:
        reasons = [{"Code": "None"} for _ in call.json()["TransactItems"]]
        reasons[self.random.randrange(len(reasons))] = {"Code": code, "Message": "injected"}
        return refused("TransactionCanceledException", CancellationReasons=reasons)

    def cancelled_by_throttling(self, call: Call) -> Answer:
        return self.cancelled(call, "ThrottlingError")

    def cancelled_by_exceeding(self, call: Call) -> Answer:
        return self.cancelled(call, "ProvisionedThroughputExceeded")

    def cancelled_by_another_transaction(self, call: Call) -> Answer:
        return self.cancelled(call, "TransactionConflict")

    def same_transaction_is_under_way(self, call: Call) -> Answer:
        return refused("TransactionInProgressException")

    def unprocessed_keys(self, call: Call) -> Answer:
        """Only the first key is read, as if the others were too large together."""
        asked = call.json()
        rest = {}
        for table, keys in asked["RequestItems"].items():
            if len(keys["Keys"]) > 1:
                rest[table] = {**keys, "Keys": keys["Keys"][1:]}
                keys["Keys"] = keys["Keys"][:1]
        answer = self.passed_on(call.with_json(asked))
        if answer.status == 200 and rest:
            body = json.loads(answer.body)
            body["UnprocessedKeys"] = rest
            headers = {"content-type": "application/x-amz-json-1.0"}
            return Answer(200, headers, json.dumps(body).encode())
        return answer

    def short_page(self, call: Call) -> Answer:
        """A page ends after its first row, as if that were large."""
        return self.passed_on(call.with_json({**call.json(), "Limit": 1}))

    # S3.

    def conflicting_operation(self, call: Call) -> Answer:
        return refused_by_s3("OperationAborted", 409)

    def success_with_an_error_inside(self, call: Call) -> Answer:
        """Completing an upload answers 200 before it knows how it ends."""
        return refused_by_s3("InternalError", 200)

    def cut_off(self, call: Call) -> Answer:
        answer = self.passed_on(call)
        answer.cut = len(answer.body) // 2
        answer.headers = {name: value for name, value in answer.headers.items() if name.lower() != "content-length"}
        answer.headers["content-length"] = str(len(answer.body))
        return answer

    # SQS.

    def some_not_sent(self, call: Call) -> Answer:
        asked = call.json()
        first, *rest = asked["Entries"]
        failed = [{"Id": first["Id"], "SenderFault": False, "Code": "InternalError", "Message": "injected"}]
        body = {"Successful": [], "Failed": failed}
        if rest:
            answer = self.passed_on(call.with_json({**asked, "Entries": rest}))
            body = json.loads(answer.body)
            body["Failed"] = body.get("Failed", []) + failed
        return Answer(200, {"content-type": "application/x-amz-json-1.0"}, json.dumps(body).encode())

    # KMS.

    def key_unavailable(self, call: Call) -> Answer:
        return refused("KMSInternalException", 500)

    # Secrets Manager.

    def still_deleted(self, call: Call) -> Answer:
        """A secret that was just restored."""
        return refused("InvalidRequestException")


class Corrected(Proxy):
    """Gives no faults, and does before moto what moto 5.2.5 does not: a secret that was deleted takes no new value."""

    def __init__(self, cloud: str):
        super().__init__(cloud, 0)
        self.deleted: set[str] = set()

    def answer(self, call: Call) -> Answer:
        if call.service != "secretsmanager" or "SecretId" not in call.json():
            return self.passed_on(call)
        if call.operation == "PutSecretValue" and secret(call) in self.deleted:
            return refused("InvalidRequestException")
        answer = self.passed_on(call)
        if answer.status == 200 and call.operation == "DeleteSecret":
            self.deleted.add(secret(call))
        if answer.status == 200 and call.operation == "RestoreSecret":
            self.deleted.discard(secret(call))
        return answer


class Throttled(Proxy):
    """Gives one fault: a share of the table's writes is more than the table can take."""

    share = 0.0

    def choose(self, call: Call) -> str | None:
        able = THROTTLES.get(call.operation) if call.service == "dynamodb" else None
        with self.lock:
            if able is None or self.random.random() >= self.share:
                return None
            chosen = self.random.choice(able)
            self.given[chosen] += 1
            return chosen


def secret(call: Call) -> str:
    # A name, or the end of an ARN, whose last six letters are AWS's own.
    return re.sub(r"^arn:.*:secret:(.*)-\w{6}$", r"\1", call.json()["SecretId"])


# What a throttled table answers, by operation.
THROTTLES = {
    **dict.fromkeys(["DeleteItem", "PutItem", "UpdateItem"], ["exceeds_its_share", "throttled"]),
    "TransactWriteItems": ["exceeds_its_share", "throttled", "cancelled_by_throttling", "cancelled_by_exceeding"],
}
LOSSES = ["lost_before", "lost_after", "hangs"]
FAULTS = {
    ("dynamodb", "any"): ["unavailable", "throttled", "exceeds_its_share"],
    # Numbers are added by updates: no transaction has their rows, and one whose answer got lost is added twice, which a
    # quota can stand.
    ("dynamodb", "UpdateItem"): ["lost_before"],
    ("dynamodb", "GetItem"): LOSSES,
    ("dynamodb", "PutItem"): ["row_is_in_a_transaction", *LOSSES],
    ("dynamodb", "DeleteItem"): ["row_is_in_a_transaction", *LOSSES],
    ("dynamodb", "TransactWriteItems"): [
        "cancelled_by_throttling",
        "cancelled_by_exceeding",
        "cancelled_by_another_transaction",
        "same_transaction_is_under_way",
        *LOSSES,
    ],
    ("dynamodb", "BatchGetItem"): ["unprocessed_keys", *LOSSES],
    ("dynamodb", "Query"): ["short_page", *LOSSES],
    # A hanging bucket is waited for twenty seconds, which nobody wants to watch.
    ("s3", "any"): ["unavailable", "lost_before", "lost_after"],
    ("s3", "PUTObject"): ["conflicting_operation"],
    ("s3", "POSTUpload"): ["success_with_an_error_inside"],
    ("s3", "GETObject"): ["cut_off"],
    ("sqs", "any"): ["unavailable", "throttled", *LOSSES],
    ("sqs", "SendMessageBatch"): ["some_not_sent"],
    ("secretsmanager", "any"): ["unavailable", "throttled", *LOSSES],
    ("kms", "any"): ["key_unavailable", "throttled", *LOSSES],
}
