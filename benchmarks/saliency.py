"""What teacher and students listen to: deletion and insertion curves of their maps, and how sound the maps are.

    python benchmarks/saliency.py CORPUS TEACHER STUDENT [STUDENT …] [--split test] [--measure similarity]

CORPUS is a prepared corpus, the others are run folders. One utterance of each speaker is listened to, cut or repeated
to one length. Its score is the cosine with the mean of the speaker's utterances from other recordings (similarity, for
any split), or the posterior of the speaker (posterior, for speakers that the models were trained on).

Prints and writes to benchmarks/results/saliency.csv, each with its standard error over speakers: the areas under the
curves of every model, for its own map, the teacher's and one with the teacher's values in random places; how alike a
model's map is to the teacher's; what is left of the teacher's score by every way of masking; and how far integrated
gradients of so many steps are from complete. Draws the curves.
"""

from __future__ import annotations

import csv
import itertools
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn.functional import normalize

from parvox.cli.parsing import call
from parvox.corpora.prepared import PreparedCorpus
from parvox.data.recordings import Recordings
from parvox.data.utterances import iterate_utterances
from parvox.distillation.attribution import Score, integrated_gradients, similarity_score, true_speaker_score
from parvox.distillation.deletion import Curves, deletion_insertion
from parvox.distillation.maps import MapSettings, Normalisation, normalised, permuted, saliency
from parvox.distillation.teacher_maps import item_segments
from parvox.errors import ParvoxError
from parvox.evaluation.environment import environment
from parvox.files import atomic_file
from parvox.training.run import Run, load_run

HERE = Path(__file__).parent
REFERENCES = 5  # utterances, at most
SOUND = 16  # speakers whose attributions are taken with many steps
Measure = Literal["similarity", "posterior"]


@dataclass(frozen=True, eq=False)
class Listener:
    """A model, what it hears and how it scores it.

    Attributes:
        name: Of its run folder.
        features: (speakers, frames, bins).
        score: Of points and the utterance of each.
        maps: (speakers, frames, bins).
    """

    name: str
    features: Tensor
    score: Score
    maps: Tensor


def benchmark(
    corpus: Path,
    teacher: Path,
    students: list[Path],
    *,
    split: str = "test",
    measure: Measure = "similarity",
    speakers: int = 50,
    seconds: float = 1.0,
    maps: MapSettings = MapSettings(),  # noqa: B008
    out: Path = HERE / "results" / "saliency.csv",
    picture: Path = HERE.parent / "docs" / "pictures" / "saliency.svg",
) -> None:
    """Compare what models listen to.

    Args:
        corpus: Prepared corpus.
        teacher: Run folder.
        students: Run folders.
        split: Whose speakers.
        measure: What is scored.
        speakers: How many, at most.
        seconds: Length of what is listened to.
        maps: How maps are made.
        out: CSV file to write.
        picture: SVG file to write.
    """
    prepared = PreparedCorpus.load(corpus)
    heard = chosen(prepared, split, speakers)
    torch.manual_seed(1)
    listeners = [listener(load_run(folder), heard, measure, seconds, maps) for folder in (teacher, *students)]
    guide = listeners[0]
    rows, curves = [], {}
    for each in listeners:
        kinds = {"own": each.maps, "teacher": guide.maps, "random": permuted(guide.maps)}
        if each is guide:
            del kinds["teacher"]
        for kind, used in kinds.items():
            found = curves[each.name, kind] = deletion_insertion(each.score, each.features, used)
            rows += [
                row("deletion area", each.name, kind, found.deletion_area),
                row("insertion area", each.name, kind, found.insertion_area),
            ]
        if each is not guide:
            alike = [spearmanr(a.flatten(), b.flatten())[0] for a, b in zip(each.maps, guide.maps, strict=True)]
            rows.append(row("rank correlation with the teacher's map", each.name, "own", torch.tensor(alike)))
    rows += masked(guide) + completeness(guide, maps)
    write(rows, out)
    draw(curves, picture, measure)
    facts = environment()
    print(f"\n{len(heard)} speakers of {split}, {seconds} s, {measure}; {facts['hardware']}; {out}, {picture}")


