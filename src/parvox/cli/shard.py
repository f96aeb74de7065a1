"""`parvox shard`."""

from __future__ import annotations

import dataclasses
import json as jsonlib
from pathlib import Path

from parvox.cli.parsing import call


def main(argv: list[str]) -> None:
    """Run the command."""
    call(shard, argv, prog="parvox shard")


def shard(
    corpus: Path,
    out: Path,
    *,
    splits: list[str] | None = None,
    utterances: int = 1000,
    audio: str = "",
    jobs: int | None = None,
    overwrite: bool = False,
    json: bool = False,
) -> None:
    """Write the speech of a prepared corpus as shards, which many machines can read from a store.

    parvox shard prepared sharded --splits test --audio s3://bucket/voices

    OUT is a prepared corpus too, with the same trials: parvox evaluate OUT reads its tar files from front to back,
    those beside their manifests or, with --audio, those at that address, where you copy them: OUT/test/*.tar to
    s3://bucket/voices/test. Lhotse reads them as well (its Shar format). Training needs recordings in any order and
    takes the corpus that the shards were made of.

    Args:
        corpus: Prepared corpus, a folder written by parvox prepare.
        out: The folder to write.
        splits: Which splits; all unless given. Noises and impulse responses stay behind.
        utterances: Utterances in a shard. Processes share whole shards: make several for each.
        audio: Address of the tar files' folders: http, https, s3, gs or azure.
        jobs: Threads (default: all processors).
        overwrite: Replace OUT if it is a prepared corpus.
        json: Print what OUT/corpus.json holds.
    """
    from parvox.corpora.prepared import PreparedCorpus
    from parvox.corpora.shards import audio_file
    from parvox.data.shards import write_shards

    made = write_shards(
        PreparedCorpus.load(corpus),
        out,
        splits=splits,
        utterances=utterances,
        audio=audio,
        jobs=jobs,
        overwrite=overwrite,
    )
    if json:
        print(jsonlib.dumps(dataclasses.asdict(made.info), ensure_ascii=False))
        return
    print(f"{made.info.name}: shards of 16-bit FLAC at {made.info.sample_rate_hz} Hz -> {made.folder}")
    for name, split in made.info.splits.items():
        nbytes = sum((made.folder / audio_file(name, number)).stat().st_size for number in range(split.shards))
        print(f"  {name:<5} {split.shards:>6,} shards {split.utterances:>9,} utterances {nbytes / 1e6:>9,.1f} MB")
    if audio:
        print(
            f"next: copy the tar files to {audio}, in the same folders, such as {made.folder / name} to {audio}/{name}"
        )
