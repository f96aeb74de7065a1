"""The whole way on a small corpus: teach, distil, measure, ship, verify.

Every step calls the function that its command calls, so the demonstration is also the shortest example of the library.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from parvox import __version__
from parvox.corpora.demo_corpus import choose_corpus
from parvox.corpora.prepare import PrepareSettings, prepare
from parvox.corpora.prepared import PreparedCorpus
from parvox.corpora.synthetic import SyntheticSettings
from parvox.errors import OutputError
from parvox.evaluation.evaluate import evaluate
from parvox.evaluation.report import write_report
from parvox.evaluation.results import Evaluation
from parvox.export import export_model
from parvox.export.speed import milliseconds
from parvox.files import atomic_file, output_errors
from parvox.runtime.model_file import read_contract
from parvox.runtime.verify import verify_files
from parvox.tables import aligned
from parvox.training.recipe import load_recipe
from parvox.training.run import Run
from parvox.training.trainer import train

Size = Literal["full", "small"]
_RECIPES = Path(__file__).parent
_STEPS = 7
# The small size runs every step with as little work as still means something.
_SMALL = ["--training.epochs", "2", "--training.evaluate_every", "2", "--data.utterances_per_epoch", "640"]
_SPEED_S = 3.0


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: Which model.
        parameters: Its weights.
        macs_1s: Multiply-accumulates for one second of speech, features not included.
        file_bytes: Size of the model file.
        ms_3s: Milliseconds from a waveform of three seconds to its embedding, on one core.
        eer: Equal error rate, a fraction.
        eer_low: Lower end of its 95 % interval.
        eer_high: Upper end.
        min_dcf: Normalised minDCF at p_target 0.01.
    """

    name: str
    parameters: int
    macs_1s: int
    file_bytes: int
    ms_3s: float
    eer: float
    eer_low: float | None
    eer_high: float | None
    min_dcf: float


def run_demo(
    out: Path,
    *,
    corpus: Path | None = None,
    size: Size = "full",
    seed: int = 1,
    offline: bool = False,
    overwrite: bool = False,
    as_json: bool = False,
) -> list[Row]:
    """Run the demonstration; a folder that holds part of one is continued.

    Args:
        out: Folder for everything it makes.
        corpus: Folder of recordings with manifests; else $PARVOX_CORPUS, a download, or synthetic voices.
        size: "small" checks every step quickly, with poor accuracy.
        seed: Decides the split, weights and every random draw.
        offline: Do not use the network.
        overwrite: Begin anew.
        as_json: Print the table as JSON.

    Returns:
        The table.

    Raises:
        ParvoxError: a step cannot be done; the message says why.
    """
    demo = Demo(Path(out), size=size, seed=seed)
    given = corpus or (Path(os.environ["PARVOX_CORPUS"]) if os.environ.get("PARVOX_CORPUS") else None)
    prepared = demo.prepare(given, offline=offline, overwrite=overwrite)
    runs = demo.train(prepared)
    files = demo.export(runs, prepared)
    evaluation = demo.evaluate(files, prepared)
    rows = demo.table(files, evaluation)
    demo.report(evaluation, rows, prepared)
    demo.verify(files["student, distilled, int8"], prepared)
    if as_json:
        print(json.dumps({"synthetic": prepared.info.synthetic, "rows": [asdict(row) for row in rows]}))
    else:
        print(format_table(rows, synthetic=prepared.info.synthetic))
    demo.say_what_next(files["student, distilled, int8"])
    return rows


