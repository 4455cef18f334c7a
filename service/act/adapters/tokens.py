"""Bearer tokens of clouds: from a file, from a key, or from the machine's own identity.

Why. The vendors' libraries bring their own HTTP, their own retries and tens of megabytes for one
form post. What is needed of them is small: ask an authority for a token, keep it until shortly
before it ends, ask again when it is not accepted any more.

How. Everything goes through `service/http.py`. The two metadata services live on a link-local
address that is refused everywhere else; they are reached by exactly that address. A token file is
read anew each time: whoever rotates it need not restart anything.

Refused here: interactive sign-in; storing tokens.

References
----------
RFC 6749 (client credentials), RFC 7523 (JWT bearer), Azure Instance Metadata Service, Google
"Using OAuth 2.0 for Server to Server Applications", Compute Engine metadata server.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec

from schemas.secrets import Secret
from service.act.adapters.base import PlatformFault
from service.act.adapters.calls import exchange, fault_of, read_object
from service.clock import Clock
from service.http import Http, Reach, Reply

METADATA = "169.254.169.254"
EARLY_S = 300.0
"""A token is fetched anew this long before it ends."""

Fetch = Callable[[], Awaitable[tuple[str, float]]]
"""Give a token and for how many seconds it is good."""


class Tokens:
    """Keeps one token while it is good; a `Credentials`."""

    def __init__(self, fetch: Fetch, clock: Clock) -> None:
        self._fetch = fetch
        self._clock = clock
        self._token = ""
        self._until_s = 0.0

    async def headers(self, fresh: bool = False) -> Mapping[str, str]:
        """Give the header."""
        if fresh or not self._token or self._clock.monotonic_s() >= self._until_s:
            self._token, good_s = await self._fetch()
            self._until_s = self._clock.monotonic_s() + max(0.0, good_s - EARLY_S)
        return {"authorization": f"Bearer {self._token}"}


def from_file(path: str) -> Fetch:
    """Read a file that somebody else keeps fresh."""

    async def fetch() -> tuple[str, float]:
        return await asyncio.to_thread(_read, path), 0.0

    return fetch


def azure_client(http: Http, authority: str, client: Mapping[str, str], proof: Secret) -> Fetch:
    """Prove to be an application, by its secret or by the token of a federated workload.

    Parameters
    ----------
    client : mapping
        `tenant`, `client_id`, `scope`; with `assertion_path` the proof is read from there.
    """
    url = f"{authority.rstrip('/')}/{client['tenant']}/oauth2/v2.0/token"

    async def fetch() -> tuple[str, float]:
        form = {
            "grant_type": "client_credentials",
            "client_id": client["client_id"],
            "scope": client["scope"],
        }
        if path := client.get("assertion_path"):
            form["client_assertion"] = await asyncio.to_thread(_read, path)
            form["client_assertion_type"] = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
        else:
            form["client_secret"] = proof.reveal()
        return await _ask(lambda: _post(http, url, form))

    return fetch


def azure_machine(resource: str, client_id: str | None, deadline_s: float) -> Fetch:
    """Be the managed identity of the machine that this runs on."""
    query = {"api-version": "2018-02-01", "resource": resource}
    if client_id is not None:
        query["client_id"] = client_id
    url = f"http://{METADATA}/metadata/identity/oauth2/token?{urlencode(query)}"
    http = _metadata_http(deadline_s)

    async def fetch() -> tuple[str, float]:
        return await _ask(lambda: http.get(url, {"metadata": "true"}))

    return fetch


def google_machine(deadline_s: float) -> Fetch:
    """Be the service account of the machine or workload that this runs on."""
    path = "/computeMetadata/v1/instance/service-accounts/default/token"
    http = _metadata_http(deadline_s)

    async def fetch() -> tuple[str, float]:
        return await _ask(
            lambda: http.get(f"http://{METADATA}{path}", {"metadata-flavor": "Google"})
        )

    return fetch


def google_key(http: Http, path: str, scope: str, clock: Clock) -> Fetch:
    """Prove to be a service account by its key file."""

    async def fetch() -> tuple[str, float]:
        try:
            key = msgspec.json.decode(await asyncio.to_thread(_read, path))
            account, uri, pem = key["client_email"], key["token_uri"], key["private_key"]
            assertion = await asyncio.to_thread(
                sign_jwt,
                {"iss": account, "scope": scope, "aud": uri},
                pem,
                clock.now_ms() // 1000,
            )
        except (msgspec.DecodeError, KeyError, TypeError, ValueError):
            raise PlatformFault("credentials", f"{path} is no key file of an account") from None
        form = {
            "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
            "assertion": assertion,
        }
        return await _ask(lambda: _post(http, str(uri), form))

    return fetch


def sign_jwt(claims: Mapping[str, Any], pem: str, now_s: int) -> str:
    """Make a JSON Web Token with RS256, good for an hour."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    key = load_pem_private_key(pem.encode(), None)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise ValueError("the key is no RSA key")
    parts = [{"alg": "RS256", "typ": "JWT"}, {**claims, "iat": now_s, "exp": now_s + 3600}]
    text = ".".join(_plain(msgspec.json.encode(part)) for part in parts)
    signature = key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())
    return f"{text}.{_plain(signature)}"


def _plain(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _metadata_http(deadline_s: float) -> Http:
    return Http(Reach(True, (ipaddress.ip_network(f"{METADATA}/32"),)), deadline_s)


async def _post(http: Http, url: str, form: Mapping[str, str]) -> Reply:
    headers = {"content-type": "application/x-www-form-urlencoded"}
    return await http.request("POST", url, urlencode(form).encode(), headers)


async def _ask(send: Callable[[], Awaitable[Reply]]) -> tuple[str, float]:
    reply = await exchange(send, writes=False)
    if reply.status != 200:
        fault = fault_of(reply, "the request for a token")
        kind = "credentials" if fault.kind in ("permanent", "conflict") else fault.kind
        # Its own words may hold what was sent.
        text = f"the request for a token was answered {reply.status}"
        raise PlatformFault(kind, text, fault.retry_after_s)
    answer = read_object(reply, "the request for a token")
    try:
        return str(answer["access_token"]), float(answer.get("expires_in", 0))
    except (KeyError, ValueError, TypeError):
        raise PlatformFault("credentials", "the answer to a request for a token has none") from None


def _read(path: str) -> str:
    try:
        text = Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError):
        raise PlatformFault("credentials", f"{path} cannot be read") from None
    if not text:
        raise PlatformFault("credentials", f"{path} is empty")
    return text
