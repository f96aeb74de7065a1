"""What is said, as classes of the classifier and beside them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from made_corpus import MadeCorpus, write_cut

from parvox.data import Batches, DataSettings
from parvox.errors import CorpusError, RecipeError

SAID = {"ann": ("yes", "no"), "bob": ("no", "no", "yes"), "cem": ("open sesame",)}


@pytest.fixture
def talking(tmp_path: Path) -> MadeCorpus:
    """Each speaker says each of their phrases four times; Cem is the only one to say his."""
    rng = np.random.default_rng(1)
    cuts = []
    for speaker, phrases in SAID.items():
        for number, phrase in enumerate(phrases * 4):
            cut = write_cut(tmp_path / f"{speaker}-{number}.flac", rng.uniform(-0.5, 0.5, 9000), speaker)
            cut.supervisions[0].text = phrase
            cuts.append(cut)
    return MadeCorpus(cuts)


def settings(**given: object) -> DataSettings:
    return DataSettings(**{"crop_s": 0.5, "batch_size": 4, "workers": 0, **given})  # type: ignore[arg-type]


def seen(batches: Batches) -> set[tuple[str, str, int, int]]:
    """Speaker, phrase, label and phrase label of each item of three epochs."""
    found = set()
    for epoch in range(3):
        for batch in batches.epoch(epoch):
            assert batch.phrases is not None
            for name, label, phrase in zip(batch.ids, batch.labels.tolist(), batch.phrases.tolist(), strict=True):
                speaker, _, number = name.partition("-")
                found.add((speaker, SAID[speaker][int(number) % len(SAID[speaker])], label, phrase))
    return found


def test_pairs_of_speaker_and_phrase_are_classes(talking: MadeCorpus) -> None:
    batches = Batches(talking, settings(classes="speaker_phrase", speed_perturbation=(0.9,)), seed=2)
    assert batches.speakers == ["ann: no", "ann: yes", "bob: no", "bob: yes", "cem: open sesame"]
    assert batches.phrases == ["no", "open sesame", "yes"]
    assert batches.classes == 10
    items = seen(batches)
    for speaker, phrase, label, phrase_label in items:
        assert batches.speakers[label % 5] == f"{speaker}: {phrase}"
        assert batches.phrases[phrase_label] == phrase
    assert {label for _, _, label, _ in items} == set(range(10))  # the phrase is the same at any speed


def test_phrases_beside_speakers(talking: MadeCorpus) -> None:
    batches = Batches(talking, settings(), seed=2, with_phrases=True)
    assert (batches.speakers, batches.classes) == (["ann", "bob", "cem"], 3)
    for speaker, phrase, label, phrase_label in seen(batches):
        assert (batches.speakers[label], batches.phrases[phrase_label]) == (speaker, phrase)


def test_phrases_of_speakers_left_out_are_no_classes(talking: MadeCorpus) -> None:
    batches = Batches(talking, settings(classes="speaker_phrase", min_utterances_per_speaker=5), seed=2)
    assert batches.phrases == ["no", "yes"]
    assert batches.speakers == ["ann: no", "ann: yes", "bob: no", "bob: yes"]
    for speaker, phrase, label, phrase_label in seen(batches):
        assert (batches.speakers[label], batches.phrases[phrase_label]) == (f"{speaker}: {phrase}", phrase)


def test_speakers_are_balanced_not_pairs(talking: MadeCorpus) -> None:
    options = settings(classes="speaker_phrase", speaker_balanced=True, batch_size=3, utterances_per_epoch=12)
    speakers = [name[:3] for batch in Batches(talking, options, seed=2).epoch(0) for name in batch.ids]
    assert sorted(speakers) == ["ann"] * 4 + ["bob"] * 4 + ["cem"] * 4


def test_nothing_is_said_of_phrases_unasked(talking: MadeCorpus) -> None:
    batches = Batches(talking, settings(), seed=2)
    assert batches.phrases == []
    assert next(batches.epoch(0)).phrases is None


def test_speech_without_texts_has_no_phrases(make_corpus: Callable[[list[int]], MadeCorpus]) -> None:
    with pytest.raises(CorpusError, match="'spk0-0' has no text, so its phrase is unknown"):
        Batches(make_corpus([4, 4]), settings(classes="speaker_phrase"), seed=2)
    with pytest.raises(RecipeError, match="classes 'words' given; expected speaker or speaker_phrase"):
        settings(classes="words")
