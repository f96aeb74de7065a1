"""Distillation from speech that says nothing of who speaks."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import torch

from parvox.corpora.prepare import PrepareSettings, prepare
from parvox.corpora.prepared import INFO, PreparedCorpus
from parvox.distillation.contract import reads_logits
from parvox.errors import CorpusError, OutputError, RecipeError
from parvox.losses import SpeakerLoss
from parvox.models import SpeakerModel
from parvox.training.checks import expect_something_to_learn, expect_teacher_hears
from parvox.training.module import TrainedModule
from parvox.training.recipe import Recipe
from parvox.training.teachers import Teacher, load_teachers

IMPORTER = "unlabelled"


def corpus_beside(out: Path) -> Path:
    """Where the recordings of `parvox distill --unlabelled` are prepared: beside the run folder."""
    return out.with_name(f"{out.name}-corpus")


def prepare_unlabelled(recipe: Recipe, recordings: Path, *, resume: bool = False, overwrite: bool = False) -> None:
    """Prepare a folder of recordings as the corpus that a recipe names, if the recipe can do without labels.

    Args:
        recipe: Its corpus is what is written.
        recordings: A folder of any depth.
        resume: Take the corpus that an earlier call has left.
        overwrite: Replace a corpus made from other recordings.

    Raises:
        RecipeError: a method needs labels, or several processes were started at once.
        CorpusError: the folder holds no usable recording.
        OutputError: the corpus cannot be written, or something else lies there, such as that of other recordings.
    """
    out = Path(recipe.corpus)
    if int(os.environ.get("LOCAL_RANK", "0")) > 0 and "TORCHELASTIC_RUN_ID" not in os.environ:
        return  # started by a process that has prepared it
    if "TORCHELASTIC_RUN_ID" in os.environ or int(os.environ.get("SLURM_NTASKS", "1")) > 1:
        raise RecipeError(
            "unlabelled: several processes given, and one alone must prepare the recordings; do that first: parvox "
            f"prepare unlabelled {recordings} CORPUS, then --corpus CORPUS"
        )
    expect_no_labels_needed(recipe)
    if (out / INFO).is_file():
        found = PreparedCorpus.load(out)
        if found.info.importer != IMPORTER:
            raise OutputError(
                f"{out} is a corpus of kind {found.info.importer}, which is not replaced; choose another --out"
            )
        if not _made_from(found, recordings) and (resume or not overwrite):
            raise OutputError(
                f"{out} was prepared from other recordings than {recordings}; give those, choose another --out, or "
                "begin anew with --overwrite"
            )
        if resume:
            return
    settings = PrepareSettings(sample_rate_hz=recipe.model.features.sample_rate_hz)
    corpus = prepare(IMPORTER, recordings, out, settings, overwrite=True)
    if not corpus.splits:
        raise CorpusError(f"{recordings} holds no usable speech; see {out / 'rejected.csv'}")


def _made_from(corpus: PreparedCorpus, recordings: Path) -> bool:
    """Whether the first utterance of a corpus is of a folder of recordings; an empty corpus is of any."""
    sources = [source.source for cut in itertools.islice(corpus.cuts("train"), 1) for source in cut.recording.sources]
    return all(
        any(Path(real(source)).is_relative_to(real(recordings)) for real in (os.path.abspath, os.path.realpath))
        for source in sources
    )


def expect_no_labels_needed(recipe: Recipe) -> None:
    """Build what the recipe names, and let go of it again, so that what does not fit is said before any data is read.

    Raises:
        ParvoxError: the parts do not go together without labels.
    """
    expect_something_to_learn(recipe)
    assert recipe.distillation is not None
    distillation, model = recipe.distillation, SpeakerModel(recipe.model)
    teacher = load_teachers(distillation.teacher, model, torch.device("cpu"), distillation.options)
    expect_teacher_hears(teacher, recipe.model.features.sample_rate_hz, recipe.data)
    classifier, speakers = classifier_for(recipe, teacher)
    TrainedModule(model, classifier, distillation.methods, teacher.side, speakers=speakers, labelled=False)


def classifier_for(recipe: Recipe, teacher: Teacher) -> tuple[SpeakerLoss | None, list[str]]:
    """The speaker head of a student without labels, and whom it knows.

    The teacher's speakers, if a method compares what both say of them; else there is none.
    """
    methods = recipe.distillation.methods.values() if recipe.distillation else ()
    if not teacher.side.classes or not any(map(reads_logits, methods)):
        return None, []
    return recipe.loss.build(recipe.model.embedding_dim, teacher.side.classes), list(teacher.speakers or [])
