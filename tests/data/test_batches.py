from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st
from lhotse import MonoCut, Recording, SupervisionSegment
from made_corpus import RATE, MadeCorpus, write_cut

from parvox.corpora.prepared import PreparedCorpus
from parvox.data import AugmentationSettings, Augmenter, Batch, Batches, DataSettings
from parvox.data.batch import RIR_LEAD, _crop
from parvox.data.batches import default_workers
from parvox.errors import CorpusError, RecipeError, TrainingError

ALL = AugmentationSettings(
    noise_probability=0.6,
    snr_db=(3.0, 9.0),
    reverberation_probability=0.4,
    gain_db=(-6.0, 6.0),
    spec_augment_probability=0.7,
    time_masks=2,
    max_time_mask_frames=5,
    max_frequency_mask_bins=3,
    random_erasing_probability=0.5,
    random_erasing_teacher="own",
)
Make = Callable[[list[int]], MadeCorpus]


def _settings(**given: object) -> DataSettings:
    return DataSettings(**{"crop_s": 0.5, "batch_size": 4, "workers": 0, **given})  # type: ignore[arg-type]


def _expect_equal(batches: list[Batch], others: list[Batch]) -> None:
    assert len(batches) == len(others) > 0
    for batch, other in zip(batches, others, strict=True):
        assert batch.ids == other.ids
        assert batch.crops == other.crops
        ours, theirs = batch.tensors(), other.tensors()
        assert ours.keys() == theirs.keys()
        for name, tensor in ours.items():
            assert torch.equal(tensor, theirs[name]), name


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than processors, on purpose
@pytest.mark.parametrize("workers", [1, 3])
def test_workers_and_cache_do_not_change_batches(make_corpus: Make, workers: int) -> None:
    corpus = make_corpus([5, 3, 9, 4])
    alone = Batches(corpus, _settings(speed_perturbation=(0.9, 1.1), cache_audio_mib=0), ALL, seed=3)
    helped = Batches(corpus, _settings(speed_perturbation=(0.9, 1.1), workers=workers), ALL, seed=3)
    for epoch in (0, 1, 0):
        _expect_equal(list(alone.epoch(epoch)), list(helped.epoch(epoch)))
    helped.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_resumed_is_the_rest_of_the_epoch_and_reads_no_more(
    make_corpus: Make, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    corpus = make_corpus([5, 3, 9, 4])
    whole = list(Batches(corpus, _settings(), ALL, seed=3).epoch(2))
    batches = Batches(corpus, _settings(workers=workers), ALL, seed=3)
    next(batches.epoch(1))  # given up at once
    _expect_equal(list(batches.epoch(2, start_batch=3)), whole[3:])
    assert list(batches.epoch(2, start_batch=len(whole))) == []
    if workers == 0:
        made: list[str] = []
        original = batches._loader.dataset._maker.make  # type: ignore[union-attr]
        monkeypatch.setattr(
            batches._loader.dataset._maker,  # type: ignore[union-attr]
            "make",
            lambda plan: made.append("batch") or original(plan),
        )
        list(batches.epoch(2, start_batch=3))
        assert len(made) == len(whole) - 3
    batches.close()


def test_seed_and_epoch_change_what_is_drawn(make_corpus: Make) -> None:
    corpus = make_corpus([8])
    settings = _settings(batch_size=8, crop_s=0.2)

    def drawn(seed: int, epoch: int) -> dict[str, torch.Tensor]:
        (batch,) = Batches(corpus, settings, ALL, seed=seed).epoch(epoch)
        return dict(zip(batch.ids, batch.waveforms, strict=True))

    first = drawn(1, 0)
    for other in (drawn(1, 1), drawn(2, 0)):
        assert not any(torch.equal(first[name], other[name]) for name in first)


def test_loading_leaves_the_global_random_state_alone(make_corpus: Make) -> None:
    batches = Batches(make_corpus([5, 4]), _settings(), ALL, seed=0)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    list(batches.epoch(0))
    assert torch.equal(torch.get_rng_state(), before)


def test_processes_share_each_step_out(make_corpus: Make) -> None:
    corpus = make_corpus([5, 3, 9, 4])
    alone = list(Batches(corpus, _settings(batch_size=6), ALL, seed=3).epoch(1))
    shards = [
        list(Batches(corpus, _settings(batch_size=2), ALL, seed=3, rank=rank, world_size=3).epoch(1))
        for rank in range(3)
    ]
    assert [len(shard) for shard in shards] == [3, 3, 3]
    for step, batch in enumerate(alone):
        parts = [shard[step] for shard in shards]
        assert [name for part in parts for name in part.ids] == batch.ids
        assert torch.equal(torch.cat([part.waveforms for part in parts]), batch.waveforms)
        assert torch.equal(torch.cat([part.time_masks for part in parts]), batch.time_masks)
    names = [name for shard in shards for batch in shard for name in batch.ids]
    assert len(set(names)) == len(names) == 18


def test_augmentation_settings_do_not_change_other_draws(make_corpus: Make) -> None:
    corpus = make_corpus([5, 4])
    settings = _settings(speed_perturbation=(0.9,))
    plain = list(Batches(corpus, settings, seed=1).epoch(0))
    augmented = list(Batches(corpus, settings, ALL, seed=1).epoch(0))
    for one, other in zip(plain, augmented, strict=True):
        assert torch.equal(one.waveforms, other.waveforms)
        assert one.tensors().keys() == {"waveforms", "labels"}


def test_classes_are_speakers_times_speeds_and_each_utterance_keeps_its_speaker(make_corpus: Make) -> None:
    batches = Batches(make_corpus([6, 6, 6]), _settings(speed_perturbation=(0.9, 1.1), batch_size=6), seed=0)
    assert batches.speakers == ["spk0", "spk1", "spk2"]
    assert batches.classes == 9
    seen = set()
    for epoch in range(12):
        for batch in batches.epoch(epoch):
            for name, label in zip(batch.ids, batch.labels.tolist(), strict=True):
                assert batches.speakers[label % 3] == name.split("-")[0]
                seen.add(label)
    assert seen == set(range(9))


@pytest.mark.parametrize("factor", [0.9, 1.1])
@pytest.mark.parametrize("seconds", [0.3, 2.0])
def test_speed_changes_pitch_and_duration_by_its_factor(tmp_path: Path, factor: float, seconds: float) -> None:
    pitch_hz = 400.0
    tone = 0.5 * np.sin(2 * np.pi * pitch_hz * np.arange(round(seconds * RATE)) / RATE)
    tone[-10:] = 0.99  # a click marks the end of the recording, where repetition starts
    corpus = MadeCorpus([write_cut(tmp_path / "tone.wav", tone, "one")])
    batches = Batches(
        corpus, _settings(crop_s=1.0, batch_size=1, speed_perturbation=(factor,), utterances_per_epoch=20), seed=0
    )
    pitches: dict[int, list[float]] = {0: [], 1: []}
    clicks: dict[int, list[float]] = {0: [], 1: []}
    for batch in batches.epoch(0):
        waveform, label = batch.waveforms[0].numpy(), int(batch.labels[0])
        assert len(waveform) == RATE
        spectrum = np.abs(np.fft.rfft(waveform * np.hanning(RATE), 8 * RATE))
        pitches[label].append(np.argmax(spectrum[: 8 * 1000]) / 8)
        peaks = np.flatnonzero(waveform > 0.75)
        clicks[label].extend(np.diff(peaks[np.flatnonzero(np.diff(peaks, prepend=-9999) > 100)]))
    assert len(pitches[1]) > 3
    assert len(pitches[0]) > 3
    # repetition breaks the phase of the short tone, which blurs its spectrum
    tolerance = 4.0 if seconds < 1 else 0.3
    np.testing.assert_allclose(pitches[0], pitch_hz, atol=tolerance)
    np.testing.assert_allclose(pitches[1], pitch_hz * factor, atol=tolerance)
    if seconds < 1:
        np.testing.assert_allclose(clicks[0], seconds * RATE, atol=12)
        np.testing.assert_allclose(clicks[1], seconds * RATE / factor, atol=12)


@given(st.integers(1, 3000), st.floats(0.5, 2.0), st.floats(0, 1, exclude_max=True))
def test_a_crop_is_full_whatever_is_drawn(available: int, factor: float, place: float) -> None:
    audio = np.linspace(0.1, 0.9, available, dtype=np.float32)
    cropped, crop = _crop(Held(audio), 0, 1000, place, factor)  # type: ignore[arg-type]
    assert cropped.shape == (1000,)
    assert cropped.min() > 0
    assert 0 <= crop.start < crop.samples
    assert crop.start + 1000 <= crop.samples or crop.samples < 1000
    assert crop.samples == pytest.approx(available / factor, abs=1.5)
    assert crop.speed == factor


class Held:
    """One recording in memory, with the reading part of `Recordings`."""

    sample_rate_hz = RATE

    def __init__(self, audio: np.ndarray) -> None:
        self.samples, self.audio = np.array([len(audio)]), audio

    def read(self, number: int, start: int = 0, count: int | None = None) -> np.ndarray:
        count = len(self.audio) - start if count is None else count
        assert 0 <= start <= start + count <= len(self.audio)
        return self.audio[start : start + count]


def test_crops_are_parts_of_the_recording_and_short_ones_are_repeated(make_corpus: Make) -> None:
    corpus = make_corpus([4, 4])
    source = {cut.id: cut.load_audio()[0] for cut in corpus.train}
    starts = set()
    for batch in itertools.chain.from_iterable(Batches(corpus, _settings(), seed=0).epoch(epoch) for epoch in range(3)):
        for name, waveform, crop in zip(batch.ids, batch.waveforms.numpy(), batch.crops, strict=True):
            audio = source[name]
            assert crop.samples == len(audio)
            places = np.arange(crop.start, crop.start + len(waveform))
            assert np.array_equal(np.take(audio, places, mode="wrap"), waveform), "the crop says where it is from"
            wound = np.tile(audio, 3) if len(audio) < len(waveform) else audio
            places = np.flatnonzero(wound[: len(wound) - len(waveform) + 1] == waveform[0])
            matches = [place for place in places if np.array_equal(wound[place : place + len(waveform)], waveform)]
            assert matches, name
            starts.add((name, matches[0]))
    assert len(starts) > 20  # of 24: places are drawn


def test_items_are_cut_from_the_whole_utterances(make_corpus: Make) -> None:
    batches = Batches(
        make_corpus([1, 4, 3]), _settings(min_utterances_per_speaker=2, speed_perturbation=(0.9,)), seed=0
    )
    whole = {(each.id, each.speed): each for each in map(batches.whole.__getitem__, range(len(batches.whole)))}
    assert len(whole) == 14
    assert batches.whole.seconds * RATE == pytest.approx(sum(len(each.waveform) for each in whole.values()), rel=1e-4)
    for batch in itertools.chain(batches.epoch(0), batches.epoch(1)):
        for name, label, waveform, crop in zip(
            batch.ids, batch.labels.tolist(), batch.waveforms.numpy(), batch.crops, strict=True
        ):
            utterance = whole[name, crop.speed]
            assert utterance.label == label
            part = np.take(utterance.waveform, np.arange(crop.start, crop.start + len(waveform)), mode="wrap")
            if crop.speed == 1:
                assert np.array_equal(part, waveform)
            else:  # a part is resampled from a whole sample, which shifts it by less than one
                likeness = [np.corrcoef(part[: 8000 - late], waveform[late:])[0, 1] for late in (0, 1)]
                assert max(likeness) > 0.6


def test_items_from_the_start_are_repeated_from_the_start(make_corpus: Make) -> None:
    """Long and short ones; all else is drawn as at random places."""
    corpus = make_corpus([4, 5])
    augmentation = AugmentationSettings(noise_probability=0.5)
    whole = {cut.id: cut.load_audio()[0] for cut in corpus.train}
    batches = Batches(corpus, _settings(crop_from="start"), augmentation, seed=1).epoch(0)
    lengths = set()
    for batch, other in zip(batches, Batches(corpus, _settings(), augmentation, seed=1).epoch(0), strict=True):
        assert batch.ids == other.ids
        assert batch.noise is None or torch.equal(batch.noise, other.noise)
        for name, waveform, crop in zip(batch.ids, batch.waveforms.numpy(), batch.crops, strict=True):
            assert crop == (0, len(whole[name]), 1.0)
            assert np.array_equal(waveform, np.resize(whole[name], len(waveform)))
            lengths.add(len(whole[name]) < len(waveform))
    assert lengths == {True, False}


def test_a_note_says_when_items_from_the_start_miss_the_end(make_corpus: Make) -> None:
    corpus = make_corpus([4, 5])
    seconds = sorted(cut.duration for cut in corpus.train)
    some, most = (Batches(corpus, _settings(crop_from="start", crop_s=s), seed=1).note for s in (seconds[3], 99))
    assert some.startswith(f"data.crop_s: {100 * sum(each > seconds[3] for each in seconds) / 9:.0f} % of")
    assert not most
    assert not Batches(corpus, _settings(crop_s=seconds[3]), seed=1).note


@pytest.mark.parametrize("samples", [3000, 30000])
def test_noise_longer_than_the_crop_is_cut_and_shorter_repeated(
    make_corpus: Make, tmp_path: Path, samples: int
) -> None:
    corpus = make_corpus([6])
    ramp = np.arange(samples, dtype=np.int16)
    corpus.noises = [write_cut(tmp_path / "ramp.wav", ramp)]
    batches = Batches(corpus, _settings(batch_size=6), AugmentationSettings(noise_probability=1.0), seed=0)
    (batch,) = batches.epoch(0)
    assert batch.noise_rows is not None
    assert batch.noise_rows.tolist() == list(range(6))
    assert batch.noise is not None
    units = np.rint(batch.noise.numpy() * 32768).astype(int)
    assert (np.diff(units, axis=1) % samples == 1).all()
    assert len(set(units[:, 0])) == 6


def test_draws_lie_within_their_settings_and_as_often_as_asked(make_corpus: Make) -> None:
    corpus = make_corpus([10])
    batches = Batches(corpus, _settings(batch_size=400, crop_s=0.1, utterances_per_epoch=400), ALL, seed=0)
    (batch,) = batches.epoch(0)
    drawn = batch.tensors()
    assert len(drawn["noise_rows"]) / 400 == pytest.approx(ALL.noise_probability, abs=0.08)
    assert len(drawn["rir_rows"]) / 400 == pytest.approx(ALL.reverberation_probability, abs=0.08)
    assert drawn["noise"].shape == (len(drawn["noise_rows"]), 1600)
    for name, (low, high) in (("snr_db", ALL.snr_db), ("gain_db", ALL.gain_db)):
        assert low <= drawn[name].min() < low + 0.5
        assert high - 0.5 < drawn[name].max() <= high
    masked = (drawn["time_masks"].any(dim=2).any(dim=1) | drawn["frequency_masks"].any(dim=2).any(dim=1)).float()
    assert masked.mean().item() == pytest.approx(ALL.spec_augment_probability, abs=0.08)
    assert sorted(drawn["time_masks"][..., 0].unique().tolist()) == [0, 1, 2, 3, 4, 5]
    assert sorted(drawn["frequency_masks"][..., 0].unique().tolist()) == [0, 1, 2, 3]
    assert drawn["time_masks"].shape == (400, 2, 2)


@pytest.mark.parametrize("teacher", ["same", "own", "plain"])
def test_what_is_erased_for_the_teacher(make_corpus: Make, teacher: str) -> None:
    augmentation = AugmentationSettings(random_erasing_probability=0.5, random_erasing_teacher=teacher)  # type: ignore[arg-type]
    batch = next(Batches(make_corpus([8, 8]), _settings(batch_size=16), augmentation, seed=3).epoch(0))
    assert batch.erased == augmentation.random_erasing
    assert batch.erasing is not None
    assert len({tuple(row) for row in batch.erasing.tolist()}) == 16
    if teacher == "own":
        assert batch.teacher_erasing is not None
        assert (batch.teacher_erasing != batch.erasing).all()
    else:
        assert batch.teacher_erasing is (batch.erasing if teacher == "same" else None)


def test_rooms_are_aligned_on_their_direct_path(make_corpus: Make) -> None:
    corpus = make_corpus([4])
    rooms = [room.load_audio()[0] for room in corpus.rooms]
    batches = Batches(corpus, _settings(), AugmentationSettings(reverberation_probability=1.0), seed=0)
    for epoch in range(3):
        (batch,) = batches.epoch(epoch)
        assert batch.rirs is not None
        for rir in batch.rirs.numpy():
            assert np.argmax(np.abs(rir)) == RIR_LEAD
            assert any(
                np.array_equal(rir[RIR_LEAD:3800], room[(start := np.argmax(room)) : start + 3800 - RIR_LEAD])
                for room in rooms
            )


def test_speakers_with_few_utterances_are_left_out(make_corpus: Make) -> None:
    corpus = make_corpus([1, 4, 2, 5])
    batches = Batches(corpus, _settings(batch_size=3, min_utterances_per_speaker=3), seed=0)
    assert batches.speakers == ["spk1", "spk3"]
    assert batches.batches_per_epoch == 3
    for batch in batches.epoch(0):
        for name, label in zip(batch.ids, batch.labels.tolist(), strict=True):
            assert batches.speakers[label] == name.split("-")[0]
    with pytest.raises(RecipeError, match="min_utterances_per_speaker"):
        Batches(corpus, _settings(min_utterances_per_speaker=6), seed=0)


def test_balanced_epochs_hear_every_speaker_alike(make_corpus: Make) -> None:
    corpus = make_corpus([1, 7, 2])
    batches = Batches(corpus, _settings(batch_size=3, speaker_balanced=True, utterances_per_epoch=30), seed=0)
    made = list(batches.epoch(0))
    assert len(made) == 10
    assert all(sorted(batch.labels.tolist()) == [0, 1, 2] for batch in made)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_recording_gone_since_is_named_on_one_line(make_corpus: Make, workers: int) -> None:
    corpus = make_corpus([6])
    gone = Path(corpus.train[2].recording.sources[0].source)
    gone.unlink()
    batches = Batches(corpus, _settings(batch_size=2, workers=workers), seed=0)
    with pytest.raises(CorpusError, match=gone.name) as caught:
        list(batches.epoch(0))
    assert "\n" not in str(caught.value)
    batches.close()


def test_a_worker_that_dies_is_explained(make_corpus: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parvox.data.batch.BatchMaker.make", lambda maker, plan: os._exit(1))
    batches = Batches(make_corpus([6]), _settings(batch_size=2, workers=1), seed=0)
    with pytest.raises(TrainingError, match=r"data\.workers"):
        list(batches.epoch(0))


def test_settings_that_do_not_fit_the_corpus_are_refused(make_corpus: Make, tmp_path: Path) -> None:
    corpus = make_corpus([3])
    with pytest.raises(RecipeError, match="batch_size"):
        Batches(corpus, _settings(batch_size=2), seed=0, world_size=2)
    with pytest.raises(RecipeError, match="seed"):
        Batches(corpus, _settings(), seed=-1)
    with pytest.raises(CorpusError, match="no training utterances"):
        Batches(MadeCorpus([]), _settings(), seed=0)
    bare = MadeCorpus(corpus.train)
    with pytest.raises(RecipeError, match="noise_probability"):
        Batches(bare, _settings(batch_size=1), AugmentationSettings(noise_probability=0.1), seed=0)
    with pytest.raises(RecipeError, match="reverberation_probability"):
        Batches(bare, _settings(batch_size=1), AugmentationSettings(reverberation_probability=0.1), seed=0)
    nameless = MadeCorpus([*corpus.train, write_cut(tmp_path / "nobody.wav", np.ones(9000) * 0.1)])
    with pytest.raises(CorpusError, match="nobody"):
        Batches(nameless, _settings(batch_size=1), seed=0)


def test_a_batch_moves_with_all_it_holds(make_corpus: Make) -> None:
    (batch,) = Batches(make_corpus([6]), _settings(batch_size=6), ALL, seed=0).epoch(0)
    moved = batch.to("meta")
    assert moved.tensors().keys() == batch.tensors().keys() >= {"noise", "rirs", "snr_db", "gain_db"}
    assert all(tensor.device.type == "meta" for tensor in moved.tensors().values())
    assert moved.ids == batch.ids
    assert len(moved) == 6
    assert batch.load_s > 0
    assert batch.wait_s >= batch.load_s


def test_workers_are_chosen_by_the_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    def on(processors: int, processes: str = "1") -> int:
        monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(processors)), raising=False)
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
        return default_workers()

    assert [on(1), on(2), on(4), on(16), on(64)] == [0, 0, 2, 8, 8]
    assert on(16, "4") == 2


