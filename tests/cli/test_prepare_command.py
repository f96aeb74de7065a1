from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from parvox.cli.main import main
from parvox.corpora.prepared import PreparedCorpus


def run(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    code = main(["prepare", *map(str, argv)])
    out, err = capsys.readouterr()
    return code, out, err


def test_prepares_and_says_what(tiny_tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "csv", tiny_tree, tmp_path / "out", "--dev_speakers", 3, "--test_speakers", 3)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("voices: synthetic speech at 16000 Hz -> ")
    assert [line.split()[:2] for line in lines[1:4]] == [["train", "6"], ["dev", "3"], ["test", "3"]]
    assert "27 target" in lines[3]
    assert any(line.split()[:2] == ["noise", "1"] for line in lines)
    PreparedCorpus.load(tmp_path / "out").verify()


def test_json_is_what_the_folder_holds(tiny_tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "split.csv").write_text(
        "speaker,split\n" + "".join(f"spk{n:02d},{('train', 'dev', 'test')[n % 3]}\n" for n in range(12))
    )
    code, out, _ = run(
        capsys,
        *("csv", tiny_tree, tmp_path / "out", "--split_file", tmp_path / "split.csv", "--name", "mine"),
        *("--noise", tiny_tree, tiny_tree, "--relative", "--jobs", 1, "--json"),
    )
    assert code == 0
    assert json.loads(out) == json.loads((tmp_path / "out" / "corpus.json").read_text())
    assert json.loads(out)["name"] == "mine"
    assert json.loads(out)["rejected"] == {"duplicate": 4}


def test_rejected_recordings_are_counted(tiny_tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "csv", tiny_tree, tmp_path / "out", "--min_duration_s", 1.0)
    assert code == 0
    assert "left out 36: 36 too short; see " in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["csv", "ROOT/none", "OUT"], "no such folder"),
        (["csv", "ROOT/manifest.csv", "OUT"], "is a file; expected"),
        (["folder", "EMPTY", "OUT"], "holds no recordings"),
        (["csv", "EMPTY", "OUT"], "holds no manifest.csv"),
        (["cvs", "ROOT", "OUT"], "csv"),
        (["csv", "ROOT"], "out"),
        (["csv", "ROOT", "OUT", "--seeds", "1"], "did you mean 'seed'"),
        (["csv", "ROOT", "OUT", "--dev_fraction", "2"], "dev_fraction: 2.0 given"),
        (["csv", "ROOT", "OUT", "--trials", "ROOT/none.txt"], "cannot read trial list"),
        (["csv", "ROOT", "OUT", "--split_file", "ROOT/none.csv"], "cannot read split file"),
        (["csv", "ROOT", "OUT", "--test_speakers", "50"], "ask for fewer"),
        (["csv", "ROOT", "ROOT"], "holds the recordings themselves"),
        (["csv", "ROOT", "ROOT", "--overwrite"], "holds the recordings themselves"),
        (["csv", "ROOT", "ROOT/manifest.csv/out"], "is a file"),
        (["librispeech", "ROOT", "OUT"], "expected LibriSpeech"),
        (["voxceleb2", "ROOT", "OUT"], "expected"),
        (["rsr2015-part1", "ROOT", "OUT"], "as expected: RSR2015's"),
        (["rsr2015", "ROOT", "OUT"], "rsr2015-part1"),
        (["deepmine", "ROOT", "OUT"], "expected DeepMine's"),
        (["csv", "ROOT", "OUT", "--text_dependent"], "none of the 72 utterances has a text"),
        (["csv", "ROOT", "OUT", "--join.words", "4"], "has a text of one word"),
        (["csv", "ROOT", "OUT", "--join.words", "1"], "join.words: 1 given"),
        (["csv", "ROOT", "OUT", "--join.word", "4"], "did you mean 'join.words'"),
        (["csv", "ROOT", "OUT", "--join.phrase_list", "ROOT/none.txt"], "cannot read phrase list"),
    ],
)
def test_mistakes_end_in_one_line_and_code_2(
    arguments: list[str], words: str, tiny_tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    places = {"ROOT": str(tiny_tree), "OUT": str(tmp_path / "out"), "EMPTY": str(tmp_path / "empty")}
    for name, place in places.items():
        arguments = [argument.replace(name, place) for argument in arguments]
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("parvox: error: ")
    assert err.count("\n") == 1
    assert words in err
    assert not (tmp_path / "out").exists()


def test_it_knows_every_importer() -> None:
    from typing import get_args

    from parvox.cli.prepare import Importer
    from parvox.corpora.prepare import IMPORTERS

    assert get_args(Importer) == tuple(IMPORTERS)


def test_options_are_those_of_the_settings() -> None:
    import dataclasses
    import inspect

    from parvox.cli.prepare import prepare
    from parvox.corpora.prepare import PrepareSettings

    options = {name: parameter.default for name, parameter in inspect.signature(prepare).parameters.items()}
    for field in dataclasses.fields(PrepareSettings):
        if dataclasses.is_dataclass(getattr(PrepareSettings(), field.name)):
            assert field.name in options  # a group of options of its own
        else:
            assert (options[field.name] or None) == (field.default or None), field.name


def test_help_is_quick_and_imports_neither_torch_nor_lhotse() -> None:
    code = (
        "import sys; from parvox.cli.main import main; main(['prepare', '--help']);"
        "sys.exit(any(name in sys.modules for name in ('torch', 'lhotse', 'scipy')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "--split_file" in done.stdout
