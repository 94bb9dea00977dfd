"""A run folder: made or gone on with, what stands in it, and whether its build is finished; all without TensorFlow."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from edge_agent.errors import ConfigError
from edge_agent.files.atomic import cannot_write, replacing
from model_build.config import BuildConfig, load_build_config

_Kind = TypeVar("_Kind")

CONFIG = "config.toml"
ENVIRONMENT = "environment.json"
EPOCHS = "epochs.jsonl"
CHECKPOINT = "checkpoint.npz"
PIXELS = "pixels"
"""A folder: the decoded images of a large data set."""
MEASURED = "measured.json"
HELD_OUT = "held_out.npz"
BUNDLE = "bundle"
REPORT_JSON, REPORT_TEXT, REPORT_PAGE = REPORTS = ("report.json", "report.md", "report.html")
"""Written last, in this order: a run folder that holds them all is a finished build."""


class Figure(msgspec.Struct, frozen=True):
    """A figure of ``report.json`` with its 95 % interval; None stands for what could not be computed (JSON knows no NaN)."""

    value: float | None
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if self.value is None:
            return "-"
        return f"{self.value:.4f}" if self.low is None or self.high is None else f"{self.value:.4f} ({self.low:.4f} to {self.high:.4f})"


class PointFigures(msgspec.Struct, frozen=True):
    """One operating point: figures at the point as it ships, and with the point chosen on other patients than those counted."""

    name: str
    metrics: dict[str, Figure]
    metrics_cross_fitted: dict[str, Figure]


class MeasuredFigures(msgspec.Struct, frozen=True):
    """The figures of the held-out patients: of each operating point, and over all labels (empty for binary tasks)."""

    points: list[PointFigures]
    overall: dict[str, Figure]


class RunReport(msgspec.Struct, frozen=True):
    """The part of ``report.json`` that is compared between runs and tracked."""

    name: str
    version: str
    serial: int
    measured: MeasuredFigures
    model_size_bytes: int
    build_seconds: float


@dataclass(frozen=True)
class FinishedRun:
    """A finished build as its folder holds it. ``epochs`` are the lines of epochs.jsonl, one for each epoch."""

    folder: Path
    config: BuildConfig
    environment: dict[str, Any]
    epochs: list[dict[str, Any]]
    report: RunReport


@dataclass(frozen=True)
class FoldFiles:
    """The files of one measured model in a run folder; ``stem`` is what their names begin with."""

    folder: Path
    stem: str

    @property
    def trunk(self) -> Path:
        """Float weights as trained."""
        return self.folder / f"{self.stem}-trunk.npz"

    @property
    def model(self) -> Path:
        """The int8 model."""
        return self.folder / f"{self.stem}.tflite"

    @property
    def heads(self) -> Path:
        """Its heads, not calibrated."""
        return self.folder / f"{self.stem}-heads.json"

    @property
    def reference(self) -> Path:
        """Statistics of the images that it was trained on."""
        return self.folder / f"{self.stem}-reference.npz"

    @property
    def outputs(self) -> Path:
        """What it gives for the images; written last."""
        return self.folder / f"{self.stem}.npz"


def fold_files(folder: Path, fold_count: int) -> list[FoldFiles]:
    """The files of each measured model of a run: one for each of ``source.folds``, or a single one where that is 0."""
    return [FoldFiles(folder, stem) for stem in [f"fold-{number + 1}" for number in range(fold_count)] or ["measured"]]


def is_finished(folder: Path) -> bool:
    """Whether a build ran to its end here: bundle, environment and reports are there."""
    return all((folder / name).is_file() for name in (f"{BUNDLE}/manifest.json", ENVIRONMENT, *REPORTS))


def read_report(folder: Path, kind: type[_Kind]) -> _Kind:
    """Read ``report.json`` of a finished run, or those fields of it that ``kind`` has.

    Raises
    ------
    ConfigError
        If the file is missing or is not what this version writes.
    """
    path = folder / REPORT_JSON
    try:
        return read_json(path.read_bytes(), kind)
    except FileNotFoundError:
        raise ConfigError(f"{path}: missing; name the run folder of a finished `model-build train`") from None
    except (OSError, msgspec.DecodeError) as fault:
        raise ConfigError(f"{path}: cannot be read as this version writes it ({fault}); build again into another --out") from fault


def read_run(folder: Path) -> FinishedRun:
    """Read a finished run.

    Raises
    ------
    ConfigError
        If a file is missing or is not what this version writes.
    """
    path = folder
    try:
        path = folder / ENVIRONMENT
        environment = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
        path = folder / EPOCHS
        # A build that fits only a head has no epochs.
        lines = path.read_bytes().splitlines() if path.exists() else []
        epochs = [msgspec.json.decode(line, type=dict[str, Any]) for line in lines]
    except FileNotFoundError:
        raise ConfigError(f"{path}: missing; name the run folder of a finished `model-build train`") from None
    except (OSError, msgspec.DecodeError) as fault:
        raise ConfigError(f"{path}: cannot be read as this version writes it ({fault}); build again into another --out") from fault
    return FinishedRun(folder, load_build_config(folder / CONFIG), environment, epochs, read_report(folder, RunReport))


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested tables as one table whose keys are joined by dots; lists stay whole."""
    if not isinstance(value, dict):
        return {prefix: value}
    return {name: leaf for key, inner in value.items() for name, leaf in flatten(inner, f"{prefix}.{key}" if prefix else str(key)).items()}


