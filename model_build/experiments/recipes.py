"""Hyper-parameters as people write them, one JSON object for each build, turned into a build's config."""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NoReturn, cast, get_args

import msgspec
import tomli_w
from msgspec import Meta

from edge_agent.errors import ConfigError
from model_build.config import AugmentationConfig, BuildConfig, Count, Fraction, LossName, OptimizerName, Rate, parse_build_config
from model_build.experiments.comparison import COLUMNS
from model_build.training.augmentation_presets import PRESETS, PresetName, augmentation_preset

DEFAULT_BASE = Path(__file__).parents[1] / "configs" / "cxr-pneumonia.toml"

OPTIMIZERS: tuple[str, ...] = get_args(OptimizerName)
LOSSES: tuple[str, ...] = get_args(LossName)
CALLBACKS = ("checkpoint",)
_ENCODER = re.compile(r"efficientnet_lite0(?::(\d+))?|tiny")
_BLOCKS = range(1, 17)
_OTHER_NAMES = {"recall": "sensitivity", "tpr": "sensitivity", "tnr": "specificity", "roc_auc": "auc", "acc": "accuracy"}
"""Other common names of the figures that a build computes."""
_NEEDS_TRAINING = ("epochs", "batch_size", "learning_rate", "optimizer", "loss", "shuffle", "augmentation")


class _Refused(Exception):
    """A key's value cannot be used; the message says why, without the key."""


@dataclass(frozen=True)
class Settings:
    """What a recipe says of the run rather than of the model.

    ``threads`` is None where the machine decides. ``verbose`` 0 shows nothing, 1 a bar, 2 a line for each epoch. ``metrics`` are the
    columns of the comparison, empty where the task decides. ``save_dir`` is empty where the build's name decides.
    """

    threads: int | None = None
    verbose: int = 1
    metrics: tuple[str, ...] = ()
    save_dir: str = ""


@dataclass(frozen=True)
class Recipe:
    """One recipe on its base: file and place in it, its keys, the TOML text of its build, what that says, settings of the run."""

    origin: str
    keys: dict[str, Any]
    config_text: str
    config: BuildConfig
    settings: Settings


