"""One build from images to bundle: the order of the steps."""

from __future__ import annotations

import gc
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_agent.errors import ConfigError
from edge_agent.inference.bundle import Bundle, load_bundle, make_interpreter
from edge_agent.inference.decision import point_scores
from edge_agent.inference.head import Head, encode_heads, read_heads
from edge_agent.inference.interpreter import Interpreter
from edge_agent.inference.novelty import NoveltyScorer, Reference
from model_build.array_types import BoolArray, Float32Array, Int64Array
from model_build.arrays import pack_arrays
from model_build.bundle.golden import golden_vectors
from model_build.bundle.write import write_bundle
from model_build.config import BuildConfig
from model_build.data.audit.shortcuts import image_shortcuts
from model_build.data.cohort import draw_representative, draw_training, read_cohort_images, split_patients
from model_build.data.split import refuse_leakage, refuse_too_few
from model_build.environment import environment
from model_build.evaluation.held_out_metrics import Counts, HeldOutOutputs, Measured, calibrate_and_choose, measure
from model_build.evaluation.held_out_outputs import MeasuredModel, evidence_mapper, keep_held_out
from model_build.heads import fit as classical
from model_build.heads.embed import Embedded, embed_images, measure_latency_ms
from model_build.heads.novelty_reference import fit_reference, pack_reference
from model_build.heads.raw_pixel_baseline import baseline_logits
from model_build.heads.self_training import fit_self_trained_heads
from model_build.progress import Shown, files_read
from model_build.report.html import write_html_report
from model_build.report.markdown import metrics_for_manifest, render_model_card, render_report
from model_build.report.result import Report
from model_build.run_folder import (
    BUNDLE,
    CHECKPOINT,
    EPOCHS,
    HELD_OUT,
    MEASURED,
    PIXELS,
    REPORT_JSON,
    REPORT_TEXT,
    FoldFiles,
    fold_files,
    write_json,
    write_whole,
)
from model_build.training.epoch_log import NOTHING_DONE, Done, EpochLog, monitor_metrics, read_epochs, read_progress
from model_build.training.quantize import convert_to_int8
from model_build.training.teacher import load_teacher
from model_build.training.train import Phase, Step, Trainer
from model_build.training.trunk.trunk import INPUT_DIVISOR, build_network, load_trunk, multiply_adds, save_trunk

_FLOAT_IMAGES = 1024
"""The most images held as floats at once: a hundred megabytes at 160 x 160."""
FINISH = "finish"


@dataclass(frozen=True)
class Fold:
    """One measured model: its files, the images trained on and those held out, bool, shape (images,)."""

    files: FoldFiles
    trained_on: BoolArray
    held_out: BoolArray


@dataclass(frozen=True)
class Fitted:
    """An int8 model with its heads and reference, and its outputs on all images."""

    model: bytes
    embedded: Embedded
    heads: list[Head]
    reference: Reference


