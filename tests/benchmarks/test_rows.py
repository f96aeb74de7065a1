"""Results files that grow row by row."""

import csv

import pytest

from parvox.errors import ParvoxError
from rows import Rows, markdown


def test_rows_outlive_the_process_and_replace_their_like(tmp_path):
    path = tmp_path / "results" / "x.csv"
    rows = Rows(path, ("model", "seed"))
    assert rows.find(model="a", seed=1) is None
    rows.put({"model": "a", "seed": 1, "eer": 0.25})
    rows.put({"model": "b", "seed": 1, "eer": 0.5, "note": "slow, but sure"})
    again = Rows(path, ("model", "seed"))
    assert again.find(model="b", seed=1)["note"] == "slow, but sure"
    assert again.find(model="b", seed=2) is None
    again.put({"model": "a", "seed": 1, "eer": 0.125, "note": None})
    with path.open(newline="") as file:
        found = list(csv.DictReader(file))
    assert [(row["model"], row["eer"], row["note"]) for row in found] == [
        ("a", "0.125", ""),
        ("b", "0.5", "slow, but sure"),
    ]


def test_another_file_is_refused(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("who,what\na,b\n")
    with pytest.raises(ParvoxError, match="has no column model"):
        Rows(path, ("model",))
    assert path.read_text() == "who,what\na,b\n"


def test_markdown():
    assert markdown(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | ---: |\n| 1 | 2 |"
