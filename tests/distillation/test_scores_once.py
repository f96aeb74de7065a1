"""The product with the speakers' centres is made once a batch, whoever asks."""

import torch
from distillation_pairs import features, frozen, look, make, pair_of

from parvox.distillation.dkd import DkdSettings
from parvox.distillation.label import LabelSettings


def test_logits_with_and_without_margin_share_their_cosines(monkeypatch):
    student, teacher = make(seed=1), frozen(make(seed=2))
    labels = torch.tensor([0, 1, 2, 3, 6])
    pair = pair_of(student, teacher)
    methods = [LabelSettings(margin=False).build(pair), DkdSettings(margin=True).build(pair)]
    counted = []
    for classifier in (student[1], teacher[1]):
        classifier.set_progress(1.0)
        monkeypatch.setattr(classifier, "scores", lambda each, own=classifier.scores: counted.append(1) or own(each))
    ours, theirs = look(student, features(5), labels), look(teacher, features(5), labels)
    for method in methods:
        method(ours, theirs, 0.5)
    assert len(counted) == 2
    torch.testing.assert_close(ours.free_logits, student[1].logits(ours.embedding))
    torch.testing.assert_close(ours.margin_logits, student[1].logits(ours.embedding, labels))
    assert not torch.equal(ours.free_logits, ours.margin_logits)
