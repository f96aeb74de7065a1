"""`parvox fit-frames`."""

from __future__ import annotations

import json as json_format
import sys
from pathlib import Path
from shlex import quote

from parvox.cli.parsing import call
from parvox.corpora.prepared import PreparedCorpus
from parvox.models.frontend import FbankSettings
from parvox.training.fit_frames import FrameSettings
from parvox.training.fit_frames import fit_frames as fit


def fit_frames(
    corpus: Path,
    out: Path,
    frames: FrameSettings,
    features: FbankSettings,
    alignments: Path | None = None,
    seed: int = 1,
    device: str | None = None,
    overwrite: bool = False,
    json: bool = False,
) -> None:
    """Fit a classifier of frames, whose posteriors tell a speaker model what is being said (phonetic positions).

    For example: parvox fit-frames corpora/digits runs/frames.safetensors

    Labels are those of a CTM file, if one is given; else phones or words aligned in the corpus's manifest, as in joined
    phrases; else the text of each utterance is the label of all of it, for recordings of single words.

    Args:
        corpus: Folder of a prepared corpus; its training utterances are learnt, its dev utterances tested.
        out: The file to write; model.frame_classifier of a recipe takes it.
        frames: How to fit.
        features: As of the model that is to take it; the sample rate is the corpus's.
        alignments: A CTM file, lines "utterance channel start_s duration_s label", in place of the corpus's own labels.
        seed: Decides weights and order.
        device: As PyTorch names it; a GPU if there is one.
        overwrite: Replace a file in OUT.
        json: Print the result as one JSON object.
    """
    told = fit(
        PreparedCorpus.load(corpus),
        out,
        settings=frames,
        features=features,
        alignments=alignments,
        seed=seed,
        device=device,
        overwrite=overwrite,
    )
    if json:
        print(json_format.dumps({"path": str(out), **told}, ensure_ascii=False))
        return
    right, same = told["dev_accuracy"], told["dev_accuracy_of_one_class"]
    heard = (
        "no labelled dev frames"
        if right is None
        else f"{100 * right:.1f} % of dev frames right (one class for all: {100 * same:.1f} %)"
    )
    print(f"{out}: {len(told['names'])} classes from {told['labels']}, {heard}, {told['seconds']:.0f} s")
    folder = quote(str(out))
    chosen = f"--model.positions phonetic --model.phones {len(told['names'])} --model.frame_classifier {folder}"
    print(f"next: parvox train RECIPE.yaml --model.name memory_attention {chosen}", file=sys.stderr)


def main(argv: list[str]) -> None:
    """Parse the arguments and fit."""
    call(fit_frames, argv, prog="parvox fit-frames")
