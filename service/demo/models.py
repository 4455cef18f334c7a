"""Two models that say whether a person is employed, and a release that asks for the wrong name.

Both are logistic regressions over one-hot codes, trained on 2015 in about a second. `v41` is in
service. `v42` sees more columns and finer ages, and is better on held-out people. Its serving code
is not: it looks the age up as `AGE` where requests say `AGEP`, finds nothing, and fills in the
training median, as imputation does. Nothing fails and latency is as before; everybody is 42, so
children and pensioners count as employed.

On the 16,000 people of 2016, none of them seen in training:

=============================  ======  ===================  ===================
model                           error  false-positive rate  false-negative rate
=============================  ======  ===================  ===================
v41, as trained and served      0.195                0.246                0.145
v42, as its notebook says       0.182                0.209                0.157
v42, as served                  0.267                0.501                0.039
=============================  ======  ===================  ===================

Refused here: noise on labels or scores; the mistake is all that is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp
from typing import NamedTuple

import numpy as np

from service.demo.people import Person

RIDGE = 1.0
"""Penalty on weights: a code that few people have must not decide alone."""

STEPS = 12
"""Newton steps; the fit stands still after about seven."""


@dataclass(frozen=True)
class Model:
    """A trained model with its serving code.

    Parameters
    ----------
    weights : dict
        Column -> code -> weight, in log-odds; the code of an age is its bin.
    age_years : int
        Width of an age bin.
    defaults : dict
        Column -> the code that fills in for a missing one: median age, else the commonest.
    names : dict
        Column -> the name under which the serving code looks it up, where that differs.
    """

    version: str
    base: float
    weights: Mapping[str, Mapping[int, float]]
    age_years: int
    defaults: Mapping[str, int]
    names: Mapping[str, str]

    def score(self, features: Mapping[str, int]) -> float:
        """Probability of being employed; a code never seen in training says nothing."""
        odds = self.base
        for column, weights in self.weights.items():
            code = features.get(self.names.get(column, column))
            code = self.defaults[column] if code is None else code
            odds += weights.get(_bin(column, code, self.age_years), 0.0)
        return 1 / (1 + exp(-odds))


class Rates(NamedTuple):
    """How often a model is wrong, shares in [0, 1]."""

    error: float
    false_positive: float
    false_negative: float


class Pair(NamedTuple):
    """What serves, what shall, and what the latter was when it was evaluated."""

    stable: Model
    canary: Model
    notebook: Model


def train_pair(past: Sequence[Person]) -> Pair:
    """Train `v41` and `v42` and break the serving code of the second."""
    stable = train("v41", past, ("AGEP", "SCHL", "MAR", "RELP", "DIS", "DREM"), age_years=10)
    columns = ("AGEP", "SCHL", "MAR", "RELP", "DIS", "ESP", "CIT", "MIG", "MIL", "DREM")
    notebook = train("v42", past, columns, age_years=5)
    return Pair(stable, replace(notebook, names={"AGEP": "AGE"}), notebook)


def train(version: str, people: Sequence[Person], columns: Sequence[str], age_years: int) -> Model:
    """Fit a ridge logistic regression by Newton's method."""
    codes = {
        column: sorted({_bin(column, person.features[column], age_years) for person in people})
        for column in columns
    }
    labels = np.array([person.employed for person in people], np.float64)
    hot = [np.ones((len(people), 1))]
    for column in columns:
        found = np.array([_bin(column, person.features[column], age_years) for person in people])
        hot.append((found[:, None] == np.array(codes[column])).astype(np.float64))
    table = np.hstack(hot)
    weights = np.zeros(table.shape[1])
    ridge = RIDGE * np.eye(table.shape[1])
    for _ in range(STEPS):
        chance = 1 / (1 + np.exp(-table @ weights))
        slope = table.T @ (chance - labels) + RIDGE * weights
        curve = (table * (chance * (1 - chance))[:, None]).T @ table + ridge
        weights -= np.linalg.solve(curve, slope)
    rest = iter(weights[1:].tolist())
    by_code = {column: {code: next(rest) for code in codes[column]} for column in columns}
    defaults = {column: _default(column, people) for column in columns}
    return Model(version, float(weights[0]), by_code, age_years, defaults, {})


def rates(model: Model, people: Sequence[Person]) -> Rates:
    """Measure a model on people whose label is known."""
    said = np.array([model.score(person.features) > 0.5 for person in people])
    true = np.array([person.employed == 1 for person in people])
    return Rates(
        error=float((said != true).mean()),
        false_positive=float(said[~true].mean()),
        false_negative=float((~said[true]).mean()),
    )


def _bin(column: str, code: int, age_years: int) -> int:
    return code // age_years if column == "AGEP" else code


def _default(column: str, people: Sequence[Person]) -> int:
    codes = [person.features[column] for person in people]
    if column == "AGEP":
        return int(np.median(codes))
    values, counts = np.unique(codes, return_counts=True)
    return int(values[counts.argmax()])
