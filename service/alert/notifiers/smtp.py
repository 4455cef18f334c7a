"""The standard library's mail client on an address that was judged, and what its failures mean.

Why of its own. The client resolves names itself, as often as it likes; here it is given addresses
that `service/addresses.py` has judged, while TLS still asks for the host's own name. And it blocks,
so another thread must be able to end it.

Refused here: the server's own words. They may hold addresses of people; only its codes are shown.
"""

from __future__ import annotations

import contextlib
import smtplib
import socket
import ssl
from collections.abc import Sequence

from service.addresses import Address
from service.alert.notifiers.base import NotDelivered

DEADLINE_S = 20.0
"""From the look-up to the server's last word; below the lease of a delivery."""


class Server(smtplib.SMTP):
    """The standard client, but its connection goes to addresses that were judged."""

    def __init__(
        self, host: str, addresses: Sequence[Address], tls: ssl.SSLContext | None, sender: str
    ) -> None:
        # A name is given, for otherwise the resolver is asked what this machine is called.
        super().__init__(local_hostname=sender.rpartition("@")[2], timeout=DEADLINE_S)
        self._host = host
        self._addresses = addresses
        self._tls = tls
        self._abandoned = False

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        """Connect to the first address that answers."""
        last = OSError()
        for address in self._addresses:
            try:
                self.sock = plain = socket.create_connection((str(address), port), timeout)
            except OSError as fault:
                last = fault
                continue
            if self._abandoned:
                break
            return (
                plain if self._tls is None else self._tls.wrap_socket(plain, server_hostname=host)
            )
        raise last

    def abandon(self) -> None:
        """End it from another thread: what is waited for there fails at once."""
        self._abandoned = True
        if self.sock is not None:
            # Closing would not wake a thread that reads; that thread closes it then.
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)


def not_delivered(fault: smtplib.SMTPException) -> NotDelivered:
    """Say what a refusal means; never in the server's own words, which may hold addresses."""
    # The bare kind is what it raises when it knows none of the offered ways to log in.
    if type(fault) in (smtplib.SMTPNotSupportedError, smtplib.SMTPException):
        return NotDelivered("email: the server offers no STARTTLS or no such login", permanent=True)
    codes: list[int] = []
    if isinstance(fault, smtplib.SMTPRecipientsRefused):
        codes = [code for code, _ in fault.recipients.values()]
    elif isinstance(fault, smtplib.SMTPResponseException):
        codes = [fault.smtp_code]
    if not codes:
        return NotDelivered(f"email: the server broke off ({type(fault).__name__})")
    return NotDelivered(
        f"email answered {min(codes)}",
        permanent=all(500 <= code < 600 for code in codes),
        throttled=421 in codes,
    )
