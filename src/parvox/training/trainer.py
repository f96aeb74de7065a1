"""The training loop: the same for a teacher, a student alone and a student with a teacher."""

from __future__ import annotations

import functools
import hashlib
import math
import time
from pathlib import Path
from typing import Any

import torch

from parvox import __version__
from parvox.corpora.prepared import PreparedCorpus
from parvox.data import Augmenter, Batch, Batches
from parvox.distillation.contract import looks_inside
from parvox.errors import TrainingError
from parvox.files import refuse_overwrite
from parvox.models import SpeakerModel
from parvox.models.cost import count_parameters
from parvox.progress import Bar, tell
from parvox.training import run as names
from parvox.training.checks import (
    expect_batch,
    expect_cache_apart,
    expect_crop,
    expect_dev_trials,
    expect_inputs_outside,
    expect_rate,
    expect_same_recipe,
    expect_something_to_learn,
    expect_summary,
    expect_teacher_hears,
)
from parvox.training.dev import DevScores, score_dev
from parvox.training.engine import hardware, make_fabric
from parvox.training.fit_frames import give_frames
from parvox.training.log import RunLog
from parvox.training.module import TrainedModule, make_optimizer
from parvox.training.phrase_head import build_phrase_head
from parvox.training.recipe import Recipe
from parvox.training.run import Run, load_run
from parvox.training.run_writer import Progress, RunWriter
from parvox.training.schedule import learning_rate
from parvox.training.start import start_from
from parvox.training.teacher_settings import SELF
from parvox.training.teachers import Inputs, Teacher, load_teachers
from parvox.training.teachers.alongside import load_alongside
from parvox.training.teachers.average import AverageTeacher
from parvox.training.unlabelled import classifier_for

_READ_LOSS_EVERY = 10  # steps; reading a value back makes an accelerator wait


def train(recipe: Recipe, out: Path, *, resume: bool = False, overwrite: bool = False) -> Run:
    """Train a speaker model, alone or, where the recipe has a distillation section, with a teacher.

    Args:
        recipe: What to do.
        out: Run folder to write.
        resume: Continue what an earlier call left in `out`; the result is that of a run never interrupted.
        overwrite: Replace a run that is there.

    Returns:
        The finished run.

    Raises:
        CorpusError: the prepared corpus is missing or damaged.
        RecipeError: the parts of the recipe do not go together.
        TrainingError: training cannot start, or diverged.
        OutputError: `out` holds something already, or cannot be written.
    """
    out = Path(out)
    expect_inputs_outside(recipe, out)
    expect_cache_apart(recipe)
    if resume and (out / names.SUMMARY).is_file():
        expect_same_recipe(recipe, out)
        run = load_run(out)
        expect_summary(run)
        return run
    if not resume:
        refuse_overwrite(out, overwrite)
    trainer = Trainer(recipe)
    trainer.fit(out, resume=resume, overwrite=overwrite)
    return load_run(out)


