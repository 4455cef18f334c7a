"""Who may do what over HTTP.

Why. Whoever can write events or approvals moves traffic. So every route declares who may use it,
and a test finds those that do not; nothing is open by being forgotten.

How. With tokens: `Authorization: Bearer …`, compared by SHA-256 in constant time; viewer reads,
operator also holds, approves and sends, admin may all, producer only sends. Without (loopback only)
the one who could get through is a page in the operator's own browser: it can make requests to
loopback (refused by `Sec-Fetch-Site` and `Origin`), and it can give loopback a name of its own
(DNS rebinding, refused by `Host`).

Health and metrics are open: probes and scrapers have no tokens, and neither shows a model's name.

Refused here: cookies. The page keeps its token for the tab and sends it like any other client.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

from fastapi import Request

from service.config import HttpSettings, Token, is_loopback
from service.web.site import no

Right = Literal["read", "send", "operate"]

_MAY: dict[Right, frozenset[str]] = {
    "read": frozenset({"viewer", "operator", "admin"}),
    "send": frozenset({"producer", "operator", "admin"}),
    "operate": frozenset({"operator", "admin"}),
}
LOCAL_ACTOR = "local"
"""Actor of whoever reaches a loopback address without tokens."""
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


def uses_tokens(settings: HttpSettings) -> bool:
    """Whether callers need a token."""
    return settings.auth != "none" and bool(settings.tokens)


def need(settings: HttpSettings, right: Right) -> Callable[[Request], Awaitable[None]]:
    """Make the check of one route; it leaves the caller's name in `request.state.actor`."""

    async def check(request: Request) -> None:
        if not uses_tokens(settings):
            request.state.actor = LOCAL_ACTOR
            return
        token = _token_of(settings, request.headers.get("authorization", ""))
        if token is None:
            raise no(
                401,
                "send Authorization: Bearer TOKEN, with one of http.tokens in rollbackd.yaml",
                {"www-authenticate": "Bearer"},
            )
        if token.role not in _MAY[right]:
            wanted = " or ".join(sorted(_MAY[right]))
            raise no(403, f"the role {token.role} may not do this; it takes {wanted}")
        request.state.actor = token.name

    check.right = right  # type: ignore[attr-defined]
    return check


def may(settings: HttpSettings, right: Right, header: str) -> Token | None:
    """Give the token of an authorization header, when its role has the right."""
    token = _token_of(settings, header)
    return token if token is not None and token.role in _MAY[right] else None


def _token_of(settings: HttpSettings, header: str) -> Token | None:
    scheme, _, given = header.partition(" ")
    digest = hashlib.sha256(given.strip().encode("utf-8", "surrogateescape")).digest()
    found = None
    # All of them, so that the time taken does not tell which one was near.
    for token in settings.tokens:
        known = hashlib.sha256(token.token.reveal().encode()).digest()
        if hmac.compare_digest(known, digest):
            found = token
    return found if scheme.lower() == "bearer" else None


def fault_of_origin(
    settings: HttpSettings, method: str, headers: Mapping[str, str]
) -> tuple[int, str] | None:
    """Say why a request does not come from where it should: status and sentence, or None.

    Parameters
    ----------
    headers : mapping
        Names in lower case.
    """
    host = headers.get("host", "")
    if not uses_tokens(settings) and not _is_ours(settings, host):
        return 421, "this address serves only loopback names; set http.tokens to open it further"
    if method in SAFE_METHODS:
        return None
    site = headers.get("sec-fetch-site")
    if site is not None:
        return None if site in ("same-origin", "none") else (403, _CROSS)
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != host:
        return 403, _CROSS
    return None


_CROSS = "a page of another site may not do this"


def _is_ours(settings: HttpSettings, host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
        public = urlsplit(settings.public_url or "").hostname
    except ValueError:
        return False
    return is_loopback(name) or (public is not None and name == public)


HEADERS: tuple[tuple[str, str], ...] = (
    (
        "content-security-policy",
        "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "object-src 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
)
"""Sent with every answer: no script, style, frame or request from anywhere else."""


def right_of(dependant: Any) -> Right | None:
    """The right that a route's dependency asks for, for the test that finds open routes."""
    return getattr(dependant, "right", None)
