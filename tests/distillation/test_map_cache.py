"""Maps on disk: cut where items are cut, computed once by whoever comes first, and never half there."""

import multiprocessing
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from distillation_pairs import BINS, frozen, make
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from parvox.data.batch import Batch, Crop
from parvox.data.whole import WholeUtterance
from parvox.distillation import View
from parvox.distillation.map_cache import MapCache
from parvox.distillation.maps import MapSettings, normalised
from parvox.distillation.teacher_maps import TeacherMaps, checksum
from parvox.errors import ModelFileError, OutputError
from parvox.models.frontend import FbankSettings

FRONT_END = FbankSettings(bins=3)
SHIFT = FRONT_END.frame_shift


class Speech:
    """Stands in for the whole utterances of a corpus."""

    sample_rate_hz = 16000

    def __init__(self, lengths, speeds=(1.0,)):
        self.lengths, self.speeds = lengths, speeds

    def __len__(self):
        return len(self.lengths) * len(self.speeds)

    def names(self):
        return ((f"utt{number}", speed) for speed in self.speeds for number in range(len(self.lengths)))

    def __getitem__(self, number):
        name, speed = list(self.names())[number]
        samples = self.lengths[number % len(self.lengths)]
        draw = np.random.default_rng(number)
        return WholeUtterance(name, speed, number % 7, draw.uniform(-0.5, 0.5, samples).astype(np.float32))

    @property
    def seconds(self):
        return sum(self.lengths) * len(self.speeds) / 16000


def numbered(utterance):
    """(frames, bins) whose values say utterance, speed, and frame."""
    frames = (len(utterance.waveform) - FRONT_END.frame_length) // SHIFT + 1
    number = float(utterance.id[3:]) + utterance.speed * 1000
    return torch.stack([torch.full((frames,), number), torch.arange(frames), torch.zeros(frames)], 1)


def cache(folder, speech, **facts):
    return MapCache(folder, {"teacher": "one", **facts}, speech, FRONT_END)


def test_items_get_the_frames_of_their_place(tmp_path):
    speech = Speech([16000, 8000, 30000], speeds=(1.0, 0.5))
    kept = cache(tmp_path, speech)
    kept.fill(numbered)
    got = kept.read(
        ["utt2", "utt0", "utt1"], [Crop(1600, 30000, 1.0), Crop(1679, 16000, 0.5), Crop(7000, 8000, 1.0)], 40
    )
    assert got.shape == (3, 40, 3)
    assert got[:, :, 0].unique(dim=1).flatten().tolist() == [1002, 500, 1001]
    assert got[0, :, 1].tolist() == list(range(10, 50))
    assert got[1, :, 1].tolist() == list(range(10, 50))  # 1679 samples are nearer to frame 10 than to 11
    # the third starts over after 8000 samples, of which 48 frames begin before the end
    starts = [(7000 + 160 * frame) % 8000 for frame in range(40)]
    assert got[2, :, 1].tolist() == [min(47, round(start / 160)) for start in starts]
    assert kept.nbytes == sum(path.stat().st_size for path in kept.folder.glob("*.safetensors"))
    assert len(kept) == 6


@given(st.integers(500, 9000), st.integers(0, 8999), st.integers(1, 40))
@settings(max_examples=40)
def test_no_frame_of_an_item_is_further_off_than_half_a_shift(samples, start, frames):
    speech = Speech([samples])
    kept = MapCache.__new__(MapCache)
    kept._numbers, kept._features, kept._speech = {("utt0", 1.0): 0}, FRONT_END, speech
    maps = numbered(speech[0])
    kept._shard = lambda shard: (SimpleNamespace(get_slice=lambda name: maps.numpy()), np.array([0, len(maps)]))
    got = kept.read(["utt0"], [Crop(start % samples, samples, 1.0)], frames)[0, :, 1].numpy()
    wanted = (start % samples + SHIFT * np.arange(frames)) % samples
    last = (len(maps) - 1) * SHIFT  # frames that begin later straddle the end and have no equal
    inside = wanted <= last
    assert (np.abs(got * SHIFT - wanted)[inside] <= SHIFT / 2).all()
    assert (got[~inside] == len(maps) - 1).all()


def test_what_is_there_is_not_computed_again_and_other_facts_are_another_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("parvox.distillation.map_cache._SHARD", 2)
    speech, seen = Speech([1600] * 5), []

    def make_map(utterance):
        seen.append(utterance.id)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return numbered(utterance)

    with pytest.raises(KeyboardInterrupt):
        cache(tmp_path, speech).fill(make_map)
    folder = cache(tmp_path, speech).folder
    assert {path.name for path in folder.iterdir()} == {"maps.json", "000000.safetensors"}
    cache(tmp_path, speech).fill(make_map)
    assert seen == ["utt0", "utt1", "utt2", "utt3", "utt2", "utt3", "utt4"]
    cache(tmp_path, speech).fill(make_map)
    assert len(seen) == 7
    others = [cache(tmp_path, speech, teacher="two"), cache(tmp_path, Speech([1600] * 6))]
    assert len({folder, *(other.folder for other in others)}) == 3


