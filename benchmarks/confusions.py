"""Whom models confuse, and where their read-outs look: what the inter-topK penalty and several queries change.

    python benchmarks/confusions.py CORPUS RUN [RUN …] [--split test]

CORPUS is a prepared corpus, the others are folders of runs on it. For each it prints the mean cosine of a training
speaker's embedding with the speaker's own centre and with the five nearest others, which the penalty pushes away; of an
utterance of the split with others of its speaker, with the nearest of somebody else, and with the nearest centre of a
training speaker; and for MQMHA pooling how alike two queries of one head look at one channel over time, and how alike
two heads look on average, each as correlation of the attention weights.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from parvox.cli.parsing import call
from parvox.corpora.prepared import PreparedCorpus
from parvox.data.recordings import Recordings
from parvox.errors import ParvoxError
from parvox.evaluation.embeddings import embed_cuts
from parvox.evaluation.environment import environment
from parvox.evaluation.system import load_system
from parvox.losses.margin import MarginSoftmax
from parvox.models.pooling_mqmha import MqmhaPooling
from parvox.training.run import Run, load_run
from rows import markdown

NEAREST = 5  # K of the recipes
CURVES = 64  # utterances whose attention is looked at, of speakers all over the split
HEAD = ("run", "own centre", f"{NEAREST} nearest others", "same speaker", "nearest other", "nearest centre")
HEAD_OF_CURVES = ("queries of a head", "heads")


def benchmark(corpus: Path, runs: list[Path], *, split: str = "test", utterances: int = 4) -> None:
    """Print one line for each run.

    Args:
        corpus: Prepared corpus.
        runs: Run folders.
        split: Whose speakers no run has heard.
        utterances: Of each of these speakers, at most.
    """
    if utterances < 2:
        raise ParvoxError(f"--utterances {utterances} given; expected 2 or more, to compare a speaker's own")
    prepared = PreparedCorpus.load(corpus)
    training, heard = some_of_each(prepared, "train", 1), some_of_each(prepared, split, utterances)
    looked_at = heard[:: max(1, len(heard) // CURVES)][:CURVES]
    print(markdown([*HEAD, *HEAD_OF_CURVES], []))
    for folder in runs:
        run = load_run(folder)
        figures = [*of_centres(run, training), *of_utterances(run, heard), *of_curves(run, looked_at)]
        cells = [f"{figure:.3f}" for figure in figures]
        row = [f"`{folder.name}`", *cells, *["–"] * (len(HEAD) + len(HEAD_OF_CURVES) - 1 - len(cells))]
        print(f"| {' | '.join(row)} |", flush=True)  # as it comes: each takes a minute
    print(f"\n{len(training)} training speakers, {len(heard)} utterances of {split}; {environment()['hardware']}")


def some_of_each(corpus: PreparedCorpus, split: str, most: int) -> list[Any]:
    """Cuts of each speaker, each from another recording where there are so many."""
    cuts = sorted(corpus.cuts(split), key=lambda cut: (speaker(cut), cut.id))
    found = []
    for _, own in itertools.groupby(cuts, key=speaker):
        by_recording: dict[str, list[Any]] = {}
        for cut in own:
            by_recording.setdefault(str(cut.supervisions[0].custom["recording"]), []).append(cut)
        turns = itertools.chain.from_iterable(itertools.zip_longest(*by_recording.values()))
        found += list(itertools.islice((cut for cut in turns if cut is not None), most))
    return found


def speaker(cut: Any) -> str:
    return str(cut.supervisions[0].speaker)


def embeddings(run: Run, cuts: Sequence[Any]) -> Tensor:
    """(utterances, embedding_dim), of length one."""
    return normalize(torch.from_numpy(embed_cuts(load_system(run.folder), cuts).matrix))


def centres(run: Run, embedded: Tensor) -> Tensor:
    """Cosines (utterances, training speakers)."""
    if not isinstance(run.classifier, MarginSoftmax):
        raise ParvoxError(f"{run.folder} was not trained with a margin loss; expected centres that cosines tell of")
    with torch.no_grad():
        return run.classifier.scores(embedded)


def of_centres(run: Run, training: Sequence[Any]) -> tuple[float, float]:
    """Training speakers with their own centre, and with the nearest others."""
    cosines = centres(run, embeddings(run, training))
    place = {name: index for index, name in enumerate(run.speakers)}
    own = torch.tensor([place[speaker(cut)] for cut in training])[:, None]
    others = cosines.scatter(1, own, -1.0).topk(NEAREST).values
    return float(cosines.gather(1, own).mean()), float(others.mean())


def of_utterances(run: Run, heard: Sequence[Any]) -> tuple[float, float, float]:
    """Utterances with others of the same speaker, with the nearest of another one, and with the nearest centre."""
    embedded = embeddings(run, heard)
    cosines = embedded @ embedded.T
    names = np.array([speaker(cut) for cut in heard])
    same = torch.from_numpy(names[:, None] == names)
    nearest_other = cosines.masked_fill(same, -1.0).amax(1)
    return (
        float(cosines[same.fill_diagonal_(False)].mean()),
        float(nearest_other.mean()),
        float(centres(run, embedded).amax(1).mean()),
    )


def of_curves(run: Run, heard: Sequence[Any]) -> tuple[float, ...]:
    """Correlation over time of two queries, by head and channel, and of two heads' means; nothing without MQMHA."""
    pooling = run.model.pooling
    if not isinstance(pooling, MqmhaPooling) or min(pooling.heads, pooling.queries) < 2:
        return ()
    recordings = Recordings(list(heard), run.recipe.model.features.sample_rate_hz, full_precision=True)
    found = []
    for number in range(len(heard)):
        with torch.no_grad():
            features, _ = run.model.extract_features(torch.from_numpy(recordings.read(number))[None])
            weights = pooling.weights(run.model.encoder(features).frames)[0]  # (heads, queries, channels, time)
        found.append((correlation(weights.transpose(0, 1)), correlation(weights.mean((1, 2)))))
    return tuple(np.mean(found, axis=0).tolist())


def correlation(curves: Tensor) -> float:
    """Mean correlation over time of all pairs of curves (curves, …, time) that differ in the first index."""
    about_mean = curves - curves.mean(-1, keepdim=True)
    one, other = torch.combinations(torch.arange(len(curves))).T
    return float(torch.cosine_similarity(about_mean[one], about_mean[other], dim=-1).mean())


if __name__ == "__main__":
    try:
        call(benchmark, sys.argv[1:], prog="benchmarks/confusions.py")
    except ParvoxError as error:
        sys.exit(f"benchmarks/confusions.py: error: {error}")
