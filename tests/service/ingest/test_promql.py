"""Every kind of answer of Prometheus, and what may be said after it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.verdicts import REASONS
from service.ingest.promql import SKEW_MS, Answer, Polled, Unusable, polled, read
from tests.builders import NOW

MAX_AGE_MS = 60_000


def an_answer(
    value: Any = "0.25", at_ms: int = NOW, sort: str = "vector", http: int = 200, **body: Any
) -> Answer:
    """One series with one value; `sort` is the kind of result, `body` more of the envelope."""
    sample = [at_ms / 1000, value]
    result: Any = [{"metric": {"job": "a"}, "value": sample}] if sort == "vector" else sample
    whole = {"status": "success", "data": {"resultType": sort, "result": result}} | body
    return Answer(http, json.dumps(whole).encode())


def an_age(seconds: float = 3.0) -> Answer:
    """The newest sample of a selector is so old."""
    return an_answer(str(NOW / 1000 - seconds))


def with_result(result: Any, sort: str = "vector") -> Answer:
    return an_answer(data={"resultType": sort, "result": result})


def reason_of(value: Answer, *ages: Answer) -> str:
    found = polled(value, ages or [an_age()], NOW, MAX_AGE_MS)
    assert isinstance(found, Unusable)
    assert found.reason in REASONS
    assert 0 < len(found.text) < 260
    return found.reason


@pytest.mark.parametrize(
    ("text", "value"), [("0.25", 0.25), ("-3", -3.0), ("1e-07", 1e-7), ("1.", 1.0), ("0", 0.0)]
)
@pytest.mark.parametrize("sort", ["vector", "scalar"])
def test_one_finite_fresh_value_is_used(text: str, value: float, sort: str) -> None:
    """If this breaks, a guard on a query never judges."""
    assert Polled(value, NOW) == polled(an_answer(text, sort=sort), [an_age()], NOW, MAX_AGE_MS)


SERIES = {"metric": {}, "value": [NOW / 1000, "1"]}
HISTOGRAM = {"metric": {}, "histogram": [NOW / 1000, {"count": "5", "sum": "1"}]}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (an_answer("NaN"), "nan"),
        (an_answer("+Inf"), "inf"), (an_answer("-Inf"), "inf"), (an_answer("1e999"), "inf"),
        (an_answer("NaN", sort="scalar"), "nan"),
        (with_result([]), "no_data"),
        (with_result([SERIES, SERIES]), "ambiguous"),
        (with_result([HISTOGRAM]), "query_error"),
        (with_result([{"metric": {}, "values": [[1, "1"]]}], "matrix"), "query_error"),
        (with_result([NOW / 1000, "text"], "string"), "query_error"),
        (an_answer(warnings=["remote read: partial"]), "partial_data"),
        (an_answer(at_ms=NOW - SKEW_MS - 1), "stale"),
        (an_answer(at_ms=NOW + SKEW_MS + 1), "stale"),
        (an_answer(http=400, error="parse error"), "query_error"),
        (an_answer(http=422, error="many-to-many"), "query_error"),
        (an_answer(http=401), "query_error"),
        (an_answer(http=408), "source_down"), (an_answer(http=429), "source_down"),
        (an_answer(http=500), "source_down"), (an_answer(http=503), "source_down"),
        (an_answer(http=302), "source_down"), (an_answer(http=204), "source_down"),
        (Answer(502, b"<html>Bad gateway"), "source_down"),
        (Answer(404, b"\xff"), "query_error"),
        (an_answer(status="error"), "source_down"),
        (Answer(200, b'{"status":"error","errorType":"timeout","error":"late"}'), "source_down"),
        (Answer(200, b'{"status":"success"}'), "source_down"),
        (Answer(200, b""), "source_down"), (Answer(200, b"[]"), "source_down"),
        (Answer(200, b"\xff"), "source_down"), (Answer(200, b"[" * 50_000), "source_down"),
        (an_answer()._replace(body=an_answer().body[:-9]), "source_down"),
        (an_answer(5), "source_down"), (an_answer("1_0"), "source_down"),
        (an_answer("0x1F"), "source_down"), (an_answer(" 1"), "source_down"),
        (an_answer("infinity"), "source_down"), (an_answer("nan"), "source_down"),
        (an_answer(""), "source_down"), (an_answer("٣"), "source_down"),
        (with_result({"metric": {}}), "source_down"), (with_result("x", "scalar"), "source_down"),
    ],
)  # fmt: skip
def test_everything_else_has_its_reason_and_no_value(value: Answer, reason: str) -> None:
    """If this breaks, half an answer acquits an ill version, or rolls back a healthy one."""
    assert reason == reason_of(value)


@pytest.mark.parametrize(
    ("ages", "reason"),
    [
        ([an_age(61)], "stale"),
        ([an_age(1), an_age(3600)], "stale"),
        ([with_result([])], "no_data"),
        ([an_age(), with_result([])], "no_data"),
        ([an_answer("NaN")], "nan"),
        ([an_answer(http=503)], "source_down"),
    ],
)
def test_a_value_of_old_samples_is_stale(ages: list[Answer], reason: str) -> None:
    """If this breaks, a dead exporter is healthy for as long as a range reaches back."""
    assert reason == reason_of(an_answer(), *ages)


@pytest.mark.parametrize("sort", ["vector", "scalar"])
def test_a_value_without_an_age_is_stale(sort: str) -> None:
    """If this breaks, a constant in a query passes every check."""
    found = polled(an_answer(sort=sort), [], NOW, MAX_AGE_MS)

    assert isinstance(found, Unusable)
    assert "stale" == found.reason


def test_the_age_is_measured_by_prometheus_clock_alone() -> None:
    """If this breaks, half a minute between two clocks makes every sample stale."""
    ahead = NOW + 50_000
    age = an_answer(str(ahead / 1000 - 3), at_ms=ahead)

    assert Polled(0.25, ahead) == polled(an_answer(at_ms=ahead), [age], NOW, 5000)


@given(st.binary() | st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["status", "data", "resultType", "result", "value", "metric"]), inner),
).map(lambda data: json.dumps(data).encode()), st.integers(100, 599))  # fmt: skip
def test_any_body_gives_a_reason_and_nothing_else(body: bytes, status: int) -> None:
    """If this breaks, a proxy's error page ends the polling of all queries."""
    assert isinstance(read(Answer(status, body), NOW), Unusable)
