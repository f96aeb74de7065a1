"""Draws that outlive a machine, and ratios made of them."""

import numpy as np
import pytest

from draws import Draws, Rate, mean, ratio


def test_draws_come_back_to_within_their_steps(tmp_path):
    drawn = np.random.default_rng(1).uniform(size=(2, 500))
    drawn[0, :3] = 0, 1, np.nan
    kept = Draws(tmp_path / "x.csv", ("row", "seed"), ("eer", "min_dcf"))
    assert not kept.has(row="a", seed=1)
    assert kept.get(row="a", seed=1) is None
    kept.put({"row": "a", "seed": 1}, drawn)
    kept.put({"row": "a", "seed": 2}, drawn[::-1])
    again = Draws(tmp_path / "x.csv", ("row", "seed"), ("eer", "min_dcf"))
    assert again.has(row="a", seed=1)
    np.testing.assert_allclose(again.get(row="a", seed=1), drawn, atol=0.5 / 65534)
    np.testing.assert_allclose(again.get(row="a", seed=2), drawn[::-1], atol=0.5 / 65534)
    assert (tmp_path / "x-draws.csv").is_file()


def rate(eer):
    return Rate(eer, np.linspace(eer - 0.01, eer + 0.01, 101))


def test_ratios_are_of_the_seeds_that_both_have():
    ours, others = {1: rate(0.1), 2: rate(0.2)}, {2: rate(0.4), 3: rate(0.9)}
    found = ratio(ours, others)
    assert found.value == 0.5
    assert found.interval.low == pytest.approx(0.19 / 0.39, rel=0.01)  # the same draws above and below
    assert ratio({1: rate(0.1)}, others) is None


def test_without_draws_there_is_no_interval():
    bare = Rate(0.4, np.full(101, np.nan))
    assert mean([rate(0.2), bare]).value == pytest.approx(0.3)
    assert mean([rate(0.2), bare]).interval is None
    assert mean([rate(0.2), rate(0.4)]).interval.high == pytest.approx(0.31, abs=1e-3)
    assert ratio({1: rate(0.2)}, {1: bare}).interval is None