class Build:
    """The state that the steps of one build share."""

    trunk: Any
    trainer: Trainer

    def __init__(self, config: BuildConfig, data: Path, out: Path, progress: Shown, *, teacher: Path | None = None) -> None:
        self.config, self.data, self.out, self.progress, self.teacher = config, data, out, progress, teacher
        self.checkpoint = out / CHECKPOINT
        self._started_s, self._earlier_s = time.monotonic(), 0.0

    def _read(self) -> None:
        config = self.config
        self.images = read_cohort_images(self.data, config, files_read(self.progress), self.out / PIXELS)
        self.patients = [entry.patient for entry in self.images.files]
        everybody = np.ones(len(self.patients), np.bool_)
        held_out, self.official_split = split_patients(self.images, config)
        if not config.source.folds:
            refuse_too_few(self.images, held_out[0], config.source)
        if self.official_split and config.train.finish_epochs:
            raise ConfigError(
                f"{self.data}: has a test split of its own, which train.finish_epochs would train on; set train.finish_epochs = 0,"
                " or draw patients by source.official_split = false"
            )
        # With several folds every image is held out once: leakage over any border shows where each image's side is its fold.
        sides = np.stack(held_out).argmax(axis=0)
        self.shortcuts = image_shortcuts(self.images, config.source.labels, config.seed)
        self.leakage = refuse_leakage(self.images, sides if config.source.folds else held_out[0], config.source)
        kept = fold_files(self.out, config.source.folds)
        self.folds = [Fold(files, draw_training(self.images, ~mask, config), mask) for files, mask in zip(kept, held_out, strict=True)]
        ships_another = bool(config.source.folds or self._finish_phase().epochs)
        self.shipped_on = draw_training(self.images, everybody, config) if ships_another else self.folds[0].trained_on
        self.never_held_out = everybody if config.source.folds else ~held_out[0]

    def _main_phase(self, name: str) -> Phase:
        train = self.config.train
        return Phase(name, 0 if train.is_frozen else train.epochs, train.learning_rate, train.head_learning_rate)

    def _finish_phase(self) -> Phase:
        train = self.config.train
        if self.config.source.folds:
            # There is no one measured model to go on from: the shipped one is trained anew, in the same way.
            return self._main_phase(FINISH)
        # With labels drawn, "everybody" would be more labels than were asked for.
        epochs = 0 if train.is_frozen or train.labels_per_class else train.finish_epochs
        return Phase(FINISH, epochs, train.finish_learning_rate, train.finish_learning_rate)

    def _start_trunk(self) -> None:
        """A pretrained trunk and a fresh trainer."""
        config = self.config
        # Keras keeps the graphs of every model made; over several folds they would fill the memory.
        if hasattr(self, "trainer"):
            del self.trainer, self.trunk
        keras.backend.clear_session()
        gc.collect()
        self.trunk = build_network(config.trunk, config.input.rows, config.input.columns)
        teacher = None
        if self.teacher is not None:
            teacher = load_teacher(self.teacher, config, fingerprint=self.images.fingerprint, held_out=self.folds[0].held_out)
        multilabel = config.task == "multilabel"
        self.trainer = Trainer(self.trunk, len(config.source.labels), config.train, config.seed, multilabel=multilabel, teacher=teacher)

    def _elapsed_s(self) -> float:
        return self._earlier_s + time.monotonic() - self._started_s

    def _train(self, phase: Phase, trained_on: BoolArray, epochs_done: int, monitored: Int64Array) -> None:
        if phase.epochs == 0:
            return
        chosen = np.flatnonzero(trained_on)

        def on_step(step: Step) -> None:
            done = step.epoch * step.batches_per_epoch + step.batch
            self.progress.advance(done, f"epoch {step.epoch + 1} of {phase.epochs}, loss {step.loss:.3f}")

        def on_epoch(done: int) -> None:
            metrics = monitor_metrics(self.trainer.model, self.images, monitored, multilabel=self.config.task == "multilabel")
            self.trainer.elapsed_s = self._elapsed_s()
            # The line first: one that the checkpoint does not hold is dropped on resuming, one that is missing could not be made again.
            self.epoch_log.append(phase.name, done, self.trainer.epoch_losses[-1], self.trainer.elapsed_s, metrics)
            self.trainer.save(self.checkpoint, phase, done)

        batch_size = min(self.config.train.batch_size, len(chosen))
        self.progress.stage(f"training ({phase.name})", phase.epochs * (len(chosen) // batch_size))
        self.trainer.run(
            phase, self.images.pixels, self.images.targets, chosen=chosen, epochs_done=epochs_done, on_step=on_step, on_epoch=on_epoch
        )

    def _fit(self, trained_on: BoolArray, allowed: BoolArray) -> Fitted:
        """Convert the trunk as it stands, embed every image, and fit heads and reference on the images trained on.

        Of the other images in ``allowed``, self-training uses the pixels.
        """
        config, source = self.config, self.config.source
        self.progress.stage("int8 conversion", 1)
        model = convert_to_int8(self.trunk, self.images.pixels[draw_representative(np.flatnonzero(trained_on), config)])
        self.progress.stage("int8 embedding", 1)
        embedded = embed_images(model, self.images.pixels)
        self.progress.stage("heads", 1)
        if config.train.self_training:
            heads = fit_self_trained_heads(embedded.embeddings, self.images.targets, trained_on, allowed & ~trained_on, config)
        else:
            heads = classical.fit_heads(
                embedded.embeddings[trained_on], self.images.targets[trained_on], source.labels, config.task, source.positive, config.head
            )
        return Fitted(model, embedded, heads, fit_reference(embedded, self.images.strata, trained_on, config.seed))

    def _float_embeddings(self, chosen: Int64Array) -> Float32Array:
        # By `predict`: called directly, Keras compiles every convolution for every batch size, which takes longer than the training.
        parts = np.array_split(chosen, -(-len(chosen) // _FLOAT_IMAGES))
        inputs = (self.images.pixels[part].astype(np.float32) / INPUT_DIVISOR for part in parts)
        return np.concatenate([np.asarray(self.trunk.predict(values, batch_size=64, verbose=0)[0]) for values in inputs])

    def _measure_fold(self, fold: Fold, done: Done) -> None:
        """Train and measure one model, and keep what it says of its held-out images; nothing where that is kept already."""
        files = fold.files
        phase, epochs_done = self._main_phase(files.stem.replace("-", " ") if self.config.source.folds else "measure"), 0
        if files.outputs.exists():
            return
        self._start_trunk()
        held_out = np.flatnonzero(fold.held_out)
        if files.trunk.exists():
            load_trunk(self.trainer.model, files.trunk)
            self.trainer.epoch_losses = [entry.loss for entry in read_epochs(self.epoch_log.path) if entry.phase == phase.name]
        else:
            if done.phase == phase.name:
                _, epochs_done = self.trainer.restore(self.checkpoint)
            self._train(phase, fold.trained_on, epochs_done, held_out)
            self.trainer.use_averages()
            save_trunk(self.trainer.model, files.trunk)
        fitted = self._fit(fold.trained_on, ~fold.held_out)
        write_whole(files.model, fitted.model)
        write_whole(files.heads, encode_heads(fitted.heads))
        write_whole(files.reference, pack_reference(fitted.reference))
        arrays: dict[str, NDArray[Any]] = {
            "logits": classical.head_logits(fitted.heads, fitted.embedded.embeddings),
            "float_logits": classical.head_logits(fitted.heads, self._float_embeddings(held_out)),
            "baseline_logits": baseline_logits(self.images, fold.trained_on, fold.held_out, self.config),
            "distances": NoveltyScorer(fitted.reference).distances(fitted.embedded.features[held_out]),
            "epoch_losses": np.array(self.trainer.epoch_losses),
        }
        write_whole(files.outputs, pack_arrays(**arrays))

    def _measure(self) -> tuple[Measured, Float32Array]:
        """Join the outputs of the folds' models on their held-out images; also their logits for all images, shape (images, heads)."""
        logits: list[Float32Array] = []
        float_logits, baseline, distances, losses = [], [], [], []
        for fold in self.folds:
            with np.load(fold.files.outputs, allow_pickle=False) as arrays:
                logits.append(arrays["logits"])
                float_logits.append(arrays["float_logits"])
                baseline.append(arrays["baseline_logits"])
                distances.append(arrays["distances"])
                losses.append(arrays["epoch_losses"])
        held_out = [np.flatnonzero(fold.held_out) for fold in self.folds]
        indices = np.concatenate(held_out)
        outputs = HeldOutOutputs(
            logits=np.concatenate([values[chosen] for values, chosen in zip(logits, held_out, strict=True)]),
            float_logits=np.concatenate(float_logits),
            baseline_logits=np.concatenate(baseline),
            distances=np.concatenate(distances),
            targets=self.images.targets[indices],
            strata=self.images.strata[indices],
            patients=[self.patients[index] for index in indices.tolist()],
            indices=indices,
            folds=np.concatenate([np.full(len(chosen), number) for number, chosen in enumerate(held_out)]),
        )
        decided = calibrate_and_choose(outputs, self.config)
        models = [self._measured_model(fold) for fold in self.folds]
        keep_held_out(
            self.out / HELD_OUT,
            outputs,
            decided,
            self.config.source.labels,
            self.images.files,
            evidence_mapper(models, self.images.pixels),
        )
        measured = measure(
            outputs,
            decided,
            self.config,
            official_split=self.official_split,
            training=self._counts(np.any([fold.trained_on for fold in self.folds], axis=0)),
            held_out=self._counts(np.any([fold.held_out for fold in self.folds], axis=0)),
            epoch_losses=np.mean(losses, axis=0).tolist(),
        )
        everywhere = logits[0].copy()
        for values, chosen in zip(logits, held_out, strict=True):
            everywhere[chosen] = values[chosen]
        return measured, everywhere

    def _measured_model(self, fold: Fold) -> MeasuredModel:
        model = fold.files.model.read_bytes()
        return MeasuredModel(model, read_heads(fold.files.heads.read_bytes(), Interpreter(model).embedding_size))

    def _counts(self, chosen: BoolArray) -> Counts:
        patients = {patient for patient, taken in zip(self.patients, chosen.tolist(), strict=True) if taken}
        per_label = self.images.targets[chosen].sum(axis=0).tolist()
        return Counts(int(chosen.sum()), len(patients), dict(zip(self.config.source.labels, per_label, strict=True)))

    def run(self, *, resume: bool) -> tuple[Report, Bundle]:
        """Train, measure, finish on all patients, and write bundle and report.

        Returns
        -------
        Report, Bundle
            The bundle as read back from disk and held against its own golden vectors.
        """
        self._read()
        done = read_progress(self.checkpoint) if resume else NOTHING_DONE
        self._earlier_s = done.elapsed_s
        self.epoch_log = EpochLog(self.out / EPOCHS, done)
        if not resume:
            for fold in self.folds:
                for path in (fold.files.outputs, fold.files.trunk):
                    path.unlink(missing_ok=True)
        for fold in self.folds:
            self._measure_fold(fold, done)
        measured, logits = self._measure()
        write_whole(self.out / MEASURED, msgspec.json.encode(measured))
        report, shipped = self._report(measured, logits, self._finish(done))
        return report, self._write(report, shipped)

    def _finish(self, done: Done) -> Fitted:
        """Train the model that ships."""
        phase, epochs_done = self._finish_phase(), 0
        self._start_trunk()
        if self.checkpoint.exists() and (done.phase == FINISH or not self.config.source.folds):
            last_phase, last_epochs = self.trainer.restore(self.checkpoint)
            if last_phase == FINISH:
                epochs_done = last_epochs
            else:
                self.trainer.use_averages()
                self.trainer.restart()
        self._train(phase, self.shipped_on, epochs_done, np.zeros(0, np.int64))
        self.trainer.use_averages()
        return self._fit(self.shipped_on, self.never_held_out)

    def _report(self, measured: Measured, measured_logits: Float32Array, shipped: Fitted) -> tuple[Report, Fitted]:
        """The report, and the model that ships with the calibrations that were chosen on the held-out patients."""
        config, source, points = self.config, self.config.source, measured.decision.points
        calibrations = [chosen.calibration for chosen in measured.calibrations]
        heads = classical.calibrated(shipped.heads, calibrations)
        thresholds = [point.threshold for point in points]

        def outcomes(logits: Float32Array) -> BoolArray:
            probabilities = classical.label_probabilities(config.task, source.labels, source.positive, logits, calibrations)
            return np.asarray(point_scores(points, source.labels, probabilities) >= thresholds)

        agreement = outcomes(classical.head_logits(heads, shipped.embedded.embeddings)) == outcomes(measured_logits)
        report = Report(
            name=config.name,
            version=config.version,
            serial=config.serial,
            task=config.task,
            left_out=self.images.left_out_counts(),
            leakage=self.leakage,
            shortcuts=self.shortcuts,
            fingerprint=self.images.fingerprint,
            measured=measured,
            shipped=self._counts(self.shipped_on),
            shipped_finish_epochs=self._finish_phase().epochs,
            shipped_agreement_with_measured=float(agreement.mean()),
            model_size_bytes=len(shipped.model),
            multiply_adds=multiply_adds(self.trunk),
            embedding_size=shipped.embedded.embeddings.shape[1],
            latency_ms={
                f"{count} thread{'s' if count > 1 else ''}": measure_latency_ms(shipped.model, self.images.pixels[0], count)
                for count in sorted({1, os.cpu_count() or 1})
            },
            build_seconds=self._elapsed_s(),
            environment=environment(),
        )
        return report, replace(shipped, heads=heads)

    def _write(self, report: Report, shipped: Fitted) -> Bundle:
        config, measured = self.config, report.measured
        directory = self.out / BUNDLE
        training: dict[str, Any] = {
            "title": config.source.title,
            "licence": config.source.licence,
            "attribution": config.source.attribution,
            "fingerprint": report.fingerprint,
            "shipped_model": msgspec.to_builtins(report.shipped),
            "measured_model": msgspec.to_builtins(measured.training),
            "config": msgspec.to_builtins(config),
            "environment": report.environment,
        }
        write_bundle(
            directory,
            config,
            model=shipped.model,
            heads=shipped.heads,
            decision=measured.decision,
            reference=pack_reference(shipped.reference),
            golden=golden_vectors(shipped.model, config.input),
            model_card=render_model_card(report, config),
            metrics=metrics_for_manifest(measured),
            training=training,
        )
        write_json(self.out / REPORT_JSON, report)
        write_whole(self.out / REPORT_TEXT, render_report(report, config).encode())
        write_html_report(self.out, report, config, self.images)
        bundle = load_bundle(directory)
        make_interpreter(bundle)
        return bundle
