from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from parvox.data.order import EpochOrder


@st.composite
def _labels(draw: st.DrawFn) -> np.ndarray:
    counts = draw(st.lists(st.integers(1, 6), min_size=1, max_size=8))
    labels = np.repeat(np.arange(len(counts)), counts)
    return np.random.default_rng(0).permutation(labels)


@given(_labels(), st.integers(1, 60), st.booleans(), st.integers(0, 3))
def test_epochs_of_any_length_are_consecutive_pieces_of_one_sequence(
    labels: np.ndarray, length: int, balanced: bool, seed: int
) -> None:
    short = EpochOrder(labels, length, speaker_balanced=balanced, seed=seed)
    long = EpochOrder(labels, 3 * length, speaker_balanced=balanced, seed=seed)
    pieces = [short.epoch(epoch) for epoch in range(3)]
    assert all(len(piece) == length for piece in pieces)
    np.testing.assert_array_equal(np.concatenate(pieces), long.epoch(0))


@given(_labels(), st.integers(0, 5))
def test_a_plain_epoch_is_a_permutation_and_differs_by_seed_and_epoch(labels: np.ndarray, epoch: int) -> None:
    order = EpochOrder(labels, None, speaker_balanced=False, seed=1)
    np.testing.assert_array_equal(np.sort(order.epoch(epoch)), np.arange(len(labels)))
    if len(labels) > 20:
        assert (order.epoch(epoch) != order.epoch(epoch + 1)).any()
        assert (order.epoch(epoch) != EpochOrder(labels, None, speaker_balanced=False, seed=2).epoch(epoch)).any()


@given(_labels(), st.integers(1, 12))
def test_balanced_speakers_come_equally_often_and_their_utterances_in_turn(labels: np.ndarray, rounds: int) -> None:
    speakers = labels.max() + 1
    heard = EpochOrder(labels, rounds * speakers, speaker_balanced=True, seed=1).epoch(0)
    assert (np.bincount(labels[heard], minlength=speakers) == rounds).all()
    times = np.bincount(heard, minlength=len(labels))
    for speaker in range(speakers):
        own = times[labels == speaker]
        assert own.max() - own.min() <= 1


def test_the_order_is_fixed_for_good() -> None:
    # runs may be resumed by a later version: these numbers must not change
    order = EpochOrder(np.array([0, 0, 1, 1, 1, 2]), None, speaker_balanced=False, seed=7)
    assert order.epoch(0).tolist() == [5, 4, 1, 3, 2, 0]
    balanced = EpochOrder(np.array([0, 0, 1, 1, 1, 2]), None, speaker_balanced=True, seed=7)
    assert balanced.epoch(0).tolist() == [4, 5, 0, 5, 1, 3]
