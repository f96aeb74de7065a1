import itertools
import re
import subprocess
import sys

import pytest

from parvox import __version__
from parvox.cli.main import COMMANDS, main


def test_the_bare_command_lists_every_command(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(name in text and what in text for name, (what, _) in COMMANDS.items())
    assert main([]) == 2


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"parvox {__version__}"


def test_an_unknown_command_names_the_nearest(capsys):
    assert main(["distil"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("parvox: error: unknown command 'distil': did you mean 'distill'?")
    assert error.count("\n") == 1


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help_a_person_can_read(name, capsys):
    assert main([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: parvox {name}")
    lines = [line.strip() for line in text.splitlines()]
    undescribed = [
        option
        for option, after in itertools.pairwise(lines)
        if (option.startswith("--") and "  " not in option and after.startswith(("(type", "(required")))
        or re.match(r"--\S+( \S+)*  +\((type|required)", option)
    ]
    assert len(undescribed) == 0, f"options without a description: {undescribed}"


def test_a_missing_extra_is_named(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "parvox.cli.train", None)
    monkeypatch.setitem(sys.modules, "torch", None)

    def absent(name):
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr("importlib.import_module", absent)
    assert main(["train", "x.yaml"]) == 2
    assert "pip install 'parvox[train]'" in capsys.readouterr().err


def test_help_does_not_wait_for_torch():
    code = (
        "import sys; from parvox.cli.main import main; main(['--help']); main(['verify', '--help']);"
        "sys.exit('torch' in sys.modules or 'lhotse' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_a_fault_of_ours_is_no_answer_of_a_command(capsys, monkeypatch):
    """Python's own exit code for it is what parvox verify says for "reject"."""

    def faulty(argv):
        raise ZeroDivisionError("somewhere deep")

    monkeypatch.setattr("parvox.cli.info.main", faulty)
    assert main(["info", "x"]) == 3
    error = capsys.readouterr().err
    assert error.startswith("parvox: internal error: ZeroDivisionError: somewhere deep; this is a fault of Parvox")
    assert error.count("\n") == 1
    monkeypatch.setenv("PARVOX_TRACEBACK", "1")
    assert main(["info", "x"]) == 3
    assert "in faulty" in capsys.readouterr().err


def test_help_says_nothing_of_null(capsys):
    assert main(["evaluate", "--help"]) == 0
    text = capsys.readouterr().out
    assert "default: 1000" in text
    assert "null" not in text
