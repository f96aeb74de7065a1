"""The speech that benchmarks of accuracy train and test on, prepared the same way for all."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from parvox.corpora.join_settings import JoinSettings
from parvox.corpora.prepare import PrepareSettings, prepare
from parvox.corpora.prepared import PreparedCorpus

SPEAKERS = Path(__file__).parent / "comparison" / "speakers.csv"
Speech = Literal["words", "digits"]


def prepare_speech(root: Path, work: Path, kind: Speech, seed: int) -> PreparedCorpus:
    """A corpus of the recordings in `root`, prepared if that was not done before.

    Args:
        root: Folder of recordings with manifests.
        work: Where prepared corpora lie.
        kind: All recordings, with the split that is fixed in the repository; or phrases of four digits.
        seed: Deals the speakers of digits, who are few; of no account for words.
    """
    folder = work / ("prepared" if kind == "words" else f"digits-seed{seed}")
    if not (folder / "corpus.json").is_file():
        if kind == "words":
            settings = PrepareSettings(name="benchmark", split_file=SPEAKERS, trials_per_split=20_000)
        else:
            join = JoinSettings(words=4)
            settings = PrepareSettings(name="digits", seed=seed, dev_speakers=4, test_speakers=8, join=join)
            root = root / "arabic-digits"
        prepare("csv", root, folder, settings, overwrite=True)
    return PreparedCorpus.load(folder)
