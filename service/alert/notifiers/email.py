"""E-mail by a mail server of one's own: plain text, the mails of an incident in one thread.

Why. It is the one channel that every company has, and the one that forged messages use most. So
nothing that came with an event reaches a header but by way of the subject, which is one line; the
addresses come from the settings alone; and there is no HTML.

How. The server's host is judged as any other address is, and the connection goes to an address
that was judged, with the host's own name in TLS. STARTTLS is required, never tried: a server that
does not offer it gets neither the password nor the mail. The standard library's client blocks, so
it runs in a thread, and its socket is shut down when the deadline passes.

`Message-ID` is the delivery's id, so that a repeat can be known; `References` names an id that is
made of the incident's, so that mail programs put its mails together. A mail that some recipients do
not get is delivered, and that is logged.

References
----------
RFC 5321, RFC 5322 3.6.4, RFC 3207, RFC 3834.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import smtplib
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.policy import SMTP as MAIL_LINES
from email.utils import formatdate
from typing import Any, Literal

import structlog

from schemas.plugins import plugin
from schemas.secrets import Secret
from service.addresses import Address, HttpFault, judge_host, read_networks
from service.alert.notifiers.base import Letter, NotDelivered, Payload, shortened
from service.alert.notifiers.smtp import DEADLINE_S, Server, not_delivered
from service.alert.route import Notice, harmless
from service.config import is_loopback
from service.http import Http, Reach

MAX_SUBJECT, MAX_PART = 200, 1200
_PORTS = {"starttls": 587, "tls": 465, "none": 25}
_ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=^_`{|}~-]{1,64}@[A-Za-z0-9.-]{1,253}")
_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}|[0-9A-Fa-f:]*:[0-9A-Fa-f:]*:[0-9A-Fa-f.:]*")
_NO_ID = re.compile("[^A-Za-z0-9_-]")
MAX_ID = 64

logs: Any = structlog.get_logger("alert")


@plugin("email")
@dataclass(frozen=True)
class Email:
    """Some recipients, by one server.

    Parameters
    ----------
    host : str
        The mail server.
    sender : str
        A plain address, such as `rollbackd@example.com`.
    to : list of str
        Plain addresses.
    port : int or None
        587 for `starttls`, 465 for `tls`, 25 for `none` when left out.
    tls : str
        `starttls`, `tls` from the first byte on, or `none`, which only a server on this machine may
        have.
    user : str or None
        With `password`, when the server wants to know who sends.
    ca_file : str or None
        Certificates to trust in place of the public ones.
    allow_private : list of str
        Private networks that the server may lie in, such as `10.1.0.0/16`.

    Raises
    ------
    ValueError
        On an address that is none, half a login, or plain text beyond this machine.
    """

    host: str
    sender: str
    to: list[str]
    port: int | None = None
    tls: Literal["starttls", "tls", "none"] = "starttls"
    user: str | None = None
    password: Secret | None = None
    ca_file: str | None = None
    allow_private: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        read_networks(self.allow_private)
        if not _HOST.fullmatch(self.host):
            raise ValueError("host must be a name or an address, without a port")
        if not self.to:
            raise ValueError("to must name at least one address")
        for address in (self.sender, *self.to):
            if not _ADDRESS.fullmatch(address):
                raise ValueError("sender and to must be plain addresses such as ops@example.com")
        if self.port is not None and not 0 < self.port < 65_536:
            raise ValueError(f"port is {self.port}, expected 1 to 65535")
        if (self.user is None) != (self.password is None):
            raise ValueError("user and password go together")
        if self.tls == "none" and not is_loopback(self.host):
            raise ValueError("tls: none is for a server on this machine; use starttls or tls")

    @property
    def pause_s(self) -> float:
        """Many servers take few mails a minute from one sender."""
        return 1.0

    @property
    def reach(self) -> Reach:
        """What the settings allow."""
        return Reach(False, read_networks(self.allow_private))

    def render(self, notice: Notice) -> Payload:
        """Say it in plain text: nothing in it is markup."""
        parts = [notice.what, notice.why, notice.done, "\n".join(notice.commands), notice.link]
        return {
            "subject": _one_line(notice.title),
            "text": "\n\n".join(shortened(part, MAX_PART) for part in parts if part) + "\n",
            "thread": notice.incident_id or notice.notice_id,
            "urgent": notice.tone == "person",
        }

    async def send(self, letter: Letter, http: Http) -> None:
        """Try once."""
        port = self.port or _PORTS[self.tls]
        message = self._message(letter)
        tries: list[Server] = []
        try:
            async with asyncio.timeout(DEADLINE_S):
                addresses = await judge_host(self.host, port, self.reach)
                await asyncio.to_thread(self._deliver, addresses, port, message, tries)
        except TimeoutError:
            words = f"{self.host}: no answer within {DEADLINE_S:g} s"
            raise HttpFault("unknown", words) from None
        finally:
            for server in tries:
                server.abandon()

    def _message(self, letter: Letter) -> EmailMessage:
        told, domain = letter.payload, self.sender.rpartition("@")[2]
        thread = f"<{_id(str(told['thread']))}.incident@{domain}>"
        message = EmailMessage(policy=MAIL_LINES)
        message["From"] = self.sender
        message["To"] = ", ".join(self.to)
        # Once more at the last moment: what is in the outbox may be older than this version.
        message["Subject"] = _one_line(str(told["subject"]))
        message["Date"] = formatdate(letter.at_ms / 1000)
        message["Message-ID"] = f"<{_id(letter.delivery_id)}@{domain}>"
        message["In-Reply-To"] = message["References"] = thread
        message["Auto-Submitted"] = "auto-generated"
        if told["urgent"]:
            message["Importance"] = "high"
        message.set_content(str(told["text"]))
        return message

    def _deliver(
        self, addresses: Sequence[Address], port: int, message: EmailMessage, tries: list[Server]
    ) -> None:
        try:
            tls = None if self.tls == "none" else ssl.create_default_context(cafile=self.ca_file)
        except (OSError, ssl.SSLError):
            raise NotDelivered("email: ca_file cannot be read", permanent=True) from None
        server = Server(self.host, addresses, tls if self.tls == "tls" else None, self.sender)
        tries.append(server)
        try:
            server.connect(self.host, port)
            if self.tls == "starttls":
                server.starttls(context=tls)
            if self.user is not None and self.password is not None:
                server.login(self.user, self.password.reveal())
            refused = server.send_message(message, self.sender, self.to)
            with contextlib.suppress(smtplib.SMTPException, OSError):
                server.quit()  # the mail is taken; a farewell that fails must not repeat it
        except ssl.SSLCertVerificationError:
            words = f"{self.host}: its certificate is not to be trusted"
            raise HttpFault("refused", words) from None
        except smtplib.SMTPException as fault:
            raise not_delivered(fault) from None
        except (OSError, ValueError) as fault:
            raise NotDelivered(f"email: the connection failed ({type(fault).__name__})") from None
        finally:
            server.close()
        if refused:
            logs.error("mail not taken for some recipients", refused=len(refused))


def _one_line(text: str) -> str:
    """Make a subject of a text that came with events.

    The standard library reads encoded words in what it is given and writes them decoded, line
    breaks included: `=?utf-8?q?=0D=0ABcc:_…?=` would become a header of its own.
    """
    # What cannot be seen goes first: it could hold the two signs apart until then.
    return shortened(harmless(text, MAX_SUBJECT).replace("=?", "= ?"), MAX_SUBJECT)


def _id(text: str) -> str:
    return _NO_ID.sub("", text)[:MAX_ID]
