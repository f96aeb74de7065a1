"""Speech in shards of Lhotse's Shar format: written from a prepared corpus, and read from front to back."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import soundfile
from numpy.typing import NDArray

from parvox.corpora.manifests import write_cuts
from parvox.corpora.prepared import INFO, PreparedCorpus, SplitInfo
from parvox.corpora.shards import audio_file, check_address, content_of, is_address, manifests, with_content
from parvox.data.recordings import Recordings
from parvox.errors import CorpusError, MissingExtraError, OutputError, ParvoxError, nearest
from parvox.files import atomic_folder, refuse_overwrite
from parvox.processors import available_processors
from parvox.progress import progress

if TYPE_CHECKING:
    from lhotse.cut import Cut

_INT16 = 32768
_AGAIN = "make the shards again, or copy them again"
_SUFFIX = ".flac"
_HEADERS = 1 << 16  # bytes of a file beside its samples, at the most
_TIMEOUT_S = 60.0


def write_shards(
    corpus: PreparedCorpus,
    out: Path,
    *,
    splits: Sequence[str] | None = None,
    utterances: int = 1000,
    audio: str = "",
    jobs: int | None = None,
    overwrite: bool = False,
) -> PreparedCorpus:
    """Write the speech of a prepared corpus as shards: a new prepared corpus, with the same trials.

    Audio is 16-bit FLAC of one channel at the corpus's rate, which keeps 16-bit recordings at that rate as they are.
    Lhotse reads a split's folder, too: ``CutSet.from_shar(in_dir=OUT/test)``. Noises and impulse responses stay behind.

    Args:
        corpus: Where recordings are files of their own.
        out: The folder to write.
        splits: Which splits; all by default.
        utterances: Utterances in a shard.
        audio: The address that the folders of tar files are going to have; readers then look for them there. They are
            written to `out` all the same, to be copied.
        jobs: Threads; one for each processor by default.
        overwrite: Replace `out` if it is a prepared corpus.

    Raises:
        CorpusError: a recording cannot be read, or `corpus` cannot be made shards of.
        OutputError: `out` cannot be written.
    """
    out = Path(out)
    chosen = list(corpus.splits) if splits is None else list(splits)
    _check_wishes(corpus, out, chosen, utterances, audio, jobs)
    refuse_overwrite(out, overwrite, holds=INFO)
    with atomic_folder(out, overwrite=overwrite, holds=INFO) as folder:
        pool = ThreadPoolExecutor(jobs or available_processors())
        try:
            infos = {split: _write_split(corpus, split, folder, utterances, pool) for split in chosen}
        finally:
            pool.shutdown(cancel_futures=True)
        info = dataclasses.replace(corpus.info, splits=infos, clips={}, audio="")
        fingerprint = PreparedCorpus(folder, info).fingerprint()
        info = dataclasses.replace(info, audio=audio, fingerprint=fingerprint)
        text = json.dumps(dataclasses.asdict(info), indent=2, ensure_ascii=False)
        (folder / INFO).write_text(text + "\n", encoding="utf-8")
    return PreparedCorpus.load(out)


def _check_wishes(
    corpus: PreparedCorpus, out: Path, splits: list[str], utterances: int, audio: str, jobs: int | None
) -> None:
    for split in splits:
        if split not in corpus.splits:
            raise CorpusError(f"{corpus.folder} has no split {split!r}: {nearest(split, corpus.splits)}")
        if corpus.info.splits[split].shards:
            raise CorpusError(f"{corpus.folder} lies in shards already; expected one whose recordings are files")
    if not splits:
        raise CorpusError(f"{corpus.folder}: no split given; expected one or more of {', '.join(corpus.splits)}")
    if len(set(splits)) < len(splits):
        raise CorpusError(f"splits {' '.join(splits)} given; expected each once")
    if not 1 <= utterances <= 1_000_000:
        raise CorpusError(f"{utterances} utterances in a shard given; expected 1 to 1,000,000, such as 1000")
    if jobs is not None and not 1 <= jobs <= 1024:
        raise CorpusError(f"jobs {jobs} given; expected 1 to 1024")
    inside, around = corpus.folder.resolve(), out.resolve()
    if inside == around or around in inside.parents or inside in around.parents:
        raise OutputError(f"{out} holds the corpus itself, or lies in it; choose another folder to write to")
    if audio:
        check_address(audio)


def _write_split(
    corpus: PreparedCorpus, split: str, folder: Path, utterances: int, pool: ThreadPoolExecutor
) -> SplitInfo:
    """Write a split into `folder`; what `corpus.json` is to say of it."""
    cuts = list(corpus.cuts(split))
    parts = [cuts[start : start + utterances] for start in range(0, len(cuts), utterances)]
    tars = [folder / audio_file(split, number) for number in range(len(parts))]
    (folder / split).mkdir()
    written = pool.map(_write_shard, parts, manifests(folder, split, len(parts)), tars)
    for _ in progress(written, f"shards of {split}", total=len(parts), unit="shard"):
        pass  # they are done in the pool
    for name in (f"{split}.trials", f"{split}.enrolments"):
        if (corpus.folder / name).is_file():
            shutil.copyfile(corpus.folder / name, folder / name)
    return dataclasses.replace(corpus.info.splits[split], shards=len(parts))


def _write_shard(cuts: Sequence[Cut], manifest: Path, tar: Path) -> None:
    """Write one manifest and the audio beside it."""
    from lhotse.shar.utils import to_shar_placeholder
    from lhotse.shar.writers.tar import TarWriter

    recordings = Recordings(cuts, cuts[0].sampling_rate)
    placed = []
    with TarWriter(str(tar), shard_size=None) as writer:
        for number, cut in enumerate(cuts):
            encoded = io.BytesIO()
            samples = np.rint(recordings.read(number) * _INT16).astype(np.int16)
            soundfile.write(encoded, samples, cut.sampling_rate, format="FLAC", subtype="PCM_16")
            recording = to_shar_placeholder(cut.recording, cut)
            recording.id, recording.sources[0].channels, recording.channel_ids = cut.id, [0], [0]
            cut.start, cut.channel, cut.recording = 0.0, 0, recording
            placed.append(with_content(cut, hashlib.sha256(encoded.getvalue()).hexdigest()))
            writer.write(f"{cut.id}{_SUFFIX}", encoded)
            writer.write(f"{cut.id}.json", io.BytesIO(json.dumps(recording.to_dict()).encode()), count=False)
    write_cuts(manifest, placed)


def read_shard(shard: str, cuts: Iterable[Cut]) -> Iterator[tuple[Cut, NDArray[np.float32]]]:
    """Utterances of one shard in the order in which they lie there: each and its samples (samples,).

    Args:
        shard: The tar file's path, or its address in a store.
        cuts: Those that are wanted, all of this shard.

    Raises:
        CorpusError: the shard is gone or damaged, or is not the one that the manifest was written with.
        MissingExtraError: stores are read with a library that is not installed.
    """
    wanted = {f"{cut.id}{_SUFFIX}": cut for cut in cuts}
    try:
        with _open(shard) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
            for member in tar:
                cut = wanted.get(member.name) if member.isreg() else None
                if cut is None:
                    continue
                if member.size > 4 * cut.num_samples + _HEADERS:
                    raise CorpusError(f"the audio of {cut.id} in {shard} is larger than its length allows: {_AGAIN}")
                data = tar.extractfile(member)
                assert data is not None  # it is a regular file
                yield wanted.pop(member.name), _decoded(cut, data.read())
                if not wanted:
                    return
    except ParvoxError:
        raise
    except Exception as error:  # stores have errors of all kinds
        words = " ".join(str(error).split())[:200] or type(error).__name__
        advice = "check address, network and rights, and run it again" if is_address(shard) else _AGAIN
        raise CorpusError(f"cannot read the shard {shard} ({words}): {advice}") from error
    raise CorpusError(
        f"{shard} lacks {len(wanted)} utterances that its manifest names, such as {next(iter(wanted.values())).id}: "
        f"{_AGAIN}"
    )


def _open(shard: str) -> BinaryIO:
    """A shard, to be read from its beginning."""
    if not is_address(shard):
        return open(shard, "rb")
    try:
        import smart_open
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"reading {shard}", "stores") from error
    options = {"timeout": _TIMEOUT_S} if shard.lower().startswith("http") else {}  # others have one of their own
    stream: BinaryIO = smart_open.open(shard, "rb", compression="disable", transport_params=options)
    return stream


def _decoded(cut: Cut, encoded: bytes) -> NDArray[np.float32]:
    if hashlib.sha256(encoded).hexdigest() != content_of(cut):
        raise CorpusError(f"the audio of {cut.id} in its shard is not what the manifest was written with: {_AGAIN}")
    samples, rate = soundfile.read(io.BytesIO(encoded), dtype="float32")
    if rate != cut.sampling_rate or samples.shape != (cut.num_samples,):
        raise CorpusError(
            f"the audio of {cut.id} in its shard has {samples.shape} samples at {rate} Hz, the manifest says "
            f"{cut.num_samples} at {cut.sampling_rate}: {_AGAIN}"
        )
    found: NDArray[np.float32] = samples
    return found
