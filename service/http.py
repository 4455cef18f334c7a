"""Outgoing HTTP: the one way by which adapters and notifiers reach an address that people wrote.

How. `service/addresses.py` resolves and judges the host; the connection goes to the judged address
with the host's own name in `Host` and in TLS. One connection per request, no redirects, no proxies
from the environment, one deadline over everything, answers cut at a size. A request that was never
sent and one whose outcome is unknown are told apart, because only the first may simply be sent
again.

Refused here: trying again (`act/execute.py` and `alert/deliver.py` do that) and showing an address:
beyond its host it is a secret.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import httpx2
import msgspec

from service.addresses import Address, HttpFault, Reach, Resolve, Target, judge, resolve

__all__ = ["Http", "HttpFault", "Reach", "Reply"]

BODY_LIMIT = 64 * 1024
DEADLINE_S = 20.0
LONGEST_PAUSE_S = 3600.0
"""A `Retry-After` beyond this is taken as this."""


class Reply(NamedTuple):
    """An answer, whatever its status."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes
    """At most as long as the client's `body_limit`."""
    retry_after_s: float | None

    def json(self) -> Any:
        """Read the body as JSON; None when it is none."""
        try:
            return msgspec.json.decode(self.body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None


class Http:
    """Sends requests; makes no use of anything that lasts between two of them but settings.

    Parameters
    ----------
    reach : Reach
        What this endpoint's settings allow.
    deadline_s : float
        From the look-up to the last byte of the answer, seconds.
    ca_file : str or None
        Certificates to trust in place of the public ones.
    look_up : callable
        Resolves names; tests give their own.
    make_tls : callable, optional
        Makes the TLS settings in place of `ca_file`: certificates of one's own, for instance.
    body_limit : int
        Answers are cut here, bytes.
    """

    def __init__(
        self,
        reach: Reach = Reach(),  # noqa: B008 - a frozen tuple of plain values
        deadline_s: float = DEADLINE_S,
        ca_file: str | None = None,
        look_up: Resolve = resolve,
        make_tls: Callable[[], ssl.SSLContext] | None = None,
        body_limit: int = BODY_LIMIT,
    ) -> None:
        self._reach = reach
        self._deadline_s = deadline_s
        self._look_up = look_up
        self._make_tls = make_tls or (lambda: _tls(ca_file))
        self._body_limit = body_limit
        self._tls: ssl.SSLContext | None = None

    async def get(self, url: str, headers: Mapping[str, str] | None = None) -> Reply:
        """GET; see `request`."""
        return await self.request("GET", url, b"", headers)

    async def post(
        self,
        url: str,
        json: Any = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """POST `json`, or `body` as it is; see `request`."""
        content = msgspec.json.encode(json) if body is None else body
        sent = {"content-type": "application/json", **(headers or {})}
        return await self.request("POST", url, content, sent)

    async def request(
        self,
        method: str,
        url: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        on_sent: Callable[[], None] | None = None,
    ) -> Reply:
        """Send one request and read its answer.

        Parameters
        ----------
        on_sent : callable, optional
            Called when the request has left and its answer is awaited.

        Raises
        ------
        HttpFault
            When no whole answer came in time. Any status that came is a `Reply`.
        """
        sent = _Sent(on_sent)
        try:
            async with asyncio.timeout(self._deadline_s):
                target = await judge(url, self._reach, self._look_up)
                return await self._exchange(target, method, body, dict(headers or {}), sent)
        except TimeoutError:
            raise HttpFault(
                "unknown" if sent.begun else "unsent",
                f"{method} {_host_of(url)}: no answer within {self._deadline_s:g} s",
            ) from None

    async def _exchange(
        self, target: Target, method: str, body: bytes, headers: dict[str, str], sent: _Sent
    ) -> Reply:
        headers = {
            "user-agent": "rollbackd",
            "accept-encoding": "identity",  # so that no answer can grow when it is unpacked
            **headers,
            "host": target.url.netloc.decode("ascii"),
        }
        last: Exception | None = None
        for address in target.addresses:
            try:
                return await self._send(target, address, (method, body, headers), sent)
            except (httpx2.ConnectError, httpx2.ConnectTimeout) as fault:
                last = fault
                if _is_certificate(fault):
                    raise HttpFault(
                        "refused", f"{method} {target.shown}: its certificate is not to be trusted"
                    ) from None
            except (httpx2.HTTPError, httpx2.InvalidURL, ssl.SSLError, OSError) as fault:
                raise HttpFault(
                    "unknown" if sent.begun else "unsent",
                    f"{method} {target.shown}: {_named(fault)}",
                ) from None
        raise HttpFault("unsent", f"{method} {target.shown}: {_named(last)}") from None

    async def _send(
        self,
        target: Target,
        address: Address,
        what: tuple[str, bytes, dict[str, str]],
        sent: _Sent,
    ) -> Reply:
        method, body, headers = what
        if self._tls is None:
            self._tls = await asyncio.to_thread(self._make_tls)
        pinned = target.url.copy_with(host=str(address))
        # A pool would keep connections by address, and two hosts can share one: none is kept.
        async with (
            httpx2.AsyncClient(
                verify=self._tls,
                trust_env=False,
                follow_redirects=False,
                timeout=self._deadline_s,
            ) as client,
            client.stream(
                method,
                pinned,
                content=body or None,
                headers=headers,
                extensions={"sni_hostname": target.url.raw_host.decode(), "trace": sent.trace},
            ) as answer,
        ):
            return Reply(
                answer.status_code,
                {name.lower(): value for name, value in answer.headers.items()},
                await _read(answer, self._body_limit),
                retry_after_s(answer.headers),
            )


class _Sent:
    """Learns from the transport how far a request got."""

    def __init__(self, on_sent: Callable[[], None] | None) -> None:
        self.begun = False
        self._on_sent = on_sent

    async def trace(self, event: str, _: Mapping[str, Any]) -> None:
        if event.endswith("send_request_headers.started"):
            self.begun = True
        elif event.endswith("send_request_body.complete") and self._on_sent is not None:
            self._on_sent()


async def _read(answer: httpx2.Response, limit: int) -> bytes:
    body = bytearray()
    async for part in answer.aiter_raw():
        body += part
        if len(body) >= limit:
            break
    return bytes(body[:limit])


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Read `Retry-After` (seconds, or a date against the answer's own `Date`), seconds.

    Examples
    --------
    >>> retry_after_s({"retry-after": "3"}), retry_after_s({"retry-after": "soon"})
    (3.0, None)
    """
    text = headers.get("retry-after", "").strip()
    try:
        wait_s = float(text)
    except ValueError:
        try:
            wait = parsedate_to_datetime(text) - parsedate_to_datetime(headers.get("date", ""))
        except (ValueError, TypeError):
            return None
        wait_s = wait.total_seconds()
    if not wait_s >= 0:
        return None
    return min(wait_s, LONGEST_PAUSE_S)


def _tls(ca_file: str | None) -> ssl.SSLContext:
    if ca_file is not None:
        return ssl.create_default_context(cafile=ca_file)
    return httpx2.create_ssl_context(trust_env=False)


def _is_certificate(fault: BaseException | None) -> bool:
    while fault is not None:
        if isinstance(fault, ssl.SSLCertVerificationError):
            return True
        fault = fault.__cause__ or fault.__context__
    return False


def _named(fault: Exception | None) -> str:
    """Name a transport's failure without its own words, which may hold the address."""
    words = {
        "ConnectError": "the connection was refused or reset",
        "ConnectTimeout": "the connection took too long",
        "ReadError": "the connection was reset before the answer was whole",
        "RemoteProtocolError": "the answer broke off or was no HTTP",
        "WriteError": "the connection was reset while it was being sent",
    }
    return words.get(type(fault).__name__, f"it failed ({type(fault).__name__})")


def _host_of(url: str) -> str:
    try:
        return httpx2.URL(url).host or "the address"
    except (httpx2.InvalidURL, TypeError, ValueError, UnicodeError):
        return "the address"
