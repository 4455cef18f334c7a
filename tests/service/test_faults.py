"""Every fault of plain data against a settings type, at once, each with its path."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from schemas.durations import Duration
from schemas.secrets import Secret
from service.faults import faults_of, names_secret, shown, sort_of


class Leaf(Struct, forbid_unknown_fields=True):
    color: Literal["red", "blue"]
    size: int = 1


class Tree(Struct, forbid_unknown_fields=True):
    name: str
    leaf: Leaf
    leaves: list[Leaf] = []
    shares: list[float] = []
    notes: dict[str, str] = {}
    kinds: dict[str, dict[str, Any]] = {}
    every: Duration | None = None
    secret: Secret | None = None
    sign: Literal["a", "b"] | None = None
    other: Leaf | None = None


WHOLE: dict[str, Any] = {"name": "oak", "leaf": {"color": "red"}}


def test_sound_data_has_no_fault() -> None:
    """If this breaks, no settings file is accepted."""
    data = WHOLE | {
        "leaves": [{"color": "blue", "size": 3}], "shares": [1, 0.5], "notes": {"a": "b"},
        "kinds": {"x": {"any": [None]}}, "every": "7d", "secret": "hidden", "sign": None,
        "other": None,
    }  # fmt: skip

    assert [] == list(faults_of(Tree, data))


def test_all_faults_are_found_at_once_in_the_order_of_the_file() -> None:
    """If this breaks, a person mends one fault per start."""
    data = {
        "nmae": 1, "leaf": {"color": "green", "size": "big"},
        "leaves": [{"color": "red"}, 7, {"size": 2}], "shares": [1, "half"], "notes": {"a": 1},
        "kinds": {"x": 1}, "every": "soon", "sign": "c", "other": [],
    }  # fmt: skip

    assert [
        "nmae: found an unknown key, expected name?",
        "name: found nothing, expected a value (it is required)",
        "leaf.color: found 'green', expected one of red, blue",
        "leaf.size: found 'big', expected a whole number",
        "leaves[1]: found a number, expected a mapping",
        "leaves[2].color: found nothing, expected a value (it is required)",
        "shares[1]: found 'half', expected a number",
        "notes.a: found 1, expected a text",
        "kinds.x: found a number, expected a mapping",
        "every: found 'soon', expected a duration such as 30s, 10m, 24h or 7d",
        "sign: found 'c', expected one of a, b",
        "other: found a list, expected a mapping",
    ] == list(faults_of(Tree, data))


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (None, "the file: found nothing, expected a mapping"),
        ([], "the file: found a list, expected a mapping"),
        ("oak", "the file: found a text, expected a mapping"),
        ({"name": "oak", "leaf": {"color": "red"}, 3: 4}, "3: found an unknown key"),
        (WHOLE | {"notes": {3: "x"}}, "notes.3: found 3 as a key, expected a text"),
        (WHOLE | {"notes": "x"}, "notes: found a text, expected a mapping"),
        (WHOLE | {"name": "x" * 99, "leaves": "x" * 99}, "leaves: found a text, expected a list"),
        (WHOLE | {"name": None}, "name: found nothing, expected a text"),
    ],
)  # fmt: skip
def test_a_fault_names_its_place(value: Any, line: str) -> None:
    """If this breaks, a person searches the whole file."""
    (found,) = faults_of(Tree, value)

    assert found.startswith(line)


@pytest.mark.parametrize(
    ("kind", "value", "path"),
    [
        (Secret, 12345678, "http.tokens[0].token"), (Secret | None, 12345678, "anything"),
        (str, 12345678, "engine.security.sasl_plain_password"), (str, 12345678, "adapters.x.url"),
        (list[str], "12345678", "alerts"), (dict[str, str], "12345678", "engine.security"),
        (Tree, "12345678", "http.tokens[0]"), (Secret, ["12345678"], "x"),
        (Secret, {"12345678": 1}, "x"),
    ],
)  # fmt: skip
def test_what_may_be_a_secret_is_not_shown(kind: Any, value: Any, path: str) -> None:
    """If this breaks, a token that was put in the wrong place stands in a log."""
    (found,) = faults_of(kind, value, path)

    assert "12345678" not in found
    assert found.startswith(f"{path}: found a")


def test_found_values_are_shown_briefly() -> None:
    """If this breaks, one fault fills the screen."""
    assert "'x'" == shown("x")
    assert 60 == len(shown("x" * 999))
    assert ["a mapping", "nothing", "true"] == [shown({"a": 1}), shown(None), shown(True)]
    assert ["nothing", "true or false", "a number", "a number", "a text", "something else"] == [
        sort_of(value) for value in (None, True, 1, 0.5, "x", b"x")
    ]


def test_names_of_secrets_are_known() -> None:
    """If this breaks, a secret is part of a digest or of a message."""
    secret = ("secret", "url", "webhook_url", "routing_key", "sasl_plain_password", "Authorization")

    assert all(names_secret(name) for name in secret)
    assert not any(names_secret(name) for name in ("backend", "servers", "role", "model", "listen"))


DATA = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(sorted(Tree.__struct_fields__)) | st.text(), inner)
        | st.fixed_dictionaries({"name": inner, "leaf": inner, "leaves": st.lists(inner)})
    ),
    max_leaves=12,
)


@given(DATA)
def test_any_data_gives_faults_and_nothing_else(data: Any) -> None:
    """If this breaks, one odd value hides all other faults behind a stack trace."""
    assert all(": found " in line for line in faults_of(Tree, data))
