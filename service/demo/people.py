"""The recorded data of the demonstration: people, and whether each had a job.

Why. A drawn label is a claim about the world; these are 24,000 people as the US Census Bureau
recorded them (American Community Survey, Massachusetts; licence beside the file). The rows of 2015
train the models, the rows of 2016 are the requests, and `employed` is the truth that comes later.

Refused here: pandas; the standard library reads it in a blink.
"""

from __future__ import annotations

import csv
import gzip
import io
from importlib.resources import files
from typing import NamedTuple

COLUMNS = ("AGEP", "SCHL", "MAR", "RELP", "DIS", "ESP", "CIT", "MIG", "MIL", "DREM")
"""PUMS names: age in years, schooling, marital status, relationship, disability, employment of
parents, citizenship, migration, military service, difficulty remembering; all whole codes."""


class Person(NamedTuple):
    """One row."""

    features: dict[str, int]
    """Code by PUMS name."""
    employed: int
    """1 or 0."""


class People(NamedTuple):
    """What models learn from, and whom they are asked about."""

    past: list[Person]
    """2015."""
    present: list[Person]
    """2016."""


def load() -> People:
    """Read the sample that comes with the package."""
    packed = files("service.demo").joinpath("data", "people.csv.gz").read_bytes()
    people = People([], [])
    for row in csv.DictReader(io.StringIO(gzip.decompress(packed).decode("ascii"))):
        person = Person({name: int(row[name]) for name in COLUMNS}, int(row["employed"]))
        (people.past if row["year"] == "2015" else people.present).append(person)
    return people
