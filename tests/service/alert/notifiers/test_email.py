"""Mail through a real SMTP server on loopback."""

import asyncio
import email
import email.policy
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
import structlog
from aiosmtpd.smtp import SMTP, AuthResult

from schemas.secrets import Secret
from service.alert.notifiers import email as email_file
from service.alert.notifiers.base import Letter, NotDelivered
from service.alert.notifiers.email import Email
from service.http import Http, HttpFault
from tests.builders import NOW
from tests.contracts.test_every_notifier import CANARY, a_notice


class Mailbox:
    """What a real server took, and what it is to answer."""

    def __init__(self, **answers: str) -> None:
        self.answers = answers
        self.port = 0
        self.mails: list[EmailMessage] = []
        self.rcpts: list[list[str]] = []
        self.logins: list[tuple[str, bool]] = []

    async def handle_RCPT(
        self, server: Any, session: Any, envelope: Any, address: str, options: Any
    ) -> str:
        answer = self.answers.get(address, self.answers.get("rcpt", "250 ok"))
        if answer.startswith("250"):
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        answer = self.answers.get("data", "250 ok")
        if answer.startswith("250"):
            read = email.message_from_bytes(envelope.content, policy=email.policy.default)
            assert isinstance(read, EmailMessage)
            self.mails.append(read)
            self.rcpts.append(list(envelope.rcpt_tos))
        return answer

    def authenticate(
        self, server: Any, session: Any, envelope: Any, mechanism: str, login: Any
    ) -> AuthResult:
        right = login.password == CANARY.encode()
        self.logins.append((login.login.decode(), right))
        return AuthResult(success=right, handled=right)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate of localhost."""
    folder = tmp_path_factory.mktemp("tls")
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    make += ["-nodes", "-days", "2", "-subj", "/CN=localhost"]
    make += ["-addext", "subjectAltName=DNS:localhost"]
    make += ["-keyout", str(folder / "key"), "-out", str(folder / "cert")]
    subprocess.run(make, check=True, capture_output=True)
    return folder


@asynccontextmanager
async def a_server(
    box: Mailbox, certificate: Path | None = None, at_once: bool = False
) -> AsyncIterator[Mailbox]:
    """Serve while the block lasts; with a certificate by STARTTLS, or by TLS from the start."""
    loop = asyncio.get_running_loop()
    tls = None
    if certificate is not None:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(certificate / "cert", certificate / "key")

    def protocol() -> SMTP:
        offered = None if at_once else tls
        return SMTP(
            box, tls_context=offered, authenticator=box.authenticate, loop=loop,
            auth_require_tls=not at_once, require_starttls=offered is not None, hostname="mail",
        )  # fmt: skip

    server = await loop.create_server(protocol, "127.0.0.1", 0, ssl=tls if at_once else None)
    box.port = server.sockets[0].getsockname()[1]
    try:
        yield box
    finally:
        server.close()


def a_mailer(box: Mailbox, certificate: Path | None = None, **changes: Any) -> Email:
    fields: dict[str, Any] = {
        "host": "localhost", "port": box.port, "sender": "rollbackd@example.com",
        "to": ["ops@example.com"], "tls": "none" if certificate is None else "starttls",
        "ca_file": str(certificate / "cert") if certificate is not None else None,
    }  # fmt: skip
    return Email(**(fields | changes))


async def send(mailer: Email, delivery_id: str = "d" * 32, **notice: Any) -> None:
    letter = Letter(delivery_id, mailer.render(a_notice(**notice)), NOW)
    await mailer.send(letter, Http(mailer.reach))


@pytest.mark.parametrize("at_once", [False, True], ids=["starttls", "tls"])
async def test_a_mail_goes_out_encrypted_and_in_plain_text(
    certificate: Path, at_once: bool
) -> None:
    """If this breaks, a page by mail is unreadable, or the password travels in the open."""
    async with a_server(Mailbox(), certificate, at_once) as box:
        mailer = a_mailer(
            box, certificate, tls="tls" if at_once else "starttls",
            user="rollbackd", password=Secret(CANARY),
        )  # fmt: skip
        await send(mailer, title="credit-risk: v42 über der Grenze ✗", tone="person")

    (mail,) = box.mails
    assert [("rollbackd", True)] == box.logins
    assert [["ops@example.com"]] == box.rcpts
    assert "credit-risk: v42 über der Grenze ✗" == mail["Subject"]
    assert ("rollbackd@example.com", "ops@example.com") == (mail["From"], mail["To"])
    assert "text/plain" == mail.get_content_type()
    assert ("auto-generated", "high") == (mail["Auto-Submitted"], mail["Importance"])
    said = mail.get_content()
    for part in (a_notice().what, a_notice().why, a_notice().done, *a_notice().commands):
        assert part in said


async def test_the_mails_of_an_incident_are_one_thread() -> None:
    """If this breaks, a night's incident is scattered over the inbox, or a repeat looks new."""
    async with a_server(Mailbox()) as box:
        mailer = a_mailer(box)
        for delivery_id, incident in (("1", "one"), ("2", "one"), ("2", "one"), ("3", "other")):
            await send(mailer, delivery_id, incident_id=incident)

    assert ["<1@example.com>", "<2@example.com>", "<2@example.com>", "<3@example.com>"] == [
        mail["Message-ID"] for mail in box.mails
    ]
    threads = [mail["References"] for mail in box.mails]
    assert ["<one.incident@example.com>"] * 3 + ["<other.incident@example.com>"] == threads
    assert threads == [mail["In-Reply-To"] for mail in box.mails]


