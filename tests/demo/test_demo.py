import json

import pytest

from parvox.cli.main import main
from parvox.demo import Demo, Row, format_table, run_demo
from parvox.errors import CorpusError, OutputError

ROWS = [
    Row("teacher", 2_050_000, 250_000_000, 8_300_000, 21.04, 0.0712, 0.061, 0.083, 0.71),
    Row("student, distilled, int8", 880_000, 40_000_000, 990_000, 1.5, 0.08, None, None, 0.745),
]


def test_the_table_is_aligned_and_has_units():
    lines = format_table(ROWS, synthetic=False).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert " ".join(lines[1].split()) == "teacher 2.05 M 250 M 8300 kB 21.0 ms 7.12 % [6.1, 8.3] 0.710"
    assert "8.00 %" in lines[2]
    assert "[" not in lines[2]


def test_synthetic_results_say_so_before_anything_else():
    assert format_table(ROWS, synthetic=True).startswith("SYNTHETIC")
    assert "SYNTHETIC" not in format_table(ROWS, synthetic=False)


def test_a_folder_that_holds_something_else_is_left_alone(tiny_tree, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match="holds no demo"):
            run_demo(tmp_path / "mine", corpus=tiny_tree, overwrite=overwrite)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_another_demo_is_not_continued_by_mistake(tiny_tree, tmp_path):
    first = Demo(tmp_path / "demo", size="small", seed=1).prepare(tiny_tree, offline=True, overwrite=False)
    again = Demo(tmp_path / "demo", size="small", seed=1).prepare(tiny_tree, offline=True, overwrite=False)
    assert first.info.fingerprint == again.info.fingerprint
    with pytest.raises(OutputError, match="begun with seed 1"):
        Demo(tmp_path / "demo", size="small", seed=2).prepare(tiny_tree, offline=True, overwrite=False)
    anew = Demo(tmp_path / "demo", size="small", seed=2).prepare(tiny_tree, offline=True, overwrite=True)
    assert anew.info.fingerprint != first.info.fingerprint
    assert json.loads((tmp_path / "demo" / "demo.json").read_text())["seed"] == 2


def test_a_corpus_that_is_none_is_one_line(tmp_path, capsys):
    with pytest.raises(CorpusError):
        run_demo(tmp_path / "demo", corpus=tmp_path)
    assert main(["demo", "--corpus", str(tmp_path / "nowhere"), "--out", str(tmp_path / "demo")]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("parvox: error: ")
    assert "nowhere" in error
