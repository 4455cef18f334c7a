"""Standard Webhooks 1.0: one way to sign what leaves by HTTP, and to check what comes in.

What is signed is `{webhook-id}.{webhook-timestamp}.{body}` over the exact bytes. `v1` is
HMAC-SHA256 under a shared secret (`whsec_` + base64 of 24 to 64 bytes, or a plain text of at least
24 bytes, used as it is); `v1a` is Ed25519 (`whsk_` signs, `whpk_` checks; base64). Several keys,
parted by spaces, give several signatures, so that a key can be replaced without a gap.

Own code, because the reference library knows only `v1` and raises bare errors on malformed input.
Checking never raises: it gives a reason, or None.

Refused here: short secrets, ids with a dot (they would let two messages share a signature), and
remembering ids; who takes calls in does that.

References
----------
Standard Webhooks specification 1.0.0.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

from schemas.secrets import Secret

TOLERANCE_S = 300
"""How far a timestamp may lie from the receiver's clock, both ways."""

_PREFIXES = ("whsec_", "whsk_", "whpk_")


class WebhookFault(ValueError):
    """A key cannot be used; the text says what is wrong with it, never the key."""


class Key(Protocol):
    """One key of an endpoint."""

    version: str
    """`v1` or `v1a`."""

    def sign(self, content: bytes) -> bytes:
        """Sign; raises WebhookFault for a key that can only check."""
        ...

    def accepts(self, content: bytes, signature: bytes) -> bool:
        """Whether the signature is this key's."""
        ...


class Shared:
    """`v1`: a secret that both sides have."""

    version = "v1"

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def sign(self, content: bytes) -> bytes:
        """HMAC-SHA256."""
        return hmac.new(self._secret, content, hashlib.sha256).digest()

    def accepts(self, content: bytes, signature: bytes) -> bool:
        """Compare in constant time."""
        return hmac.compare_digest(self.sign(content), signature)


class Pair:
    """`v1a`: Ed25519; without the private half it only checks."""

    version = "v1a"

    def __init__(self, public: Ed25519PublicKey, private: Ed25519PrivateKey | None = None) -> None:
        self._public = public
        self._private = private

    def sign(self, content: bytes) -> bytes:
        """Sign with the private half."""
        if self._private is None:
            raise WebhookFault("a whpk_ key only checks; sign with the whsk_ key")
        return self._private.sign(content)

    def accepts(self, content: bytes, signature: bytes) -> bool:
        """Check with the public half."""
        try:
            self._public.verify(signature, content)
        except InvalidSignature:
            return False
        return True


def read_keys(secret: Secret) -> tuple[Key, ...]:
    """Read an endpoint's keys; the first is the newest.

    Raises
    ------
    WebhookFault
        When one is malformed or too short.
    """
    text = secret.reveal().strip()
    parts = text.split()
    # A plain text may hold spaces; only keys that say what they are can be several.
    if len(parts) > 1 and all(part.startswith(_PREFIXES) for part in parts):
        return tuple(_read_key(part) for part in parts)
    return (_read_key(text),)


def _read_key(text: str) -> Key:
    prefix = next((prefix for prefix in _PREFIXES if text.startswith(prefix)), None)
    if prefix is None:
        if len(text.encode()) < 24:
            raise WebhookFault(
                "the secret is shorter than 24 bytes; use whsec_ and 24-64 random bytes in base64"
            )
        return Shared(text.encode())
    try:
        data = base64.b64decode(text.removeprefix(prefix), validate=True)
    except (binascii.Error, ValueError):
        raise WebhookFault(f"the secret after {prefix} is not base64") from None
    if prefix == "whsec_":
        if not 24 <= len(data) <= 64:
            raise WebhookFault(f"the secret after whsec_ has {len(data)} bytes; it must have 24-64")
        return Shared(data)
    # Some tools write the private key with the public half behind it.
    if len(data) != 32 and not (prefix == "whsk_" and len(data) == 64):
        raise WebhookFault(f"the key after {prefix} has {len(data)} bytes; it must have 32")
    if prefix == "whpk_":
        return Pair(Ed25519PublicKey.from_public_bytes(data))
    private = Ed25519PrivateKey.from_private_bytes(data[:32])
    return Pair(private.public_key(), private)


def sign(keys: Sequence[Key], message_id: str, at_s: int, body: bytes) -> dict[str, str]:
    """Give the three headers of a message.

    Parameters
    ----------
    message_id : str
        The same for every attempt: the receiver drops what it has seen.
    at_s : int
        Time of this attempt, epoch seconds.

    Raises
    ------
    WebhookFault
        When the id could not be told from what follows it.
    """
    if not message_id or not message_id.isascii() or not message_id.isprintable():
        raise WebhookFault("a webhook id must be printable ASCII and not empty")
    if "." in message_id or " " in message_id:
        raise WebhookFault("a webhook id must hold no dot and no space")
    content = _content(message_id, str(at_s), body)
    signatures = [f"{key.version},{base64.b64encode(key.sign(content)).decode()}" for key in keys]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(at_s),
        "webhook-signature": " ".join(signatures),
    }


def verify(
    keys: Sequence[Key], headers: Mapping[str, str], body: bytes, now_s: float
) -> str | None:
    """Say why a message is not to be believed, or None.

    Parameters
    ----------
    headers : mapping
        As received; upper and lower case are one.
    now_s : float
        The receiver's time, epoch seconds.
    """
    found = {name.lower(): value for name, value in headers.items()}
    for name in ("webhook-id", "webhook-timestamp", "webhook-signature"):
        if not found.get(name):
            return f"the header {name} is missing"
    message_id, stamp = found["webhook-id"], found["webhook-timestamp"]
    if not (stamp.isascii() and stamp.isdigit() and len(stamp) <= 12):
        return "the header webhook-timestamp is no whole number of seconds"
    if "." in message_id:
        return "the header webhook-id holds a dot"
    if abs(now_s - int(stamp)) > TOLERANCE_S:
        return f"the message is more than {TOLERANCE_S} s older or newer than this clock"
    content = _content(message_id, stamp, body)
    for part in found["webhook-signature"].split():
        version, _, encoded = part.partition(",")
        try:
            signature = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            continue
        if any(key.version == version and key.accepts(content, signature) for key in keys):
            return None
    return "no signature fits; check that both sides have the same key"


def _content(message_id: str, stamp: str, body: bytes) -> bytes:
    return f"{message_id}.{stamp}.".encode("utf-8", "surrogatepass") + body
