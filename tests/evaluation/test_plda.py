"""Two-covariance PLDA against densities computed outright, and on data drawn from its own model."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from parvox.errors import TrialError
from parvox.evaluation.embeddings import Embeddings
from parvox.evaluation.measures import ScoreSet
from parvox.evaluation.plda import Plda, _lengthened, _maximised, fit_plda
from parvox.evaluation.scoring import normalise

BETWEEN = np.array([[2.0, 0.6, 0.0], [0.6, 1.0, 0.2], [0.0, 0.2, 0.3]])
WITHIN = np.array([[0.5, -0.1, 0.0], [-0.1, 0.7, 0.3], [0.0, 0.3, 0.9]])


def drawn(speakers: int, utterances: int, seed: int, offset: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    place = rng.multivariate_normal(np.zeros(3), BETWEEN, speakers)
    speaker = np.repeat(np.arange(speakers), utterances)
    looks = place[speaker] + rng.multivariate_normal(np.zeros(3), WITHIN, len(speaker))
    return (looks + offset).astype(np.float32), speaker


def model() -> Plda:
    return Plda(np.array([0.1, -0.2, 0.3]), np.eye(3), BETWEEN, WITHIN)


def joint(count: int) -> np.ndarray:
    """Covariance of so many looks at one speaker."""
    return np.kron(np.ones((count, count)), BETWEEN) + np.kron(np.eye(count), WITHIN)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_scores_are_ratios_of_densities(count: int) -> None:
    looks, _ = drawn(1, count + 1, count)
    plda = model()
    enrol, test = looks[:count], looks[count:]
    found = plda.score(enrol, test, np.array([0], np.int32), np.array([0], np.int32), [np.arange(count)])
    prepared = _lengthened(looks - plda.mean)
    together = multivariate_normal(np.zeros(3 * count + 3), joint(count + 1)).logpdf(prepared.ravel())
    apart = multivariate_normal(np.zeros(3 * count), joint(count)).logpdf(
        prepared[:count].ravel()
    ) + multivariate_normal(np.zeros(3), joint(1)).logpdf(prepared[count])
    assert found[0] == pytest.approx(together - apart, rel=1e-4, abs=1e-4)


def test_many_trials_and_voices_of_different_sizes_at_once() -> None:
    looks, _ = drawn(6, 3, 1)
    plda = model()
    voices = [np.array([0]), np.array([3, 4]), np.array([6, 7, 8])]
    rows, columns = (each.ravel().astype(np.int32) for each in np.indices((3, 5)))
    found = plda.score(looks, looks[10:15], rows, columns, voices)
    for trial, (voice, test) in enumerate(zip(rows, columns, strict=True)):
        alone = plda.score(
            looks[voices[voice]],
            looks[10 + test : 11 + test],
            np.zeros(1, np.int32),
            np.zeros(1, np.int32),
            [np.arange(len(voices[voice]))],
        )
        assert found[trial] == pytest.approx(alone[0], abs=1e-4)


def test_scores_are_symmetric() -> None:
    looks, _ = drawn(5, 2, 3)
    rows, columns = (each.ravel().astype(np.int32) for each in np.indices((10, 10)))
    matrix = model().score(looks, looks, rows, columns).reshape(10, 10)
    assert matrix == pytest.approx(matrix.T, abs=1e-4)


def test_expectation_maximisation_finds_what_made_the_data() -> None:
    looks, speaker = drawn(4000, 5, 4)
    between, within = np.eye(3), np.eye(3)
    before = -np.inf
    for _ in range(60):
        between, within = _maximised(looks.astype(float), speaker, 4000, between, within)
        cover = np.kron(np.ones((5, 5)), between) + np.kron(np.eye(5), within)
        likelihood = multivariate_normal(np.zeros(15), cover).logpdf(looks.reshape(-1, 15)).sum()
        assert likelihood >= before - 1e-6 * abs(likelihood)  # never falls
        before = likelihood
    assert between == pytest.approx(BETWEEN, abs=0.15)
    assert within == pytest.approx(WITHIN, abs=0.05)


def embeddings(speakers: int, utterances: int, seed: int, tilt: float) -> tuple[np.ndarray, np.ndarray]:
    """20 dimensions: speakers differ in ten of them, utterances wander by `tilt` in two loud ones."""
    rng = np.random.default_rng(seed)
    place = rng.standard_normal((speakers, 20)) * np.repeat([1.0, 0.0], 10)
    speaker = np.repeat(np.arange(speakers), utterances)
    looks = place[speaker] + 0.7 * rng.standard_normal((len(speaker), 20))
    looks[:, -2:] += tilt * rng.standard_normal((len(speaker), 2))
    return looks.astype(np.float32), speaker


def eer(scores: np.ndarray, speaker: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> float:
    return ScoreSet.from_labels(scores, speaker[rows] == speaker[columns]).eer()


def test_it_beats_cosine_where_a_channel_is_loud() -> None:
    train, labels = embeddings(200, 6, 0, tilt=4.0)
    test, speaker = embeddings(40, 5, 1, tilt=4.0)
    rows, columns = (each.astype(np.int32) for each in np.triu_indices(len(test), 1))
    unit = normalise(Embeddings([str(k) for k in range(len(test))], test, ""), train.mean(axis=0))
    cosine = eer((unit @ unit.T)[rows, columns], speaker, rows, columns)
    plda = fit_plda(train, [f"s{label}" for label in labels])
    assert eer(plda.score(test, test, rows, columns), speaker, rows, columns) < 0.5 * cosine
    narrow = fit_plda(train, labels, lda_dim=8)
    assert narrow.between.shape == (8, 8)
    assert eer(narrow.score(test, test, rows, columns), speaker, rows, columns) < 0.7 * cosine


def test_adaptation_helps_in_another_domain() -> None:
    train, labels = embeddings(200, 6, 0, tilt=0.0)
    shift = np.linspace(-2, 2, 20, dtype=np.float32)
    domain = embeddings(150, 3, 2, tilt=5.0)[0] + shift
    test, speaker = embeddings(40, 5, 1, tilt=5.0)
    test = test + shift
    rows, columns = (each.astype(np.int32) for each in np.triu_indices(len(test), 1))
    plda = fit_plda(train, labels, lda_dim=20)
    plain = eer(plda.score(test, test, rows, columns), speaker, rows, columns)
    adapted = plda.adapted(domain, within_share=0.9, between_share=0.1)
    assert eer(adapted.score(test, test, rows, columns), speaker, rows, columns) < 0.8 * plain
    same = plda.adapted(train)  # its own domain has next to no excess
    assert np.trace(same.within) < 1.1 * np.trace(plda.within)


def test_problems_are_named() -> None:
    train, labels = embeddings(10, 4, 0, tilt=0.0)
    with pytest.raises(TrialError, match="5 embeddings of 40 speakers"):
        fit_plda(train[:5], labels)
    with pytest.raises(TrialError, match="expected 3 speakers or more"):
        fit_plda(train[:8], labels[:8])
    with pytest.raises(TrialError, match="several utterances of some"):
        fit_plda(train[::4], labels[::4])
    with pytest.raises(TrialError, match="30 LDA dimensions given; these 10 speakers can tell 1 to 9 apart"):
        fit_plda(train, labels, lda_dim=30)
    plda = fit_plda(train, labels)
    with pytest.raises(TrialError, match="4 embeddings to adapt PLDA of 9 dimensions"):
        plda.adapted(train[:4])
    with pytest.raises(TrialError, match="shares 2 and"):
        plda.adapted(train, within_share=2)


def test_embeddings_that_do_not_differ_are_refused() -> None:
    with pytest.raises(TrialError, match=r"PLDA of 12 utterances of 4 speakers cannot be fitted .*do their embeddings"):
        fit_plda(np.ones((12, 5), np.float32), np.repeat(np.arange(4), 3))