def chosen(corpus: PreparedCorpus, split: str, most: int) -> list[tuple[Any, list[Any]]]:
    """One cut of each speaker, and others of theirs from other recordings."""
    cuts = sorted(corpus.cuts(split), key=lambda cut: (str(cut.supervisions[0].speaker), cut.id))
    pairs = []
    for _, own in itertools.groupby(cuts, key=lambda cut: cut.supervisions[0].speaker):
        first, *others = own
        apart = [cut for cut in others if recording(cut) != recording(first)]
        if apart:
            pairs.append((first, apart[:REFERENCES]))
    if not pairs:
        raise ParvoxError(f"no speaker of {split} has two recordings; give another split or corpus")
    return pairs[:: max(1, len(pairs) // most)][:most]  # from all over the corpus


def recording(cut: Any) -> str:
    return str(cut.supervisions[0].custom["recording"])


def listener(
    run: Run, heard: list[tuple[Any, list[Any]]], measure: Measure, seconds: float, maps: MapSettings
) -> Listener:
    """A run's model with its map of each utterance."""
    model, rate = run.model.eval().requires_grad_(False), run.recipe.model.features.sample_rate_hz
    recordings = Recordings([cut for cut, _ in heard], rate, full_precision=True)
    samples = max(round(seconds * rate), model.min_samples)
    waveforms = np.stack([np.resize(recordings.read(number), samples) for number in range(len(heard))])
    with torch.no_grad():
        features, _ = model.extract_features(torch.from_numpy(waveforms))
    if measure == "posterior":
        if run.classifier is None:
            raise ParvoxError(f"{run.folder} has no speaker classifier; take --measure similarity")
        unknown = [cut.id for cut, _ in heard if cut.supervisions[0].speaker not in run.speakers]
        if unknown:
            raise ParvoxError(f"{run.folder} was not trained on the speaker of {unknown[0]}; take --split train")
        labels = torch.tensor([run.speakers.index(cut.supervisions[0].speaker) for cut, _ in heard])
        score = true_speaker_score(model, run.classifier, labels)
    else:
        score = similarity_score(model, references(run, heard))
    found = saliency(score, features, item_segments(maps, model, features), maps)
    return Listener(run.folder.resolve().name, features, score, found)


@torch.no_grad()
def references(run: Run, heard: list[tuple[Any, list[Any]]]) -> Tensor:
    """(speakers, embedding_dim), the mean direction of each speaker's other utterances."""
    embedded: dict[str, Tensor] = {}
    for batch in iterate_utterances([cut for _, others in heard for cut in others], workers=0):
        embeddings = normalize(run.model(batch.waveforms, batch.lengths).embedding)
        embedded.update(zip(batch.ids, embeddings, strict=True))
    return torch.stack([torch.stack([embedded[cut.id] for cut in others]).mean(0) for _, others in heard])


@torch.no_grad()
def masked(guide: Listener) -> list[dict[str, Any]]:
    """The teacher's score of masked inputs: with the map, and with its values in random places."""
    which = torch.arange(len(guide.features))
    rows = [row("teacher's score", guide.name, "of the input", guide.score(guide.features, which))]
    hows: tuple[Normalisation, ...] = ("rank", "minmax")
    for how in hows:
        maps = normalised(guide.maps, how)
        for kind, mask in (("", maps), (", at random", permuted(maps))):
            rows.append(
                row("teacher's score", guide.name, f"by {how}{kind}", guide.score(mask * guide.features, which))
            )
    return rows


def completeness(guide: Listener, settings: MapSettings) -> list[dict[str, Any]]:
    """|Σ IG - (F(x) - F(0))| as a part of F(x) - F(0), and how the map's order agrees with that of many steps."""
    features = guide.features[:SOUND]
    which = torch.arange(len(features))
    with torch.no_grad():
        difference = guide.score(features, which) - guide.score(torch.zeros_like(features), which)
    finest = integrated_gradients(guide.score, features, steps=80, rule=settings.rule).abs()
    rows = []
    for steps in (5, 10, 20, 40):
        found = integrated_gradients(guide.score, features, steps=steps, rule=settings.rule)
        gap = (found.sum((1, 2)) - difference).abs() / difference.abs()
        alike = [spearmanr(a.flatten(), b.flatten())[0] for a, b in zip(found.abs(), finest, strict=True)]
        rows.append(row("completeness gap, median", guide.name, f"{steps} steps", gap) | {"value": float(gap.median())})
        rows.append(row("rank correlation with 80 steps", guide.name, f"{steps} steps", torch.tensor(alike)))
    return rows


def row(what: str, model: str, kind: str, values: Tensor) -> dict[str, Any]:
    """A line of the table: the mean over speakers and its standard error."""
    error = float(values.std() / len(values) ** 0.5) if len(values) > 1 else 0.0
    return {"what": what, "model": model, "map": kind, "value": float(values.mean()), "standard_error": error}


def write(rows: list[dict[str, Any]], out: Path) -> None:
    facts = environment()
    print(f"{'what':<40} {'model':<20} {'map':<22} value")
    for each in rows:
        value = f"{each['value']:.3f} ± {each['standard_error']:.3f}"
        print(f"{each['what']:<40} {each['model']:<20} {each['map']:<22} {value}")
    with atomic_file(out, overwrite=True) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*rows[0], *facts])
        writer.writeheader()
        writer.writerows({**each, **facts} for each in rows)


def draw(curves: dict[tuple[str, str], Curves], picture: Path, measure: Measure) -> None:
    """Mean curves, one panel for deletion and one for insertion."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "parvox"
    figure, panels = pyplot.subplots(1, 2, figsize=(9, 3.4), sharey=True)
    names = list(dict.fromkeys(name for name, _ in curves))
    for panel, way in zip(panels, ("deletion", "insertion"), strict=True):
        for (name, kind), found in curves.items():
            if kind == "teacher":
                continue
            mean = getattr(found, way).mean(0)
            style = "-" if kind == "own" else ":"
            label = name if kind == "own" else f"{name}, random"
            panel.plot(100 * found.fractions, mean, style, color=f"C{names.index(name)}", label=label)
        panel.set_xlabel(f"bins {'deleted' if way == 'deletion' else 'inserted'}, strongest first (%)")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel(measure)
    panels[1].legend(fontsize=8)
    figure.tight_layout()
    with atomic_file(picture, overwrite=True) as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None})
    pyplot.close(figure)


if __name__ == "__main__":
    try:
        call(benchmark, sys.argv[1:], prog="benchmarks/saliency.py")
    except ParvoxError as error:
        sys.exit(f"error: {error}")
