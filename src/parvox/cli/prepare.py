"""`parvox prepare`: recordings on disk to a prepared corpus."""

from __future__ import annotations

import dataclasses
import json as jsonlib
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from parvox.cli.parsing import call
from parvox.corpora.join_settings import JoinSettings

if TYPE_CHECKING:
    from parvox.corpora.prepared import PreparedCorpus

Importer = Literal[
    "folder",
    "unlabelled",
    "csv",
    "voxceleb1",
    "voxceleb2",
    "cnceleb",
    "librispeech",
    "musan",
    "rirs",
    "rsr2015-part1",
    "rsr2015-part2",
    "rsr2015-part3",
    "deepmine",
    "audiomnist",
    "himia",
]


_FEW_SPEAKERS = 25  # whose pairs cannot speak of 1 % false accepts


def main(argv: list[str]) -> None:
    """Run the command."""
    call(prepare, argv, prog="parvox prepare")


def prepare(
    importer: Importer,
    root: Path,
    out: Path,
    join: JoinSettings,
    name: str | None = None,
    split_by: Literal["corpus", "source", "speaker"] = "corpus",
    dev_fraction: float = 0.1,
    test_fraction: float = 0.1,
    dev_speakers: int | None = None,
    test_speakers: int | None = None,
    split_file: Path | None = None,
    trials: Path | None = None,
    trials_per_split: int = 50_000,
    nontargets_per_target: int = 10,
    text_dependent: bool = False,
    noise: list[Path] | None = None,
    rirs: list[Path] | None = None,
    noise_test_fraction: float = 0.2,
    sample_rate_hz: int = 16000,
    allow_upsampling: bool = False,
    min_duration_s: float = 0.4,
    max_duration_s: float = 600.0,
    seed: int = 0,
    relative: bool = False,
    jobs: int | None = None,
    overwrite: bool = False,
    json: bool = False,
) -> None:
    """Turn recordings on disk into a prepared corpus: manifests, speaker-disjoint splits and trial lists.

    For example, of recordings in one folder for each speaker: parvox prepare folder recordings prepared; to evaluate
    on all of them and train with none, add --dev_fraction 0 --test_fraction 1.

    Every recording is decoded once. Unreadable, empty, silent, too short, wrong-rate and duplicate ones are counted,
    listed in OUT/rejected.csv and left out. The same recordings and options always give the same corpus.

    Args:
        importer: What lies in ROOT: folder (a folder for each speaker, of any depth below), csv (manifest.csv, or
            folders that have one), a known corpus, musan or rirs, whose result serves as --noise or --rirs of another
            corpus, or unlabelled: any recordings, to distil from without knowing who speaks. Without any recordings,
            parvox demo makes synthetic voices.
        root: The folder of recordings; nothing is written there.
        out: The folder to write.
        join: Phrases joined from recordings of single words.
        name: What to call the corpus (default: the importer's name, or the folder's for folder and csv).
        split_by: corpus: the corpus's own partition, and what that leaves open by source; source: every source in
            every split; speaker: all speakers alike.
        dev_fraction: Share of the speakers for dev.
        test_fraction: Share of the speakers for test.
        dev_speakers: Number of dev speakers, instead of a share.
        test_speakers: Number of test speakers, instead of a share.
        split_file: CSV file with columns speaker and split that says it for every speaker.
        trials: Trial list for test, lines '1 enrol-id test-id' as VoxCeleb's; its speakers become the test split.
        trials_per_split: Trials to draw for dev, and for test without a list.
        nontargets_per_target: Non-target trials for each target trial.
        text_dependent: Draw trials for which the phrase counts as well as the speaker, of the kinds target-correct,
            target-wrong, impostor-correct and impostor-wrong; unasked for RSR2015, DeepMine, HI-MIA and joined phrases.
        noise: Take noises from these prepared corpora or folders of recordings.
        rirs: Take room impulse responses from these prepared corpora or folders of recordings.
        noise_test_fraction: Share of noises and impulse responses kept for tests.
        sample_rate_hz: The corpus's rate; recordings at higher ones are resampled while they are read, lower ones
            are rejected.
        allow_upsampling: Accept recordings at lower rates.
        min_duration_s: Shortest utterance, in seconds.
        max_duration_s: Longest utterance, in seconds.
        seed: Deals splits and trials anew.
        relative: Write audio paths relative to OUT, so that both can be moved together.
        jobs: Threads for decoding (default: all processors).
        overwrite: Replace OUT if it is a prepared corpus.
        json: Print what OUT/corpus.json holds.
    """
    from parvox.corpora.prepare import PrepareSettings
    from parvox.corpora.prepare import prepare as prepare_corpus

    settings = PrepareSettings(
        name=name,
        seed=seed,
        sample_rate_hz=sample_rate_hz,
        allow_upsampling=allow_upsampling,
        min_duration_s=min_duration_s,
        max_duration_s=max_duration_s,
        split_by=split_by,
        dev_fraction=dev_fraction,
        test_fraction=test_fraction,
        dev_speakers=dev_speakers,
        test_speakers=test_speakers,
        split_file=split_file,
        trials=trials,
        trials_per_split=trials_per_split,
        nontargets_per_target=nontargets_per_target,
        text_dependent=text_dependent,
        join=join,
        noise=tuple(noise or ()),
        rirs=tuple(rirs or ()),
        noise_test_fraction=noise_test_fraction,
        relative=relative,
    )
    corpus = prepare_corpus(importer, root, out, settings, jobs=jobs, overwrite=overwrite)
    if json:
        print(jsonlib.dumps(dataclasses.asdict(corpus.info), ensure_ascii=False))
    else:
        print(summary(corpus))


