"""What every notifier must do; a new file in `service/alert/notifiers` is tested by being there.

A notifier whose fields are secrets or have defaults adds nothing here: every field of type `Secret`
gets a secret of the right form. What else it must be given stands in `NEEDED`.
"""

import dataclasses
import json
import os
import traceback
import typing
from pathlib import Path
from typing import Any

import pytest
import structlog

from schemas.ids import derive
from schemas.incidents import fold
from schemas.secrets import Secret
from service.alert.notifiers import registry
from service.alert.notifiers.base import Letter, NotDelivered, Notifier
from service.alert.route import Notice, route
from service.http import Http, HttpFault
from service.record.ledger import entry_of_breach, entry_of_progress
from tests.builders import NOW, a_breach, a_proposal
from tests.receiver import Answer, Receiver, receiving

GOLDEN = Path(__file__).parent / "golden"
CANARY = "c4nary-s3cret"
SIGNING = "whsec_" + "Y2FuYXJ5LXMzY3JldC1jYW5hcnktczNjcmV0"
KINDS = registry().kinds()
NEEDED: dict[str, dict[str, Any]] = {
    "email": {
        "host": "mail.example", "sender": "rollbackd@example.com", "to": ["ops@example.com"],
        "user": "rollbackd",
    },
}  # fmt: skip
ACTIONS = {
    200: "sent", 202: "sent", 204: "sent",
    301: "retry", 302: "retry", 307: "retry",
    408: "retry", 409: "retry", 422: "retry",
    410: "gone",
    429: "throttled", 503: "throttled",
    500: "retry", 502: "retry", 504: "retry",
}  # fmt: skip
CHAT_ACTIONS = {400: "permanent", 401: "permanent", 403: "permanent", 404: "permanent"}
RECEIVER_ACTIONS = dict.fromkeys(CHAT_ACTIONS, "retry")
NETWORK_KINDS = [
    kind
    for kind in KINDS
    if any(f.name == "url" for f in dataclasses.fields(registry().class_of(kind)))
]


def a_notifier(kind: str, base: str = "https://hooks.example") -> Notifier:
    cls = registry().class_of(kind)
    hints = typing.get_type_hints(cls)
    secrets: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        if field.name == "url":
            secrets["url"] = Secret(f"{base}/T0/{CANARY}")
        elif Secret in (hints[field.name], *typing.get_args(hints[field.name])):
            secrets[field.name] = Secret(SIGNING)
    made: Notifier = registry().make(kind, **secrets, **NEEDED.get(kind, {}))
    return made


def a_notice(**changes: Any) -> Notice:
    fields: dict[str, Any] = {
        "notice_id": derive("entry", "golden"), "incident_id": derive("incident", "golden"),
        "kind": "proposed", "tone": "question", "model": "credit-risk", "version": "v42",
        "state": "proposed",
        "title": "credit-risk: v42 fails error_rate; rollback to v41 waits for approval",
        "what": "v42 fails error_rate: 0.081 against 0.05 allowed",
        "why": "error_rate 0.081 [0.072, 0.093], limit 0.05, stable 0.039, from 4,210 events",
        "done": "Rollback from v42 to v41 waits for approval",
        "commands": ["rollbackd approve c0ffee", "rollbackd reject c0ffee"],
        "link": "https://rollbackd.example/#incident=abc", "at": NOW,
    }  # fmt: skip
    return Notice(**{**fields, **changes})


def a_letter(notifier: Notifier, **changes: Any) -> Letter:
    return Letter("d" * 32, notifier.render(a_notice(**changes)), NOW)


async def attempt(kind: str, *script: Answer) -> tuple[Receiver, NotDelivered | None]:
    async with receiving(*script) as receiver:
        notifier = a_notifier(kind, receiver.url)
        try:
            await notifier.send(a_letter(notifier), Http(notifier.reach))
        except NotDelivered as fault:
            return receiver, fault
        return receiver, None


@pytest.mark.parametrize("kind", NETWORK_KINDS)
@pytest.mark.parametrize("status", sorted({**ACTIONS, **CHAT_ACTIONS}))
async def test_every_status_means_what_the_delivery_rules_say(kind: str, status: int) -> None:
    """If this breaks, a page is dropped, or a wrong address is tried for days."""
    special = RECEIVER_ACTIONS if kind == "webhook" else CHAT_ACTIONS
    headers = {"retry-after": "17", "location": "/elsewhere"}

    receiver, fault = await attempt(kind, Answer(status, headers))

    assert {**ACTIONS, **special}[status] == _action(fault)
    assert 1 == len(receiver.got), "one try, and no redirect followed"
    if fault is not None:
        assert 17.0 == fault.retry_after_s
        assert f"{kind} answered {status}" == str(fault)


def _action(fault: NotDelivered | None) -> str:
    if fault is None:
        return "sent"
    flags = {"gone": fault.gone, "permanent": fault.permanent, "throttled": fault.throttled}
    set_flags = [name for name, is_set in flags.items() if is_set]
    assert len(set_flags) <= 1
    return set_flags[0] if set_flags else "retry"