@dataclass
class _Draft:
    """A build in the making: the base's tables, changed key by key."""

    base: BuildConfig
    tables: dict[str, Any]
    settings: dict[str, Any] = field(default_factory=dict)

    def table(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.tables.setdefault(name, {})
        return found


@dataclass(frozen=True)
class _Key:
    """One key of a recipe: its type, the accepted values in words, and what it does."""

    type: Any
    accepted: str
    apply: Callable[[_Draft, Any], None]


def _one_of(value: str, known: Iterable[str]) -> str:
    known = list(known)
    if value.lower() in known:
        return value.lower()
    suggested = _OTHER_NAMES.get(value.lower()) or next(iter(difflib.get_close_matches(value.lower(), known, 1)), "")
    hint = f"; did you mean {suggested!r}?" if suggested in known else ""
    raise _Refused(f"{value!r} is not known{hint}")


def _in_train(name: str) -> Callable[[_Draft, Any], None]:
    def apply(draft: _Draft, value: Any) -> None:
        draft.table("train")[name] = value

    return apply


def _set(name: str) -> Callable[[_Draft, Any], None]:
    def apply(draft: _Draft, value: Any) -> None:
        draft.settings[name] = value

    return apply


def _learning_rate(draft: _Draft, value: float) -> None:
    """The other rates keep their ratio to this one: each was chosen for the base's rate and optimizer."""
    base, train = draft.base.train, draft.table("train")
    train["learning_rate"] = float(value)
    for name in ("head_learning_rate", "finish_learning_rate"):
        train[name] = float(f"{getattr(base, name) * value / base.learning_rate:.6g}")


def _optimizer(draft: _Draft, value: str) -> None:
    train = draft.table("train")
    train["optimizer"] = _one_of(value, OPTIMIZERS)
    if train["optimizer"] != "adamw":
        train.pop("weight_decay", None)  # adamw's alone


def _loss(draft: _Draft, value: str) -> None:
    draft.table("train")["loss"] = _one_of(value, LOSSES)


def _metrics(draft: _Draft, value: list[str]) -> None:
    draft.settings["metrics"] = tuple(dict.fromkeys(_one_of(name, COLUMNS) for name in value))


def _encoder(draft: _Draft, value: str) -> None:
    match = _ENCODER.fullmatch(value.lower())
    if match is None:
        _one_of(value.partition(":")[0], ("efficientnet_lite0", "tiny"))
        raise _Refused(f"{value!r} is not known")
    if value.lower() == "tiny":
        draft.tables["trunk"] = {"kind": "tiny"}
        return
    if match[1] is not None and int(match[1]) not in _BLOCKS:
        raise _Refused(f"{value!r} asks for {match[1]} blocks of {len(_BLOCKS)}")
    # Without a number of blocks, the base's own cut.
    kept = draft.table("trunk") if draft.base.trunk.kind == "efficientnet_lite0" else {}
    draft.tables["trunk"] = kept | ({"block_count": int(match[1])} if match[1] is not None else {}) | {"kind": "efficientnet_lite0"}


def _validation_split(draft: _Draft, value: float) -> None:
    if draft.base.source.folds:
        raise _Refused(f"the base measures by source.folds = {draft.base.source.folds}, where every patient is held out once")
    source = draft.table("source")
    source["held_out_fraction"] = value
    if draft.base.source.layout != "folders":  # the only one without a split of its own
        source["official_split"] = False


def _augmentation(draft: _Draft, value: str | dict[str, Any]) -> None:
    ranges = draft.base.train.augmentation
    if isinstance(value, str):
        chosen = augmentation_preset(cast(PresetName, _one_of(value, PRESETS)), ranges)
    else:
        known = [entry.name for entry in msgspec.structs.fields(AugmentationConfig)]
        for name in value:
            _one_of(name, known)
        try:
            chosen = msgspec.convert(msgspec.to_builtins(ranges) | value, AugmentationConfig)
        except msgspec.ValidationError as fault:
            raise _Refused(str(fault)) from None
    draft.table("train")["augmentation"] = msgspec.to_builtins(chosen)


def _callbacks(draft: _Draft, value: list[str]) -> None:
    for name in value:
        if name.lower().replace("_", "") == "earlystopping":
            raise _Refused(
                "'early_stopping' is not offered: the learning rate reaches zero at the last epoch, so stopping earlier leaves a model half"
                " way, and it would choose by the held-out patients; set epochs instead"
            )
        _one_of(name, CALLBACKS)  # one is always written after each epoch


KEYS: Mapping[str, _Key] = {
    "epochs": _Key(Count, "a whole number from 1", _in_train("epochs")),
    "batch_size": _Key(Count, "a whole number from 1", _in_train("batch_size")),
    "learning_rate": _Key(Rate, "a number above 0", _learning_rate),
    "num_workers": _Key(Count, "a whole number from 1: the threads of the build", _set("threads")),
    "optimizer": _Key(str, ", ".join(OPTIMIZERS), _optimizer),
    "loss": _Key(str, ", ".join(LOSSES), _loss),
    "metrics": _Key(Annotated[list[str], Meta(min_length=1)], f"a list of {', '.join(COLUMNS)}", _metrics),
    "encoder": _Key(str, "efficientnet_lite0, efficientnet_lite0:N (cut after N of 16 blocks), tiny", _encoder),
    "validation_split": _Key(Fraction, "a number between 0 and 1: the share of patients held out", _validation_split),
    "shuffle": _Key(bool, "true, false", _in_train("shuffle")),
    "verbose": _Key(Annotated[int, Meta(ge=0, le=2)], "0 (silent), 1 (a bar), 2 (a line for each epoch)", _set("verbose")),
    "augmentation": _Key(str | dict[str, Any], f"{', '.join(PRESETS)}, or an object of [train.augmentation]'s keys", _augmentation),
    "callbacks": _Key(list[str], f"a list of {', '.join(CALLBACKS)}", _callbacks),
    "model_save_dir": _Key(Annotated[str, Meta(min_length=1)], "a folder: of its own if absolute, else below --out", _set("save_dir")),
}


def _apply(draft: _Draft, key: str, value: Any) -> str | None:
    """Change the draft as one key says; the message where that cannot be."""
    known = KEYS.get(key)
    if known is None:
        near = difflib.get_close_matches(key, KEYS, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return f"unknown key {key!r}: {hint}Known keys: {', '.join(KEYS)}"
    try:
        if key in _NEEDS_TRAINING and draft.base.train.is_frozen:
            raise _Refused(
                f"the base fits only a head, on train.labels_per_class = {draft.base.train.labels_per_class}, so that this would change"
                " nothing; remove the key or name another --base"
            )
        known.apply(draft, msgspec.convert(value, known.type))
    except (_Refused, msgspec.ValidationError) as fault:
        return f"{key}: {fault}; accepted: {known.accepted}"
    return None


def _make(origin: str, recipe: object, base_path: Path, base_text: str, base: BuildConfig) -> Recipe:
    if not isinstance(recipe, dict):
        raise ConfigError(f"{origin}: a recipe is an object with some of the keys {', '.join(KEYS)}, not {recipe!r}")
    draft = _Draft(base, tomllib.loads(base_text))
    if faults := [message for key, value in recipe.items() if (message := _apply(draft, key, value)) is not None]:
        raise ConfigError("\n".join(f"{origin}: {fault}" for fault in faults))
    text = f"# {Path(origin).name}, on {base_path.name}\n{tomli_w.dumps(draft.tables)}"
    return Recipe(origin, recipe, text, parse_build_config(text, f"{origin}, on {base_path}"), Settings(**draft.settings))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"the key {twice!r} stands twice in one object")
    return dict(pairs)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number of JSON")


def read_recipes(path: Path, base_path: Path = DEFAULT_BASE) -> list[Recipe]:
    """Read a JSON file of one recipe, or of a list of them.

    Parameters
    ----------
    path : Path
        An object, or a list of objects, with some of :data:`KEYS`.
    base_path : Path
        A build's TOML: it says all that a recipe does not.

    Returns
    -------
    list of Recipe
        In the order of the file.

    Raises
    ------
    ConfigError
        If a file cannot be read, or says something that cannot be honoured: every wrong key at once, with the accepted values.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_once, parse_constant=_no_constant)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such recipe") from None
    except json.JSONDecodeError as fault:
        raise ConfigError(f"{path}: line {fault.lineno}: is not JSON: {fault.msg}") from fault
    except (OSError, ValueError, RecursionError) as fault:
        raise ConfigError(f"{path}: cannot be read as JSON: {fault}") from fault
    try:
        base_text = base_path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as fault:
        raise ConfigError(f"{base_path}: cannot be read as the recipes' base: {fault}") from fault
    base = parse_build_config(base_text, str(base_path))
    several = isinstance(content, list)
    if several and not content:
        raise ConfigError(f"{path}: an empty list; put at least one recipe into it")
    recipes, faults = [], []
    for number, recipe in enumerate(content if several else [content], start=1):
        try:
            recipes.append(_make(f"{path}, recipe {number}" if several else str(path), recipe, base_path, base_text, base))
        except ConfigError as fault:
            faults.append(str(fault))
    if faults:
        raise ConfigError("\n".join(faults))
    return recipes