class Demo:
    """The steps, each of which is skipped where its result is there already.

    Args:
        out: Folder for everything.
        size: See `run_demo`.
        seed: See `run_demo`.
    """

    def __init__(self, out: Path, *, size: Size, seed: int) -> None:
        self.out, self.size, self.seed = out, size, seed
        self._step = 0
        self._began = time.monotonic()

    def prepare(self, given: Path | None, *, offline: bool, overwrite: bool) -> PreparedCorpus:
        """Take a corpus and make manifests, splits and trials of it."""
        self._announce("corpus", "taking recordings")
        voices = SyntheticSettings(speakers=60, utterances=8) if self.size == "small" else None
        self._refuse_foreign()
        chosen = choose_corpus(given, self.out / "download", _say, allow_download=not offline, size=voices)
        settings = {"corpus": str(chosen.root.resolve()), "size": self.size, "seed": self.seed, "version": __version__}
        folder = self.out / "prepared"
        marker = self.out / "demo.json"
        if marker.is_file() and not overwrite:
            try:
                before = json.loads(marker.read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                raise OutputError(f"{marker} is damaged; choose another --out, or --overwrite") from error
            if before != settings:
                before = before if isinstance(before, dict) else {}
                differing = ", ".join(f"{k} {before.get(k)}" for k in settings if before.get(k) != settings[k])
                raise OutputError(
                    f"{self.out} holds a demo begun with {differing}; choose another --out, or --overwrite"
                )
            if (folder / "corpus.json").is_file():
                prepared = PreparedCorpus.load(folder)
                _say(_describe(prepared))
                return prepared
        if overwrite:
            self._clear()
        with atomic_file(marker, overwrite=True) as temporary:
            temporary.write_text(json.dumps(settings), encoding="utf-8")
        try:
            prepared = prepare(
                chosen.importer,
                chosen.root,
                folder,
                PrepareSettings(
                    name=chosen.name, seed=self.seed, dev_fraction=0.15, test_fraction=0.2, trials_per_split=20_000
                ),
                overwrite=True,
            )
        except BaseException:  # nothing of the demo is there to go on from
            marker.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                self.out.rmdir()
            raise
        _say(_describe(prepared))
        return prepared

    def train(self, prepared: PreparedCorpus) -> dict[str, Run]:
        """Train the teacher, the student alone, and the student with the teacher."""
        common = ["--corpus", str(prepared.folder), "--seed", str(self.seed)]
        if not prepared.info.clips.get("noise"):
            common += ["--augmentation.noise_probability", "0"]
        if self.size == "small":
            common += _SMALL
        runs: dict[str, Run] = {}
        teacher_folder = self.out / "runs" / "teacher"
        for name, recipe, what, more in (
            ("teacher", "teacher", "training the teacher", []),
            ("student, alone", "student", "training the student without a teacher", []),
            (
                "student, distilled",
                "distilled",
                "training the same student with the teacher",
                ["--distillation.teacher", str(teacher_folder)],
            ),
        ):
            self._announce(recipe, what)
            folder = self.out / "runs" / recipe
            loaded = load_recipe(_RECIPES / f"{recipe}.yaml", common + more)
            runs[name] = train(loaded, folder, resume=True)
            summary = runs[name].summary
            dev = summary["best_dev_eer"]
            _say(
                f"{summary['parameters'] / 1e6:.2f} M parameters, {summary['precision']}, {summary['seconds']:.0f} s"
                + ("" if dev is None else f", dev EER {100 * dev:.2f} %")
            )
        return runs

    def export(self, runs: dict[str, Run], prepared: PreparedCorpus) -> dict[str, Path]:
        """Export every run to one ONNX file, the distilled student also to int8."""
        self._announce("export", "writing model files and checking them against PyTorch")
        files: dict[str, Path] = {}
        wanted: list[tuple[str, Run, Literal["fp32", "int8"]]] = [(name, run, "fp32") for name, run in runs.items()]
        wanted.append(("student, distilled, int8", runs["student, distilled"], "int8"))
        for name, run, precision in wanted:
            path = self.out / f"{run.folder.name}{'' if precision == 'fp32' else '-int8'}.onnx"
            files[name] = path
            if path.is_file():
                continue
            options: dict[str, Any] = {"tolerance_eer": 100.0} if self.size == "small" else {}
            result = export_model(run, path, corpus=prepared, precision=precision, **options)
            _say(f"{path}: {result.path.stat().st_size / 1e3:.0f} kB")
        return files

    def evaluate(self, files: dict[str, Path], prepared: PreparedCorpus) -> Evaluation:
        """Score the test trials, of speakers that no model heard."""
        self._announce("evaluate", "scoring the trials of the test speakers")
        return evaluate(
            list(files.values()),
            prepared,
            names=list(files),
            cache=self.out / "embeddings",
            threads=os.cpu_count() or 1,
            seed=self.seed,
        )

    def table(self, files: dict[str, Path], evaluation: Evaluation) -> list[Row]:
        """What each model costs and how well it does."""
        rows = []
        for system in evaluation.systems:
            path = files[system.name]
            contract = read_contract(path)
            interval = system.eer.interval
            rows.append(
                Row(
                    name=system.name,
                    parameters=contract.parameters,
                    macs_1s=contract.macs_1s,
                    file_bytes=path.stat().st_size,
                    ms_3s=milliseconds(path, seconds=_SPEED_S, threads=1),
                    eer=system.eer.value,
                    eer_low=interval.low if interval else None,
                    eer_high=interval.high if interval else None,
                    min_dcf=system.min_dcf[0.01].value,
                )
            )
        return rows

    def report(self, evaluation: Evaluation, rows: list[Row], prepared: PreparedCorpus) -> Path:
        """Write the HTML report."""
        path = self.out / "report.html"
        write_report(path, evaluation, table=[_cells(row) for row in rows], overwrite=True)
        return path

    def verify(self, model: Path, prepared: PreparedCorpus) -> None:
        """Ask the exported file about two pairs of test recordings: one voice, and two voices."""
        self._announce("verify", "asking the exported file about two pairs of recordings")
        paths = {cut.id: Path(cut.recording.sources[0].source) for cut in prepared.cuts("test")}
        trials = prepared.trials("test")
        for target in (True, False):
            pair = next(trial for trial in trials if trial.target == target)
            decision = verify_files(model, [paths[pair.enrol]], paths[pair.test])
            told = "no score" if decision.score is None else f"score {decision.score:.3f}"
            _say(f"{'one voice' if target else 'two voices'}: {paths[pair.enrol].name} and {paths[pair.test].name}")
            right = decision.decision == ("accept" if target else "reject")
            remark = "" if right else ", which is wrong: one of the errors that the table counts"
            _say(f"  {told}, threshold {decision.threshold:.3f}: {decision.decision}{remark}")

    def say_what_next(self, model: Path) -> None:
        """What a newcomer may want to do now."""
        total = time.monotonic() - self._began
        command = "parvox" if shutil.which("parvox") else os.path.relpath(sys.argv[0])
        print(f"\nReport: {self.out / 'report.html'}    ({total:.0f} s in all)", file=sys.stderr)
        print(
            "Try next:\n"
            f"  {command} verify {model} one.wav another.wav\n"
            f"  {command} info {model}\n"
            f"  {command} prepare folder MY-RECORDINGS prepared/    (a folder per speaker)",
            file=sys.stderr,
        )

    def _announce(self, name: str, what: str) -> None:
        self._step += 1
        elapsed = time.monotonic() - self._began
        print(f"[{self._step}/{_STEPS}] {name}: {what} ({elapsed:.0f} s so far)", file=sys.stderr, flush=True)

    def _refuse_foreign(self) -> None:
        """Never write into a folder that holds something else."""
        if self.out.exists() and not self.out.is_dir():
            raise OutputError(f"{self.out} is a file, and a folder is to be written; choose another --out")
        foreign = self.out.is_dir() and any(self.out.iterdir()) and not (self.out / "demo.json").is_file()
        if foreign and {path.name for path in self.out.iterdir()} != {"download"}:
            raise OutputError(f"{self.out} exists and holds no demo; choose another --out")

    def _clear(self) -> None:
        with output_errors(self.out):
            for path in self.out.iterdir() if self.out.is_dir() else ():
                if path.name != "download":
                    shutil.rmtree(path) if path.is_dir() else path.unlink()


def format_table(rows: list[Row], *, synthetic: bool) -> str:
    """The table as aligned text."""
    head = ["model", "parameters", "MACs, 1 s", "file", "3 s, one core", "EER [95 %]", "minDCF"]
    lines = [head, *([str(cell) for cell in _cells(row).values()] for row in rows)]
    text = "\n".join(aligned(lines, right=range(1, len(head))))
    return ("SYNTHETIC voices: these figures say nothing about real speech.\n" if synthetic else "") + text


def _cells(row: Row) -> dict[str, str]:
    interval = "" if row.eer_low is None else f" [{100 * row.eer_low:.1f}, {100 * (row.eer_high or 0):.1f}]"
    return {
        "model": row.name,
        "parameters": f"{row.parameters / 1e6:.2f} M",
        "MACs, 1 s": f"{row.macs_1s / 1e6:.0f} M",
        "file": f"{row.file_bytes / 1e3:.0f} kB",
        "3 s, one core": f"{row.ms_3s:.1f} ms",
        "EER [95 %]": f"{100 * row.eer:.2f} %{interval}",
        "minDCF": f"{row.min_dcf:.3f}",
    }


def _describe(prepared: PreparedCorpus) -> str:
    splits = prepared.info.splits
    parts = [f"{name} {split.speakers} speakers, {split.utterances} utterances" for name, split in splits.items()]
    rejected = sum(prepared.info.rejected.values())
    return "; ".join(parts) + (f"; {rejected} recordings left out, see rejected.csv" if rejected else "")


def _say(line: str) -> None:
    print(f"      {line}", file=sys.stderr, flush=True)
