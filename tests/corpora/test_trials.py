from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parvox.corpora.trials import Trial, read_trials, write_trials
from parvox.errors import OutputError, TrialError

ID = st.text(st.characters(exclude_categories=["Z", "C"]), min_size=1, max_size=12).filter(
    lambda text: len(text.split()) == 1
)


@given(st.lists(st.builds(Trial, ID, ID, st.booleans()), min_size=1, max_size=20))
def test_written_trials_read_the_same(tmp_path_factory: pytest.TempPathFactory, trials: list[Trial]) -> None:
    path = tmp_path_factory.mktemp("trials") / "list.trials"
    write_trials(path, trials)
    assert read_trials(path) == trials


def test_format_is_voxceleb_s(tmp_path: Path) -> None:
    path = tmp_path / "veri.txt"
    path.write_text("1 id10270/a/00001.wav id10270/b/00008.wav\r\n\n0 id10270/a/00001.wav  id10300/c/00001.wav\n")
    assert read_trials(path) == [
        Trial("id10270/a/00001.wav", "id10270/b/00008.wav", True),
        Trial("id10270/a/00001.wav", "id10300/c/00001.wav", False),
    ]
    write_trials(tmp_path / "out.trials", [Trial("a", "b", True), Trial("a", "c", False)])
    assert (tmp_path / "out.trials").read_bytes() == b"1 a b\n0 a c\n"


@pytest.mark.parametrize("line", ["2 a b", "1 a", "a b 1", "1 a b c", "target a b"])
def test_a_line_that_is_no_trial_is_named_by_number(tmp_path: Path, line: str) -> None:
    path = tmp_path / "list.txt"
    path.write_text(f"1 a b\n\n{line}\n")
    with pytest.raises(TrialError, match=r"line 3.*expected '1 enrol-id test-id'"):
        read_trials(path)


def test_missing_empty_and_binary_lists(tmp_path: Path) -> None:
    with pytest.raises(TrialError, match=r"nothing\.txt.*No such file"):
        read_trials(tmp_path / "nothing.txt")
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(TrialError, match="holds no trials"):
        read_trials(tmp_path / "empty.txt")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(TrialError, match="not a text file"):
        read_trials(tmp_path / "binary.txt")
    with pytest.raises(TrialError, match="cannot read"):
        read_trials(tmp_path)


def test_ids_with_white_space_are_refused_and_leave_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "list.trials"
    for trial in (Trial("a b", "c", True), Trial("a", "", False)):
        with pytest.raises(TrialError, match="white space"):
            write_trials(path, [Trial("x", "y", True), trial])
    assert list(tmp_path.iterdir()) == []
    write_trials(path, [Trial("x", "y", True)])
    with pytest.raises(OutputError, match="exists"):
        write_trials(path, [Trial("x", "y", True)])
