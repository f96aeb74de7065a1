"""The frame classifier learns what it is told, padding aside."""

from __future__ import annotations

import math

import torch

from parvox.models.frame_classifier import NO_LABEL, FrameClassifier


def test_loss_counts_labelled_valid_frames_alone():
    classifier = FrameClassifier(20, 4).eval()
    features = torch.randn(2, 9, 20)
    features[1, 5:] = 0
    targets = torch.randint(4, (2, 9))
    targets[0, 2] = NO_LABEL
    with torch.no_grad():
        found = classifier.loss(features, targets, torch.tensor([9, 5]))
        terms = []
        for row, length in enumerate((9, 5)):
            logs = classifier(features[row : row + 1, :length])[0].log_softmax(-1)
            terms += [-logs[time, targets[row, time]] for time in range(length) if (row, time) != (0, 2)]
    torch.testing.assert_close(found, torch.stack(terms).mean())


def test_it_learns_the_order_of_sounds():
    """Each frame's class is a direction in feature space, under noise; a new utterance is classified."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    sounds = torch.randn(3, 20, generator=generator)

    def utterances(count):
        targets = torch.randint(3, (count, 4), generator=generator).repeat_interleave(8, 1)
        return sounds[targets] + 0.5 * torch.randn(count, 32, 20, generator=generator), targets

    classifier = FrameClassifier(20, 3, channels=16)
    optimiser = torch.optim.Adam(classifier.parameters(), 0.01)
    features, targets = utterances(16)
    first = classifier.loss(features, targets).item()
    assert abs(first - math.log(3)) < 0.7
    for _ in range(40):
        optimiser.zero_grad()
        classifier.loss(features, targets).backward()
        optimiser.step()
    features, targets = utterances(8)
    with torch.no_grad():
        right = (classifier.eval()(features).argmax(-1) == targets).float().mean()
    assert right > 0.8
