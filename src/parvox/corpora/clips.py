"""Noises and impulse responses of a prepared corpus, some of them kept for tests."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from parvox.corpora.check import Facts, Limits, check_recordings
from parvox.corpora.entries import Entry, Rejected, check_root
from parvox.corpora.import_csv import MANIFEST, import_csv
from parvox.corpora.import_folder import import_clips
from parvox.corpora.manifests import make_cut
from parvox.corpora.prepared import INFO, PreparedCorpus
from parvox.errors import CorpusError

if TYPE_CHECKING:
    from lhotse.cut import Cut

ClipKind = Literal["noise", "rir"]


@dataclass
class Clips:
    """Cuts by manifest (noise, noise-test, rir, rir-test; empty ones are absent), and what was left out."""

    manifests: dict[str, list[Cut]] = field(default_factory=dict)
    rejected: list[Rejected] = field(default_factory=list)


def gather_clips(
    own: Sequence[tuple[Entry, Facts]],
    extra: dict[ClipKind, Sequence[Path]],
    limits: Limits,
    *,
    test_fraction: float,
    seed: int,
    jobs: int,
) -> Clips:
    """Join the corpus's own clips with those of other folders, and keep some for tests.

    Clips of one measurement stay on one side. Prepared corpora keep the sides they have. Copies of one recording are
    dropped, for RIRS_NOISES and MUSAN share some, which would otherwise stand on both sides.

    Args:
        own: Decoded noises and impulse responses of the corpus itself.
        extra: By kind, prepared corpora, folders with `manifest.csv`, or plain folders of recordings.
        limits: What recordings must satisfy.
        test_fraction: Share of the measurements kept for tests.
        seed: Chooses them.
        jobs: Threads for decoding.

    Raises:
        CorpusError: A folder is missing, holds none of its kind, or is prepared at another rate.
    """
    clips = Clips()
    gathered: dict[str, dict[str, Cut]] = {}
    for kind, folders in extra.items():
        seen: set[str] = set()
        new = [(entry, facts) for entry, facts in own if entry.kind == kind]
        sides: dict[str, dict[str, Cut]] = {kind: {}, f"{kind}-test": {}}
        for folder in folders:
            root = check_root(folder, f"a prepared corpus or a folder with recordings, for --{_option(kind)}")
            if (root / INFO).is_file():
                for name, cuts in _prepared(root, kind, limits.sample_rate_hz).items():
                    for cut in cuts:
                        _add(sides, name, cut, root.name, seen, clips.rejected)
            else:
                good, bad = _decoded(root, kind, limits, jobs)
                new += good
                clips.rejected += bad
        for name, cut in _dealt(new, kind, limits.sample_rate_hz, test_fraction, seed):
            _add(sides, name, cut, "", seen, clips.rejected)
        gathered.update(sides)
    clips.manifests = {name: [cut for _, cut in sorted(cuts.items())] for name, cuts in gathered.items() if cuts}
    return clips


def _option(kind: ClipKind) -> str:
    return "noise" if kind == "noise" else "rirs"


def _prepared(root: Path, kind: ClipKind, sample_rate_hz: int) -> dict[str, Iterable[Cut]]:
    corpus = PreparedCorpus.load(root)
    if corpus.info.sample_rate_hz != sample_rate_hz:
        raise CorpusError(
            f"--{_option(kind)} {root} was prepared at {corpus.info.sample_rate_hz} Hz, this corpus is at "
            f"{sample_rate_hz} Hz; give both the same --sample_rate_hz"
        )
    read = corpus.noise if kind == "noise" else corpus.rirs
    found = {f"{kind}-test": read(test=True) or [], kind: read() or []}  # tests first: they win over copies
    if not any(found.values()):
        raise CorpusError(f"--{_option(kind)} {root} holds no clips of kind {kind}; give another prepared corpus")
    return found


def _decoded(root: Path, kind: ClipKind, limits: Limits, jobs: int) -> tuple[list[tuple[Entry, Facts]], list[Rejected]]:
    described = (root / MANIFEST).is_file() or any(root.glob(f"*/{MANIFEST}"))
    listing = import_csv(root) if described else import_clips(root, kind)
    entries = [
        replace(entry, id=f"{root.name}/{entry.id}", recording=f"{root.name}/{entry.recording}")
        for entry in listing.entries
        if entry.kind == kind
    ]
    good, bad = check_recordings(entries, limits, root, jobs)
    if not good:
        raise CorpusError(f"--{_option(kind)} {root} holds no usable clips of kind {kind}; give another folder")
    rejected = [replace(item, path=(root / item.path).as_posix()) for item in [*listing.rejected, *bad]]
    return good, rejected


def _dealt(
    clips: Sequence[tuple[Entry, Facts]], kind: ClipKind, sample_rate_hz: int, test_fraction: float, seed: int
) -> list[tuple[str, Cut]]:
    """Each new clip with the manifest it goes to, sorted by id."""
    free = {entry.recording for entry, _ in clips if entry.split is None}
    ranked = sorted(free, key=lambda name: hashlib.sha256(f"{seed}\0{kind}\0{name}".encode()).digest())
    count = round(test_fraction * len(ranked))
    if test_fraction and len(ranked) > 1:
        count = max(count, 1)
    for_tests = set(ranked[:count])
    dealt = []
    for entry, facts in sorted(clips, key=lambda pair: pair[0].id):
        test = entry.split == "test" or (entry.split is None and entry.recording in for_tests)
        dealt.append((f"{kind}-test" if test else str(kind), make_cut(entry, facts, sample_rate_hz)))
    return dealt


def _add(
    sides: dict[str, dict[str, Cut]], name: str, cut: Any, prefix: str, seen: set[str], rejected: list[Rejected]
) -> None:
    content = (cut.custom or {}).get("content", cut.id)
    if content in seen:
        path = cut.recording.sources[0].source
        rejected.append(Rejected(path, "duplicate", "same samples as another clip"))
        return
    seen.add(content)
    taken = [side for side in sides.values() if cut.id in side]
    if taken:
        cut = cut.with_id(f"{prefix}/{cut.id}")
    sides[name][cut.id] = cut
