"""Tokens from a small authority that checks what it is given, as RFC 6749 and 7523 say."""

import base64
import json
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from schemas.secrets import Secret
from service.act.adapters import tokens
from service.act.adapters.base import PlatformFault
from service.clock import SetClock
from service.http import Http
from tests.receiver import Answer, receiving

PEM = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
GOOD = Answer(200, {}, json.dumps({"access_token": "canary-token", "expires_in": 3600}).encode())


async def test_a_client_secret_is_shown_to_its_own_authority_and_the_token_kept() -> None:
    """If this breaks, every call asks for a new token, or an old one is used after its end."""
    clock = SetClock()
    async with receiving(GOOD, GOOD, GOOD) as authority:
        client = {"tenant": "t1", "client_id": "c1", "scope": "s1"}
        fetch = tokens.azure_client(Http(), authority.url, client, Secret("canary-secret"))
        kept = tokens.Tokens(fetch, clock)
        first = [await kept.headers() for _ in range(3)]
        clock.move(3301)
        await kept.headers()
        await kept.headers(fresh=True)

    assert [{"authorization": "Bearer canary-token"}] * 3 == first
    assert 3 == len(authority.got)
    form = parse_qs(authority.got[0].body.decode())
    assert authority.got[0].path.endswith("/t1/oauth2/v2.0/token")
    assert (["client_credentials"], ["c1"], ["canary-secret"]) == (
        form["grant_type"], form["client_id"], form["client_secret"]
    )  # fmt: skip


async def test_a_workloads_token_is_read_anew_each_time(tmp_path: Path) -> None:
    """If this breaks, a federated workload is locked out when its token is rotated."""
    path = tmp_path / "assertion"
    async with receiving(GOOD, GOOD) as authority:
        client = {"tenant": "t", "client_id": "c", "scope": "s", "assertion_path": str(path)}
        fetch = tokens.azure_client(Http(), authority.url, client, Secret(""))
        for text in ("one", "two"):
            path.write_text(text)
            await fetch()

    forms = [parse_qs(request.body.decode()) for request in authority.got]
    assert [["one"], ["two"]] == [form["client_assertion"] for form in forms]
    assert not any("client_secret" in form for form in forms)


async def test_an_accounts_key_signs_a_claim_that_its_public_half_confirms(tmp_path: Path) -> None:
    """If this breaks, Google's authority refuses the claim."""
    key = rsa.generate_private_key(65_537, 2048)
    async with receiving(GOOD) as authority:
        told = {
            "client_email": "rollbackd@p.example", "token_uri": authority.url,
            "private_key": key.private_bytes(*PEM).decode(),
        }  # fmt: skip
        (tmp_path / "key.json").write_text(json.dumps(told))
        clock = SetClock(1_800_000_000_000)
        token, good_s = await tokens.google_key(
            Http(), str(tmp_path / "key.json"), "scope-1", clock
        )()

    assert ("canary-token", 3600) == (token, good_s)
    claim = parse_qs(authority.got[0].body.decode())["assertion"][0]
    text, _, signature = claim.rpartition(".")
    key.public_key().verify(_plain(signature), text.encode(), padding.PKCS1v15(), hashes.SHA256())
    said = json.loads(_plain(text.split(".")[1]))
    assert ("rollbackd@p.example", "scope-1", 1_800_000_000, 1_800_003_600) == (
        said["iss"], said["scope"], said["iat"], said["exp"]
    )  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Answer(401, {}, b'{"error_description": "canary-secret is wrong"}'), "credentials"),
        (Answer(400, {}, b'{"error": "canary-secret"}'), "credentials"),
        (Answer(503, {}, b""), "transient"),
        (Answer(200, {}, b'{"token_type": "Bearer"}'), "credentials"),
        (Answer(200, {}, b"<html>"), "transient"),
    ],
)
async def test_a_refused_request_says_so_without_the_secret(answer: Answer, kind: str) -> None:
    """If this breaks, a wrong secret is tried for minutes, or an error shows it."""
    async with receiving(answer) as authority:
        client = {"tenant": "t", "client_id": "c", "scope": "s"}
        fetch = tokens.azure_client(Http(), authority.url, client, Secret("canary-secret"))
        with pytest.raises(PlatformFault) as caught:
            await fetch()

    assert (kind, False) == (caught.value.kind, "canary" in str(caught.value))


@pytest.mark.parametrize("text", ["", "{}", '{"client_email": 1, "token_uri": 2}', None])
async def test_a_bad_key_path_names_itself(tmp_path: Path, text: str | None) -> None:
    """If this breaks, a wrong path ends in a trace instead of a sentence."""
    path = tmp_path / "key.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(PlatformFault, match=r"key\.json"):
        await tokens.google_key(Http(), str(path), "s", SetClock())()


def _plain(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