def write_whole(path: Path, content: bytes) -> None:
    """Write a file durably, or leave the older one as it was; the folders above it are made.

    Raises
    ------
    DiskFullError, StorageError
        If it cannot be written.
    """
    hint = "free space or name another --out"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise cannot_write(fault, path, hint) from fault
    with replacing(path, durable=True, hint=hint) as file:
        file.write(content)


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, durably; errors as for :func:`write_whole`."""
    write_whole(path, msgspec.json.format(msgspec.json.encode(value), indent=2))


def read_json(content: bytes, kind: type[_Kind]) -> _Kind:
    """Read what :func:`write_json` wrote. JSON has no NaN: null is read as NaN where ``kind`` has a float.

    Raises
    ------
    msgspec.DecodeError
        If it is not a ``kind``.
    """
    return msgspec.convert(_with_nan(msgspec.json.decode(content), inspect.type_info(kind)), kind)


def _with_nan(value: Any, kind: inspect.Type) -> Any:
    match kind, value:
        case inspect.FloatType(), None:
            return float("nan")
        case inspect.StructType(), dict():
            kinds = {field.encode_name: field.type for field in kind.fields}
            return {key: _with_nan(item, kinds[key]) if key in kinds else item for key, item in value.items()}
        case inspect.DictType(), dict():
            return {key: _with_nan(item, kind.value_type) for key, item in value.items()}
        case inspect.ListType(), list():
            return [_with_nan(item, kind.item_type) for item in value]
        case inspect.UnionType(), dict() if kind.includes_none and len(kind.types) == 2:
            return _with_nan(value, next(one for one in kind.types if not isinstance(one, inspect.NoneType)))
    return value


def prepare_out(out: Path, config_text: str, *, resume: bool, warn: Callable[[str], None]) -> bool:
    """Make the run folder and decide whether there is something to go on from.

    Returns
    -------
    bool
        True where a checkpoint stands there that the same training made, and ``resume`` asks for it. What follows the training (head,
        calibration, operating point, card) may be another: those steps are then done again.

    Raises
    ------
    ConfigError
        If the folder holds another build's checkpoint, or one that was not asked to be resumed.
    """
    out.mkdir(parents=True, exist_ok=True)
    kept_config, checkpoint = out / CONFIG, out / CHECKPOINT
    if checkpoint.exists() and not resume:
        raise ConfigError(f"{out}: holds a checkpoint; go on from it with --resume, or name another --out")
    kept_text = kept_config.read_text(encoding="utf-8") if checkpoint.exists() else config_text
    if kept_text != config_text:
        if _training_of(kept_text) != _training_of(config_text):
            raise ConfigError(f"{out}: its checkpoint was made with another config; name another --out")
        warn(f"{out}: the config differs from the checkpoint's in what follows the training; only those steps are done again")
        for report in REPORTS:
            # They are what a finished run is known by.
            (out / report).unlink(missing_ok=True)
        for files in fold_files(out, tomllib.loads(kept_text).get("source", {}).get("folds", 0)):
            files.outputs.unlink(missing_ok=True)
    if resume and not checkpoint.exists():
        warn(f"{out}: no checkpoint yet; starting from the beginning")
    write_whole(kept_config, config_text.encode())
    return resume and checkpoint.exists()


def _training_of(config_text: str) -> dict[str, Any]:
    """What of a config decides over the trained weights."""
    config = tomllib.loads(config_text)
    source = {key: value for key, value in config.get("source", {}).items() if key not in ("title", "licence", "attribution")}
    return {key: config.get(key) for key in ("task", "seed", "input", "trunk", "train")} | {"source": source}
