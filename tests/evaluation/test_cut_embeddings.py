"""Utterances of a prepared corpus to embeddings, with models of both kinds, and the cache."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import CutSet

from parvox.corpora.prepared import PreparedCorpus
from parvox.errors import AudioError, CorpusError, ModelFileError, ParvoxError
from parvox.evaluation.embeddings import EmbeddingCache, content_key, default_cache, embed_cuts
from parvox.evaluation.system import System, load_system, load_systems, names


@pytest.fixture
def cuts(six_speakers: Path) -> CutSet:
    return PreparedCorpus.load(six_speakers).cuts("test")


def counting(system: System) -> tuple[System, list[str]]:
    """The system, and the utterances that it has embedded."""
    seen: list[str] = []

    def embed(waveforms: np.ndarray, lengths: np.ndarray, ids: Sequence[str]) -> np.ndarray:
        seen.extend(ids)
        return system.embed(waveforms, lengths, ids)

    return dataclasses.replace(system, embed=embed), seen


@pytest.mark.parametrize("kind", ["model_file", "run_folder"])
def test_each_row_is_that_utterance_alone(kind: str, cuts: CutSet, request: pytest.FixtureRequest) -> None:
    system = load_system(request.getfixturevalue(kind))
    made = embed_cuts(system, cuts, workers=0)
    assert list(made.ids) == [cut.id for cut in cuts]
    assert made.matrix.shape == (len(made.ids), system.embedding_dim)
    assert made.matrix.dtype == np.float32
    for row in (0, 7, 35):
        samples = soundfile.read(cuts[row].recording.sources[0].source, dtype="float32")[0]
        alone = system.embed(samples[None], np.array([len(samples)]), ["alone"])[0]
        assert made.matrix[row] == pytest.approx(alone, abs=1e-4)


def test_both_kinds_tell_about_themselves(model_file: Path, run_folder: Path) -> None:
    file, run = load_systems([model_file, run_folder])
    assert (file.name, file.kind, file.precision) == ("tiny.onnx", "model file", "fp32")
    assert (run.name, load_system(model_file).name) == ("tiny", "tiny")
    assert file.file_bytes == model_file.stat().st_size
    assert (run.kind, run.embedding_dim, run.sample_rate_hz) == ("run folder", 12, 16000)
    assert run.parameters > 1000
    assert run.macs_1s is not None
    assert run.macs_1s > run.parameters  # a convolution uses its weights at every frame
    assert len(run.fingerprint) == 64
    assert file.key != run.key


def test_cached_embeddings_are_not_computed_again(model_file: Path, cuts: CutSet, tmp_path: Path) -> None:
    system, seen = counting(load_system(model_file))
    first = embed_cuts(system, list(cuts)[:10], cache=tmp_path / "kept", workers=0)
    assert len(seen) == 10
    seen.clear()
    second = embed_cuts(system, cuts, cache=tmp_path / "kept", workers=0)
    assert len(seen) == len(cuts) - 10
    assert (second.matrix[:10] == first.matrix).all()
    seen.clear()
    third = embed_cuts(system, cuts, cache=tmp_path / "kept", workers=0)
    assert not seen
    assert (third.matrix == second.matrix).all()


def test_the_cache_is_the_owners_alone(model_file: Path, cuts: CutSet, tmp_path: Path) -> None:
    system = load_system(model_file)
    embed_cuts(system, list(cuts)[:2], cache=tmp_path / "kept", workers=0)
    assert EmbeddingCache(tmp_path / "kept", system).folder.stat().st_mode & 0o077 == 0


def test_other_content_or_another_model_is_computed_anew(
    model_file: Path, centred_model_file: Path, cuts: CutSet, tmp_path: Path
) -> None:
    system, seen = counting(load_system(model_file))
    few = list(cuts)[:3]
    embed_cuts(system, few, cache=tmp_path, workers=0)
    seen.clear()
    embed_cuts(system, [few[0].truncate(duration=0.5, preserve_id=True), few[1]], cache=tmp_path, workers=0)
    assert seen == [few[0].id]
    other, seen_by_other = counting(load_system(centred_model_file))
    embed_cuts(other, few, cache=tmp_path, workers=0)
    assert len(seen_by_other) == 3


def test_a_renamed_utterance_is_the_same_content(model_file: Path, cuts: CutSet, tmp_path: Path) -> None:
    system, seen = counting(load_system(model_file))
    embed_cuts(system, [cuts[0]], cache=tmp_path, workers=0)
    seen.clear()
    embed_cuts(system, [cuts[0].with_id("other")], cache=tmp_path, workers=0)
    assert not seen


@pytest.mark.parametrize("damage", ["cut", "an array", "unknown compression", "not finite"])
def test_a_damaged_cache_only_costs_time(damage: str, model_file: Path, cuts: CutSet, tmp_path: Path) -> None:
    system, seen = counting(load_system(model_file))
    made = embed_cuts(system, list(cuts)[:4], cache=tmp_path, workers=0)
    (kept,) = tmp_path.rglob("*.npz")
    data = kept.read_bytes()
    if damage == "cut":
        kept.write_bytes(data[:-40])
    elif damage == "an array":
        with kept.open("wb") as file:
            np.save(file, made.matrix)
    elif damage == "unknown compression":
        method = data.index(b"PK\x01\x02") + 10
        kept.write_bytes(data[:method] + b"\x63" + data[method + 1 :])
    else:
        with np.load(kept) as arrays:
            keys, matrix = arrays["keys"], arrays["embeddings"]
        matrix[2, 0] = np.nan
        np.savez(kept, keys=keys, embeddings=matrix)
    seen.clear()
    again = embed_cuts(system, list(cuts)[:4], cache=tmp_path, workers=0)
    assert len(seen) == 4
    assert (again.matrix == made.matrix).all()


def test_an_interrupted_run_goes_on_where_it_was(
    model_file: Path, cuts: CutSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("parvox.evaluation.embeddings._SAVE_EVERY_S", 0.0)
    good = load_system(model_file)
    calls = 0

    def embed(waveforms: np.ndarray, lengths: np.ndarray, ids: Sequence[str]) -> np.ndarray:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return good.embed(waveforms, lengths, ids)

    monkeypatch.setattr("parvox.data.utterances._plans", lambda samples, most, number: np.split(np.arange(36), 6))
    with pytest.raises(KeyboardInterrupt):
        embed_cuts(dataclasses.replace(good, embed=embed), cuts, cache=tmp_path, workers=0)
    system, seen = counting(good)
    monkeypatch.undo()
    embed_cuts(system, cuts, cache=tmp_path, workers=0)
    assert len(seen) == 36 - 6


def test_content_is_the_file_and_the_part_of_it(cuts: CutSet) -> None:
    first, second = cuts[0], cuts[1]
    assert content_key(first) == content_key(first.with_id("x"))
    assert content_key(first) != content_key(second)
    assert content_key(first) != content_key(first.truncate(duration=0.5))
    louder = first.perturb_volume(2.0)
    assert content_key(louder) not in (content_key(first), content_key(first.perturb_volume(0.5)))


def test_the_default_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARVOX_CACHE", "/somewhere")
    assert default_cache() == Path("/somewhere/embeddings")
    monkeypatch.delenv("PARVOX_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert default_cache() == Path("/xdg/parvox/embeddings")


def test_problems_are_named(model_file: Path, cuts: CutSet) -> None:
    system = load_system(model_file)
    with pytest.raises(AudioError, match=r"0\.01 s; tiny needs at least 0\.025 s"):
        embed_cuts(system, [cuts[0].truncate(duration=0.01)], workers=0)
    with pytest.raises(CorpusError, match="listens at 8000 Hz"):
        embed_cuts(dataclasses.replace(system, sample_rate_hz=8000), cuts, workers=0)
    with pytest.raises(CorpusError, match="no utterances to embed"):
        embed_cuts(system, [], workers=0)
    broken = dataclasses.replace(system, embed=lambda w, lengths, ids: np.full((len(ids), 48), np.nan, np.float32))
    with pytest.raises(ModelFileError, match="is not finite; the model is broken"):
        embed_cuts(broken, cuts, workers=0)
    with pytest.raises(ParvoxError, match="given twice"):
        load_systems([model_file, model_file])
    with pytest.raises(ParvoxError, match="no model given"):
        load_systems([])
    with pytest.raises(ModelFileError, match="no such file"):
        load_systems([model_file.parent / "none.onnx"])


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["a/model.onnx", "b/run"], ["model", "run"]),
        (["a/model.onnx", "b/model.onnx"], ["a/model", "b/model"]),
        (["runs/student", "student.onnx"], ["student", "student.onnx"]),
        (["x.int8.onnx", "x.onnx"], ["x.int8", "x"]),
    ],
)
def test_names_tell_paths_apart(paths: list[str], expected: list[str]) -> None:
    assert names([Path("/top") / path for path in paths]) == expected