class Trainer:
    """One run: built and checked before anything is written, then fitted.

    Args:
        recipe: What to do.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.settings = recipe.training
        self.fabric, self.precision = make_fabric(self.settings)
        torch.manual_seed(recipe.seed)
        model = SpeakerModel(recipe.model)
        expect_crop(recipe, model)
        expect_batch(recipe, model)
        self.corpus = PreparedCorpus.load(Path(recipe.corpus))
        expect_dev_trials(recipe, self.corpus)
        self.batches = Batches(
            self.corpus,
            recipe.data,
            recipe.augmentation,
            seed=recipe.seed,
            rank=self.fabric.global_rank,
            world_size=self.fabric.world_size,
            pin_memory=self.fabric.device.type == "cuda",
            with_phrases=self.settings.phrase_weight > 0,
        )
        expect_rate(recipe, self.batches.sample_rate_hz)
        self._tell(self.batches.note)
        self.augmenter = Augmenter(self.batches.sample_rate_hz)
        classifier, self.speakers, labelled = None, self.batches.speakers, self.batches.labelled
        if labelled:
            classifier = recipe.loss.build(recipe.model.embedding_dim, self.batches.classes)
        else:
            expect_something_to_learn(recipe)
        if not recipe.init:
            give_frames(model)
        else:
            start_from(load_run(Path(recipe.init)), recipe, self.batches.speakers, model, classifier)
        distillation = recipe.distillation
        self.teacher: Teacher | None = None
        self.average: AverageTeacher | None = None
        alongside = load_alongside(recipe, model, self.batches.classes)
        if distillation and distillation.teacher == SELF and classifier:
            options, speakers, device = distillation.options.average, self.batches.speakers, self.fabric.device
            self.teacher = self.average = AverageTeacher(model, classifier, options, speakers, device)
        elif distillation and not alongside:
            device, cache = self.fabric.device, distillation.cache
            self.teacher = load_teachers(distillation.teacher, model, device, distillation.options, cache)
            self._tell(self.teacher.note and f"teacher {self.teacher.note}")
            expect_teacher_hears(self.teacher, self.batches.sample_rate_hz, recipe.data)
            if not any(map(looks_inside, distillation.methods.values())):
                self.teacher.show_embeddings_alone()
            if not labelled:
                classifier, self.speakers = classifier_for(recipe, self.teacher)
        self.module = TrainedModule(
            model,
            classifier,
            distillation.methods if distillation else None,
            self.teacher.side if self.teacher else None,
            distillation.speaker_weight if distillation else 1.0,
            alongside,
            build_phrase_head(recipe, self.batches.phrases),
            self.settings.phrase_weight,
            speakers=self.speakers,
            labelled=labelled,
        )
        settings = self.settings
        self.optimizer = make_optimizer(
            self.module,
            settings.optimizer,
            settings.learning_rate,
            settings.weight_decay,
            fused=self.precision != "fp16",
        )
        self.wrapped, self.wrapped_optimizer = self.fabric.setup(self.module, self.optimizer)
        self.steps_per_epoch = self.batches.batches_per_epoch // settings.accumulate
        if self.steps_per_epoch < 1:
            raise TrainingError(
                f"an epoch has {self.batches.batches_per_epoch} batches of {recipe.data.batch_size} per process, fewer "
                f"than training.accumulate ({settings.accumulate}); lower data.batch_size or accumulate"
            )
        self.total_steps = self.steps_per_epoch * settings.epochs
        self.progress = Progress()

    @property
    def model(self) -> SpeakerModel:
        """The model in training."""
        return self.module.model

    @property
    def classes(self) -> int:
        """Classes of the student's speaker head; 0 without one."""
        return self.module.classifier.classes if self.module.classifier is not None else 0

    def fit(self, out: Path, *, resume: bool = False, overwrite: bool = False) -> None:
        """Train to the end and write the run folder; see `RunWriter.opened` for a run that fails.

        Args:
            out: Run folder.
            resume: Continue from its checkpoint, if there is one.
            overwrite: Replace a run that is there.
        """
        writer = RunWriter(out, self.recipe, self.fabric, self.module, self.optimizer, self.average, self._made_from())
        if not self.fabric.is_global_zero:
            self._fit(writer, resume)
            return
        with writer.opened(resume, overwrite, {"speakers": self.speakers, "classes": self.classes}):
            self._fit(writer, resume)

    def _fit(self, writer: RunWriter, resume: bool) -> None:
        self.fabric.barrier()
        if resume:
            self.progress = writer.restore()
        self._tell(self._plan())
        self._prepare_methods()
        log = RunLog(writer.folder, self.progress.rows) if self.fabric.is_global_zero else None
        started = time.monotonic() - self.progress.seconds
        bar = Bar(None, writer.folder.name, total=self.total_steps, unit="step", done=self.progress.step)
        try:
            while self.progress.step < self.total_steps and not self.progress.stopped_early:
                epoch = self.progress.step // self.steps_per_epoch
                self._epoch(epoch, writer, bar, started)
                self._end_epoch(epoch, writer, log, started)
        finally:
            bar.close()
            if log is not None:
                log.close()
        if self.fabric.is_global_zero:
            summary = self._summary()
            if self.module.alongside:  # before the student's summary, which makes the run a finished one
                scores = score_dev(self.module.alongside.model, self.corpus, self.fabric)
                self.module.alongside.close(writer.folder, summary, scores)
            writer.close(summary)
            writer.drop_checkpoint()
        self.fabric.barrier()

    def _plan(self) -> str:
        """What is about to be trained, in words."""
        settings, data, fabric = self.settings, self.recipe.data, self.fabric
        items = settings.accumulate * data.batch_size * fabric.world_size
        where = fabric.device.type if fabric.world_size == 1 else f"{fabric.world_size} processes, {fabric.device.type}"
        done = f" of which {self.progress.step} are done" if self.progress.step else ""
        return (
            f"{count_parameters(self.model) / 1e6:.2f} M parameters, {self.classes} classes; {self.total_steps} steps"
            f"{done} of {items} × {data.crop_s:g} s, {self.steps_per_epoch} an epoch; {self.precision} on {where}"
        )

    def _prepare_methods(self) -> None:
        """What methods compute once, on whole utterances; a run that is resumed finds it done."""
        for method in self.module.distillation_methods():
            with self.fabric.autocast():
                told = method.prepare(self.batches.whole, self.corpus.info.fingerprint)
            self._tell(told)
        self.fabric.barrier()

    def _tell(self, note: str | None) -> None:
        """A line above the progress bar; none for nothing."""
        if note:
            tell(f"      {note}")

    def _epoch(self, epoch: int, writer: RunWriter, bar: Bar, started: float) -> None:
        settings, progress = self.settings, self.progress
        first = progress.step - epoch * self.steps_per_epoch
        sums = {name: torch.tensor(value, device=self.fabric.device) for name, value in progress.epoch_sums.items()}
        stream = iter(self.batches.epoch(epoch, start_batch=first * settings.accumulate))
        waited = 0.0
        for in_epoch in range(first, self.steps_per_epoch):
            step = progress.step
            # A generator seeded by step makes dropout and sampled tokens resumable without saving its state.
            torch.manual_seed(_step_seed(self.recipe.seed, step, self.fabric.global_rank))
            fraction = step / self.total_steps
            self.module.set_progress(fraction)
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate(settings, step, self.total_steps)
            for part in range(settings.accumulate):
                batch = next(stream)
                waited += batch.wait_s
                with self.fabric.no_backward_sync(self.wrapped, enabled=part < settings.accumulate - 1):
                    loss, terms = self._loss(batch, fraction)
                    self.fabric.backward(loss / settings.accumulate)
                for name, value in terms.items():
                    sums[name] = sums.get(name, 0.0) + value.float() / settings.accumulate
            if settings.clip_norm:
                self.fabric.clip_gradients(
                    self.wrapped, self.wrapped_optimizer, max_norm=settings.clip_norm, error_if_nonfinite=False
                )
            self.wrapped_optimizer.step()
            self.wrapped_optimizer.zero_grad()
            if self.average and self.module.classifier:
                self.average.follow(self.model, self.module.classifier, step, fraction)
            progress.step += 1
            bar.update()
            if progress.step % _READ_LOSS_EVERY == 0 or in_epoch == self.steps_per_epoch - 1:
                progress.epoch_sums = {name: float(value) for name, value in sums.items()}
                self._expect_finite(progress.epoch_sums)
                term, sum_so_far = next(iter(progress.epoch_sums.items()))  # the speaker loss, where there is one
                bar.set_postfix({"epoch": epoch + 1, term: f"{sum_so_far / (in_epoch + 1):.3f}"}, refresh=False)
                if in_epoch < self.steps_per_epoch - 1 and writer.checkpoint_due():
                    progress.seconds = time.monotonic() - started
                    writer.checkpoint(progress)
        progress.epoch_sums["load_s"] = waited

    def _loss(self, batch: Batch, fraction: float) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        batch = batch.to(self.fabric.device, non_blocking=True)
        with torch.no_grad():
            waveforms = self.augmenter.augment_waveforms(batch)
            plain, _ = self.model.extract_features(waveforms)
            features = self.augmenter.augment_features(plain, batch)
            augment = functools.partial(self.augmenter.augment_features, batch=batch, teacher=True)
            alike = self.recipe.augmentation.random_erasing_teacher == "same" or self.recipe.distillation is None
            heard = features if alike else augment(plain)
        labels = batch.labels if self.batches.labelled else None
        inputs = Inputs(waveforms, features, labels, batch, teacher_features=heard, augment=augment)
        view = None
        if self.teacher:
            with self.fabric.autocast():
                view = self.teacher.view(inputs)
        loss, terms = self.wrapped(inputs, view, fraction)
        return loss, terms

    def _end_epoch(self, epoch: int, writer: RunWriter, log: RunLog | None, started: float) -> None:
        progress, settings = self.progress, self.settings
        waited = progress.epoch_sums.pop("load_s")
        row: dict[str, Any] = {"epoch": epoch + 1, "step": progress.step}
        sums = self.fabric.all_reduce({k: torch.tensor(v) for k, v in progress.epoch_sums.items()}, reduce_op="mean")
        row |= {f"loss/{name}": float(value) / self.steps_per_epoch for name, value in sums.items()}
        row |= {"learning_rate": self.optimizer.param_groups[0]["lr"], "load_s": waited}
        last = progress.step >= self.total_steps
        if (epoch + 1) % settings.evaluate_every == 0 or last:
            scores = self._score_dev()
            if scores is not None:
                row |= {"dev/eer": scores.eer, "dev/min_dcf": scores.min_dcf}
                if scores.eer < progress.best_eer:
                    progress.best_eer, progress.best_step, progress.worse_evaluations = scores.eer, progress.step, 0
                    writer.save_weights()
                else:
                    progress.worse_evaluations += 1
                    progress.stopped_early = 0 < settings.patience <= progress.worse_evaluations
        if progress.best_step < 0 and last:
            writer.save_weights()
        progress.epoch_sums = {}
        progress.seconds = time.monotonic() - started
        row["seconds"] = progress.seconds
        if log is not None:
            log.epoch(row)
            tell(_line(row, settings.epochs))
        writer.checkpoint(progress)

    def _score_dev(self) -> DevScores | None:
        """Scores of the dev trials, computed by the first process and known to all; None without dev trials."""
        scores = None
        if self.fabric.is_global_zero:
            scores = score_dev(self.model, self.corpus, self.fabric)
        shared: DevScores | None = self.fabric.broadcast(scores)
        return shared

    def _expect_finite(self, sums: dict[str, float]) -> None:
        bad = [name for name, value in sums.items() if not math.isfinite(value)]
        if bad:
            raise TrainingError(
                f"the {bad[0]} loss is no longer finite at step {self.progress.step}; lower training.learning_rate, "
                "or set training.precision to fp32"
            )

    def _made_from(self) -> dict[str, str]:
        """Checksums of what the recipe names by path alone."""
        teacher = {"teacher": " ".join(self.teacher.checksums)} if self.teacher else {}
        return {"corpus": self.corpus.info.fingerprint, **teacher}

    def _embeds_like(self) -> list[str]:
        """Checksums of teachers whose embeddings the student was trained to give, with no map between."""
        direct = any(
            isinstance(getattr(method, "projector", None), torch.nn.Identity) and self.module.weights[name] > 0
            for name, method in self.module.methods.items()
        )
        return [self.teacher.checksum] if direct and self.teacher and self.teacher.checksum else []

    def _summary(self) -> dict[str, Any]:
        """What `summary.json` says, checksums apart."""
        progress = self.progress
        utterances = progress.step * self.settings.accumulate * self.recipe.data.batch_size * self.fabric.world_size
        return {
            "parameters": count_parameters(self.model),
            "parameters_added_for_training": self.module.added_parameters(),
            "classes": self.classes,
            "best_dev_eer": progress.best_eer if progress.best_step >= 0 else None,
            "best_step": progress.best_step if progress.best_step >= 0 else progress.step,
            "steps": progress.step,
            "epochs": progress.step // self.steps_per_epoch,
            "stopped_early": progress.stopped_early,
            "seconds": round(progress.seconds, 1),
            "utterances_per_s": round(utterances / max(progress.seconds, 1e-9), 1),
            "precision": self.precision,
            "processes": self.fabric.world_size,
            "hardware": hardware(),
            "teacher": self.teacher.note if self.teacher else "",
            "corpus": self.corpus.info.name,
            "corpus_fingerprint": self.corpus.info.fingerprint,
            "synthetic": self.corpus.info.synthetic,
            "parvox_version": __version__,
            names.EMBEDS_LIKE: self._embeds_like(),
        }


def _line(row: dict[str, Any], epochs: int) -> str:
    losses = ", ".join(f"{name.removeprefix('loss/')} {row[name]:.3f}" for name in row if name.startswith("loss/"))
    dev = f", dev EER {100 * row['dev/eer']:.2f} %" if "dev/eer" in row else ""
    return f"      epoch {row['epoch']}/{epochs}: loss {losses}{dev} ({row['seconds']:.0f} s)"


def _step_seed(seed: int, step: int, rank: int) -> int:
    digest = hashlib.blake2b(f"{seed}/{step}/{rank}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1  # torch takes 63 bits