def summary(corpus: PreparedCorpus) -> str:
    """What was prepared, for people."""
    from parvox.evaluation.rates import smallest_rate

    info = corpus.info
    kind = "synthetic speech" if info.synthetic else "speech" if info.splits else "no speech"
    lines = [f"{info.name}: {kind} at {info.sample_rate_hz} Hz -> {corpus.folder}"]
    for name, split in info.splits.items():
        who = f"{split.speakers:>7,} speakers" if split.speakers else "unknown speakers"
        line = f"  {name:<5} {who} {split.utterances:>9,} utterances {split.hours:>9.2f} h"
        if split.trials_from:
            line += f"   trials: {split.target_trials:,} target, {split.nontarget_trials:,} non-target"
            line += f" ({split.trials_from.split(' (')[0]})"
        lines.append(line)
        if split.shards:
            lines.append(f"        in {split.shards:,} shards at {info.audio or corpus.folder}")
        if split.kinds:
            kinds = ", ".join(f"{count:,} {kind}" for kind, count in split.kinds.items())
            voices = f", {split.voices:,} voices enrolled" if split.voices else ""
            lines.append(f"        {split.phrases:,} phrases{voices}; trials: {kinds}")
    for label, key in (("noise", "noise"), ("rirs", "rir")):
        count, kept = info.clips.get(key, 0), info.clips.get(f"{key}-test", 0)
        if count or kept:
            lines.append(f"  {label:<5} {count:>7,} and {kept:,} kept for tests")
    left_out = sum(info.rejected.values())
    if left_out:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in info.rejected.items())
        lines.append(f"  left out {left_out:,}: {reasons}; see {corpus.folder / 'rejected.csv'}")
    tested = info.splits.get("test")
    if tested and 1 < tested.speakers < _FEW_SPEAKERS and tested.nontarget_trials:
        pairs = tested.speakers * (tested.speakers - 1) // 2
        lines.append(
            f"  note: {tested.speakers} test speakers make {pairs:,} pairs, which can speak of no false-accept rate "
            f"below {100 * smallest_rate(pairs):.2g} %; for more see --test_speakers"
        )
    lines += [f"  note: {note}" for note in info.notes]
    return "\n".join(lines)
