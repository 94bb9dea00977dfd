"""A build is one TOML file; these frozen values are what it may say."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from edge_agent.errors import ConfigError
from edge_agent.imaging.preprocess import InputContract
from edge_agent.records import Task

Fraction = Annotated[float, Meta(gt=0.0, lt=1.0)]
Count = Annotated[int, Meta(ge=1)]
Rate = Annotated[float, Meta(gt=0.0)]
LayoutName = Literal["folders", "nih", "cbis-ddsm", "mini-mias", "manifest"]
HeadKind = Literal[
    "logistic_regression", "linear_discriminant", "linear_svm", "rbf_svm", "nearest_prototype", "random_forest", "gradient_boosting"
]
OptimizerName = Literal["adamw", "adam", "sgd"]
LossName = Literal["cross_entropy", "focal"]
_ADAMW_DECAY = 1e-2
CalibrationMethod = Literal["simplest", "best", "temperature", "platt", "isotonic"]
PointRule = Literal["target_sensitivity", "target_specificity", "youden", "cost"]
_RULE_KEYS: dict[PointRule, tuple[str, ...]] = {
    "target_sensitivity": ("target_sensitivity",),
    "target_specificity": ("target_specificity",),
    "youden": (),
    "cost": ("cost_missed", "cost_false_alarm", "prevalence"),
}
"""The keys of [decision] that each rule reads."""
_RULE_DEFAULTS = {"target_sensitivity": 0.97, "target_specificity": 0.95}
_REGULARIZATION: dict[str, float] = {"logistic_regression": 0.1, "linear_svm": 0.01, "rbf_svm": 1.0}
"""The defaults; the kinds that are not here have no regularisation."""


class SourceConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where the images come from, and which of them make the classes.

    ``layout`` says how the data folder is laid out. For ``folders``, ``patient_pattern`` is searched in the file name, and what its first
    group matches names the patient; the other layouts name patients themselves. For ``manifest``, ``table`` is the CSV file's name.

    ``labels`` are the build's classes: two for task binary, three or more for multiclass, of which every image has exactly one; one or more
    findings for multilabel, of which an image has any number. ``positive`` are those that matter: one of two, some of many, every finding
    (multilabel: leave it out). ``merge`` turns a label of the data set into one of ``labels``; the labels in ``leave_out`` ("*": all
    others) are passed over. An image that has no class left is left out; for multilabel it stays, without any finding.

    ``negative``, for multilabel, are the data set's names for "no finding" ("No Finding" for layout ``nih`` need not be said; neither need
    an empty cell of a manifest). Any further label is an error.

    ``official_split``: where the data set has a split of its own, its test images are the held-out ones; otherwise, and where this is
    false, the share ``held_out_fraction`` of the patients is drawn. ``folds`` instead, from 2 on, holds out every patient once, in so many
    parts (k-fold cross-validation). ``allow_leakage`` trains although a patient or nearly the same image stands on both sides;
    ``group_near_copies`` holds nearly identical images together as one patient, where the data set cannot tell patients apart.
    """

    layout: LayoutName = "folders"
    labels: list[str]
    positive: list[str] = []
    patient_pattern: str = ""
    table: str = "manifest.csv"
    merge: dict[str, str] = {}
    leave_out: list[str] = []
    negative: list[str] = []
    official_split: bool = True
    allow_leakage: bool = False
    group_near_copies: bool = False
    held_out_fraction: Fraction = 0.2
    folds: Annotated[int, Meta(ge=0)] = 0
    title: str
    licence: str
    attribution: str


class TrunkConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The CNN: "efficientnet_lite0", pretrained on ImageNet, or "tiny", a small network of random weights for the smallest boards.

    ``block_count`` is for efficientnet_lite0: it is cut after so many of its sixteen blocks (11 if not given). ``width`` is for tiny: the
    factor on its channels (1 if not given).
    """

    kind: Literal["efficientnet_lite0", "tiny"] = "efficientnet_lite0"
    block_count: Annotated[int, Meta(ge=1, le=16)] | None = None
    width: Annotated[float, Meta(gt=0, le=4)] | None = None

    def __post_init__(self) -> None:
        if self.kind == "tiny" and self.block_count is not None:
            raise ValueError("block_count is for kind efficientnet_lite0; 'tiny' is never cut, so remove it")
        if self.kind != "tiny" and self.width is not None:
            raise ValueError(f"width is for kind tiny; {self.kind!r} has one width only, so remove it")

    @property
    def kept_blocks(self) -> int:
        """``block_count``, or its default."""
        return self.block_count or 11

    @property
    def width_factor(self) -> float:
        """``width``, or its default."""
        return self.width or 1.0


class AugmentationConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Ranges of the random changes, drawn anew for every image and epoch.

    Angles in degrees, shifts as a fraction of the image's side, ``scale``, ``aspect``, ``contrast`` as a relative range, ``brightness`` and
    ``noise`` on a scale where white is 1. ``gamma`` is drawn between its inverse and itself.

    The last three change a film as its way does, and are off unless asked for: the shares of images that are stored at a smaller size (down
    to a third) and as JPEG (quality 10 to 95), and the width, as a fraction of the side, up to which strips along the sides are painted
    over in half of the images.
    """

    flip: bool = True
    rotation_deg: Annotated[float, Meta(ge=0)] = 10.0
    scale: Annotated[float, Meta(ge=0, lt=1)] = 0.15
    aspect: Annotated[float, Meta(ge=0, lt=1)] = 0.10
    shift: Annotated[float, Meta(ge=0, lt=1)] = 0.10
    gamma: Annotated[float, Meta(ge=1)] = 1.5
    brightness: Annotated[float, Meta(ge=0, lt=1)] = 0.10
    contrast: Annotated[float, Meta(ge=0, lt=1)] = 0.25
    blur_probability: Annotated[float, Meta(ge=0, le=1)] = 0.3
    noise: Annotated[float, Meta(ge=0, lt=1)] = 0.03
    low_resolution_probability: Annotated[float, Meta(ge=0, le=1)] = 0.0
    jpeg_probability: Annotated[float, Meta(ge=0, le=1)] = 0.0
    border: Annotated[float, Meta(ge=0, lt=0.5)] = 0.0


class DistillationConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Learning from a teacher, a finished run of a larger network on the same training patients, beside the labels.

    The loss of the labels has weight 1. ``logit_weight`` is that of the teacher's probabilities, softened by ``temperature``;
    ``feature_weight`` that of its feature map.
    """

    temperature: Rate = 2.0
    logit_weight: Annotated[float, Meta(ge=0)] = 1.0
    feature_weight: Annotated[float, Meta(ge=0)] = 1.0


class TrainConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Fine-tuning of the CNN.

    ``epochs`` run on the training patients. ``finish_epochs`` then go on from there on all patients, at ``finish_learning_rate``: the first
    model gives the reported figures, the second is shipped. Both rates are peaks: a one-cycle schedule rises to them and falls to zero.

    ``labels_per_class`` draws so many images of each class from the training patients and trains on nothing else; 0 takes all. Below
    ``fine_tune_from`` of them the pretrained CNN stays as it is and only the head is fitted: so few images would spoil it. With
    ``self_training`` that head then labels the training patients' other images, whose labels are not looked at, and is fitted once more on
    all: the labelled images and the others count as much in all.

    ``weight_decay`` is for the optimizer adamw alone (0.01 if not given). "sgd" has Nesterov momentum 0.9 and as a rule wants far higher
    rates. "focal" is focal loss with gamma 2. Without ``shuffle`` the images come in the order of the data set, which for most layouts is
    class by class.
    """

    labels_per_class: Annotated[int, Meta(ge=0)] = 0
    fine_tune_from: Count = 250
    self_training: bool = False

    epochs: Count = 8
    batch_size: Count = 32
    shuffle: bool = True
    optimizer: OptimizerName = "adamw"
    loss: LossName = "cross_entropy"
    learning_rate: Rate = 5e-4
    head_learning_rate: Rate = 2e-3
    weight_decay: Annotated[float, Meta(ge=0)] | None = None
    label_smoothing: Annotated[float, Meta(ge=0, lt=1)] = 0.05
    average_decay: Fraction = 0.99
    finish_epochs: Annotated[int, Meta(ge=0)] = 2
    finish_learning_rate: Rate = 1e-4
    augmentation: AugmentationConfig = AugmentationConfig()
    distillation: DistillationConfig | None = None

    def __post_init__(self) -> None:
        if self.weight_decay is not None and self.optimizer != "adamw":
            raise ValueError(f"weight_decay is for the optimizer adamw; {self.optimizer!r} has none, so remove it")
        if self.self_training and not self.is_frozen:
            raise ValueError("self_training needs labels_per_class, and fewer than fine_tune_from; remove it or set them so")

    @property
    def decay(self) -> float:
        """``weight_decay``, or adamw's default."""
        return _ADAMW_DECAY if self.weight_decay is None else self.weight_decay

    @property
    def is_frozen(self) -> bool:
        """Whether the labels are too few to fine-tune the CNN."""
        return 0 < self.labels_per_class < self.fine_tune_from


class QuantizeConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Int8 conversion; the representative images are drawn from the training patients only."""

    representative_images: Count = 300


class HeadConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The classical head.

    ``inverse_regularization`` is scikit-learn's ``C``, for logistic_regression (0.1 if not given), linear_svm (0.01) and rbf_svm (1.0).
    Only the linear kinds (logistic_regression, linear_discriminant, linear_svm) can draw heatmaps.

    ``calibration`` makes probabilities of its logits, fitted on the held-out patients. "best" takes the method with the lowest log loss on
    held-out patients that it was not fitted on; "simplest" the one with the fewest numbers (temperature, then Platt, then isotonic) whose
    log loss is within one standard error of the lowest: it loses less where the images change (`model-build simulate-shift`).
    """

    kind: HeadKind = "logistic_regression"
    inverse_regularization: Rate | None = None
    calibration: CalibrationMethod = "simplest"

    @property
    def regularization(self) -> float:
        """``inverse_regularization``, or the kind's own default."""
        return self.inverse_regularization or _REGULARIZATION.get(self.kind, 1.0)


class DecisionConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a score becomes a decision, chosen on the held-out patients; in multilabel builds for each label by itself.

    ``rule`` chooses the operating point: the highest threshold whose sensitivity reaches ``target_sensitivity`` (0.97 if not given), the
    lowest whose specificity reaches ``target_specificity`` (0.95), the highest sum of the two ("youden"), or the lowest "cost", where
    ``cost_missed`` and ``cost_false_alarm`` weigh the two mistakes and ``prevalence`` is the share of positive images where the model will
    work (that of the held-out images if not given).

    The review band runs around the point. It holds the share ``review_fraction`` of the held-out images (0.05), or as few as leave at most
    the share ``review_target_error`` of the others wrongly decided; where half of the images in the band do not get there, it is the band
    with the fewest errors outside, and the point's ``target`` says so.

    An image is novel where its distance passes the quantile ``novelty_quantile`` of held-out images.
    """

    rule: PointRule = "target_sensitivity"
    target_sensitivity: Fraction | None = None
    target_specificity: Fraction | None = None
    cost_missed: Rate | None = None
    cost_false_alarm: Rate | None = None
    prevalence: Fraction | None = None
    review_fraction: Annotated[float, Meta(ge=0.0, lt=0.5)] | None = None
    review_target_error: Fraction | None = None
    novelty_quantile: Fraction = 0.98

    def __post_init__(self) -> None:
        wanted = _RULE_KEYS[self.rule]
        for key in dict.fromkeys(key for keys in _RULE_KEYS.values() for key in keys):
            if key not in wanted and getattr(self, key) is not None:
                raise ValueError(f"{key} is not for rule = {self.rule!r}, so remove it or choose another rule")
        if self.rule == "cost" and (self.cost_missed is None or self.cost_false_alarm is None):
            raise ValueError("rule = 'cost' needs both cost_missed and cost_false_alarm")
        if self.review_fraction is not None and self.review_target_error is not None:
            raise ValueError("review_fraction and review_target_error both size the review band; remove one of them")
        if self.rule in _RULE_DEFAULTS and getattr(self, self.rule) is None:
            msgspec.structs.force_setattr(self, self.rule, _RULE_DEFAULTS[self.rule])
        if self.review_fraction is None and self.review_target_error is None:
            msgspec.structs.force_setattr(self, "review_fraction", 0.05)


class CardConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the model card and every surface say about the model's use."""

    population: str
    intended_use: str
    limitations: list[str]


class BuildConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One build: what the TOML file says, with every default filled in."""

    name: Annotated[str, Meta(pattern="^[a-z0-9][a-z0-9-]*$")]
    version: str
    serial: Count
    task: Task
    seed: int = 1
    source: SourceConfig
    input: InputContract
    trunk: TrunkConfig = TrunkConfig()
    train: TrainConfig = TrainConfig()
    quantize: QuantizeConfig = QuantizeConfig()
    head: HeadConfig = HeadConfig()
    decision: DecisionConfig = DecisionConfig()
    card: CardConfig


def load_build_config(path: Path) -> BuildConfig:
    """Read a build's TOML file.

    Raises
    ------
    ConfigError
        If the file is missing, is not TOML, or says something that no build understands; names the file and the key.
    """
    try:
        return parse_build_config(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such build config") from None
    except (OSError, UnicodeDecodeError) as fault:
        raise ConfigError(f"{path}: cannot be read as TOML: {fault}") from fault


def parse_build_config(text: str, path: str) -> BuildConfig:
    """Read the text of a build's TOML file, which errors call ``path``.

    Raises
    ------
    ConfigError
        If it is not TOML, or says something that no build understands.
    """
    try:
        config = msgspec.convert(tomllib.loads(text), BuildConfig)
    except tomllib.TOMLDecodeError as fault:
        raise ConfigError(f"{path}: cannot be read as TOML: {fault}") from fault
    except msgspec.ValidationError as fault:
        raise ConfigError(f"{path}: {fault}") from fault
    _check_labels(path, config.task, config.source)
    _check_source(path, config.source)
    if config.task == "multilabel":
        config = msgspec.structs.replace(config, source=msgspec.structs.replace(config.source, positive=config.source.labels))
    if config.trunk.kind == "tiny" and config.train.is_frozen:
        raise ConfigError(
            f"{path}: train.labels_per_class = {config.train.labels_per_class} leaves the trunk as it is, and a tiny one is random then;"
            ' set trunk.kind = "efficientnet_lite0"'
        )
    if config.head.inverse_regularization is not None and config.head.kind not in _REGULARIZATION:
        raise ConfigError(
            f"{path}: head.inverse_regularization is for {', '.join(_REGULARIZATION)}; {config.head.kind!r} has none, so remove it"
        )
    if config.train.self_training and (config.task == "multilabel" or config.head.kind != "logistic_regression"):
        raise ConfigError(
            f"{path}: train.self_training is for tasks binary and multiclass with head.kind = 'logistic_regression', not for"
            f" {config.task!r} with {config.head.kind!r}; remove it"
        )
    return config


def _check_labels(path: str, task: Task, source: SourceConfig) -> None:
    labels, positive, count = source.labels, source.positive, len(source.labels)
    if len(set(labels)) != count or "" in labels:
        raise ConfigError(f"{path}: source.labels must be different names, not {labels}")
    enough, wanted = {
        "binary": (count == 2, "exactly two classes; 'multiclass' is for more, 'multilabel' for findings that may stand together"),
        "multiclass": (count >= 3, "three classes or more; 'binary' is for two"),
        "multilabel": (count >= 1, "one finding or more"),
    }[task]
    if not enough:
        raise ConfigError(f"{path}: source.labels names {count} ({labels}), and task {task!r} needs {wanted}")
    if unknown := [name for name in positive if name not in labels]:
        raise ConfigError(f"{path}: source.positive names {unknown[0]!r}, which is none of source.labels {labels}")
    if len(set(positive)) != len(positive):
        raise ConfigError(f"{path}: source.positive names a class twice: {positive}")
    if task == "binary" and len(positive) != 1:
        raise ConfigError(f"{path}: source.positive must name one of {labels} for task 'binary', not {positive}")
    if task == "multiclass" and not 0 < len(positive) < count:
        raise ConfigError(
            f"{path}: source.positive must name some, but not all, of {labels} for task 'multiclass': those that call for somebody;"
            f" it names {positive}"
        )
    if task == "multilabel" and positive and set(positive) != set(labels):
        raise ConfigError(f"{path}: source.positive is every label for task 'multilabel'; remove it")
    if task != "multilabel" and source.negative:
        raise ConfigError(f"{path}: source.negative is for task 'multilabel'; for {task!r} use source.merge or source.leave_out")
    if wrong := [name for name in source.negative if name in labels or name in source.merge or name in source.leave_out]:
        raise ConfigError(
            f"{path}: source.negative names {wrong[0]!r}, which source.labels, merge or leave_out wants too; remove it from one"
        )


def _check_source(path: str, source: SourceConfig) -> None:
    if source.folds == 1:
        raise ConfigError(f"{path}: source.folds must be 0 (one held-out part) or at least 2, not 1")
    if source.layout == "folders" and not source.patient_pattern:
        raise ConfigError(
            f"{path}: source.patient_pattern is missing; layout 'folders' needs it to tell patients apart by their file names"
        )
    if source.layout != "folders" and source.patient_pattern:
        raise ConfigError(f"{path}: source.patient_pattern is for layout 'folders'; {source.layout!r} names its patients, so remove it")
    for label, target in source.merge.items():
        if target not in source.labels:
            raise ConfigError(f"{path}: source.merge turns {label!r} into {target!r}, which is none of source.labels {source.labels}")
    if wrong := [label for label in source.leave_out if label in source.labels or label in source.merge]:
        raise ConfigError(
            f"{path}: source.leave_out leaves {wrong[0]!r} out, which source.labels or source.merge wants; remove it from one"
        )
