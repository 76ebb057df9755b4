"""The operator's API over connections that are kept, one for each thread."""

import http.client
import json
import threading
import time
import urllib.parse
from dataclasses import dataclass

ANSWER_SECS = 40
# The emulator closes a connection that nobody used for 5 s, and a request that meets this has an unknown fate.
IDLE_SECS = 3


@dataclass
class Refused(Exception):
    status: int
    text: str

    def __str__(self) -> str:
        return f"answered {self.status}: {self.text[:300]}"


def secrets(url: str, key: str) -> dict[str, str]:
    """Of a webhook that signs, since a signed request says which delivery it is of."""
    return {"url": url, "secret": "signed-so-that-it-can-be-told", "headers": f"x-key: {key}"}


class Api:
    def __init__(self, base: str, token: str):
        url = urllib.parse.urlsplit(base)
        self.host, self.port, self.path, self.token = url.hostname, url.port, url.path, token
        self.local = threading.local()
        # More headers of each request.
        self.headers: dict[str, str] = {}

    def call(self, method: str, path: str, body: bytes | None = None) -> dict:
        """Calls once. A connection that fails is an OSError or an HTTPException, any other status is `Refused`."""
        connection = self.connection()
        headers = {"authorization": f"Bearer {self.token}", "content-type": "application/json"} | self.headers
        try:
            connection.request(method, f"{self.path}/v1{path}", body, headers)
            answer = connection.getresponse()
            text = answer.read()
        except BaseException:
            connection.close()
            self.local.connection = None
            raise
        self.local.used_at = time.monotonic()
        if not 200 <= answer.status < 300:
            raise Refused(answer.status, text.decode("utf-8", "replace"))
        return json.loads(text)

    def connection(self) -> http.client.HTTPConnection:
        connection = getattr(self.local, "connection", None)
        if connection and time.monotonic() - self.local.used_at > IDLE_SECS:
            connection.close()
            connection = None
        if connection is None:
            connection = self.local.connection = http.client.HTTPConnection(self.host, self.port, timeout=ANSWER_SECS)
        return connection

    def post(self, path: str, body: dict) -> dict:
        return self.call("POST", path, json.dumps(body).encode())

    def pages(self, path: str, **query: str) -> list[dict]:
        items: list[dict] = []
        cursor: dict[str, str] = {}
        while True:
            page = self.call("GET", f"{path}?{urllib.parse.urlencode({**query, 'limit': '100', **cursor})}")
            items += page["items"]
            if page["next"] is None:
                return items
            cursor = {"cursor": page["next"]}

    def register(self, name: str, url: str, key: str = "key") -> str:
        return self.post("/registrations", {"integration": "webhook", "name": name, "inputs": secrets(url, key)})["id"]

    def rotate(self, registration: str, url: str, key: str) -> None:
        self.post(f"/registrations/{registration}/rotate", {"inputs": secrets(url, key)})

    def attach(self, registration: str, workflow: str, **inputs: bool) -> str:
        wanted = {"registration": registration, "workflow": workflow, "inputs": inputs, "allow_duplicate": True}
        return self.post("/attachments", wanted)["id"]

    def upload(self, digest: str, content: bytes) -> None:
        said = self.call("PUT", f"/materials/{digest}", json.dumps({"size_bytes": len(content)}).encode())
        if said["state"] == "present":
            return
        upload = said["upload"]
        url = urllib.parse.urlsplit(upload["url"])
        connection = http.client.HTTPConnection(url.hostname, url.port, timeout=ANSWER_SECS)
        connection.request(upload["method"], f"{url.path}?{url.query}", content, upload["headers"])
        answer = connection.getresponse()
        text = answer.read().decode("utf-8", "replace")
        connection.close()
        if answer.status not in (200, 204, 412):
            raise Refused(answer.status, text)
