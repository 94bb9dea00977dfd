"""One build from images to bundle: the order of the steps."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_agent.errors import ConfigError
from edge_agent.inference.bundle import Bundle, DecisionRule, load_bundle, make_interpreter
from edge_agent.inference.head import Head, PlattCalibration
from edge_agent.inference.novelty import NoveltyScorer, Reference
from model_build import head as classical
from model_build.config import BuildConfig
from model_build.data.images import ImageSet, read_images
from model_build.data.phantom import draw_phantom
from model_build.data.split import draw_labels, hold_out, refuse_leakage
from model_build.embed import Embedded, embed_images, measure_latency_ms
from model_build.evaluate import Scored, confusion, estimate_metrics, patient_folds, roc_auc
from model_build.held_out import evidence_mapper, keep_held_out
from model_build.network import INPUT_DIVISOR, build_trunk, load_imagenet_weights
from model_build.package import environment, pack_arrays, write_bundle
from model_build.quantize import convert_to_int8
from model_build.reference import fit_reference, pack_reference
from model_build.report import Counts, Measured, Report, metrics_for_manifest, render_model_card, render_report
from model_build.report_html import write_html_report
from model_build.train import Phase, Step, Trainer
from model_build.weights import imagenet_weights_path, read_state_dict

_GOLDEN_COUNT = 4
_CROSS_FIT_FOLDS = 5


class Progress(Protocol):
    """What a build tells whoever watches it."""

    def stage(self, name: str, total: int) -> None:
        """A new stage of ``total`` steps begins."""

    def advance(self, done: int, note: str) -> None:
        """``done`` steps of the stage are behind us."""


@dataclass(frozen=True)
class Fitted:
    """An int8 model with its head and reference, and its outputs on all images."""

    model: bytes
    embedded: Embedded
    head: Head
    reference: Reference


def _counts(images: ImageSet, chosen: NDArray[np.bool_], config: BuildConfig) -> Counts:
    patients = {entry.patient for entry, taken in zip(images.files, chosen, strict=True) if taken}
    per_label = np.bincount(images.labels[chosen], minlength=len(config.source.labels))
    return Counts(int(chosen.sum()), len(patients), dict(zip(config.source.labels, per_label.tolist(), strict=True)))


class Build:
    """The state that the steps of one build share."""

    def __init__(self, config: BuildConfig, data: Path, out: Path, progress: Progress) -> None:
        self.config, self.data, self.out, self.progress = config, data, out, progress
        self.checkpoint = out / "checkpoint.npz"
        self.measured_path = out / "measured.json"
        self._started_s, self._earlier_s = time.monotonic(), 0.0

    def _read(self) -> None:
        config = self.config

        def on_file(done: int, total: int) -> None:
            if done == 1:
                self.progress.stage("reading images", total)
            self.progress.advance(done, f"{done} of {total} files")

        self.images = read_images(self.data, config.source, config.input, on_file)
        self.patients = [entry.patient for entry in self.images.files]
        self.positive = self.images.labels == config.source.labels.index(config.source.positive[0])
        self.held_out, self.official_split = hold_out(self.images.files, config.source, config.seed)
        if self.official_split and config.train.finish_epochs:
            raise ConfigError(
                f"{self.data}: has a test split of its own, which train.finish_epochs would train on; set train.finish_epochs = 0,"
                " or draw patients by source.official_split = false"
            )
        self.leakage = refuse_leakage(self.images, self.held_out, config.source)
        self.trained_on = ~self.held_out
        if config.train.labels_per_class:
            self.trained_on = draw_labels(self.images.labels, self.trained_on, config.train.labels_per_class, config.seed)

    def _train(self, phase: Phase, chosen: NDArray[np.bool_], epochs_done: int) -> None:
        if phase.epochs == 0:
            return

        def on_step(step: Step) -> None:
            done = step.epoch * step.batches_per_epoch + step.batch
            self.progress.advance(done, f"epoch {step.epoch + 1} of {phase.epochs}, loss {step.loss:.3f}")

        batch_size = min(self.config.train.batch_size, int(chosen.sum()))
        self.progress.stage(f"training ({phase.name})", phase.epochs * (int(chosen.sum()) // batch_size))
        self.trainer.run(
            phase,
            self.images.pixels[chosen],
            self.images.labels[chosen],
            epochs_done=epochs_done,
            on_step=on_step,
            on_epoch=lambda done: self._save(phase, done),
        )

    def _save(self, phase: Phase, epochs_done: int) -> None:
        self.trainer.elapsed_s = self._elapsed_s()
        self.trainer.save(self.checkpoint, phase, epochs_done)

    def _elapsed_s(self) -> float:
        return self._earlier_s + time.monotonic() - self._started_s

    def _fit(self, trained_on: NDArray[np.bool_]) -> Fitted:
        """Convert the trunk as it stands, embed every image, and fit head and reference on the images trained on."""
        config = self.config
        self.progress.stage("int8 conversion", 1)
        candidates = np.flatnonzero(trained_on)
        count = min(config.quantize.representative_images, len(candidates))
        # Sorted by label in the image set: a random draw shows the converter every class.
        drawn = np.random.default_rng(config.seed).choice(candidates, count, replace=False)
        model = convert_to_int8(self.trunk, self.images.pixels[drawn])
        self.progress.stage("int8 embedding", 1)
        embedded = embed_images(model, self.images.pixels)
        self.progress.stage("head", 1)
        fitted_head = classical.fit_head(embedded.embeddings[trained_on], self.positive[trained_on], config.source.positive[0], config.head)
        reference = fit_reference(embedded, self.images.labels, trained_on, config.seed)
        return Fitted(model, embedded, fitted_head, reference)

    def _decision(self, fitted: Fitted) -> tuple[Head, DecisionRule]:
        """Calibrate and choose the operating point and the novelty limit on the held-out patients."""
        rule = self.config.decision
        held_out, positive = self.held_out, self.positive[self.held_out]
        logits = classical.head_logits(fitted.head, fitted.embedded.embeddings[held_out])
        head = classical.calibrated(fitted.head, classical.fit_platt(logits, positive))
        probabilities = classical.head_probabilities(head, fitted.embedded.embeddings[held_out])
        point = classical.choose_operating_point(probabilities, positive, rule)
        distances = NoveltyScorer(fitted.reference).distances(fitted.embedded.features[held_out])
        return head, DecisionRule(
            threshold=point.threshold,
            target=f"held-out sensitivity of {rule.target_sensitivity:g}",
            review_low=point.review_low,
            review_high=point.review_high,
            novelty_limit=float(np.quantile(distances, rule.novelty_quantile)),
            novelty_quantile=rule.novelty_quantile,
        )

    def _cross_fitted(self, fitted: Fitted) -> Scored:
        """Scores and predictions of the held-out images, each with calibration and threshold chosen on the other folds' patients."""
        embeddings, positive = fitted.embedded.embeddings[self.held_out], self.positive[self.held_out]
        patients = [p for p, taken in zip(self.patients, self.held_out, strict=True) if taken]
        folds = patient_folds(patients, _CROSS_FIT_FOLDS, self.config.seed)
        logits = classical.head_logits(fitted.head, embeddings)
        probabilities, predicted = np.zeros(len(logits), np.float32), np.zeros(len(logits), np.bool_)
        for fold in np.unique(folds):
            rest, here = folds != fold, folds == fold
            if len(np.unique(positive[rest])) < 2:
                raise ConfigError("too few held-out patients to choose an operating point; give more data or raise held_out_fraction")
            head = classical.calibrated(fitted.head, classical.fit_platt(logits[rest], positive[rest]))
            point = classical.choose_operating_point(
                classical.head_probabilities(head, embeddings[rest]), positive[rest], self.config.decision
            )
            probabilities[here] = classical.head_probabilities(head, embeddings[here])
            predicted[here] = probabilities[here] >= point.threshold
        return Scored(probabilities, positive, predicted, patients)

    def _measure(self, fitted: Fitted) -> tuple[Head, Measured]:
        held_out, seed = self.held_out, self.config.seed
        head, decision = self._decision(fitted)
        cross_fitted = self._cross_fitted(fitted)
        probabilities = classical.head_probabilities(head, fitted.embedded.embeddings[held_out])
        scored = Scored(probabilities, cross_fitted.positive, probabilities >= decision.threshold, cross_fitted.patients)
        inputs = self.images.pixels[held_out].astype(np.float32) / INPUT_DIVISOR
        float_embeddings = np.asarray(self.trunk.predict(inputs, batch_size=64, verbose=0)[0])
        float_probabilities = classical.head_probabilities(head, float_embeddings)
        distances = NoveltyScorer(fitted.reference).distances(fitted.embedded.features[held_out])
        in_band = (probabilities >= decision.review_low) & (probabilities <= decision.review_high)
        metrics_cross_fitted = estimate_metrics(cross_fitted, seed)
        del metrics_cross_fitted["auc"]  # pooled over folds with different calibrations: not one ranking
        keep_held_out(
            self.out / "held_out.npz",
            probabilities=probabilities,
            cross_fitted=cross_fitted.probabilities,
            positive=scored.positive,
            patients=scored.patients,
            held_out=held_out,
            threshold=decision.threshold,
            evidence_of=evidence_mapper(fitted.model, self.images.pixels, fitted.head),
        )
        return head, Measured(
            official_split=self.official_split,
            training=_counts(self.images, self.trained_on, self.config),
            held_out=_counts(self.images, held_out, self.config),
            metrics=estimate_metrics(scored, seed),
            metrics_cross_fitted=metrics_cross_fitted,
            confusion=confusion(scored.positive, scored.predicted),
            decision=decision,
            calibration_slope=head.calibration.slope,
            calibration_intercept=head.calibration.intercept,
            novel_share_held_out=float((distances > decision.novelty_limit).mean()),
            review_share_held_out=float(in_band.mean()),
            float_auc=roc_auc(float_probabilities, scored.positive),
            int8_auc=roc_auc(probabilities, scored.positive),
            float_int8_agreement=float(((float_probabilities >= decision.threshold) == scored.predicted).mean()),
            epoch_losses=self.trainer.epoch_losses,
        )

    def run(self, *, resume: bool) -> tuple[Report, Bundle]:
        """Train, measure, finish on all patients, and write bundle and report.

        Returns
        -------
        Report, Bundle
            The bundle as read back from disk and held against its own golden vectors.
        """
        config, train = self.config, self.config.train
        self._read()
        self.trunk = build_trunk(config.input.rows, config.input.columns, config.trunk.block_count)
        load_imagenet_weights(self.trunk, read_state_dict(imagenet_weights_path()))
        self.trainer = Trainer(self.trunk, len(config.source.labels), train, config.seed)
        epochs, finish_epochs = (0, 0) if train.is_frozen else (train.epochs, train.finish_epochs)
        measure = Phase("measure", epochs, train.learning_rate, train.head_learning_rate)
        # With labels drawn, "everybody" would be more labels than were asked for.
        finish = Phase("finish", 0 if train.labels_per_class else finish_epochs, train.finish_learning_rate, train.finish_learning_rate)
        phase_name, epochs_done = self.trainer.restore(self.checkpoint) if resume else (measure.name, 0)
        self._earlier_s = self.trainer.elapsed_s
        shipped_on = np.ones(len(self.positive), np.bool_) if finish.epochs else self.trained_on
        if phase_name == measure.name:
            self._train(measure, self.trained_on, epochs_done)
            self.trainer.use_averages()
            fitted = self._fit(self.trained_on)
            head, measured = self._measure(fitted)
            self._keep_measured(fitted, head, measured)
            self.trainer.restart()
            self._save(finish, 0)
            epochs_done = 0
        measured_labels, measured = self._read_measured()
        self._train(finish, shipped_on, epochs_done)
        self.trainer.use_averages()
        shipped = self._fit(shipped_on)
        calibration = PlattCalibration(measured.calibration_slope, measured.calibration_intercept)
        head = classical.calibrated(shipped.head, calibration)
        shipped_labels = classical.head_probabilities(head, shipped.embedded.embeddings) >= measured.decision.threshold
        report = Report(
            name=config.name,
            version=config.version,
            serial=config.serial,
            left_out=self.images.left_out_counts(),
            leakage=self.leakage,
            fingerprint=self.images.fingerprint,
            measured=measured,
            shipped=_counts(self.images, shipped_on, config),
            shipped_finish_epochs=finish.epochs,
            shipped_agreement_with_measured=float((shipped_labels == measured_labels).mean()),
            model_size_bytes=len(shipped.model),
            embedding_size=shipped.embedded.embeddings.shape[1],
            latency_ms={
                f"{count} thread{'s' if count > 1 else ''}": measure_latency_ms(shipped.model, self.images.pixels[0], count)
                for count in sorted({1, os.cpu_count() or 1})
            },
            build_seconds=self._elapsed_s(),
            environment=environment(),
        )
        return report, self._write(report, shipped, head)

    def _keep_measured(self, fitted: Fitted, head: Head, measured: Measured) -> None:
        """Keep what the measured model said of every image, so that a resumed build can still compare the shipped model with it."""
        labels = classical.head_probabilities(head, fitted.embedded.embeddings) >= measured.decision.threshold
        np.save(self.out / "measured_labels.npy", labels)
        (self.out / "measured.tflite").write_bytes(fitted.model)
        self.measured_path.write_bytes(msgspec.json.encode(measured))

    def _read_measured(self) -> tuple[NDArray[np.bool_], Measured]:
        return np.load(self.out / "measured_labels.npy"), msgspec.json.decode(self.measured_path.read_bytes(), type=Measured)

    def _golden(self, model: bytes) -> bytes:
        """Phantoms, half of them with opacities, and the embeddings that this machine computes for them."""
        contract = self.config.input
        inputs = np.stack(
            [
                draw_phantom(seed, rows=contract.rows, columns=contract.columns, opacity_count=seed % 2)[:, :, np.newaxis]
                for seed in range(_GOLDEN_COUNT)
            ]
        )
        return pack_arrays(inputs=inputs, embeddings=embed_images(model, inputs).embeddings)

    def _write(self, report: Report, shipped: Fitted, head: Head) -> Bundle:
        config, measured = self.config, report.measured
        directory = self.out / "bundle"
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
            head=head,
            decision=measured.decision,
            reference=pack_reference(shipped.reference),
            golden=self._golden(shipped.model),
            model_card=render_model_card(report, config),
            metrics=metrics_for_manifest(measured),
            training=training,
        )
        (self.out / "report.json").write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2))
        (self.out / "report.md").write_text(render_report(report, config), encoding="utf-8")
        write_html_report(self.out, report, config, self.images)
        bundle = load_bundle(directory)
        make_interpreter(bundle)
        return bundle


def prepare_out(out: Path, config_text: str, *, resume: bool, warn: Callable[[str], None]) -> bool:
    """Make the run folder and decide whether there is something to go on from.

    Returns
    -------
    bool
        True where a checkpoint of the very same config stands there and ``resume`` asks for it.

    Raises
    ------
    ConfigError
        If the folder holds another build's checkpoint, or one that was not asked to be resumed.
    """
    out.mkdir(parents=True, exist_ok=True)
    kept_config, checkpoint = out / "config.toml", out / "checkpoint.npz"
    if checkpoint.exists() and not resume:
        raise ConfigError(f"{out}: holds a checkpoint; go on from it with --resume, or name another --out")
    if checkpoint.exists() and kept_config.read_text(encoding="utf-8") != config_text:
        raise ConfigError(f"{out}: its checkpoint was made with another config; name another --out")
    if resume and not checkpoint.exists():
        warn(f"{out}: no checkpoint yet; starting from the beginning")
    kept_config.write_text(config_text, encoding="utf-8")
    return resume and checkpoint.exists()
