"""Saved embeddings: what comes back is what went in, from the right model, or one clear line."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from parvox.audio import RecordingError
from parvox.errors import AudioError, OutputError, ParvoxError
from parvox.runtime.embedder import SpeakerEmbedder
from parvox.runtime.embeddings import Embeddings, embed_files, find_recordings, load_embeddings, save_embeddings


@pytest.fixture
def made() -> Embeddings:
    rows = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    return Embeddings(("a.wav", "ü/日本.flac", "c d"), rows, np.arange(3, dtype=np.float32), "f" * 64, "tiny")


def test_what_was_saved_is_loaded(made: Embeddings, tmp_path: Path) -> None:
    save_embeddings(made, tmp_path / "e.npz")
    back = load_embeddings(tmp_path / "e.npz", fingerprint="f" * 64)
    assert (back.ids, back.fingerprint, back.model) == (made.ids, made.fingerprint, made.model)
    np.testing.assert_array_equal(back.embeddings, made.embeddings)
    np.testing.assert_array_equal(back.speech_s, made.speech_s)
    with pytest.raises(OutputError):
        save_embeddings(made, tmp_path / "e.npz")


def test_embeddings_are_not_printed(made: Embeddings) -> None:
    assert "array" not in repr(made)


def test_embeddings_of_another_model_are_refused(made: Embeddings, tmp_path: Path) -> None:
    save_embeddings(made, tmp_path / "e.npz")
    with pytest.raises(ParvoxError, match="embed the recordings again"):
        load_embeddings(tmp_path / "e.npz", fingerprint="0" * 64)


@pytest.mark.parametrize(
    "kind",
    [
        "missing",
        "text",
        "empty",
        "cut",
        "folder",
        "npy",
        "other keys",
        "pickled",
        "uneven",
        "a broken header",
        "twice",
        "complex",
        "text for numbers",
        "not finite",
        "no numbers",
        "a mean that is none",
    ],
)
def test_files_that_hold_no_embeddings(kind: str, made: Embeddings, tmp_path: Path) -> None:
    path = tmp_path / "e.npz"
    save_embeddings(made, path)
    whole = path.read_bytes()
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "npy":
        with path.open("wb") as file:
            np.save(file, made.embeddings)
    elif kind == "other keys":
        np.savez(path, x=made.embeddings)
    elif kind == "pickled":
        np.savez(path, ids=np.array([{}], object), embeddings=made.embeddings)
    elif kind == "uneven":
        save_embeddings(dataclasses.replace(made, ids=made.ids[:2]), path)
    elif kind == "a broken header":
        path.write_bytes(whole.replace(b"}", b" "))
    elif kind == "twice":
        save_embeddings(dataclasses.replace(made, ids=made.ids[:1] * len(made.ids)), path)
    elif kind in ("complex", "text for numbers"):
        kinds = {"complex": np.complex64, "text for numbers": np.str_}
        save_embeddings(dataclasses.replace(made, embeddings=made.embeddings.astype(kinds[kind])), path)
    elif kind == "not finite":
        save_embeddings(dataclasses.replace(made, embeddings=made.embeddings * np.float32(np.nan)), path)
    elif kind == "no numbers":
        save_embeddings(dataclasses.replace(made, embeddings=made.embeddings[:, :0], mean=None), path)
    elif kind == "a mean that is none":
        save_embeddings(dataclasses.replace(made, mean=np.full(made.embeddings.shape[1], np.nan, np.float32)), path)
    elif kind != "missing":
        path.write_bytes({"text": b"words" * 99, "empty": b"", "cut": whole[: len(whole) // 2]}[kind])
    with pytest.raises(ParvoxError, match=r"e\.npz") as caught:
        load_embeddings(path)
    assert "\n" not in str(caught.value)


def test_recordings_are_found_once_and_in_order(tmp_path: Path) -> None:
    for name in ("b/2.wav", "b/1.FLAC", "a.mp3", "b/.x.wav", ".h/y.wav", "b/z.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    wanted = [tmp_path / name for name in ("a.mp3", "b/1.FLAC", "b/2.wav")]
    assert find_recordings([tmp_path]) == wanted
    assert find_recordings([wanted[2], tmp_path, wanted[0]]) == [wanted[2], wanted[0], wanted[1]]
    assert find_recordings([tmp_path / "b" / "z.txt"]) == [tmp_path / "b" / "z.txt"]
    (tmp_path / "none").mkdir()
    with pytest.raises(AudioError, match="without recordings"):
        find_recordings([tmp_path / "none"])


def test_the_first_bad_recording_stops(embedder: SpeakerEmbedder, tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match=r"no\.wav"):
        embed_files(embedder, [tmp_path / "no.wav"])
    with pytest.raises(AudioError, match="1 left out"):
        embed_files(embedder, [tmp_path / "no.wav"], skip_bad=True)
