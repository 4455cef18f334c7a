"""The signed webhook: for every platform without an adapter, the customer's own service acts.

How. The command is posted as it is, with Standard Webhooks headers; `webhook-id` and
`Idempotency-Key` are the command's id in every attempt, so that a receiver can drop repeats. Its
answers: 200 with its own word for what came of it, 202 with a place to poll (same origin only), 409
superseded, 410 switched off for good, 429 and 5xx later, all else a person must mend. Redirects are
never followed.

Reading. `action: "probe"` asks what serves and must change nothing; it has an id of its own, so
that nobody takes it for the command, and names no versions. A receiver that does not know it is
*write-only*: its word is all there is, the receipt says `effect: unknown`, and only traffic proves
the rollback.

Refused here: sending a command again whose outcome is unknown and cannot be read.

References
----------
Standard Webhooks specification 1.0.0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast, get_args
from urllib.parse import urljoin, urlsplit

import msgspec

from schemas.commands import Action, Command
from schemas.facts import ReceiptStatus
from schemas.ids import derive
from schemas.plugins import plugin
from schemas.secrets import Secret
from service.act.adapters.base import Adapter, Ask, FaultKind, Pace, PlatformFault
from service.act.plans import (
    Applied,
    Current,
    Plan,
    Refusal,
    differs,
    fault_of_expected,
    fault_of_ready,
    wanted_shares,
)
from service.addresses import read_networks
from service.clock import Clock, WallClock
from service.crash import crash_point
from service.http import Http, HttpFault, Reach, Reply
from service.telemetry import clean
from service.webhooks import read_keys, sign

BODY_MAX = 20_000
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
_LATER: dict[str, FaultKind] = {
    "refused": "permanent",
    "unsent": "transient",
    "unknown": "unknown",
}


@plugin("webhook")
@dataclass
class Webhook(Adapter):
    """One receiver.

    Parameters
    ----------
    url : Secret
        Where commands are posted; https, or http on loopback.
    secret : Secret
        `whsec_…` (or a plain text of at least 24 bytes), `whsk_…`; several parted by spaces.
    allow_http : bool
        Allow http beyond loopback.
    allow_private : list of str
        Networks that are not public but meant, such as `10.1.0.0/16`.
    ca_file : str, optional
        Certificates to trust in place of the public ones.
    deadline_s, settle_s : float
        Total time of one call; how long the effect may take to show after it. Seconds.

    Raises
    ------
    ValueError
        On construction, naming the field.
    """

    url: Secret
    secret: Secret
    allow_http: bool = False
    allow_private: list[str] = field(default_factory=list)
    ca_file: str | None = None
    deadline_s: float = 20.0
    settle_s: float = 120.0

    clock: Clock = field(default_factory=WallClock, init=False, repr=False)
    """Only for `missing`, which nobody tells the time."""

    can: ClassVar[frozenset[Action]] = frozenset({"rollback", "shift", "hold", "promote"})

    def __post_init__(self) -> None:
        """Read keys and networks, so that a bad setting shows at the start."""
        self.url, self.secret = _secret(self.url), _secret(self.secret)
        self._keys = read_keys(self.secret)
        reach = Reach(self.allow_http, read_networks(self.allow_private))
        self._http = Http(reach, self.deadline_s, self.ca_file)
        self._disabled = False
        self._probes = 0

    @property
    def pace(self) -> Pace:
        """A deployer may take its time, and a controller behind it may revert."""
        return Pace(self.deadline_s + 1, self.settle_s, poll_s=1.0, recheck_s=1.0)

    async def current(self, ask: Ask) -> Current:
        """Probe; a receiver without a probe cannot be read."""
        self._probes += 1
        probe = derive("probe", ask.command.command_id, ask.now_ms, self._probes)
        body = {
            "action": "probe",
            "command_id": probe,
            "model": ask.command.model,
            "rollout_id": ask.command.rollout_id,
            "dry_run": True,
        }
        reply = await self._post(msgspec.json.encode(body), probe, ask.now_ms)
        if reply.status != 200:
            if reply.status in _TRANSIENT or reply.status in (401, 403, 410):
                raise self._fault(reply, "probe")
            return Current(shares=None, raw={"probe": reply.status})
        answer = reply.json()
        said = answer.get("current") if isinstance(answer, dict) else None
        if said is None:
            return Current(shares=None, raw={"probe": "it does not say what serves"})
        return Current(shares=read_shares(said), raw={"current": said})

    def plan(self, now: Current, command: Command) -> Plan | Refusal:
        """Plan one request; where the receiver cannot be read, its own check has to do."""
        wanted = wanted_shares(command)
        blind = now.shares is None
        if wanted and not blind and not differs(now, wanted):
            return Plan(wanted=wanted, before=now.shares)
        if refusal := fault_of_expected(now, command) or fault_of_ready(now, wanted):
            return refusal
        words = ", ".join(f"{version} {share:g} %" for version, share in wanted.items())
        note = "the receiver has no working probe: what it says is all that is known"
        return Plan(
            wanted=wanted,
            before=now.shares,
            requests=[{"method": "POST", "webhook-id": command.command_id}],
            diff=f"{command.action}: {words or 'stop at what serves now'}",
            touches=[command.model],
            lock="the receiver's",
            notes=[note] if blind else [],
        )

    async def apply(self, ask: Ask, plan: Plan) -> Applied:
        """Post the command."""
        body = msgspec.json.encode(ask.command)
        if len(body) >= BODY_MAX:
            text = f"the command has {len(body)} bytes, a webhook takes less than {BODY_MAX}"
            raise PlatformFault("permanent", text)
        reply = await self._post(body, ask.command.command_id, ask.now_ms, crash="K9")
        return self._read(reply, "POST", self.url.reveal())

    async def follow(self, ask: Ask, handle: str) -> Applied:
        """Look at the place that a 202 named."""
        target = self._same_origin(handle)
        stamp = derive("poll", ask.command.command_id, ask.now_ms)
        headers = sign(self._keys, stamp, ask.now_ms // 1000, b"")
        try:
            reply = await self._http.get(target, headers)
        except HttpFault as fault:
            raise PlatformFault(_LATER[fault.kind], str(fault)) from None
        if reply.status == 202 and "location" not in reply.headers:
            log = [{"method": "GET", "status": 202}]
            return Applied(handle=handle, retry_after_s=reply.retry_after_s, log=log)
        return self._read(reply, "GET", target)

    async def missing(self) -> list[str]:
        """Probe once, for no model; say what does not work."""
        now_ms = self.clock.now_ms()
        probe = derive("probe", "check", now_ms)
        body = {"action": "probe", "command_id": probe, "model": "", "dry_run": True}
        try:
            reply = await self._post(msgspec.json.encode(body), probe, now_ms)
        except PlatformFault as fault:
            return [str(fault)]
        if reply.status in (401, 403):
            return [f"the receiver answered {reply.status}: it does not accept the signature"]
        if reply.status >= 300:
            return [
                f"the receiver answered {reply.status} to a probe: rollbacks cannot be read back"
            ]
        return []

    async def _post(self, body: bytes, message_id: str, now_ms: int, crash: str = "") -> Reply:
        if self._disabled:
            raise PlatformFault("permanent", "the receiver answered 410 before: it is switched off")
        headers = sign(self._keys, message_id, now_ms // 1000, body)
        headers |= {"idempotency-key": message_id, "content-type": "application/json"}
        on_sent = (lambda: crash_point(crash)) if crash else None
        try:
            reply = await self._http.request("POST", self.url.reveal(), body, headers, on_sent)
        except HttpFault as fault:
            raise PlatformFault(_LATER[fault.kind], str(fault)) from None
        self._disabled = reply.status == 410
        return reply

    def _read(self, reply: Reply, method: str, base: str) -> Applied:
        """Turn an answer into what came of the command."""
        log: list[dict[str, Any]] = [{"method": method, "status": reply.status}]
        if reply.status == 202:
            location = reply.headers.get("location")
            if not location:
                text = "the receiver answered 202 without saying where to ask later"
                raise PlatformFault("unknown", text)
            handle = self._same_origin(urljoin(base, location))
            return Applied(handle=handle, retry_after_s=reply.retry_after_s, log=log)
        if reply.status == 409:
            return Applied(status="superseded", text=self._words(reply), log=log)
        if reply.status != 200:
            raise self._fault(reply, method)
        answer = reply.json()
        status = answer.get("status") if isinstance(answer, dict) else None
        if status not in get_args(ReceiptStatus):
            text = "the receiver answered 200 without a status that is known"
            raise PlatformFault("unknown", text)
        said = answer.get("current")
        return Applied(
            status=cast("ReceiptStatus", status),
            shares=None if said is None else read_shares(said),
            text=self._words(reply),
            log=log,
        )

    def _fault(self, reply: Reply, what: str) -> PlatformFault:
        kind: FaultKind = "permanent"
        if reply.status in _TRANSIENT:
            kind = "transient"
        elif reply.status == 401:
            kind = "credentials"
        text = f"the receiver answered {reply.status} to {what}"
        if 300 <= reply.status < 400:
            text += "; redirects are never followed, name the final address"
        if reply.status == 410:
            text += ": it is switched off"
        return PlatformFault(kind, text, reply.retry_after_s)

    def _words(self, reply: Reply) -> str:
        """The receiver's own reason, for people only: cut, and without what it may echo."""
        answer = reply.json()
        for name in ("reason", "detail", "error", "message"):
            if isinstance(answer, dict) and isinstance(answer.get(name), str):
                text = str(answer[name]).replace(self.secret.reveal(), "***")
                return str(clean(text))[:300]
        return ""

    def _same_origin(self, address: str) -> str:
        if _origin(address) != _origin(self.url.reveal()):
            text = "the receiver names a place on another host to ask later; that is not followed"
            raise PlatformFault("unknown", text)
        return address


def read_shares(said: object) -> dict[str, float]:
    """Read `{version: percent}` as a receiver says it.

    Raises
    ------
    PlatformFault
        When it is empty or no percent: acting on it would be acting on nothing.
    """
    text = "the receiver's `current` must be {version: percent} and total 100"
    if not isinstance(said, Mapping) or not said:
        raise PlatformFault("permanent", text)
    shares: dict[str, float] = {}
    for version, share in said.items():
        number = isinstance(share, int | float) and not isinstance(share, bool)
        if not number or not math.isfinite(share) or share < 0:
            raise PlatformFault("permanent", text)
        shares[str(version)] = float(share)
    if abs(sum(shares.values()) - 100) > 1:
        raise PlatformFault("permanent", text)
    return shares


def _origin(address: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(address)
    try:
        port = parts.port or {"https": 443, "http": 80}.get(parts.scheme)
    except ValueError:
        port = None
    return parts.scheme, parts.hostname, port


def _secret(value: object) -> Secret:
    return value if isinstance(value, Secret) else Secret(str(value))