def test_processes_share_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr("parvox.distillation.map_cache._SHARD", 2)
    monkeypatch.setattr("parvox.distillation.map_cache._WAIT_S", 0.01)
    speech = Speech([1600] * 20)

    def work(name):
        with (tmp_path / name).open("w") as log:

            def make_map(utterance):
                print(utterance.id, file=log, flush=True)
                barrier.wait(timeout=20) if utterance.id in ("utt0", "utt2") else None
                return numbered(utterance)

            cache(tmp_path, speech).fill(make_map)

    fork = multiprocessing.get_context("fork")
    barrier = fork.Barrier(2)  # nobody ends the first shard before both have one
    processes = [fork.Process(target=work, args=(name,)) for name in ("a", "b")]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=30)
        assert process.exitcode == 0
    done = [(tmp_path / name).read_text().split() for name in ("a", "b")]
    assert sorted(done[0] + done[1]) == sorted(f"utt{number}" for number in range(20)), "each once"
    assert done[0]
    assert done[1]
    assert not list(cache(tmp_path, speech).folder.glob("*.lock"))


def test_a_damaged_shard_is_named(tmp_path):
    speech = Speech([1600])
    kept = cache(tmp_path, speech)
    kept.fill(numbered)
    shard = kept.folder / "000000.safetensors"
    shard.write_bytes(shard.read_bytes()[:20])
    with pytest.raises(ModelFileError, match=r"000000.safetensors is gone or damaged .*; delete "):
        kept.read(["utt0"], [Crop(0, 1600, 1.0)], 3)
    shard.unlink()
    with pytest.raises(ModelFileError, match="gone or damaged"):
        kept.read(["utt0"], [Crop(0, 1600, 1.0)], 3)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda maps, bounds: (maps, bounds + 1), "other bounds than those of 2 utterances"),
        (lambda maps, bounds: (maps, bounds[:-1]), "other bounds"),
        (lambda maps, bounds: (maps, bounds[[0, 2, 1]]), "other bounds"),
        (lambda maps, bounds: (maps, bounds.astype(np.float32)), "other bounds"),
        (lambda maps, bounds: (maps[:, :2], bounds), "2 bins instead of 3"),
        (lambda maps, bounds: (maps.ravel(), bounds), "gone or damaged"),
        (lambda maps, bounds: (maps * np.float16("nan"), bounds), "values that are no numbers"),
    ],
)
def test_a_shard_that_holds_something_else_is_named(tmp_path, spoil, says):
    kept = cache(tmp_path, Speech([1600, 3200]))
    kept.fill(numbered)
    shard = kept.folder / "000000.safetensors"
    tensors = load_file(shard)
    maps, bounds = spoil(tensors["maps"], tensors["bounds"])
    save_file({"maps": np.ascontiguousarray(maps), "bounds": bounds}, shard)
    with pytest.raises(ModelFileError, match=says):
        kept.read(["utt0"], [Crop(0, 1600, 1.0)], 3)


def test_a_full_disk_is_told_before_anything_is_computed(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(OutputError, match=r"the maps need about .* GB and 0.0 GB are free"):
        cache(tmp_path, Speech([160000])).fill(lambda utterance: pytest.fail("computed"))


def test_a_folder_that_cannot_be_asked_for_is_one_line(tmp_path):
    with pytest.raises(OutputError, match="cannot write .*; choose a folder that is writable"):
        cache(tmp_path / ("n" * 300), Speech([1600]))


def test_maps_of_whole_utterances_are_those_computed(tmp_path):
    model, classifier = frozen(make(seed=2))
    speech = Speech([8000, 5600, 100])  # the last is too short for a frame, and played over and over
    options = MapSettings(steps=2, durations_s=(0.1, 0.0))
    maps = TeacherMaps(model, classifier, options)
    kept = maps.keep(tmp_path, speech, "corpus")
    for number in (0, 1):
        utterance = speech[number]
        x, _ = model.extract_features(torch.from_numpy(utterance.waveform)[None])
        crop = Crop(0, len(utterance.waveform), 1.0)
        batch = Batch(torch.zeros(1), torch.tensor([number]), [utterance.id], crops=[crop])
        view = View(torch.zeros(1, 4), classifier, batch.labels, features=x, batch=batch)
        expected = TeacherMaps(model, classifier, options).of(view)
        np.testing.assert_allclose(maps.of(view), normalised(expected, "minmax"), atol=1e-3)
        assert expected.shape == x.shape
    assert kept.read(["utt2"], [Crop(50, 100, 1.0)], 12).shape == (1, 12, BINS)


def test_a_cache_belongs_to_teacher_settings_corpus_and_arithmetic(tmp_path):
    speech, folders = Speech([1600]), []

    def keep(side, corpus="corpus", **options):
        maps = TeacherMaps(*side, MapSettings(**{"steps": 1, "durations_s": (0.0,)} | options))
        folders.append(maps.keep(tmp_path, speech, corpus).folder)

    keep(frozen(make(seed=2)))
    keep(frozen(make(seed=3)))
    keep(frozen(make(seed=2, scale=30.0)))
    keep(frozen(make(seed=2)), "another")
    keep(frozen(make(seed=2)), steps=2)
    with torch.autocast("cpu", torch.bfloat16):
        keep(frozen(make(seed=2)))
    assert len(set(folders)) == 6
    keep(frozen(make(seed=2)))
    assert folders[-1] == folders[0]


def test_checksums_follow_the_weights():
    side = make(seed=2)
    before = checksum(*side)
    assert checksum(*make(seed=2)) == before
    with torch.no_grad():
        side[1].weight[0, 0] += 1e-6
    assert checksum(*side) != before
