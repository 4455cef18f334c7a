"""What a notifier gives, and what an answer of its platform means.

A notifier is one file with one dataclass marked `@plugin("kind")`: `render` turns a notice into the
platform's payload (pure, so that golden files can hold it), `send` tries once. The fields of its
constructor are what the settings may say. Secrets are `Secret`s and never part of a payload, an
error or a log.

Refused here: trying again. `send` only says, by `NotDelivered`, whether and when it would help.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

from schemas.secrets import Secret
from service.alert.route import Notice
from service.http import Http, Reach, Reply

Payload = dict[str, Any]

THROTTLED = frozenset({429, 503})
"""The platform asks for a pause; nothing is wrong with the endpoint."""
GONE = 410
"""The endpoint was taken away for good."""
CHAT_PERMANENT = frozenset({400, 401, 403, 404})
"""Chat only: our payload or address is wrong, and the same again cannot help."""


class Letter(NamedTuple):
    """One delivery as it is sent."""

    delivery_id: str
    """The same for every attempt: the receiver may drop what it has seen."""
    payload: Payload
    at_ms: int
    """Wall time of this attempt, epoch ms."""


class Notifier(Protocol):
    """What every plugin of this folder gives."""

    @property
    def pause_s(self) -> float:
        """Least time between two messages to this endpoint, seconds."""
        ...

    @property
    def reach(self) -> Reach:
        """What addresses its settings allow."""
        ...

    def render(self, notice: Notice) -> Payload:
        """Say what happened, why, and what was done. Pure."""
        ...

    async def send(self, letter: Letter, http: Http) -> None:
        """Try once. Raises NotDelivered, or HttpFault when no answer came."""
        ...


class NotDelivered(Exception):
    """The platform did not take a message; the text names status and kind, never an address.

    Parameters
    ----------
    permanent : bool
        The same again cannot help: a person must act.
    throttled : bool
        The endpoint only asks for a pause; it does not count as a failure.
    gone : bool
        The endpoint is no more; nothing is to be sent to it again.
    retry_after_s : float or None
        The pause it asks for.
    """

    def __init__(
        self,
        reason: str,
        *,
        permanent: bool = False,
        throttled: bool = False,
        gone: bool = False,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(reason)
        self.permanent = permanent
        self.throttled = throttled
        self.gone = gone
        self.retry_after_s = retry_after_s


@dataclass(frozen=True)
class ChatWebhook:
    """What notifiers of chat systems with a webhook address share; `kind` names the platform.

    Parameters
    ----------
    url : Secret
        Webhook address. Whoever has it can post, so it never enters a log or an error.
    allow_http : bool
        Plain http beyond loopback.
    """

    url: Secret
    allow_http: bool = False
    kind: ClassVar[str] = ""

    @property
    def reach(self) -> Reach:
        """Public addresses."""
        return Reach(allow_http=self.allow_http)

    async def send(self, letter: Letter, http: Http) -> None:
        """Try once. `deliver.py` owns retrying."""
        require_taken(
            self.kind, await http.post(self.url.reveal(), json=letter.payload), CHAT_PERMANENT
        )


def require_taken(kind: str, reply: Reply, permanent: frozenset[int]) -> None:
    """Raise NotDelivered unless the answer is 2xx.

    Parameters
    ----------
    permanent : frozenset of int
        Statuses by which this platform says that a person must act.
    """
    status = reply.status
    if 200 <= status < 300:
        return
    raise NotDelivered(
        f"{kind} answered {status}",
        permanent=status in permanent,
        throttled=status in THROTTLED,
        gone=status == GONE,
        retry_after_s=reply.retry_after_s,
    )


def shortened(text: str, limit: int) -> str:
    """Cut at a platform's limit, and show that it was cut."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def fitted_as(text: str, limit: int, escape: Callable[[str], str]) -> str:
    """Escape and cut so that the result fits; never inside an escape.

    Parameters
    ----------
    escape : callable
        The platform's own, sign by sign.
    """
    if len(escape(text)) <= limit:
        return escape(text)
    kept, room = [], limit - 1
    for sign in text:
        room -= len(escape(sign))
        if room < 0:
            break
        kept.append(escape(sign))
    return "".join(kept) + "…"


def without_markdown(text: str) -> str:
    """Escape what Markdown reads, and break what would call people.

    The wide `＠` is not the sign that a mention begins with, on any platform.
    """
    return "".join(f"\\{sign}" if sign in _MARKDOWN else _WIDE.get(sign, sign) for sign in text)


_MARKDOWN = frozenset("\\`*_[]<>#|~")
_WIDE = {"@": "＠"}