@pytest.mark.parametrize(
    "evil",
    [
        "x\r\nBcc: evil@example.net", "x\nSubject: all is well", "x\r\n\r\n<b>body</b>",
        "x\rTo: evil@example.net", "x\u2028Bcc: evil@example.net", "x\x00\x0bBcc: y@example.net",
        "=?utf-8?q?=0D=0ABcc:_evil@example.net?=", "\r\n.\r\nMAIL FROM:<evil@example.net>",
        "==?utf-8?q?=0D=0ABcc:_evil@example.net?=", "=\u200b?utf-8?q?=0D=0ABcc:_evil@example.net?=",
        "x" * 5000,
    ],
)  # fmt: skip
async def test_no_name_becomes_a_header_or_a_recipient(evil: str) -> None:
    """If this breaks, whoever names a model sends mail in our name to whom he likes."""
    async with a_server(Mailbox()) as box:
        mailer = a_mailer(box)
        await send(mailer, evil, title=evil, model=evil, incident_id=evil, what=evil)
        # The outbox is not trusted either: what lies in it is read as it is.
        payload = {"subject": evil, "text": evil, "thread": evil, "urgent": False}
        await mailer.send(Letter(evil, payload, NOW), Http(mailer.reach))

    assert [["ops@example.com"]] * 2 == box.rcpts
    for mail in box.mails:
        assert None is mail["Bcc"]
        assert ["ops@example.com"] == mail.get_all("To")
        assert 1 == len(mail.get_all("Subject") or [])
        assert {
            "From", "To", "Subject", "Date", "Message-ID", "References", "In-Reply-To",
            "Auto-Submitted", "Content-Type", "Content-Transfer-Encoding", "MIME-Version",
        } == set(mail.keys()) - {"X-Peer", "X-MailFrom", "X-RcptTo"}  # fmt: skip
        assert "text/plain" == mail.get_content_type()


@pytest.mark.parametrize(
    ("answers", "reason", "permanent", "throttled"),
    [
        ({"rcpt": "550 no such user ops@example.com"}, "email answered 550", True, False),
        ({"rcpt": "450 greylisted"}, "email answered 450", False, False),
        ({"data": "554 spam"}, "email answered 554", True, False),
        ({"data": "452 no room"}, "email answered 452", False, False),
        ({"rcpt": "421 too many"}, "email answered 421", False, True),
    ],
)
async def test_every_answer_means_what_the_delivery_rules_say(
    answers: dict[str, str], reason: str, permanent: bool, throttled: bool
) -> None:
    """If this breaks, a page is dropped on a full disk, or a wrong address is tried for days."""
    async with a_server(Mailbox(**answers)) as box:
        with pytest.raises(NotDelivered) as raised:
            await send(a_mailer(box))

    assert (reason, permanent, throttled) == (
        str(raised.value), raised.value.permanent, raised.value.throttled,
    )  # fmt: skip


async def test_a_recipient_that_is_refused_keeps_the_mail_from_nobody_else() -> None:
    """If this breaks, one colleague who left silences the whole team."""
    box = Mailbox(**{"gone@example.com": "550 gone"})
    async with a_server(box):
        with structlog.testing.capture_logs() as lines:
            await send(a_mailer(box, to=["gone@example.com", "ops@example.com"]))

    assert [["ops@example.com"]] == box.rcpts
    assert ["mail not taken for some recipients"] == [line["event"] for line in lines]


