"""Recorded data that others publish, read from a folder; nothing of it comes with the project.

Two data sets of nannyml 0.13 (Apache-2.0): `synthetic_car_loan`, whose model turns worse at row
75,000, and `employment_MA`, people of the American Community Survey (public domain) with a real
model's predictions. Looked for in `$ROLLBACKD_EVIDENCE_DATA`, else in `rollbackd/evidence` of the
user's cache folder: nannyml's wheel as `pip download --no-deps nannyml==0.13.1` brings it, or its
files, or the same rows joined as `car_loan.csv.gz` and `employment_MA.parquet`.

Parquet is read with pyarrow, of this environment or of the one that `make bench` installs.
"""

from __future__ import annotations

import csv
import gzip
import io
import os
import subprocess
import sys
import tempfile
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np

from detectors.base import Bool

ROOT = Path(__file__).parents[1]
BENCH_PYTHON = ROOT / ".venv-bench" / "bin" / "python"
CONVERT = """
import sys, pyarrow.parquet as pq
for name in ("prediction", "employed"):
    with open(sys.argv[1] + name, "wb") as out:
        for path in sys.argv[2:]:
            if name in pq.read_schema(path).names:
                values = pq.read_table(path, columns=[name])[name].to_pylist()
                out.write(bytes(int(value) for value in values))
"""


class Missing(Exception):
    """The data cannot be had; the text says what to do."""


class Recorded(NamedTuple):
    """Predictions in their order, and what turned out to be true."""

    predicted: Bool
    true: Bool
    reference: int
    """Rows at the beginning in which the model is known to be well."""


def folder() -> Path:
    """Where recorded data is looked for."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("ROLLBACKD_EVIDENCE_DATA") or cache / "rollbackd" / "evidence")


def find(name: str) -> bytes | None:
    """A file of the folder, or of a wheel in it."""
    there = folder()
    if (there / name).is_file():
        return (there / name).read_bytes()
    for wheel in sorted(there.glob("nannyml-*.whl")):
        with zipfile.ZipFile(wheel) as files:
            for inside in files.namelist():
                if inside.rsplit("/", 1)[-1] == name:
                    return files.read(inside)
    return None


def _missing(what: str) -> Missing:
    return Missing(
        f"{what} is not in {folder().name!r} of the cache folder (or $ROLLBACKD_EVIDENCE_DATA); "
        "put nannyml's wheel there: pip download --no-deps nannyml==0.13.1"
    )


def _table(data: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(data.decode())))


def car_loan() -> Recorded:
    """100,000 loans; the change is at row 75,000.

    Raises
    ------
    Missing
        When it is not there.
    """
    if (packed := find("car_loan.csv.gz")) is not None:
        rows = _table(gzip.decompress(packed))
    else:
        parts = [find(f"synthetic_car_loan_{part}.csv")
                 for part in ("reference", "analysis", "analysis_target")]  # fmt: skip
        known = [part for part in parts if part is not None]
        if len(known) < 3:
            raise _missing("the car loan data set")
        before, after, target = (_table(part) for part in known)
        label = {row["id"]: row["repaid"] for row in target}
        rows = before + [row | {"repaid": label[row["id"]]} for row in after]
    predicted = np.array([float(row["y_pred"]) > 0 for row in rows])
    return Recorded(predicted, np.array([float(row["repaid"]) > 0 for row in rows]), 50_000)


def employment() -> Recorded:
    """277,677 people; 2015 is the model's reference year.

    Raises
    ------
    Missing
        When it is not there, or nothing can read parquet.
    """
    names = ["employment_MA.parquet"]
    if find(names[0]) is None:
        names = [
            f"employment_MA_{part}.pq" for part in ("reference", "analysis", "analysis_target")
        ]
    parts = [data for name in names if (data := find(name)) is not None]
    if len(parts) < len(names):
        raise _missing("the employment data set")
    python = sys.executable if find_spec("pyarrow") else str(BENCH_PYTHON)
    if not Path(python).exists():
        raise Missing("parquet needs pyarrow: `make bench` installs it in an environment apart")
    with tempfile.TemporaryDirectory(prefix="rollbackd-evidence-") as scratch:
        paths = []
        for number, data in enumerate(parts):
            path = Path(scratch) / f"{number}.parquet"
            path.write_bytes(data)
            paths.append(str(path))
        done = subprocess.run([python, "-c", CONVERT, f"{scratch}/", *paths], check=False,
                              capture_output=True, text=True)  # fmt: skip
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise Missing(f"the employment data set cannot be read: {reason}")
        predicted, true = (
            np.frombuffer((Path(scratch) / name).read_bytes(), np.uint8) > 0
            for name in ("prediction", "employed")
        )
    return Recorded(predicted, true, 68_785)
