"""What can be told of a PromQL query by its words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.queries import MOST_SELECTORS, faults_of_query, selectors_of

SELECTORS = [
    ("up", ["up"]),
    ("up + up", ["up"]),
    ('sum(rate(errors{code=~"5.."}[5m])) / sum(rate(all[5m]))', ['errors{code=~"5.."}', "all"]),
    ('histogram_quantile(0.95, sum by (le) (rate(took_bucket{m="}"}[1m:5s] offset -1d)))',
     ['took_bucket{m="}"}']),
    ("sum(a) by (b, c) / on(d) group_left(e) job:f:rate5m @ start()", ["a", "job:f:rate5m"]),
    ("a / on(x) group_left b unless c", ["a", "b", "c"]),
    ('{__name__=~"a.*", b="c"}', ['{__name__=~"a.*", b="c"}']),
    ("count{a='`'} > bool 5 # d", ["count{a='`'}"]),
    ("-0x1F * Inf + nan * a atan2 b", ["a", "b"]),
    ("topk BY (a) (5, b) AND c", ["b", "c"]),
    ("1 + time()", []),
]  # fmt: skip


@pytest.mark.parametrize(("query", "expected"), SELECTORS)
def test_every_selector_is_found_as_it_stands(query: str, expected: list[str]) -> None:
    """If this breaks, old samples are taken for new, because nobody asks for their age."""
    assert expected == selectors_of(query)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("sum(a) or vector(0)", "vector"), ("sum(a) or on() vector(0)", "vector"),
        ("sum(a)OR\n(  vector (0))", "vector"), ("vector(1) or a", "vector"),
        ("a or (b / vector(2))", "vector"), ("absent(a)", "absent(…)"),
        ("1 - absent_over_time(a[5m])", "absent_over_time(…)"), ("1 + 1", "no metric"),
        ("vector(1)", "no metric"), ('"up"', "no metric"), ("", "no metric"),
        ("sum(a", "found ( without its partner"), ("a)", "found ) without its partner"),
        ('a{b="c}', 'found " without its partner'), ("a[5m", "found [ without"),
        (" + ".join(f"a{i}" for i in range(MOST_SELECTORS + 1)), "9 selectors"),
    ],
)  # fmt: skip
def test_a_query_that_hides_missing_data_is_refused(query: str, words: str) -> None:
    """If this breaks, a dead exporter looks like a healthy model."""
    (fault,) = faults_of_query(query)

    assert words in fault


@pytest.mark.parametrize(
    "query",
    [
        'up{job="a or vector(0)"}', "up # or vector(0)", "absent_minutes", "vector + a",
        "sum(rate(a[5m])) or sum(rate(b[5m]))", "histogram_quantile(…)",
        *(query for query, found in SELECTORS if found),
    ],
)  # fmt: skip
def test_other_queries_are_left_to_prometheus(query: str) -> None:
    """If this breaks, a sound query cannot be used, for words inside a text or a comment."""
    assert [] == list(faults_of_query(query))


@given(st.text() | st.text(st.sampled_from("ab{}[]()\"'`#\n or=,")))
def test_any_text_is_read(query: str) -> None:
    """If this breaks, a typing error in one query hides all other faults of the settings."""
    selectors_of(query)
    assert all(fault.startswith("found ") for fault in faults_of_query(query))