@pytest.mark.parametrize("kind", KINDS)
def test_the_payload_is_the_golden_one(kind: str) -> None:
    """If this breaks, the words or the form of a message changed without anyone looking.

    `ROLLBACKD_GOLDEN=write pytest tests/contracts/test_every_notifier.py` writes the files again.
    """
    actual = a_notifier(kind).render(a_notice())
    path = GOLDEN / f"{kind}.json"
    if os.environ.get("ROLLBACKD_GOLDEN") == "write":
        path.write_text(json.dumps(actual, indent=2, ensure_ascii=False) + "\n")

    assert path.exists(), f"write {path.name} with ROLLBACKD_GOLDEN=write and read it"
    assert json.loads(path.read_text()) == actual


@pytest.mark.parametrize("kind", KINDS)
def test_rendering_is_pure_and_small(kind: str) -> None:
    """If this breaks, a second try says something else, or is refused for its size."""
    notifier = a_notifier(kind)
    longest = "<&>" * 400
    notice = a_notice(what=longest, why=longest, done=longest, model="&" * 128, title="&" * 400)

    assert notifier.render(notice) == notifier.render(notice)
    assert len(json.dumps(notifier.render(notice)).encode()) < 20_000


@pytest.mark.parametrize("kind", NETWORK_KINDS)
@pytest.mark.parametrize(
    "name",
    [
        "<!channel>", "<!here>", "<@U123>", "<https://evil.example|credit-risk>", "@everyone",
        "a\u202egpj.exe", "zero\u200bwidth\ufeff", "\x1b[31mred", "x" * 10_000, "a & b < c",
        "```", "line\nbreak",
    ],
)  # fmt: skip
async def test_a_name_cannot_speak_for_us(kind: str, name: str) -> None:
    """If this breaks, a model called `<!channel>` wakes everyone, or hides what is written."""
    breach = a_breach(model=name, version=name, guard=name, text=name, stable=name)
    proposed = a_proposal(model=name, incident_id=breach.incident_id, text=name)
    entries = [entry_of_breach(breach, None, NOW), entry_of_progress(proposed, name, NOW)]
    incident = fold(entries)
    assert incident is not None
    notice = route(incident, entries[-1], "https://rollbackd.example")
    assert notice is not None
    async with receiving() as receiver:
        notifier = a_notifier(kind, receiver.url)
        letter = Letter("d" * 32, notifier.render(notice), NOW)
        await notifier.send(letter, Http(notifier.reach))

    raw = receiver.got[0].body.decode()
    texts = "".join(_texts(json.loads(raw)))
    assert len(raw) < 20_000
    for hidden in ("\u202e", "\u200b", "\ufeff", "\x1b"):
        assert hidden not in texts
    if kind == "slack":
        ours = f"<https://rollbackd.example/#incident={breach.incident_id}|"
        assert 1 == texts.count("<"), "the only markup is the link that we made"
        assert ours in texts
        assert "<!" not in texts
        assert "<@" not in texts
    if kind in ("discord", "mattermost", "teams"):
        assert "@" not in texts.replace("https://rollbackd.example", "")
    if kind in ("discord", "google_chat"):
        assert "<" not in texts.replace("\\<", "").replace("<br>", "")
    if name == "x" * 10_000:
        assert "x" * 127 + "…" in texts
        assert "x" * 1200 not in texts


def _texts(value: Any) -> typing.Iterator[str]:
    if isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, str):
        yield value


@pytest.mark.parametrize("kind", NETWORK_KINDS)
@pytest.mark.parametrize(
    "answer",
    [Answer(500, body=CANARY.encode()), Answer(breaks_off=True), Answer(302), None],
    ids=["500", "broken", "redirect", "refused"],
)
async def test_no_error_shows_a_secret(kind: str, answer: Answer | None) -> None:
    """If this breaks, whoever reads a log can post into the channel."""
    async with receiving(answer or Answer()) as receiver:
        base = "http://127.0.0.1:1" if answer is None else receiver.url
        notifier = a_notifier(kind, base)
        with pytest.raises((NotDelivered, HttpFault)) as caught:
            await notifier.send(a_letter(notifier), Http(notifier.reach))

    said = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + repr(notifier)
    shown = [line for line in said.splitlines() if not line.lstrip().startswith(("File", "~", "^"))]
    for secret in (CANARY, SIGNING, "T0/"):
        assert secret not in "\n".join(shown)


@pytest.mark.parametrize("kind", KINDS)
def test_no_secret_enters_a_payload(kind: str) -> None:
    """If this breaks, the outbox in the database holds addresses that anyone can post to."""
    payload = json.dumps(a_notifier(kind).render(a_notice()))

    assert CANARY not in payload
    assert SIGNING not in payload


@pytest.mark.parametrize("kind", NETWORK_KINDS)
async def test_every_try_has_the_same_bytes(kind: str) -> None:
    """If this breaks, a receiver cannot tell a repeat from a second message."""
    async with receiving() as receiver:
        notifier = a_notifier(kind, receiver.url)
        for at_ms in (NOW, NOW + 300_000):
            letter = a_letter(notifier)._replace(at_ms=at_ms)
            await notifier.send(letter, Http(notifier.reach))

    first, second = receiver.got
    assert first.body == second.body
    assert first.headers.get("webhook-id") == second.headers.get("webhook-id")


async def test_the_log_gets_one_line_for_a_notice() -> None:
    """If this breaks, a service without chat tells nobody."""
    notifier = a_notifier("log")

    with structlog.testing.capture_logs() as lines:
        await notifier.send(a_letter(notifier), Http())

    (line,) = lines
    assert "warning" == line["log_level"]
    assert a_notice().title == line["event"]
    assert a_notice().why == line["why"]