async def test_without_starttls_neither_password_nor_mail_leaves(certificate: Path) -> None:
    """If this breaks, whoever sits between strips STARTTLS and reads the password."""
    async with a_server(Mailbox()) as box:
        mailer = a_mailer(box, certificate, user="rollbackd", password=Secret(CANARY))
        with pytest.raises(NotDelivered, match="offers no STARTTLS") as raised:
            await send(mailer)

    assert raised.value.permanent
    assert ([], []) == (box.logins, box.mails)


@pytest.mark.parametrize("at_once", [False, True], ids=["starttls", "tls"])
async def test_a_certificate_that_nobody_vouches_for_gets_nothing(
    certificate: Path, at_once: bool
) -> None:
    """If this breaks, any server in between takes password and mail."""
    async with a_server(Mailbox(), certificate, at_once) as box:
        mailer = a_mailer(
            box, certificate, tls="tls" if at_once else "starttls", ca_file=None,
            user="rollbackd", password=Secret(CANARY),
        )  # fmt: skip
        with pytest.raises(HttpFault, match="certificate") as raised:
            await send(mailer)

    assert "refused" == raised.value.kind
    assert ([], []) == (box.logins, box.mails)


async def test_a_wrong_password_is_a_matter_for_a_person_and_is_not_shown(
    certificate: Path,
) -> None:
    """If this breaks, an account is locked by retries, or the log shows what was tried."""
    async with a_server(Mailbox(), certificate) as box:
        wrong = Secret(f"not-{CANARY}")
        mailer = a_mailer(box, certificate, user="rollbackd", password=wrong)
        with pytest.raises(NotDelivered) as raised:
            await send(mailer)

    assert ("email answered 535", True) == (str(raised.value), raised.value.permanent)
    assert CANARY not in repr(raised.value) + repr(mailer)


@pytest.mark.parametrize("host", ["10.0.0.1", "169.254.169.254", "192.168.1.2"])
async def test_a_server_inside_is_reached_only_where_the_settings_say_so(host: str) -> None:
    """If this breaks, a mail server's name that leads inside opens the private network."""
    mailer = Email(host=host, sender="a@example.com", to=["b@example.com"])

    with pytest.raises(HttpFault, match="list it in allow_private") as raised:
        await send(mailer)

    assert "refused" == raised.value.kind


async def test_a_server_that_never_answers_ends_at_the_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If this breaks, one silent mail server keeps a thread for ever, and then all of them."""
    monkeypatch.setattr(email_file, "DEADLINE_S", 0.5)
    ended = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()  # until the other side has let go
        ended.set()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    box = Mailbox()
    box.port = server.sockets[0].getsockname()[1]
    try:
        with pytest.raises(HttpFault, match="no answer within") as raised:
            await send(a_mailer(box))
        await asyncio.wait_for(ended.wait(), 5)
    finally:
        server.close()

    assert "unknown" == raised.value.kind


async def test_a_server_that_is_not_there_is_tried_again() -> None:
    """If this breaks, a restart of the mail server loses the page."""
    async with a_server(Mailbox()) as box:
        pass
    with pytest.raises(NotDelivered) as raised:
        await send(a_mailer(box))

    assert ("email: the connection failed (ConnectionRefusedError)", False) == (
        str(raised.value), raised.value.permanent,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"host": "mail.example.com:587"}, "host must be"),
        ({"host": "mail.example.com", "tls": "none"}, "tls: none"),
        ({"host": "mail example"}, "host must be"),
        ({"to": []}, "to must name"),
        ({"to": ["Ops <ops@example.com>"]}, "plain addresses"),
        ({"to": ["ops@example.com\r\nBcc: evil@example.net"]}, "plain addresses"),
        ({"sender": "ops@example.com\n"}, "plain addresses"),
        ({"sender": "nobody"}, "plain addresses"),
        ({"port": 0}, "port is 0"),
        ({"user": "rollbackd"}, "user and password"),
        ({"password": Secret("x")}, "user and password"),
        ({"allow_private": ["inside"]}, "allow_private"),
    ],
)
def test_its_settings_are_checked(changes: dict[str, Any], words: str) -> None:
    """If this breaks, a mistake in the settings shows on the night of the first incident."""
    fields: dict[str, Any] = {"host": "localhost", "sender": "a@b.example", "to": ["c@d.example"]}

    with pytest.raises(ValueError, match=words):
        Email(**(fields | changes))
