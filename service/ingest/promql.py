"""What an answer of Prometheus says: one finite, fresh value, or why there is none. Pure.

Why. No answer, an old answer and half an answer must never look like a healthy model, nor like an
ill one. So a value is used only when nothing is wrong with it, and everything else has a reason.

How. The raw body is read, not what a client library makes of it: that drops the kind of result and
the warnings. An instant query gives its own time, never that of its samples; so each selector of
the query is asked for the time of its newest sample, and that one counts as the value's age.

Refused here: judging the value (`watch`), and "take the first" of several series.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import isinf, isnan
from typing import NamedTuple

import msgspec
from msgspec import Struct

SKEW_MS = 60_000
"""Difference between Prometheus' clock and ours above which its answer counts as old."""

PASSING = frozenset({408, 429})
"""Statuses of the 4xx that are no fault of the query."""

_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?|Inf)|NaN")


class Answer(NamedTuple):
    """What came back over HTTP."""

    status: int
    body: bytes


class Polled(NamedTuple):
    """One usable value."""

    value: float
    observed_ms: int
    """When Prometheus computed it, epoch ms."""


class Unusable(NamedTuple):
    """Why an answer gives no value."""

    reason: str
    """A word of `schemas.verdicts.REASONS`."""
    text: str


class _Series(Struct):
    value: tuple[float, str] | None = None


class _Result(Struct):
    resultType: str
    result: msgspec.Raw


class _Body(Struct):
    status: str
    data: _Result | None = None
    error: str = ""
    warnings: list[str] = []


_bodies = msgspec.json.Decoder(_Body)
_vectors = msgspec.json.Decoder(list[_Series])
_scalars = msgspec.json.Decoder(tuple[float, str])
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError)


def polled(
    value: Answer, ages: Sequence[Answer], now_ms: int, max_age_ms: int
) -> Polled | Unusable:
    """Read the answer to a query and to the question how old its samples are.

    Parameters
    ----------
    value : Answer
        To the query itself.
    ages : sequence of Answer
        To `max(timestamp(SELECTOR))`, for each selector of the query.
    now_ms : int
        Wall time of the answers, epoch ms.
    max_age_ms : int
        Age of the newest sample of a selector above which the value is stale.
    """
    found = read(value, now_ms)
    if isinstance(found, Unusable):
        return found
    if not ages:
        return Unusable("stale", "nothing in the query has an age")
    for age in ages:
        newest = read(age, now_ms)
        if isinstance(newest, Unusable):
            return Unusable(newest.reason, f"age of the samples: {newest.text}")
        age_ms = newest.observed_ms - newest.value * 1000
        if age_ms > max_age_ms:
            return Unusable("stale", f"the newest sample is {age_ms / 1000:.0f} s old")
    return found


def read(answer: Answer, now_ms: int) -> Polled | Unusable:
    """Read one answer to an instant query."""
    if answer.status != 200:
        return _of_status(answer)
    try:
        body = _bodies.decode(answer.body)
        if body.status != "success" or body.data is None:
            return Unusable("source_down", f"Prometheus says {body.status}: {body.error}"[:200])
        if body.warnings:
            return Unusable("partial_data", f"Prometheus warns: {body.warnings[0]}"[:200])
        return _of_result(body.data, now_ms)
    except _UNREADABLE as fault:
        return Unusable("source_down", f"the answer cannot be read: {fault}"[:200])


def _of_status(answer: Answer) -> Unusable:
    refused = 400 <= answer.status < 500 and answer.status not in PASSING
    try:
        said = _bodies.decode(answer.body).error
    except _UNREADABLE:
        said = ""
    reason = "query_error" if refused else "source_down"
    return Unusable(reason, f"Prometheus answered {answer.status}: {said}"[:200])


def _of_result(data: _Result, now_ms: int) -> Polled | Unusable:
    if data.resultType == "scalar":
        return _of_sample(_scalars.decode(data.result), now_ms)
    if data.resultType != "vector":
        return Unusable("query_error", f"the query gives a {data.resultType}, not one value")
    series = _vectors.decode(data.result)
    if not series:
        return Unusable("no_data", "the query gives no series")
    if len(series) > 1:
        return Unusable("ambiguous", f"the query gives {len(series)} series, not one")
    if series[0].value is None:
        return Unusable("query_error", "the query gives a histogram, not one value")
    return _of_sample(series[0].value, now_ms)


def _of_sample(sample: tuple[float, str], now_ms: int) -> Polled | Unusable:
    at_s, text = sample
    if _NUMBER.fullmatch(text) is None:
        return Unusable("source_down", f"the value {text[:40]!r} is no number")
    value, observed_ms = float(text), round(at_s * 1000)
    if isnan(value):
        return Unusable("nan", "the value is NaN")
    if isinf(value):
        return Unusable("inf", f"the value is {text}")
    if abs(observed_ms - now_ms) > SKEW_MS:
        apart_s = (observed_ms - now_ms) / 1000
        return Unusable("stale", f"Prometheus' clock is {apart_s:+.0f} s from ours")
    return Polled(value, observed_ms)
