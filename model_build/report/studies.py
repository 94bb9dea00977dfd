"""The studies of a run, read from the JSON that their commands wrote, as sections of the report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from matplotlib.figure import Figure

from edge_agent.errors import ConfigError
from model_build.plots import svg
from model_build.report.page import Drawing
from model_build.run_folder import read_json
from model_build.studies.augmentation.result import AugmentationAblation, describe_augmentation, draw_augmentation
from model_build.studies.label_efficiency.result import LabelEfficiency, describe_label_efficiency, draw_curve
from model_build.studies.precision.result import PrecisionAblation, describe_precision, draw_precision
from model_build.studies.shift.result import ShiftResult, describe_shift, draw_shift
from model_build.tables import Block


@dataclass(frozen=True)
class Study:
    """A question that a command of its own answers. ``stem`` names its files and its folder below the run folder."""

    stem: str
    title: str
    command: str
    kind: type[Any]
    describe: Callable[[Any], list[Block]]
    draw: Callable[[Any], Figure]


@dataclass(frozen=True)
class Section:
    """A study in the report; without blocks and figure if it was not run."""

    title: str
    command: str
    blocks: list[Block]
    figure: Drawing | None


STUDIES = (
    Study(
        "shift",
        "At another hospital: simulated shift",
        "model-build simulate-shift RUN_FOLDER --data DIR",
        ShiftResult,
        describe_shift,
        draw_shift,
    ),
    Study(
        "label-efficiency",
        "What each further label buys",
        "model-build label-efficiency RUN_FOLDER/config.toml --data DIR --out RUN_FOLDER",
        LabelEfficiency,
        describe_label_efficiency,
        draw_curve,
    ),
    Study(
        "precision",
        "Number formats and pruning",
        "model-build ablate precision RUN_FOLDER --data DIR",
        PrecisionAblation,
        describe_precision,
        draw_precision,
    ),
    Study(
        "augmentation",
        "What augmentation buys",
        "model-build ablate augmentation RUN_FOLDER/config.toml --data DIR --out RUN_FOLDER/augmentation",
        AugmentationAblation,
        describe_augmentation,
        draw_augmentation,
    ),
)
"""In the order of the report."""


def read_studies(folder: Path) -> list[Section]:
    """A section for each of ``STUDIES``, from its JSON in the run folder or in a folder of its own there.

    Raises
    ------
    ConfigError
        If a JSON file cannot be read, or only the Markdown of a study is left.
    """
    return [_read_study(folder, study) for study in STUDIES]


def _read_study(folder: Path, study: Study) -> Section:
    for path in (folder / f"{study.stem}.json", folder / study.stem / f"{study.stem}.json"):
        try:
            found = read_json(path.read_bytes(), study.kind)
        except FileNotFoundError:
            text = path.with_suffix(".md")
            if text.is_file():
                raise ConfigError(
                    f"{path}: missing beside {text.name}; the report is made from it: write it again with `{study.command}`, or remove"
                    f" {text.name}"
                ) from None
            continue
        except (OSError, msgspec.DecodeError) as fault:
            raise ConfigError(f"{path}: cannot be read ({fault}); write it again with `{study.command}`, or remove it") from fault
        return Section(study.title, study.command, study.describe(found), Drawing(study.title, svg(study.draw(found))))
    return Section(study.title, study.command, [], None)
