import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parvox.training.schedule import learning_rate
from parvox.training.settings import TrainingSettings


def test_by_hand():
    settings = TrainingSettings(learning_rate=1.0, final_learning_rate=0.1, warmup=0.2)
    rates = [learning_rate(settings, step, 10) for step in range(10)]
    assert rates[:3] == [0.5, 1.0, 1.0]
    assert rates[-1] == pytest.approx(0.1)
    assert rates[5] == pytest.approx(0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * 3 / 7)))


def test_exponential_decay_has_a_constant_ratio():
    settings = TrainingSettings(learning_rate=1.0, final_learning_rate=0.01, warmup=0, decay="exponential")
    rates = [learning_rate(settings, step, 11) for step in range(11)]
    ratios = [b / a for a, b in zip(rates, rates[1:], strict=False)]
    assert ratios == pytest.approx([0.01**0.1] * 10)


@given(
    st.integers(1, 500),
    st.floats(0, 0.99),
    st.sampled_from(["cosine", "exponential", "none"]),
)
def test_never_above_the_peak_nor_at_zero_and_falling_after_the_warm_up(total, warmup, decay):
    settings = TrainingSettings(learning_rate=0.5, final_learning_rate=0.001, warmup=warmup, decay=decay)
    rates = [learning_rate(settings, step, total) for step in range(total)]
    assert all(0 < rate <= 0.5 * (1 + 1e-12) for rate in rates)
    peak = math.ceil(warmup * total)
    assert all(a >= b - 1e-12 for a, b in zip(rates[peak:], rates[peak + 1 :], strict=False))
    assert all(a <= b for a, b in zip(rates[:peak], rates[1:peak], strict=False))
