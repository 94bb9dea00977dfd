"""``manifest.json`` of a bundle: what it may say, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from edge_agent.errors import ModelContractError
from edge_agent.imaging.preprocess import InputContract
from edge_agent.records import NO_FINDING, Task

FORMAT = 2
MANIFEST_NAME = "manifest.json"
Name = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._+-]{0,63}\Z")]
"""It becomes a folder's name, and is shown on screens and in logs."""
Serial = Annotated[int, Meta(ge=0, le=2**53)]
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
Share = Annotated[float, Meta(ge=0.0, le=1.0)]


class FileEntry(msgspec.Struct, frozen=True):
    """Size and checksum of one file of the bundle."""

    sha256: Sha256
    size_bytes: int


class OperatingPoint(msgspec.Struct, frozen=True, kw_only=True):
    """The threshold of one question, and the scores around it that need review.

    The score is the sum of the calibrated probabilities of ``labels``; it is positive from ``threshold`` on, which was chosen for
    ``target``. A score from ``review_low`` to ``review_high`` leads to review.
    """

    labels: list[str]
    threshold: Share
    target: str
    review_low: Share
    review_high: Share


class DecisionRule(msgspec.Struct, frozen=True, kw_only=True):
    """How scores become a decision.

    ``points``: binary and multiclass have one, of the positive labels; multilabel has one for each label, in label order. ``label_margin``
    is for multiclass only: where the best label of the side that won leads the next one of that side by less, the image goes to review.
    ``novelty_limit`` is in the units of the reference's distance; it is the quantile ``novelty_quantile`` of held-out images.
    """

    points: list[OperatingPoint]
    label_margin: Share = 0.0
    novelty_limit: Annotated[float, Meta(gt=0.0)]
    novelty_quantile: Share


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """``manifest.json``: what the bundle is, for whom, how it decides, how it was made, and the checksum of every other file.

    ``positive``: one of two labels (binary), some but not all (multiclass), or every label (multilabel).
    """

    format: int
    name: Name
    version: Name
    serial: Serial
    task: Task
    labels: list[str]
    positive: list[str]
    input: InputContract
    decision: DecisionRule
    population: str
    intended_use: str
    limitations: list[str]
    metrics: dict[str, Any]
    training: dict[str, Any]
    files: dict[str, FileEntry]


def parse_manifest(path: Path, content: bytes) -> Manifest:
    """Read the bytes of a bundle's ``manifest.json``; ``path`` is the bundle, for messages.

    Raises
    ------
    ModelContractError
        If it is no manifest of the format that this version reads, or contradicts itself.
    """
    where = path / MANIFEST_NAME
    try:
        number = msgspec.json.decode(content, type=dict[str, Any]).get("format")
        if number != FORMAT:
            raise ModelContractError(
                f"{path}: bundle format {number!r}, and this version reads format {FORMAT};"
                " build the bundle again with the model-build of this version"
            )
        manifest = msgspec.json.decode(content, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as fault:
        raise ModelContractError(f"{where}: {fault}") from fault
    for refusal in (_labels_refusal(manifest), _decision_refusal(manifest)):
        if refusal:
            raise ModelContractError(f"{where}: {refusal}")
    return manifest


def _labels_refusal(manifest: Manifest) -> str | None:
    """What is wrong with the labels and the positive ones; None where they fit the task."""
    task, labels, positive = manifest.task, manifest.labels, manifest.positive
    said = f"task {task!r} with labels {labels} and positive {positive}"
    for label in labels:
        # A label stands on screens, and in CSV cells, where a semicolon separates labels.
        if not label.strip() or not label.isprintable() or ";" in label:
            return f"the label {label!r} is empty, or has a semicolon or a character that cannot be printed"
    if len(set(labels)) != len(labels) or len(set(positive)) != len(positive) or not set(positive) <= set(labels):
        return f"{said}: labels must differ, and the positive ones be among them, each once"
    if task == "binary" and not (len(labels) == 2 and len(positive) == 1):
        return f"{said}: a binary model has two labels, one of them positive"
    if task == "multiclass" and not (len(labels) >= 3 and 0 < len(positive) < len(labels)):
        return f"{said}: a multiclass model has three labels or more, some of them positive but not all"
    if task == "multilabel" and not (labels and positive == labels and NO_FINDING not in labels):
        return f"{said}: in a multilabel model every label is positive, in the same order, and none is {NO_FINDING!r}"
    return None


def _decision_refusal(manifest: Manifest) -> str | None:
    """What is wrong with the decision rule; None where it fits the task and its labels."""
    rule = manifest.decision
    wanted = [[label] for label in manifest.labels] if manifest.task == "multilabel" else [manifest.positive]
    given = [point.labels for point in rule.points]
    if given != wanted:
        return f"the operating points are for {given}; a {manifest.task} model needs {wanted}"
    for point in rule.points:
        if not point.review_low <= point.threshold <= point.review_high:
            return f"the review band of {' + '.join(point.labels)} does not hold its operating point"
    if rule.label_margin > 0.0 and manifest.task != "multiclass":
        return f"decision.label_margin is for multiclass models, not for a {manifest.task} one"
    return None
