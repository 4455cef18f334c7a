"""A secret is given by `reveal` and by nothing else."""

import json
import logging
import pprint
import traceback
from collections.abc import Callable

import msgspec
import pytest

from schemas.secrets import Secret
from service.config import Token

HIDDEN = "hunter2-hunter2-hunter2"
SHOWN: list[Callable[[object], str]] = [
    repr, str, "{}".format, "%s".__mod__, "{!r}".format, "{0!s}".format, pprint.pformat,
    lambda secret: str([secret]), lambda secret: str({"a": secret}),
    lambda secret: json.dumps({"a": secret}, default=str),
    lambda secret: logging.makeLogRecord({"msg": "%s", "args": (secret,)}).getMessage(),
    lambda secret: "".join(traceback.format_exception(ValueError(secret))),
]  # fmt: skip


@pytest.mark.parametrize("show", SHOWN)
def test_no_way_of_showing_shows_it(show: Callable[[object], str]) -> None:
    """If this breaks, a webhook's address stands in a log that many can read."""
    for value in (Secret(HIDDEN), Token(name="ann", role="viewer", token=Secret(HIDDEN))):
        assert "hunter2" not in show(value)
        assert "***" in show(value)


@pytest.mark.parametrize("encode", [json.dumps, msgspec.json.encode, msgspec.msgpack.encode])
def test_it_cannot_be_written_by_accident(encode: Callable[[object], object]) -> None:
    """If this breaks, settings that are sent or stored carry their secrets."""
    with pytest.raises(TypeError) as fault:
        encode({"token": Secret(HIDDEN)})

    assert "hunter2" not in str(fault.value)


def test_it_is_what_was_put_in() -> None:
    """If this breaks, every signed request is refused."""
    assert HIDDEN == Secret(HIDDEN).reveal()
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert 1 == len({Secret("a"), Secret("a")})
