"""Probabilistic linear discriminant analysis with two covariances, for embeddings that cosine does not do justice.

An embedding is a speaker's place plus what varies between that speaker's utterances, both normal:
``x = mean + y + e``, ``y ~ N(0, B)``, ``e ~ N(0, W)`` (Brümmer and de Villiers, "The speaker partitioning problem",
Odyssey 2010; Sizov, Lee and Kinnunen, "Unifying probabilistic linear discriminant analysis variants in biometric
authentication", S+SSPR 2014). Embeddings trained with a margin are best compared by cosine; where train and test
differ in language or channel, this back end with adaptation often wins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.linalg import LinAlgError
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import eigh

from parvox.errors import TrialError
from parvox.evaluation.scoring import pair_products

_FLOOR = 1e-6  # of within-speaker variance, as a share of the largest

Matrix = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Plda:
    """A fitted model.

    Attributes:
        mean: (dim,) subtracted first.
        lda: (dim, kept) applied then; embeddings are brought to length sqrt(kept) after it.
        between: (kept, kept) covariance of speakers.
        within: (kept, kept) covariance of a speaker's utterances.
    """

    mean: Matrix
    lda: Matrix
    between: Matrix
    within: Matrix

    def prepare(self, embeddings: NDArray[np.float32]) -> Matrix:
        """Embeddings (utterances, dim) centred, projected and length-normalised, (utterances, kept)."""
        return _lengthened((embeddings - self.mean) @ self.lda)

    def score(
        self,
        enrol: NDArray[np.float32],
        test: NDArray[np.float32],
        rows: NDArray[np.int32],
        columns: NDArray[np.int32],
        voices: Sequence[NDArray[np.int64]] | None = None,
    ) -> NDArray[np.float32]:
        """Log-likelihood ratios of trials.

        Several enrolment utterances are taken as what they are, several looks at one speaker: the more there are, the
        surer the speaker's place.

        Args:
            enrol: (utterances, dim) embeddings of enrolment utterances.
            test: (tests, dim) embeddings.
            rows: (trials,) voices.
            columns: (trials,) rows of `test`.
            voices: The rows of `enrol` that enrol each voice; each row is a voice by default.

        Returns:
            (trials,) float32, natural logarithm.
        """
        transform, spread = _diagonal(self.between, self.within)
        left, right = self.prepare(enrol) @ transform, self.prepare(test) @ transform
        counts = np.ones(len(left))
        if voices is not None:
            counts = np.array([float(len(voice)) for voice in voices])
            left = np.stack([left[voice].mean(axis=0) for voice in voices])
        # Given n enrolment looks whose mean is m, the test look is normal around n s / (n s + 1) m; else around 0.
        n = counts[:, None]
        centre = n * spread / (n * spread + 1) * left
        precision = 1 / (1 + spread / (n * spread + 1))
        alone = 1 / (1 + spread)
        # The pair's terms are one inner product: of (precision centre, -precision / 2) with (x, x squared).
        enrol_side = np.hstack([precision * centre, -precision / 2]).astype(np.float32)
        test_side = np.hstack([right, right**2]).astype(np.float32)
        pair = pair_products(enrol_side, test_side, rows, columns)
        of_enrol = (np.log(precision) - precision * centre**2).sum(axis=1) / 2
        of_test = (alone * right**2).sum(axis=1) / 2 - np.log(alone).sum() / 2
        scores: NDArray[np.float32] = (pair + of_enrol[rows] + of_test[columns]).astype(np.float32)
        return scores

    def adapted(self, embeddings: NDArray[np.float32], within_share: float = 0.3, between_share: float = 0.7) -> Plda:
        """Adapted to another domain by unlabelled embeddings of it.

        The mean becomes that of the new domain. Directions in which its total variance exceeds what the model expects
        get that excess, in shares, as variance within and between speakers; others are left alone (the scheme of
        Kaldi's `ivector-adapt-plda`).

        Args:
            embeddings: (utterances, dim) of the new domain, of many speakers.
            within_share: Share of the excess that goes to variance within speakers.
            between_share: Share that goes to variance between speakers.

        Raises:
            TrialError: fewer embeddings than dimensions, or shares that are none.
        """
        if not (0 <= within_share <= 1 and 0 <= between_share <= 1):
            raise TrialError(f"shares {within_share} and {between_share} given to adapt PLDA; expected 0 to 1 each")
        kept = self.lda.shape[1]
        if len(embeddings) <= kept:
            raise TrialError(
                f"{len(embeddings)} embeddings to adapt PLDA of {kept} dimensions given; expected more than that"
            )
        mean = embeddings.mean(axis=0, dtype=np.float64)
        moved = Plda(mean, self.lda, self.between, self.within)
        prepared = moved.prepare(embeddings)
        total = np.cov(prepared.T, bias=True).reshape(kept, kept)
        # In the basis where the expected total is the identity, the new total shows its excess along its own axes.
        new, axes = eigh(total, self.between + self.within)
        back = (self.between + self.within) @ axes
        excess = back * np.maximum(new - 1, 0) @ back.T
        return Plda(mean, self.lda, self.between + between_share * excess, self.within + within_share * excess)


def fit_plda(
    embeddings: NDArray[np.float32], speakers: ArrayLike, *, lda_dim: int | None = None, iterations: int = 10
) -> Plda:
    """Fit by expectation maximisation.

    Args:
        embeddings: (utterances, dim)
        speakers: (utterances,) whole numbers or names.
        lda_dim: Dimensions that linear discriminant analysis keeps; all that the data can tell apart by default.
        iterations: Of expectation maximisation.

    Raises:
        TrialError: too few speakers or utterances to tell variance between and within speakers apart.
    """
    names, speaker = np.unique(np.asarray(speakers), return_inverse=True)
    if len(speaker) != len(embeddings):
        raise TrialError(f"{len(embeddings)} embeddings of {len(speaker)} speakers given; expected a speaker for each")
    spare = len(embeddings) - len(names)
    if len(names) < 3 or spare < 2:
        raise TrialError(
            f"PLDA of {len(embeddings)} utterances of {len(names)} speakers: expected 3 speakers or more, and several "
            "utterances of some"
        )
    data = embeddings.astype(np.float64)
    mean = data.mean(axis=0)
    data -= mean
    try:
        lda = _discriminants(data, speaker, len(names), lda_dim)
        prepared = _lengthened(data @ lda)
        between, within = _covariances(prepared, speaker, len(names))
        for _ in range(iterations):
            between, within = _maximised(prepared, speaker, len(names), between, within)
    except (LinAlgError, ValueError) as error:
        raise TrialError(
            f"PLDA of {len(embeddings)} utterances of {len(names)} speakers cannot be fitted ({error}): do their "
            "embeddings differ?"
        ) from error
    return Plda(mean, lda, between, within)


def _discriminants(data: Matrix, speaker: NDArray[np.int64], count: int, wanted: int | None) -> Matrix:
    """(dim, kept) directions in which speakers differ most for how much their utterances do; within variance 1.

    The variance within speakers is shrunk (Ledoit and Wolf 2004), so that few utterances do not make directions look
    quiet that are only unseen; many leave it as it is.
    """
    from sklearn.covariance import ledoit_wolf

    most = min(data.shape[1], count - 1, len(data) - count)
    if wanted is not None and not 1 <= wanted <= most:
        raise TrialError(f"{wanted} LDA dimensions given; these {count} speakers can tell 1 to {most} apart")
    kept = most if wanted is None else wanted
    means = _means(data, speaker, count)
    within, _ = ledoit_wolf(data - means[speaker], assume_centered=True)
    floor = np.finfo(float).tiny + _FLOOR * np.trace(within) / len(within)
    _, directions = eigh(means.T @ means / count, within + floor * np.eye(len(within)))
    chosen: Matrix = directions[:, ::-1][:, :kept]
    return chosen


def _covariances(data: Matrix, speaker: NDArray[np.int64], count: int) -> tuple[Matrix, Matrix]:
    """Of speakers' means and of utterances around them."""
    means = _means(data, speaker, count)
    within = data - means[speaker]
    return means.T @ means / count, within.T @ within / max(len(data) - count, 1)


def _maximised(
    data: Matrix, speaker: NDArray[np.int64], count: int, between: Matrix, within: Matrix
) -> tuple[Matrix, Matrix]:
    """One step of expectation maximisation, in the basis where both covariances are diagonal."""
    transform, spread = _diagonal(between, within)
    looks = data @ transform
    counts = np.bincount(speaker, minlength=count)[:, None]
    variance = spread / (counts * spread + 1)
    place = variance * _sums(looks, speaker, count)
    new_between = (place.T @ place + np.diag(variance.sum(axis=0))) / count
    rest = looks - place[speaker]
    new_within = (rest.T @ rest + np.diag((counts * variance).sum(axis=0))) / len(data)
    back = np.linalg.inv(transform)
    return back.T @ new_between @ back, back.T @ new_within @ back


def _diagonal(between: Matrix, within: Matrix) -> tuple[Matrix, Matrix]:
    """A transform under which `within` is the identity and `between` diagonal, and that diagonal."""
    ridge = _FLOOR * np.trace(within) / len(within)
    values, vectors = eigh(between, within + ridge * np.eye(len(within)))
    return vectors, np.maximum(values, 1e-12)


def _means(data: Matrix, speaker: NDArray[np.int64], count: int) -> Matrix:
    means: Matrix = _sums(data, speaker, count) / np.bincount(speaker, minlength=count)[:, None]
    return means


def _sums(data: Matrix, speaker: NDArray[np.int64], count: int) -> Matrix:
    sums = np.zeros((count, data.shape[1]))
    np.add.at(sums, speaker, data)
    return sums


def _lengthened(data: Matrix) -> Matrix:
    """Rows brought to length sqrt(dim), which makes them near normal (Garcia-Romero and Espy-Wilson 2011)."""
    norms = np.linalg.norm(data, axis=1, keepdims=True)
    lengthened: Matrix = data * (np.sqrt(data.shape[1]) / np.maximum(norms, np.finfo(float).tiny))
    return lengthened
