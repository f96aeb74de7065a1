"""Speech in shards: the same samples, embeddings and error rates, from a folder or a store, by one process or many."""

from __future__ import annotations

import dataclasses
import functools
import gzip
import http.server
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from parvox.cli.main import main
from parvox.corpora.prepared import PreparedCorpus
from parvox.corpora.shards import check_address, content_of, shard_of
from parvox.data import iterate_utterances
from parvox.data.recordings import Recordings
from parvox.data.shards import read_shard, write_shards
from parvox.errors import CorpusError, MissingExtraError, OutputError
from parvox.evaluation.embeddings import embed_cuts
from parvox.evaluation.evaluate import evaluate
from parvox.evaluation.ranks import pieces
from parvox.evaluation.system import load_system

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "parvox"]


@pytest.fixture(scope="module")
def sharded(six_speakers: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpus in shards of ten utterances. Do not write into it."""
    out = tmp_path_factory.mktemp("sharded") / "six"
    write_shards(PreparedCorpus.load(six_speakers), out, utterances=10)
    return out


@pytest.fixture
def spoilt(sharded: Path, tmp_path: Path) -> Path:
    """A copy that may be spoilt."""
    return Path(shutil.copytree(sharded, tmp_path / "spoilt"))


@pytest.fixture
def store(sharded: Path) -> Iterator[str]:
    """The address of a server of the shards."""
    handler = functools.partial(_Quiet, directory=str(sharded))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def tell(folder: Path, **values: object) -> None:
    path = folder / "corpus.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_shards_hold_the_very_samples_labels_and_trials(six_speakers: Path, sharded: Path) -> None:
    files, shards = PreparedCorpus.load(six_speakers), PreparedCorpus.load(sharded)
    shards.verify()
    assert shards.splits == files.splits
    assert [shards.info.splits[name].shards for name in shards.splits] == [3, 2, 4]
    assert shards.trials("test") == files.trials("test")
    given = list(files.cuts("test"))
    recordings = Recordings(given, 16000, full_precision=True)
    cuts = {cut.id: cut for cut in shards.cuts("test")}
    assert list(cuts) == [cut.id for cut in given]
    assert [cut.supervisions[0].to_dict() for cut in cuts.values()] == [cut.supervisions[0].to_dict() for cut in given]
    read = {}
    for shard in sorted({shard_of(cut) for cut in cuts.values()}):
        read |= {
            cut.id: samples for cut, samples in read_shard(shard, [c for c in cuts.values() if shard_of(c) == shard])
        }
    for number, cut in enumerate(given):
        np.testing.assert_array_equal(read[cut.id], recordings.read(number))


def test_lhotse_alone_reads_them(six_speakers: Path, sharded: Path) -> None:
    from lhotse import CutSet

    cuts = list(CutSet.from_shar(in_dir=sharded / "test"))
    given = list(PreparedCorpus.load(six_speakers).cuts("test"))
    assert [cut.id for cut in cuts] == [cut.id for cut in given]
    np.testing.assert_array_equal(cuts[12].load_audio(), given[12].load_audio())


def test_the_fingerprint_is_that_of_the_recordings_and_trials(six_speakers: Path, sharded: Path) -> None:
    info = PreparedCorpus.load(six_speakers).info
    without_noise = PreparedCorpus(six_speakers, dataclasses.replace(info, clips={}))
    assert PreparedCorpus.load(sharded).info.fingerprint == without_noise.fingerprint()


@pytest.mark.parametrize("workers", [0, 3])
def test_batches_are_bounded_and_every_utterance_comes_once(sharded: Path, workers: int) -> None:
    cuts = list(PreparedCorpus.load(sharded).cuts("test"))
    batches = list(iterate_utterances(cuts, max_batch_s=2.0, max_batch_size=4, workers=workers))
    assert sorted(name for batch in batches for name in batch.ids) == sorted(cut.id for cut in cuts)
    samples = {cut.id: cut.num_samples for cut in cuts}
    for batch in batches:
        assert len(batch.ids) <= 4
        assert batch.lengths.tolist() == [samples[name] for name in batch.ids]
        assert batch.waveforms.numel() <= 32000 or len(batch.ids) == 1
        for row, length in zip(batch.waveforms, batch.lengths, strict=True):
            assert not row[length:].any()


@pytest.mark.parametrize("processes", [1, 2])
def test_embeddings_are_the_same_as_from_files(
    model_file: Path, six_speakers: Path, sharded: Path, tmp_path: Path, processes: int
) -> None:
    system = load_system(model_file)
    files = embed_cuts(system, PreparedCorpus.load(six_speakers).cuts("test"), workers=0)
    shards = embed_cuts(
        system, PreparedCorpus.load(sharded).cuts("test"), cache=tmp_path, workers=0, processes=processes
    )
    assert shards.ids == files.ids
    assert shards.matrix == pytest.approx(files.matrix, abs=1e-5)


def test_kept_embeddings_are_found_without_reading_a_shard(model_file: Path, spoilt: Path, tmp_path: Path) -> None:
    system, corpus = load_system(model_file), PreparedCorpus.load(spoilt)
    first = embed_cuts(system, corpus.cuts("test"), cache=tmp_path / "kept", workers=0)
    for tar in spoilt.glob("test/*.tar"):
        tar.unlink()
    assert (
        embed_cuts(system, corpus.cuts("test"), cache=tmp_path / "kept", workers=0).matrix.tolist()
        == first.matrix.tolist()
    )


def test_a_shard_is_one_process_s_work(sharded: Path, six_speakers: Path) -> None:
    cuts = list(PreparedCorpus.load(sharded).cuts("test"))
    found = pieces(cuts)
    assert sorted(len(piece) for piece in found) == [6, 10, 10, 10]
    assert all(len({shard_of(cut) for cut in piece}) == 1 for piece in found)
    assert sorted(cut.id for piece in found for cut in piece) == sorted(cut.id for cut in cuts)
    alone = pieces(PreparedCorpus.load(six_speakers).cuts("test"))
    assert [len(piece) for piece in alone] == [1] * 36
    lengths = [piece[0].num_samples for piece in alone]
    assert lengths == sorted(lengths, reverse=True)


def test_torchrun_evaluates_shards_and_keeps_what_each_process_did(
    model_file: Path, six_speakers: Path, sharded: Path, tmp_path: Path
) -> None:
    """36 utterances in four shards: two processes take two shards each."""
    options = ["--models", model_file, "--replicates", "0", "--device", "cpu", "--cache", tmp_path / "kept", "--json"]
    done = subprocess.run(
        [*TORCHRUN, "evaluate", *map(str, [sharded, *options])],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    alone = evaluate([model_file], PreparedCorpus.load(six_speakers), replicates=0, workers=0)
    assert json.loads(done.stdout)["systems"][0]["eer"]["value"] == pytest.approx(alone.systems[0].eer.value, abs=1e-9)
    shares = [np.load(path)["keys"].shape[0] for path in (tmp_path / "kept").rglob("*.npz")]
    assert sorted(shares) in ([16, 20], [18, 18])


def test_audio_is_read_from_a_store(model_file: Path, spoilt: Path, store: str, six_speakers: Path) -> None:
    """The folder holds manifests and trials alone; the audio comes from the server."""
    tell(spoilt, audio=store)
    for tar in spoilt.rglob("*.tar"):
        tar.unlink()
    found = evaluate([model_file], PreparedCorpus.load(spoilt), replicates=0, workers=0)
    alone = evaluate([model_file], PreparedCorpus.load(six_speakers), replicates=0, workers=0)
    assert found.systems[0].eer.value == pytest.approx(alone.systems[0].eer.value, abs=1e-9)


def test_a_store_without_the_shard_is_one_error(spoilt: Path, store: str) -> None:
    tell(spoilt, audio=f"{store}/nowhere")
    with pytest.raises(CorpusError, match=r"cannot read the shard http://127.*nowhere/test/recording.*404"):
        list(iterate_utterances(PreparedCorpus.load(spoilt).cuts("test"), workers=0))


def test_an_error_that_names_an_extra_travels_between_processes() -> None:
    error = pickle.loads(pickle.dumps(MissingExtraError("reading x", "stores")))
    assert str(error) == str(MissingExtraError("reading x", "stores"))


def test_stores_need_their_extra(spoilt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "smart_open", None)
    tell(spoilt, audio="s3://bucket/voices")
    with pytest.raises(MissingExtraError, match=r"reading s3://bucket/voices/test/recording.000000.tar.*\[stores\]"):
        list(iterate_utterances(PreparedCorpus.load(spoilt).cuts("test"), workers=0))


@pytest.mark.parametrize(
    "address",
    [
        "pipe:touch {}",
        "-",
        "file:///etc",
        "s3:bucket",
        "pipe:touch {}; true ://",
        "ftp://x",
        "http://",
        "s3://b?x",
        "http://[x",
    ],
)
def test_no_address_makes_us_run_anything(spoilt: Path, address: str, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    with pytest.raises(CorpusError, match="given as the address of shards; expected http://"):
        check_address(address.format(ran))
    tell(spoilt, audio=address.format(ran))
    with pytest.raises(CorpusError, match="given as the address of shards"):
        PreparedCorpus.load(spoilt)
    assert not ran.exists()


def test_addresses_hold_no_password_and_are_words(spoilt: Path) -> None:
    with pytest.raises(CorpusError, match="with a user's name or password given") as error:
        check_address("https://me:secret@store/voices")
    assert "secret" not in str(error.value)
    assert check_address("HTTPS://store/voices") == "HTTPS://store/voices"
    tell(spoilt, audio=5)
    with pytest.raises(CorpusError, match="audio is 5, expected an address"):
        PreparedCorpus.load(spoilt)


def rewrite(tar: Path, change: Callable[[str, bytes], bytes | None]) -> None:
    """Write a tar file anew; `change` gives a member's new content, or None to leave it out."""
    with tarfile.open(tar) as old:
        members = [(member.name, old.extractfile(member).read()) for member in old]  # type: ignore[union-attr]
    with tarfile.open(tar, "w") as new:
        for name, data in members:
            changed = change(name, data)
            if changed is not None:
                info = tarfile.TarInfo(name)
                info.size = len(changed)
                new.addfile(info, io.BytesIO(changed))


def test_shards_that_are_not_what_was_written(spoilt: Path) -> None:
    corpus = PreparedCorpus.load(spoilt)
    cuts = list(corpus.cuts("test"))
    tar = spoilt / "test" / "recording.000001.tar"
    whole = tar.read_bytes()
    third = cuts[12].id

    def problem(match: str, workers: int = 0) -> None:
        with pytest.raises(CorpusError, match=match):
            list(iterate_utterances(corpus.cuts("test"), workers=workers))

    rewrite(tar, lambda name, data: data if not name.startswith(third) else None)
    problem(f"lacks 1 utterances that its manifest names, such as {third}")
    tar.write_bytes(whole)
    rewrite(tar, lambda name, data: data[:-1] + b"?" if name == f"{third}.flac" else data)
    problem(f"the audio of {third} in its shard is not what the manifest was written with", workers=2)
    rewrite(tar, lambda name, data: data + bytes(1 << 20) if name == f"{third}.flac" else data)
    problem(f"the audio of {third} in .* is larger than its length allows")
    tar.write_bytes(gzip.compress(whole))
    problem("cannot read the shard .*recording.000001.tar")
    tar.write_bytes(whole[: len(whole) // 2])
    problem("cannot read the shard .*recording.000001.tar")
    tar.write_bytes(b"no tar file" * 100)
    problem("cannot read the shard .*recording.000001.tar|lacks")
    tar.unlink()
    problem("cannot read the shard .*recording.000001.tar")


def test_manifests_that_are_not_what_was_written(spoilt: Path, sharded: Path) -> None:
    (spoilt / "test" / "cuts.000003.jsonl.gz").unlink()
    with pytest.raises(CorpusError, match=r"cuts.000003.jsonl.gz is missing; prepare the corpus again"):
        PreparedCorpus.load(spoilt)
    cut = next(iter(PreparedCorpus.load(sharded).cuts("test")))
    assert len(content_of(cut)) == 64
    cut.custom = {"encoded": "0123"}
    with pytest.raises(CorpusError, match="the manifest does not tell the hash of"):
        content_of(cut)


def test_a_model_is_exported_with_a_sharded_corpus(run_folder: Path, sharded: Path, tmp_path: Path) -> None:
    """Which takes utterances to check and to quantise with, and dev trials."""
    from parvox.export import export_model

    made = export_model(run_folder, tmp_path / "a.onnx", corpus=sharded, precision="int8", tolerance_eer=100.0)
    files = export_model(run_folder, tmp_path / "b.onnx", precision="int8", tolerance_eer=100.0)
    assert made.eer_fp32 == pytest.approx(files.eer_fp32, abs=1e-9)


def test_training_says_that_it_takes_the_corpus_of_files(
    sharded: Path, run_folder: Path, tmp_path: Path, capsys
) -> None:
    recipe = tmp_path / "again.yaml"
    recipe.write_text("model: {name: xvector, channels: [16, 16, 16, 16, 24], embedding_dim: 12}\n")
    assert main(["train", str(recipe), "--corpus", str(sharded), "--out", str(tmp_path / "run")]) == 2
    assert "give the corpus that the shards were made of" in capsys.readouterr().err


def test_the_command(six_speakers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "sharded"
    options = ["--splits", "test", "dev", "--utterances", "20", "--audio", "s3://bucket/voices"]
    assert main(["shard", str(six_speakers), str(out), *options]) == 0
    told = capsys.readouterr().out
    assert "test       2 shards        36 utterances" in told
    assert "copy the tar files to s3://bucket/voices, in the same folders" in told
    corpus = PreparedCorpus.load(out)
    assert set(corpus.splits) == {"test", "dev"}
    assert main(["info", str(out)]) == 0
    assert "in 2 shards at s3://bucket/voices" in capsys.readouterr().out
    assert shard_of(next(iter(corpus.cuts("test")))) == "s3://bucket/voices/test/recording.000000.tar"
    assert main(["shard", str(six_speakers), str(out)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["shard", str(six_speakers), str(out), "--overwrite", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["splits"]["train"]["shards"] == 1


def test_wishes_that_cannot_be(six_speakers: Path, sharded: Path, tmp_path: Path) -> None:
    files, out = PreparedCorpus.load(six_speakers), tmp_path / "out"
    with pytest.raises(CorpusError, match="no split 'tset': did you mean 'test'"):
        write_shards(files, out, splits=["tset"])
    with pytest.raises(CorpusError, match="expected each once"):
        write_shards(files, out, splits=["test", "test"])
    with pytest.raises(CorpusError, match="no split given"):
        write_shards(files, out, splits=[])
    with pytest.raises(CorpusError, match="0 utterances in a shard given; expected 1 to 1,000,000"):
        write_shards(files, out, utterances=0)
    with pytest.raises(CorpusError, match="given as the address of shards"):
        write_shards(files, out, audio="bucket")
    with pytest.raises(CorpusError, match="lies in shards already"):
        write_shards(PreparedCorpus.load(sharded), out)
    with pytest.raises(CorpusError, match="jobs 0 given; expected 1 to 1024"):
        write_shards(files, out, jobs=0)
    (tmp_path / "link").symlink_to(six_speakers.parent)
    for place in (six_speakers, six_speakers.parent, six_speakers / "shards", tmp_path / "link" / six_speakers.name):
        with pytest.raises(OutputError, match="holds the corpus itself, or lies in it"):
            write_shards(files, place, overwrite=True)
    assert not out.exists()


def test_ids_of_all_kinds_come_back_as_they_are(model_file: Path, six_speakers: Path, tmp_path: Path) -> None:
    ids = ["a/b", "a//b", "a/b/", "x.flac", "x.json", "..", "../up", "/root", "ÿ ö", "a.nodata", "./a", "l" * 300]
    folder = Path(shutil.copytree(six_speakers, tmp_path / "ids"))
    manifest = folder / "test.jsonl.gz"
    cuts = [json.loads(line) for line in gzip.decompress(manifest.read_bytes()).splitlines()][: len(ids)]
    for cut, name in zip(cuts, ids, strict=True):
        cut["id"] = name
    manifest.write_bytes(gzip.compress("\n".join(map(json.dumps, cuts)).encode()))
    data = json.loads((folder / "corpus.json").read_text())
    data["splits"] = {"test": data["splits"]["test"] | {"utterances": len(ids), "trials_from": ""}}
    (folder / "corpus.json").write_text(json.dumps(data))
    (folder / "test.trials").unlink()
    files, system = PreparedCorpus.load(folder), load_system(model_file)
    shards = write_shards(files, tmp_path / "out", utterances=5)
    expected = embed_cuts(system, files.cuts("test"), workers=0)
    found = embed_cuts(system, shards.cuts("test"), workers=0)
    assert found.ids == expected.ids == ids
    assert found.matrix == pytest.approx(expected.matrix, abs=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ids", "out"]


def test_nothing_is_left_behind_when_a_recording_is_gone(six_speakers: Path, tmp_path: Path) -> None:
    corpus = PreparedCorpus.load(six_speakers)
    copy = Path(shutil.copytree(six_speakers, tmp_path / "copy"))
    gone = next(iter(corpus.cuts("test"))).recording.sources[0].source
    manifest = copy / "test.jsonl.gz"
    text = gzip.decompress(manifest.read_bytes()).decode().replace(Path(gone).name, "gone.wav")
    manifest.write_bytes(gzip.compress(text.encode()))
    with pytest.raises(CorpusError, match=r"gone\.wav"):
        write_shards(PreparedCorpus.load(copy), tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy"]
