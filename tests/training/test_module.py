"""What is trained: the sum of its terms."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from parvox.data import Batch
from parvox.losses import LOSSES
from parvox.models import ENCODERS, POOLINGS, ModelSettings, SpeakerModel
from parvox.models.frontend import FbankSettings
from parvox.training.module import TrainedModule
from parvox.training.teachers import Inputs

LABELS = torch.tensor([0, 1, 2, 2])


def make(pooling, **fields):
    """A small model of tokens and its classifier."""
    torch.manual_seed(3)
    settings = ModelSettings(
        encoder=ENCODERS["memory_attention"].settings(
            width=16, conv_blocks=1, blocks=1, heads=2, memory_slots=8, memory_heads=1, memory_key_dim=8, dropout=0.0
        ),
        pooling=POOLINGS[pooling].settings(**fields),
        embedding_dim=16,
        head="none",
        features=FbankSettings(bins=20),
    )
    return SpeakerModel(settings), LOSSES["aam_softmax"].settings().build(16, 4)


def inputs(batch=4, seed=5):
    features = torch.randn(batch, 30, 20, generator=torch.Generator().manual_seed(seed))
    return Inputs(torch.zeros(batch, 1), features, LABELS[:batch])


@pytest.mark.parametrize("pooling", ["class_token", "class_distillation_token"])
def test_a_variational_tokens_divergence_is_in_the_loss_by_its_weight(pooling):
    totals = {}
    for weight in (0.0, 0.5):
        model, classifier = make(pooling, estimation="variational", divergence_weight=weight)
        torch.manual_seed(4)
        total, terms = TrainedModule(model, classifier)(inputs())
        totals[weight] = total
        assert terms["token_divergence"].item() == pytest.approx(model.pooling.parts[0].divergence().item())
    divergence = terms["token_divergence"].item()
    assert totals[0.5].item() == pytest.approx(totals[0.0].item() + 0.5 * divergence, rel=1e-5)
    model.pooling.parts[0].rho.grad = None
    totals[0.5].backward()
    assert model.pooling.parts[0].rho.grad.abs().max() > 0


def test_other_models_ask_for_no_terms_of_their_own():
    model, classifier = make("class_token", vectors=3)
    _, terms = TrainedModule(model, classifier)(inputs())
    assert list(terms) == ["speaker"]


def test_a_phrase_head_learns_beside_the_speaker_head():
    model, classifier = make("class_token")
    phrases = torch.tensor([1, 0, 1, 0])
    given = inputs()
    given.batch = Batch(given.waveforms, LABELS, ["a", "b", "c", "d"], phrases=phrases)
    head = LOSSES["softmax"].settings().build(16, 2)
    alone, _ = TrainedModule(model, classifier)(given)
    module = TrainedModule(model, classifier, phrase_head=head, phrase_weight=0.3)
    total, terms = module(given)
    expected = cross_entropy(head.logits(model.embed_features(given.features).embedding), phrases)
    assert terms["phrase"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert total.item() == pytest.approx(alone.item() + 0.3 * expected.item(), rel=1e-5)
    total.backward()
    assert head.weight.grad.abs().max() > 0
    assert module.added_parameters() == 2 * 16 + 2
