import os
import subprocess
import sys

import pytest

from parvox.errors import OutputError
from parvox.files import atomic_file, atomic_folder, refuse_overwrite, try_lock


def test_a_failed_block_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), atomic_file(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "folder") as temporary:
        (temporary / "b").write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_failed_replacement_keeps_the_old(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError), atomic_file(target, overwrite=True) as temporary:
        temporary.write_text("new")
        raise RuntimeError
    assert target.read_text() == "old"


def test_a_folder_is_replaced_by_a_way_that_leads_through_it(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "old").touch()
    with atomic_folder(tmp_path / "folder" / ".." / "folder", overwrite=True) as temporary:
        (temporary / "new").touch()
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["folder", "folder/new"]


def test_a_folder_that_cannot_be_replaced_is_put_back(tmp_path, monkeypatch):
    target = tmp_path / "folder"
    target.mkdir()
    (target / "old").touch()
    real = type(target).replace

    def fail(self, to):
        if self.suffix == ".tmp":
            raise OSError(5, "Input/output error")
        return real(self, to)

    monkeypatch.setattr(type(target), "replace", fail)
    with pytest.raises(OutputError, match="Input/output error"), atomic_folder(target, overwrite=True) as temporary:
        (temporary / "new").touch()
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["folder", "folder/old"]


def test_overwriting_is_refused_unasked_and_done_when_asked(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(OutputError, match="--overwrite"), atomic_file(target):
        pass
    with atomic_file(target, overwrite=True) as temporary:
        temporary.write_text("new")
    assert target.read_text() == "new"
    folder = tmp_path / "folder"
    for content in ("one", "two"):
        with atomic_folder(folder, overwrite=content == "two") as temporary:
            (temporary / content).write_text(content)
    assert [path.name for path in folder.iterdir()] == ["two"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "folder"]


def test_an_empty_folder_is_no_obstacle(tmp_path):
    (tmp_path / "empty").mkdir()
    refuse_overwrite(tmp_path / "empty", overwrite=False)
    (tmp_path / "empty" / "x").touch()
    with pytest.raises(OutputError):
        refuse_overwrite(tmp_path / "empty", overwrite=False)


def test_what_is_no_file_and_what_is_somebody_elses_is_never_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputError, match="a device or a pipe"), atomic_file(tmp_path / "pipe", overwrite=True):
        pass
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(OutputError, match="exists already"), atomic_file(tmp_path / "link"):
        pass
    (tmp_path / "file").write_text("precious")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "x").write_text("precious")
    for name in ("file", "folder"):
        with (
            pytest.raises(OutputError, match=r"mine\.json: nothing that Parvox wrote"),
            atomic_folder(tmp_path / name, overwrite=True, holds="mine.json"),
        ):
            pass
    (tmp_path / "folder" / "mine.json").touch()
    with atomic_folder(tmp_path / "folder", overwrite=True, holds="mine.json"):
        pass
    assert list((tmp_path / "folder").iterdir()) == []
    assert (tmp_path / "file").read_text() == "precious"


def test_an_impossible_place_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write"), atomic_file(tmp_path / "file" / "below"):
        pass
    with pytest.raises(OutputError, match="File name too long"), atomic_file(tmp_path / ("x" * 300)):
        pass
    with pytest.raises(OutputError, match="folder"), atomic_file(tmp_path, overwrite=True):
        pass


def test_permissions_follow_the_umask(tmp_path):
    before = os.umask(0o022)
    try:
        with atomic_file(tmp_path / "a") as temporary:
            temporary.write_text("x")
        with atomic_folder(tmp_path / "b"):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o755


def test_a_lock_is_held_by_one_process_until_it_ends(tmp_path):
    path = tmp_path / "lock"
    code = (
        "import sys, pathlib, parvox.files as files\n"
        "try: files.try_lock(pathlib.Path(sys.argv[1]))\n"
        "except BlockingIOError: sys.exit(7)"
    )
    with try_lock(path):
        assert subprocess.run([sys.executable, "-c", code, str(path)]).returncode == 7
    assert subprocess.run([sys.executable, "-c", code, str(path)]).returncode == 0
    with try_lock(path) as again:  # the other process is gone, and its lock with it
        assert again is not None
