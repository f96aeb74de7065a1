"""How good the model is on the dev trials while it trains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from parvox.corpora.prepared import PreparedCorpus
from parvox.data import UtteranceBatch, iterate_utterances
from parvox.evaluation.measures import eer, min_dcf
from parvox.evaluation.trials import unknown_utterances
from parvox.models import SpeakerModel
from parvox.models.contract import SpeakerOutput


@dataclass
class DevScores:
    """EER and normalised minDCF (p_target 0.01) of the dev trials."""

    eer: float
    min_dcf: float


def score_dev(model: SpeakerModel, corpus: PreparedCorpus, fabric: Any) -> DevScores | None:
    """Embed the dev utterances and score the dev trials by cosine.

    Args:
        model: The model in training; left in training mode.
        corpus: Whose dev split to take.
        fabric: The engine, for its device and precision.

    Returns:
        None where the dev split has no trials of both kinds.
    """

    def embed(batch: UtteranceBatch) -> Tensor:
        output: SpeakerOutput = model(batch.waveforms.to(fabric.device), batch.lengths.to(fabric.device))
        return output.embedding

    model.eval()
    with fabric.autocast():
        scores = dev_scores(corpus, embed)
    model.train()
    return scores


def dev_scores(corpus: PreparedCorpus, embed: Callable[[UtteranceBatch], Tensor]) -> DevScores | None:
    """Scores of the dev trials, by cosine.

    Args:
        corpus: Whose dev split to take.
        embed: Embeddings (batch, embedding_dim) of a batch.

    Returns:
        None where the dev split has no trials of both kinds.
    """
    dev = corpus.info.splits.get("dev")
    trials = corpus.utterance_trials("dev") if dev is not None and dev.trials_from else []
    targets = np.array([trial.target for trial in trials], dtype=bool)
    if not targets.any() or targets.all():
        return None
    used = {trial.enrol for trial in trials} | {trial.test for trial in trials}
    cuts = [cut for cut in corpus.cuts("dev") if cut.id in used]
    if unknown := sorted(used - {cut.id for cut in cuts}):
        raise unknown_utterances(f"dev trials of {corpus.folder}", unknown, len(used))
    rows: list[np.ndarray] = []
    ids: list[str] = []
    with torch.inference_mode():
        for batch in iterate_utterances(cuts):
            rows.append(torch.nn.functional.normalize(embed(batch).float(), dim=-1).cpu().numpy())
            ids.extend(batch.ids)
    embeddings = np.concatenate(rows)
    row = {utterance: index for index, utterance in enumerate(ids)}
    enrol = embeddings[[row[trial.enrol] for trial in trials]]
    test = embeddings[[row[trial.test] for trial in trials]]
    scores = np.einsum("ij,ij->i", enrol, test)
    target, nontarget = scores[targets], scores[~targets]
    return DevScores(eer=float(eer(target, nontarget)), min_dcf=float(min_dcf(target, nontarget, p_target=0.01)))
