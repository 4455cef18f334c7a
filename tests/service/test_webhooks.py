"""Webhooks are signed as the standard says: other people's code must agree with ours."""

import base64
import json
import shutil
import subprocess

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from schemas.secrets import Secret
from service.webhooks import TOLERANCE_S, WebhookFault, read_keys, sign, verify
from tests.real import require

# The vector of the specification's reference libraries.
SECRET = Secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
ID, AT, BODY = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="

PRIVATE = Ed25519PrivateKey.generate()
WHSK = "whsk_" + base64.b64encode(PRIVATE.private_bytes_raw()).decode()
WHPK = "whpk_" + base64.b64encode(PRIVATE.public_key().public_bytes_raw()).decode()

NODE = """
const c = require('crypto'), i = JSON.parse(require('fs').readFileSync(0));
const data = Buffer.from(i.id + '.' + i.at + '.' + i.body);
const mac = c.createHmac('sha256', Buffer.from(i.secret, 'base64')).update(data).digest('base64');
const x = Buffer.from(i.public, 'base64').toString('base64url');
const key = c.createPublicKey({key: {kty: 'OKP', crv: 'Ed25519', x}, format: 'jwk'});
const ed = c.verify(null, data, key, Buffer.from(i.ed, 'base64'));
console.log(JSON.stringify([mac, ed]));
"""


def test_signature_is_the_one_of_the_reference_libraries() -> None:
    """If this breaks, no receiver with a standard library accepts our calls."""
    actual = sign(read_keys(SECRET), ID, AT, BODY)

    expected = {"webhook-id": ID, "webhook-timestamp": str(AT), "webhook-signature": SIGNATURE}
    assert expected == actual


def test_another_language_computes_the_same() -> None:
    """If this breaks, we agree only with ourselves."""
    node = shutil.which("node") or require("node", "no program node on PATH")
    both = Secret(f"{SECRET.reveal()} {WHSK}")
    hmac_part, ed_part = sign(read_keys(both), ID, AT, BODY)["webhook-signature"].split()
    told = {
        "id": ID,
        "at": AT,
        "body": BODY.decode(),
        "secret": SECRET.reveal().removeprefix("whsec_"),
        "public": WHPK.removeprefix("whpk_"),
        "ed": ed_part.removeprefix("v1a,"),
    }
    done = subprocess.run(
        [node, "-e", NODE], input=json.dumps(told), capture_output=True, text=True, check=True
    )

    assert [hmac_part.removeprefix("v1,"), True] == json.loads(done.stdout)


@pytest.mark.parametrize(
    ("signs", "checks"),
    [
        (SECRET.reveal(), SECRET.reveal()),
        (WHSK, WHPK),
        ("a plain text of more than 24 bytes", "a plain text of more than 24 bytes"),
        (f"whsec_{base64.b64encode(b'n' * 32).decode()} {SECRET.reveal()}", SECRET.reveal()),
    ],
)
def test_what_one_side_signs_the_other_believes(signs: str, checks: str) -> None:
    """If this breaks, calls stop while a key is being replaced, or for one kind of key."""
    headers = sign(read_keys(Secret(signs)), "c1", AT, BODY)
    upper = {name.upper(): value for name, value in headers.items()}

    assert None is verify(read_keys(Secret(checks)), upper, BODY, AT + TOLERANCE_S)


@pytest.mark.parametrize(
    ("changes", "body", "now_s", "reason"),
    [
        ({}, b"{}", AT, "no signature fits"),
        ({"webhook-id": "other"}, BODY, AT, "no signature fits"),
        ({"webhook-timestamp": str(AT + 1)}, BODY, AT, "no signature fits"),
        ({}, BODY, AT + TOLERANCE_S + 1, "older or newer"),
        ({}, BODY, AT - TOLERANCE_S - 1, "older or newer"),
        ({"webhook-timestamp": "soon"}, BODY, AT, "no whole number"),
        ({"webhook-timestamp": "１６１４２６５３３０"}, BODY, AT, "no whole number"),
        ({"webhook-id": ""}, BODY, AT, "webhook-id is missing"),
        ({"webhook-id": f"{ID}.1"}, BODY, AT, "holds a dot"),
        ({"webhook-signature": "v1"}, BODY, AT, "no signature fits"),
        ({"webhook-signature": "v1,a,b"}, BODY, AT, "no signature fits"),
        ({"webhook-signature": SIGNATURE.replace("v1,", "v1a,")}, BODY, AT, "no signature fits"),
        ({"webhook-signature": "v1, " + SIGNATURE[3:]}, BODY, AT, "no signature fits"),
    ],
)
def test_what_is_not_whole_is_not_believed(
    changes: dict[str, str], body: bytes, now_s: int, reason: str
) -> None:
    """If this breaks, a forged, repeated or malformed call gets through, or crashes us."""
    headers = sign(read_keys(SECRET), ID, AT, BODY) | changes

    assert reason in (verify(read_keys(SECRET), headers, body, now_s) or "believed")


@given(st.dictionaries(st.sampled_from(["webhook-id", "webhook-timestamp", "webhook-signature"]),
                       st.text()), st.binary())  # fmt: skip
def test_no_header_makes_checking_raise(headers: dict[str, str], body: bytes) -> None:
    """If this breaks, one odd request is a crash instead of a refusal."""
    assert None is not verify(read_keys(SECRET), headers, body, AT)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "canary-short",
        "whsec_canary!",
        "whsec_" + base64.b64encode(b"canary").decode(),
        "whsec_" + base64.b64encode(b"c" * 65).decode(),
        "whsk_" + base64.b64encode(b"c" * 31).decode(),
        "whpk_" + base64.b64encode(b"c" * 64).decode(),
    ],
)
def test_a_weak_secret_is_refused_and_never_shown(text: str) -> None:
    """If this breaks, calls are signed with what can be guessed, or an error shows the secret."""
    with pytest.raises(WebhookFault) as raised:
        read_keys(Secret(text))
    assert "canary" not in str(raised.value)


@pytest.mark.parametrize("message_id", ["", "a.b", "a b", "a\nb", "ä"])
def test_an_id_that_could_be_mistaken_is_refused(message_id: str) -> None:
    """If this breaks, two different messages can carry the same signature."""
    with pytest.raises(WebhookFault):
        sign(read_keys(SECRET), message_id, AT, BODY)
