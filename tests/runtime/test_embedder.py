"""The embedder: the same embedding alone or in any batch, and only from models that are what they say."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import tiny_model
from hypothesis import given, settings
from hypothesis import strategies as st

from parvox.errors import AudioError, ModelFileError, ParvoxError
from parvox.runtime.embedder import SpeakerEmbedder
from parvox.runtime.golden import DEFAULT_SIGNAL
from parvox.runtime.model_file import Golden, ModelContract, seal


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, samples).astype(np.float32)


def load(data: bytes, tmp_path: Path) -> SpeakerEmbedder:
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    return SpeakerEmbedder.load(path)


def refusal(data: bytes, tmp_path: Path) -> str:
    with pytest.raises(ModelFileError) as caught:
        load(data, tmp_path)
    message = str(caught.value)
    assert str(tmp_path) in message
    assert "\n" not in message
    return message


def test_embedding_is_what_the_graph_computes(embedder: SpeakerEmbedder, model_path: Path) -> None:
    samples = noise(20_001)
    session = onnxruntime.InferenceSession(model_path)
    (wanted,) = session.run(None, {"waveform": samples[None], "lengths": np.array([len(samples)])})
    got = embedder.embed(samples)
    assert got.shape == (48,)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, wanted[0], atol=1e-5)


def test_alone_and_in_a_batch_agree(embedder: SpeakerEmbedder) -> None:
    chance = np.random.default_rng(3)
    waveforms = [noise(int(size), seed) for seed, size in enumerate(chance.integers(400, 60_000, 40))]
    together = embedder.embed_batch(waveforms)
    assert together.shape == (40, 48)
    for row, waveform in zip(together, waveforms, strict=True):
        np.testing.assert_allclose(row, embedder.embed(waveform), atol=1e-5)


def test_no_waveforms_give_no_embeddings(embedder: SpeakerEmbedder) -> None:
    assert embedder.embed_batch([]).shape == (0, 48)


def test_long_batches_are_run_in_parts(embedder: SpeakerEmbedder, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    run = embedder._run

    def watched(waveforms: list[np.ndarray]) -> np.ndarray:
        sizes.append(len(waveforms) * max(map(len, waveforms)))
        return run(waveforms)

    monkeypatch.setattr(embedder, "_run", watched)
    waveforms = [noise(16_000, seed) for seed in range(150)]
    together = embedder.embed_batch(waveforms)
    assert len(sizes) >= 3
    assert max(sizes) <= 60 * 16_000
    for row in (0, 149):
        np.testing.assert_allclose(together[row], embedder.embed(waveforms[row]), atol=1e-5)


@settings(max_examples=60)
@given(st.lists(st.integers(400, 3_000_000), max_size=40))
def test_batches_hold_every_row_once_and_little_padding(embedder: SpeakerEmbedder, lengths: list[int]) -> None:
    batches = embedder._batches(lengths)
    assert sorted(row for rows in batches for row in rows) == list(range(len(lengths)))
    for rows in batches:
        sizes = [lengths[row] for row in rows]
        assert len(rows) * max(sizes) <= 1.125 * sum(sizes)


@settings(max_examples=40, deadline=None)
@given(st.integers(400, 30_000), st.floats(0.01, 30.0))
def test_level_does_not_matter_to_this_model(embedder: SpeakerEmbedder, size: int, gain: float) -> None:
    samples = noise(size, size)
    np.testing.assert_allclose(embedder.embed(samples), embedder.embed((samples * gain).astype(np.float32)), atol=2e-3)


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        (noise(399), "at least 0.025 s"),
        (noise(0), "at least"),
        (noise(800).reshape(2, 400), "one channel"),
        (np.float32(0.5), "one channel"),
        (np.full(800, np.nan, np.float32), "NaN"),
        (np.full(800, np.inf, np.float32), "infinite"),
    ],
)
def test_waveforms_that_cannot_be_embedded(embedder: SpeakerEmbedder, samples: Any, words: str) -> None:
    with pytest.raises(AudioError, match=words) as caught:
        embedder.embed_batch([noise(800), samples])
    assert "waveform 1" in str(caught.value)


def test_other_golden_embedding(tmp_path: Path) -> None:
    right = tiny_model.contract(tiny_model.bare_model()).golden
    wrong = np.roll(right.embedding, 1)
    golden = Golden(DEFAULT_SIGNAL, tuple(map(float, wrong)), 1e-4)
    message = refusal(tiny_model.model_file(golden=golden), tmp_path)
    assert "away from the one at export" in message
    lenient = Golden(DEFAULT_SIGNAL, tuple(map(float, wrong)), 2.0)
    assert load(tiny_model.model_file(golden=lenient), tmp_path).contract.golden == lenient


def test_zero_golden_embedding(tmp_path: Path) -> None:
    refusal(tiny_model.model_file(golden=Golden(DEFAULT_SIGNAL, (0.0,) * 48, 0.5)), tmp_path)


def test_unknown_golden_signal(tmp_path: Path) -> None:
    right = tiny_model.contract(tiny_model.bare_model()).golden
    golden = Golden("whistle", right.embedding, 1e-4)
    assert "whistle" in refusal(tiny_model.model_file(golden=golden), tmp_path)


def test_golden_signal_shorter_than_the_model_needs(tmp_path: Path) -> None:
    assert "golden" in refusal(tiny_model.model_file(min_samples=50_000), tmp_path)


def renamed(old: str, new: str) -> onnx.ModelProto:
    """A model whose contract is true but whose input or output has another name."""
    model = tiny_model.bare_model()
    text = tiny_model.contract(model).to_json()
    for value in (*model.graph.input, *model.graph.output):
        value.name = new if value.name == old else value.name
    for node in model.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
    return onnx.load_model_from_string(tiny_model.unsealed(model, text))


@pytest.mark.parametrize(("old", "new"), [("waveform", "x"), ("lengths", "sizes"), ("embedding", "y")])
def test_other_names(old: str, new: str, tmp_path: Path) -> None:
    message = refusal(seal(renamed(old, new).SerializeToString()), tmp_path)
    assert old in message
    assert new in message


def test_other_types(tmp_path: Path) -> None:
    made = tiny_model.graph()
    made.input[1].type.tensor_type.elem_type = onnx.TensorProto.INT32
    cast = onnx.helper.make_node("Cast", ["lengths"], ["lengths_64"], to=onnx.TensorProto.INT64)
    for node in made.node:
        node.input[:] = ["lengths_64" if name == "lengths" else name for name in node.input]
    made.node.insert(0, cast)
    text = tiny_model.contract(tiny_model.bare_model()).to_json()
    message = refusal(seal(tiny_model.unsealed(tiny_model.bare_model(made), text)), tmp_path)
    assert "int32" in message
    assert "int64" in message


def test_other_size(tmp_path: Path) -> None:
    golden = tiny_model.contract(tiny_model.bare_model()).golden
    small = Golden(golden.signal, golden.embedding[:47], golden.max_cosine_distance)
    message = refusal(tiny_model.model_file(embedding_dim=47, golden=small), tmp_path)
    assert "48" in message
    assert "47" in message


def test_sealed_but_no_graph_for_onnxruntime(tmp_path: Path, contract: ModelContract) -> None:
    model = tiny_model.bare_model()
    model.graph.node[1].op_type = "NoSuchOperator"
    message = refusal(seal(tiny_model.unsealed(model, contract.to_json())), tmp_path)
    assert "onnxruntime" in message


def test_threads(model_bytes: bytes, model_path: Path) -> None:
    assert SpeakerEmbedder.load(model_path, threads=2).embed(noise(8000)).shape == (48,)
    with pytest.raises(ParvoxError, match="threads"):
        SpeakerEmbedder.load(model_path, threads=0)


def test_one_session_serves_many_threads(embedder: SpeakerEmbedder) -> None:
    waveforms = [noise(4_000 + 997 * seed, seed) for seed in range(12)]
    wanted = [embedder.embed(waveform) for waveform in waveforms]
    failures: list[int] = []

    def work(index: int) -> None:
        for _ in range(5):
            if not np.array_equal(embedder.embed(waveforms[index]), wanted[index]):
                failures.append(index)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(waveforms))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
