"""Who gave an order: Ed25519 over the exact bytes of a command on the wire.

Why. Whoever can write to the topic `commands` could otherwise move production traffic. `watch`
signs what it appends; `act` holds public keys only and refuses what none of them signed.

How. Two headers: `rollbackd-key` names the key (so that two can be trusted while one is replaced),
`rollbackd-signature` carries the raw signature. The bytes are signed as they are, never encoded
again. A key that is made here is written once, for its owner only, with the public half beside it.

Refused here: a header that comes twice, a key that is not trusted, any other algorithm.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

KEY_HEADER = "rollbackd-key"
SIGNATURE_HEADER = "rollbackd-signature"

Headers = Sequence[tuple[str, bytes]]


class SigningFault(ValueError):
    """A key cannot be read or used; the text names the file and the way out, never the key."""


class Signer:
    """Signs commands; made from a private key."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.key_id = key_id(key.public_key())

    @classmethod
    def load_or_create(cls, path: Path) -> Signer:
        """Read the private key (PEM) at `path`, or make one there and `path`.pub beside it.

        Raises
        ------
        SigningFault
            When the file cannot be read or written, or holds no Ed25519 private key.
        """
        try:
            if not path.exists():
                _create(path)
            return cls(_private_key(path.read_bytes(), path))
        except OSError as fault:
            raise SigningFault(
                f"signing key {path}: {fault.strerror}; set signing.key_file to a file that this "
                "process may read"
            ) from None

    @property
    def public_pem(self) -> str:
        """The public half, for `Verifier` and `signing.public_key_files`."""
        return _public_pem(self._key.public_key()).decode()

    def sign(self, data: bytes) -> Headers:
        """Give the headers under which `data` travels."""
        return (
            (KEY_HEADER, self.key_id.encode()),
            (SIGNATURE_HEADER, self._key.sign(data)),
        )


class Verifier:
    """Checks commands against the public keys (PEM) that are trusted here.

    Raises
    ------
    SigningFault
        When a text is no Ed25519 public key.
    """

    def __init__(self, public_pems: Iterable[str | bytes]) -> None:
        keys = [_public_key(pem) for pem in public_pems]
        self._keys = {key_id(key): key for key in keys}

    def verify(self, data: bytes, headers: Headers) -> str | None:
        """Say why `data` is not signed by a trusted key, or None."""
        names = [value for name, value in headers if name == KEY_HEADER]
        signatures = [value for name, value in headers if name == SIGNATURE_HEADER]
        if not names or not signatures:
            return "the command is not signed"
        if len(names) > 1 or len(signatures) > 1:
            return "the command carries more than one signature"
        key = self._keys.get(names[0].decode("ascii", "replace"))
        if key is None:
            return "the command is signed by a key that is not trusted here"
        try:
            key.verify(signatures[0], data)
        except InvalidSignature:
            return "the command's signature does not fit its bytes"
        return None


def key_id(key: Ed25519PublicKey) -> str:
    """Name a public key: 16 characters of the SHA-256 of its raw bytes."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def _create(path: Path) -> None:
    """Write a new key whole or not at all; of two processes that try, one makes it."""
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)  # unlike a rename it fails where another process was first
        except FileExistsError:
            return
        path.with_name(f"{path.name}.pub").write_bytes(_public_pem(key.public_key()))
    finally:
        os.unlink(draft)


def _private_key(pem: bytes, path: Path) -> Ed25519PrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise SigningFault(
            f"signing key {path} is no Ed25519 private key (PEM, without a password); remove it "
            "to have one made, or name another"
        )
    return key


def _public_key(pem: str | bytes) -> Ed25519PublicKey:
    data = pem.encode() if isinstance(pem, str) else pem
    try:
        key = serialization.load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise SigningFault(
            "a trusted key is no Ed25519 public key (PEM); signing.public_key_files must name "
            "the .pub files of `watch`"
        )
    return key


def _public_pem(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
