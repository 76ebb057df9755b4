"""An identity provider on loopback, for the console's sign-in: OpenID Connect's authorization code with PKCE.

Its page asks nobody anything: it sends browsers back at once, as the person that it is told.
"""

import base64
import hashlib
import http.server
import json
import secrets
import threading
import time
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

CLIENT = "console"


def encode(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def number(value: int) -> str:
    return encode(value.to_bytes((value.bit_length() + 7) // 8, "big"))


class Provider:
    def __init__(self) -> None:
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        # Claims of whoever signs in next; an error instead; a nonce instead of the one that was asked for.
        self.person: dict[str, object] = {"sub": "00u1"}
        self.error: dict[str, str] = {}
        self.nonce = ""
        self.codes: dict[str, dict[str, str]] = {}
        handler = type("Handler", (Handler,), {"provider": self})
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.issuer = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def configuration(self) -> dict:
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/keys",
            "response_types_supported": ["code"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "code_challenge_methods_supported": ["S256"],
        }

    def keys(self) -> dict:
        public = self.key.public_key().public_numbers()
        key = {"kty": "RSA", "kid": "1", "use": "sig", "alg": "RS256", "n": number(public.n), "e": number(public.e)}
        return {"keys": [key]}

    def authorize(self, asked: dict[str, str]) -> str:
        """The address that the browser is sent back to."""
        if asked.get("client_id") != CLIENT or asked.get("code_challenge_method") != "S256":
            raise ValueError(f"not a request of the console: {asked}")
        back = {"state": asked["state"], "iss": self.issuer}
        if self.error:
            return f"{asked['redirect_uri']}?{urlencode(self.error | back)}"
        code = secrets.token_urlsafe(32)
        self.codes[code] = asked
        return f"{asked['redirect_uri']}?{urlencode({'code': code} | back)}"

    def token(self, form: dict[str, str]) -> tuple[int, dict]:
        # A code is good for one try.
        asked = self.codes.pop(form.get("code", ""), None)
        challenge = encode(hashlib.sha256(form.get("code_verifier", "").encode()).digest())
        if form.get("client_id") != CLIENT:
            return 401, {"error": "invalid_client"}
        if not asked or asked["code_challenge"] != challenge or asked["redirect_uri"] != form.get("redirect_uri"):
            return 400, {"error": "invalid_grant"}
        return 200, {"access_token": "none", "token_type": "Bearer", "id_token": self.sign(asked["nonce"])}

    def sign(self, nonce: str) -> str:
        now = int(time.time())
        about = {"iss": self.issuer, "aud": CLIENT, "iat": now, "exp": now + 300, "nonce": self.nonce or nonce}
        parts = ({"alg": "RS256", "typ": "JWT", "kid": "1"}, about | self.person)
        signed = ".".join(encode(json.dumps(part).encode()) for part in parts)
        signature = self.key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{signed}.{encode(signature)}"


class Handler(http.server.BaseHTTPRequestHandler):
    provider: Provider

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        match address.path:
            case "/.well-known/openid-configuration":
                self.answer(200, self.provider.configuration())
            case "/keys":
                self.answer(200, self.provider.keys())
            case "/authorize":
                self.send_response(302)
                self.send_header("location", self.provider.authorize(dict(parse_qsl(address.query))))
                self.send_header("content-length", "0")
                self.end_headers()
            case _:
                self.answer(404, {})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
        form = {name: values[0] for name, values in parse_qs(body).items()}
        self.answer(*(self.provider.token(form) if self.path == "/token" else (404, {})))

    def answer(self, status: int, document: dict) -> None:
        content = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass
