"""Calls to a platform over HTTP, and what their answers mean for a command.

Why. Whether a refused, throttled or broken-off call may be sent again is the same question on every
platform that speaks HTTP; asked here once, an adapter only names what its platform means otherwise.

How. Everything goes through `service/http.py`: judged addresses, no redirects, one deadline. A read
that failed in passing may be tried again; a write that was answered by 500, 502 or 504 may have
been done, so it is in doubt and read before anything is sent again. A 401 makes the credentials be
fetched once more, and the call is sent once more: it was not carried out.

Refused here: trying again for any other reason (`act/execute.py` does that), and showing more of an
address than its host.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, Protocol
from urllib.parse import urljoin, urlsplit

import msgspec

from service.act.adapters.base import FaultKind, PlatformFault
from service.crash import crash_point
from service.http import Http, HttpFault, Reply
from service.telemetry import clean

PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_DOUBTFUL = frozenset({500, 502, 504})
_KINDS: dict[str, FaultKind] = {
    "refused": "permanent",
    "unsent": "transient",
    "unknown": "unknown",
}


class Credentials(Protocol):
    """Gives the headers that prove who calls."""

    async def headers(self, fresh: bool = False) -> Mapping[str, str]:
        """Give them; `fresh`: what was given before is not accepted any more.

        Raises
        ------
        PlatformFault
        """
        ...


class Call(NamedTuple):
    """One request to a platform."""

    method: str
    path: str
    """Below the platform's root, already escaped."""
    body: Any = None
    headers: Mapping[str, str] = {}
    writes: bool = False
    """It changes something: its outcome may be in doubt."""


class Caller:
    """Sends calls to one platform.

    Parameters
    ----------
    root : str
        Scheme, host and the path that all calls share.
    credentials : Credentials, optional
        Without them nothing is proven, as some platforms allow.
    """

    def __init__(self, http: Http, root: str, credentials: Credentials | None = None) -> None:
        self._http = http
        self.root = root.rstrip("/")
        self._credentials = credentials

    async def send(self, call: Call) -> Reply:
        """Send, with fresh credentials once more after a 401. Any other status is an answer.

        Raises
        ------
        PlatformFault
            When no answer came.
        """
        reply = await self._once(call, fresh=False)
        if reply.status == 401 and self._credentials is not None:
            reply = await self._once(call, fresh=True)
        return reply

    async def _once(self, call: Call, fresh: bool) -> Reply:
        headers = {"accept": "application/json", **call.headers}
        if self._credentials is not None:
            headers |= await self._credentials.headers(fresh)
        content = b""
        if call.body is not None:
            content = msgspec.json.encode(call.body)
            headers = {"content-type": "application/json", **headers}
        on_sent = (lambda: crash_point("K9")) if call.writes else None
        url = self.root + call.path
        return await exchange(
            lambda: self._http.request(call.method, url, content, headers, on_sent), call.writes
        )


async def exchange(send: Callable[[], Awaitable[Reply]], writes: bool) -> Reply:
    """Await an answer; say of a failure whether the request may have been carried out."""
    try:
        return await send()
    except HttpFault as fault:
        kind = _KINDS[fault.kind]
        # A read that broke off has changed nothing: there is no doubt to carry on.
        kind = "transient" if kind == "unknown" and not writes else kind
        raise PlatformFault(kind, str(fault)) from None


def fault_of(reply: Reply, what: str, writes: bool = False) -> PlatformFault:
    """Say what a status that is no success means, as most platforms mean it."""
    kind: FaultKind = "permanent"
    if writes and reply.status in _DOUBTFUL:
        kind = "unknown"
    elif reply.status in PASSING:
        kind = "transient"
    elif reply.status == 401:
        kind = "credentials"
    elif reply.status in (409, 412):
        kind = "conflict"
    text = f"{what} was answered {reply.status}"
    if 300 <= reply.status < 400:
        text += "; redirects are never followed, name the final address"
    if words := words_of(reply):
        text += f": {words}"
    return PlatformFault(kind, text, reply.retry_after_s)


def words_of(reply: Reply) -> str:
    """Give the platform's own reason, cut and cleaned, for people only."""
    answer = reply.json()
    said = answer.get("error", answer) if isinstance(answer, dict) else None
    if isinstance(said, dict):
        said = said.get("message", said.get("Message"))
    return str(clean(said))[:300] if isinstance(said, str) else ""


def read_object(reply: Reply, what: str, writes: bool = False) -> dict[str, Any]:
    """Read an answer that must be a JSON object.

    Raises
    ------
    PlatformFault
        A passing one: what broke off or was cut may be whole next time. After a write: a doubt.
    """
    answer = reply.json()
    if not isinstance(answer, dict):
        text = f"{what} was answered by something that is no JSON object"
        raise PlatformFault("unknown" if writes else "transient", text)
    return answer


def path_on(root: str, address: str) -> str:
    """Give what to add to `root` to reach a place that the platform named, on the same host only.

    Raises
    ------
    PlatformFault
        When it names another host.
    """
    whole, base = urlsplit(urljoin(f"{root}/", address)), urlsplit(root)
    if (whole.scheme, whole.netloc) != (base.scheme, base.netloc) or base.path:
        raise PlatformFault("unknown", "the platform names a place on another host to ask later")
    return whole.path + (f"?{whole.query}" if whole.query else "")
