"""Measure a finished bundle on labelled images in any layout, by the very code that runs on the device."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np

from edge_agent.errors import ConfigError, InputFault
from edge_agent.imaging.decode import decode_image
from edge_agent.inference.bundle import Bundle, load_bundle
from edge_agent.inference.classifier import Classifier
from edge_agent.inference.manifest import Manifest
from edge_agent.records import Verdict
from model_build.array_types import BoolArray, Float32Array, Int64Array
from model_build.config import SourceConfig, load_build_config
from model_build.data.classes import choose_classes, targets_of
from model_build.data.example import Split
from model_build.data.layouts.reading import list_source
from model_build.evaluation.metric_names import metric_name
from model_build.metrics.bootstrap import estimate_figure, patient_draws
from model_build.metrics.classification import class_counts, confusion, estimate_metrics, label_aucs, point_scored
from model_build.tables import Block, Table, confusion_table, render_markdown

_COLUMNS = ("", "value (95 % interval)")


@dataclass
class _Seen:
    """What was classified so far, one entry for each readable image."""

    verdicts: list[Verdict] = field(default_factory=list)
    classes: list[tuple[int, ...]] = field(default_factory=list)
    patients: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def source_of(bundle: Bundle, config: Path | None, merge: Mapping[str, str] | None = None, **changes: str) -> SourceConfig:
    """How the labelled images are laid out: as another build's TOML says, or as the bundle's own training data were.

    Parameters
    ----------
    bundle : Bundle
    config : Path or None
        A build's TOML; its labels must be the bundle's.
    merge : mapping of str to str, optional
        From the names that these data have to labels of the bundle, beside those that the source knows.
    **changes : str
        Fields of the source to set otherwise, such as ``layout``, ``patient_pattern`` or ``table``.

    Raises
    ------
    ConfigError
        If the labels differ, ``merge`` leads to none of them, or the bundle does not say how its data were laid out.
    """
    if config is not None:
        source = load_build_config(config).source
        if source.labels != bundle.manifest.labels:
            raise ConfigError(f"{config}: its labels {source.labels} are not the bundle's {bundle.manifest.labels}, in this order")
    else:
        try:
            source = msgspec.convert(bundle.manifest.training["config"]["source"], SourceConfig)
        except (KeyError, TypeError, msgspec.ValidationError) as fault:
            raise ConfigError(
                f"{bundle.directory}: does not say how its data were laid out ({fault}); name a build's TOML by --config"
            ) from fault
    merge = {**source.merge, **(merge or {})}
    if unknown := sorted({*merge.values()} - {*source.labels}):
        raise ConfigError(f"--merge: {unknown[0]!r} is none of the bundle's labels {source.labels}")
    return msgspec.structs.replace(source, merge=merge, **changes)


def evaluate_bundle(bundle: Bundle, data: Path, source: SourceConfig, split: Split | None = None) -> str:
    """Run a bundle over labelled images.

    Parameters
    ----------
    bundle : Bundle
    data : Path
        The data folder.
    source : SourceConfig
        From :func:`source_of`.
    split : {"train", "val", "test"} or None
        Only the images of this part of the data set's own split.

    Returns
    -------
    str
        Markdown: AUC, sensitivity, specificity, accuracy with 95 % intervals over patients at each operating point, the confusion matrix,
        the share of each decision, how many images were labelled wrong without a person being asked, and the files that could not be read.

    Raises
    ------
    ConfigError
        If the layout's reader finds a fault, or no image can be measured.
    """
    manifest, classifier, seen = bundle.manifest, Classifier(bundle), _Seen()
    for example in list_source(data, source):
        classes = choose_classes(example, source, manifest.task)
        if classes is None or (split is not None and example.split != split):
            continue
        try:
            frame = decode_image((data / example.path).read_bytes(), rows=manifest.input.rows, columns=manifest.input.columns)
        except InputFault as fault:
            seen.left_out.append(f"{example.path}: {fault.message}")
            continue
        except OSError as fault:
            seen.left_out.append(f"{example.path}: cannot be read from the disk: {fault.strerror}")
            continue
        seen.verdicts.append(classifier.classify(frame))
        seen.classes.append(classes)
        seen.patients.append(example.patient)
    if not seen.verdicts:
        raise ConfigError(f"{data}: holds no readable image{f' of the {split} split' if split else ''} to measure")
    return render_markdown(_render(manifest, seen))


def _render(manifest: Manifest, seen: _Seen) -> list[Block]:
    labels, count = manifest.labels, len(seen.verdicts)
    targets = targets_of(seen.classes, len(labels))
    probabilities = np.array([[verdict.scores[label] for label in labels] for verdict in seen.verdicts], np.float32)
    blocks: list[Block] = [f"{manifest.name} {manifest.version} on {count} images of {len(set(seen.patients))} patients"]
    if manifest.task != "binary":
        blocks += _overall(manifest, seen, probabilities)
    points = manifest.decision.points
    for scored, point in zip(point_scored(points, labels, probabilities, targets, seen.patients), points, strict=True):
        if manifest.task != "binary":
            blocks.append(f"{' or '.join(point.labels)}:")
        matrix = confusion(scored.positive, scored.predicted)
        blocks += [
            Table(_COLUMNS, [(metric_name(name), estimate) for name, estimate in estimate_metrics(scored, 0).items()]),
            f"true positive {matrix.true_positive}, false negative {matrix.false_negative},"
            f" true negative {matrix.true_negative}, false positive {matrix.false_positive}",
        ]
    decisions = Counter(verdict.decision for verdict in seen.verdicts)
    novel = sum(not verdict.novelty <= 1.0 for verdict in seen.verdicts)
    shares = ", ".join(f"{name} {decisions[name] / count:.1%}" for name in ("positive", "negative", "review"))
    last = [f"{shares}; novel {novel / count:.1%}", _alone(manifest, seen, targets), *[f"left out: {x}" for x in seen.left_out]]
    return [*blocks, "\n".join(last)]


def _alone(manifest: Manifest, seen: _Seen, targets: BoolArray) -> str:
    """What becomes of the images that are not sent to review: nobody corrects these."""
    matters = targets[:, [manifest.labels.index(label) for label in manifest.positive]].any(axis=1)
    decisions = np.array([verdict.decision for verdict in seen.verdicts])
    negative, positive = decisions == "negative", decisions == "positive"
    return (
        f"decided without a person: {negative.sum()} negative, {(negative & matters).sum()} of them wrong;"
        f" {positive.sum()} positive, {(positive & ~matters).sum()} of them wrong"
    )


def _overall(manifest: Manifest, seen: _Seen, probabilities: Float32Array) -> list[Block]:
    """Mean AUC over the labels, and for classes accuracy and the confusion matrix."""
    labels, draws = manifest.labels, patient_draws(seen.patients, 0)
    targets = targets_of(seen.classes, len(labels))

    def mean_auc(chosen: Int64Array) -> float:
        values = label_aucs(probabilities[chosen], targets[chosen])
        return float("nan") if np.isnan(values).all() else float(np.nanmean(values))

    rows = [("mean AUC over the labels that are there", estimate_figure(mean_auc, draws))]
    if manifest.task != "multiclass":
        return [Table(_COLUMNS, rows)]
    truth = targets.argmax(axis=1)
    predicted = np.array([labels.index(verdict.label) for verdict in seen.verdicts], np.int64)
    rows.append(("accuracy", estimate_figure(lambda i: float((predicted[i] == truth[i]).mean()), draws)))
    return [Table(_COLUMNS, rows), confusion_table(class_counts(truth, predicted, len(labels)).tolist(), labels)]


def load_and_evaluate(
    bundle_path: Path, data: Path, config: Path | None, split: Split | None, merge: Mapping[str, str], **changes: str
) -> str:
    """As :func:`evaluate_bundle`, from the bundle's folder and what the command line says of the data."""
    bundle = load_bundle(bundle_path)
    return evaluate_bundle(bundle, data, source_of(bundle, config, merge, **changes), split)