def test_a_prepared_corpus_makes_augmented_batches(prepared_tiny: Path) -> None:
    corpus = PreparedCorpus.load(prepared_tiny)
    batches = Batches(corpus, _settings(batch_size=16, speed_perturbation=(1.1,)), ALL, seed=0)
    assert batches.speakers == corpus.speakers("train")
    assert batches.sample_rate_hz == corpus.info.sample_rate_hz
    augmenter = Augmenter(batches.sample_rate_hz)
    for batch in batches.epoch(0):
        waveforms = augmenter.augment_waveforms(batch)
        assert waveforms.shape == batch.waveforms.shape == (16, 8000)
        assert torch.isfinite(waveforms).all()
        assert not torch.equal(waveforms, batch.waveforms)
    trained = {cut.id for cut in corpus.cuts("train")}
    assert {name for batch in batches.epoch(1) for name in batch.ids} <= trained


def test_real_speech_makes_batches(real_corpus: Path) -> None:
    clips = sorted(real_corpus.rglob("*.flac"))[:24]
    cuts = []
    for clip in clips:
        recording = Recording.from_file(clip, recording_id=str(clip.relative_to(real_corpus)))
        spoken = SupervisionSegment(recording.id, recording.id, 0, recording.duration, speaker=clip.parent.name)
        cuts.append(MonoCut(recording.id, 0, recording.duration, 0, supervisions=[spoken], recording=recording))
    batches = Batches(MadeCorpus(cuts), _settings(batch_size=len(cuts), crop_s=1.0), seed=0)
    (batch,) = batches.epoch(0)
    for name, waveform in zip(batch.ids, batch.waveforms.numpy(), strict=True):
        audio, _ = soundfile.read(real_corpus / name, dtype="float32")
        assert np.isin(waveform, audio).all()
        if len(audio) <= len(waveform):  # repeated, so that nothing is missing
            assert np.isin(audio, waveform).all()
