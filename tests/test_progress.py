"""Progress: a line a minute where no terminal is, of the first process alone."""

import sys
import threading

import pytest

from parvox.progress import Bar, progress, tell


class Clock:
    """Time that passes when told to."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("time.time", clock)
    monkeypatch.setattr("tqdm.std.time", clock)
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    return clock


def test_a_line_a_minute_without_a_terminal(clock, capsys):
    bar = Bar(None, "run", total=100, unit="step", done=10)
    for _ in range(40):
        clock.now += 4
        bar.set_postfix({"epoch": 1}, refresh=False)
        bar.update()
    bar.close()
    assert capsys.readouterr().err.splitlines() == [
        "run: 25 of 100, 01:00 so far, 05:00 to go, epoch=1",
        "run: 40 of 100, 02:00 so far, 04:00 to go, epoch=1",
    ]


def test_what_is_done_within_a_minute_needs_no_line(clock, capsys):
    for _ in progress(range(50), "embed", unit="recording"):
        clock.now += 1
    assert capsys.readouterr().err == ""


def test_a_terminal_has_a_bar(clock, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    for _ in progress(range(3), "embed", unit="recording"):
        clock.now += 1
    drawn = capsys.readouterr().err
    assert "embed:  67%|" in drawn
    assert "\n" not in drawn


@pytest.mark.parametrize("variable", ["RANK", "LOCAL_RANK", "SLURM_PROCID"])
def test_of_several_processes_one_speaks(clock, capsys, monkeypatch, variable):
    lines = "one line\nrun: 1 of 2, 01:30 so far, 01:30 to go\nrun: 2 of 2, 03:00 so far, 00:00 to go\n"
    for rank, says in (("1", ""), ("0", lines)):
        monkeypatch.setenv(variable, rank)
        tell("one line")
        for _ in progress(range(2), "run", unit="step"):
            clock.now += 90
        assert capsys.readouterr().err == says


def test_no_thread_watches_the_bar(clock):
    before = threading.active_count()
    with Bar(None, "run", total=2):
        assert threading.active_count() == before
