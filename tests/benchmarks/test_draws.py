"""Draws that outlive a machine."""

import numpy as np

from draws import Draws


def test_draws_come_back_to_within_their_steps(tmp_path):
    drawn = np.random.default_rng(1).uniform(size=(2, 500))
    drawn[0, :2] = 0, 1
    kept = Draws(tmp_path / "x.csv", ("row", "seed"), ("eer", "min_dcf"))
    assert not kept.has(row="a", seed=1)
    assert kept.get(row="a", seed=1) is None
    kept.put({"row": "a", "seed": 1}, drawn)
    kept.put({"row": "a", "seed": 2}, drawn[::-1])
    again = Draws(tmp_path / "x.csv", ("row", "seed"), ("eer", "min_dcf"))
    assert again.has(row="a", seed=1)
    np.testing.assert_allclose(again.get(row="a", seed=1), drawn, atol=0.5 / 65535)
    np.testing.assert_allclose(again.get(row="a", seed=2), drawn[::-1], atol=0.5 / 65535)
    assert (tmp_path / "x-draws.csv").is_file()
