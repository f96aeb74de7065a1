"""Where speech in shards lies: tar files in Lhotse's Shar format, beside their manifests or in object storage.

A split of a sharded corpus is a folder of ``cuts.000000.jsonl.gz``, ``recording.000000.tar`` and so on. Cuts as
`PreparedCorpus.cuts` gives them then have an audio source of the type "shar" that names the tar file; reading a tar
file is `parvox.data.shards`' part.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from parvox.errors import CorpusError

if TYPE_CHECKING:
    from pathlib import Path

    from lhotse.cut import Cut

STORES = ("http", "https", "s3", "gs", "azure")
"""What an address may begin with. Lhotse would also take commands to run, which no file may make us do."""

SHAR = "shar"  # Lhotse's word for audio that lies in a shard

_CONTENT = "encoded"


def check_address(address: str) -> str:
    """An address of a folder of shards, as it was given.

    Raises:
        CorpusError: it is no address that shards are read from.
    """
    try:
        parts = urlsplit(address)
    except ValueError:  # such as a bracket that is not closed
        parts = urlsplit("")
    if "@" in parts.netloc:  # addresses stand in messages
        raise CorpusError(
            "an address of shards with a user's name or password given; leave those to the store's own settings"
        )
    if parts.scheme not in STORES or not parts.netloc or parts.query or parts.fragment:
        expected = ", ".join(f"{name}://…" for name in STORES)
        raise CorpusError(f"{address!r} given as the address of shards; expected {expected}")
    return address


def is_address(shard: str) -> bool:
    """Whether a shard lies in a store rather than in a folder."""
    return "://" in shard


def manifests(folder: Path, split: str, shards: int) -> list[Path]:
    """The manifests of a split, one for each shard."""
    return [folder / split / f"cuts.{number:06d}.jsonl.gz" for number in range(shards)]


def audio_file(split: str, number: int) -> str:
    """Where the audio of a shard lies below the corpus's folder, or below the address of its audio."""
    return f"{split}/recording.{number:06d}.tar"


def shard_of(cut: Cut) -> str | None:
    """The tar file, or its address, that holds a cut's audio; None for audio in a file of its own."""
    sources = getattr(getattr(cut, "recording", None), "sources", [])
    return str(sources[0].source) if len(sources) == 1 and sources[0].type == SHAR else None


def by_shard(cuts: Iterable[Cut]) -> dict[str, list[Cut]]:
    """Cuts by the shard that holds their audio; those in files of their own under the empty name."""
    found: dict[str, list[Cut]] = {}
    for cut in cuts:
        found.setdefault(shard_of(cut) or "", []).append(cut)
    return found


def content_of(cut: Cut) -> str:
    """SHA-256 of a cut's encoded audio in its shard.

    Raises:
        CorpusError: the manifest does not tell it.
    """
    found = (cut.custom or {}).get(_CONTENT)
    if not isinstance(found, str) or not re.fullmatch("[0-9a-f]{64}", found):
        raise CorpusError(f"the manifest does not tell the hash of {cut.id} in its shard: make the shards again")
    return found


def with_content(cut: Cut, sha256: str) -> Cut:
    """`cut`, which now tells what its audio in the shard hashes to."""
    cut.custom = {**(cut.custom or {}), _CONTENT: sha256}
    return cut


def without_content(custom: dict[str, object]) -> dict[str, object]:
    """What a manifest tells of a recording itself, however it is stored."""
    return {key: value for key, value in custom.items() if key != _CONTENT}
