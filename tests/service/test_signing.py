"""Only what a trusted key signed, byte for byte, is a command."""

import os
import stat
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.signing import KEY_HEADER, Signer, SigningFault, Verifier
from tests.builders import a_command

DATA = msgspec.json.encode(a_command())


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return Signer.load_or_create(tmp_path_factory.mktemp("keys") / "watch.pem")


def test_a_signed_command_is_believed(signer: Signer) -> None:
    """If this breaks, no rollback is ever carried out."""
    assert None is Verifier([signer.public_pem]).verify(DATA, signer.sign(DATA))


@given(place=st.integers(0, len(DATA) - 1), flip=st.integers(1, 255))
def test_one_changed_byte_is_refused(signer: Signer, place: int, flip: int) -> None:
    """If this breaks, whoever can write to the topic can name another target."""
    forged = bytearray(DATA)
    forged[place] ^= flip

    actual = Verifier([signer.public_pem]).verify(bytes(forged), signer.sign(DATA))

    assert "the command's signature does not fit its bytes" == actual


def test_unsigned_unknown_and_doubled_signatures_are_refused(
    signer: Signer, tmp_path: Path
) -> None:
    """If this breaks, a command without a signature, or of a stranger, moves traffic."""
    stranger = Signer.load_or_create(tmp_path / "stranger.pem")
    verifier = Verifier([signer.public_pem])
    good = tuple(signer.sign(DATA))
    borrowed = ((KEY_HEADER, signer.key_id.encode()), stranger.sign(DATA)[1])

    actual = [
        verifier.verify(DATA, headers)
        for headers in ([], good[:1], stranger.sign(DATA), borrowed, (*good, *good))
    ]

    expected = [
        "the command is not signed",
        "the command is not signed",
        "the command is signed by a key that is not trusted here",
        "the command's signature does not fit its bytes",
        "the command carries more than one signature",
    ]
    assert expected == actual


def test_two_keys_are_trusted_while_one_is_replaced(signer: Signer, tmp_path: Path) -> None:
    """If this breaks, replacing a key stops every rollback for a while."""
    new = Signer.load_or_create(tmp_path / "new.pem")
    verifier = Verifier([signer.public_pem, new.public_pem.encode()])

    assert [None, None] == [verifier.verify(DATA, by.sign(DATA)) for by in (signer, new)]


def test_a_key_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    """If this breaks, a restart signs with a new key that `act` does not trust."""
    path = tmp_path / "deep" / "watch.pem"
    first = Signer.load_or_create(path)
    again = Signer.load_or_create(path)

    assert first.key_id == again.key_id
    assert 0o600 == stat.S_IMODE(os.stat(path).st_mode)
    assert first.public_pem == (tmp_path / "deep" / "watch.pem.pub").read_text()
    assert {"watch.pem", "watch.pem.pub"} == {p.name for p in path.parent.iterdir()}


@pytest.mark.parametrize("text", ["", "hunter2-hunter2", "-----BEGIN PRIVATE KEY-----\nAAAA\n"])
def test_a_broken_key_is_named_by_its_file_and_never_shown(tmp_path: Path, text: str) -> None:
    """If this breaks, a person does not know which file to mend, or a log holds the key."""
    path = tmp_path / "watch.pem"
    path.write_text(text)

    with pytest.raises(SigningFault, match="pem is no Ed25519") as raised:
        Signer.load_or_create(path)
    assert "hunter2" not in str(raised.value)
    with pytest.raises(SigningFault, match="public_key_files"):
        Verifier([text])
