"""What a method's settings say that it looks at is what it looks at."""

import pytest
import torch
from distillation_pairs import features, frozen, look, make, pair_of

from parvox.distillation import METHODS, View
from parvox.distillation.contract import looks_inside, reads_logits


class Watched(View):
    """A view that remembers what was asked of it."""

    def __init__(self, view, asked):
        self.asked = None
        super().__init__(
            view.embedding,
            view.classifier,
            view.labels,
            encoded=view.encoded,
            features=view.features,
            again=view.again,
            batch=view.batch,
        )
        self.asked = asked

    def __getattribute__(self, name):
        asked = object.__getattribute__(self, "__dict__").get("asked")
        if asked is not None:
            asked.add(name)
        return super().__getattribute__(name)


@pytest.mark.parametrize("name", sorted(entry.name for entry in METHODS))
def test_a_method_declares_what_it_looks_at(name):
    student, teacher = make(seed=1), frozen(make(seed=2))
    settings = METHODS[name].settings()
    method = settings.build(pair_of(student, teacher))
    labels = torch.tensor([0, 1, 2, 3, 6])
    asked = set()
    with torch.no_grad():
        target = Watched(look(teacher, features(5), labels), asked)
    method(look(student, features(5), labels), target, 0.5)
    assert bool(asked & {"logits", "free_logits", "margin_logits"}) == reads_logits(settings)
    assert bool(asked & {"encoded", "again", "features"}) == looks_inside(settings)
