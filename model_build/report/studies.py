"""The studies of a run, read from the JSON that their commands wrote, as sections of the report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from edge_agent.errors import ConfigError
from model_build.plots import svg
from model_build.report.page import Drawing
from model_build.run_folder import read_json
from model_build.studies.augmentation.result import AUGMENTATION
from model_build.studies.label_efficiency.result import LABEL_EFFICIENCY
from model_build.studies.output import Study
from model_build.studies.precision.result import PRECISION
from model_build.studies.shift.result import SHIFT
from model_build.tables import Block


@dataclass(frozen=True)
class Section:
    """A study in the report; without blocks and figure if it was not run."""

    title: str
    command: str
    blocks: list[Block]
    figure: Drawing | None


STUDIES: tuple[Study[Any], ...] = (SHIFT, LABEL_EFFICIENCY, PRECISION, AUGMENTATION)
"""In the order of the report."""


def read_studies(folder: Path) -> list[Section]:
    """A section for each of ``STUDIES``, from its JSON in the run folder or in a folder of its own there.

    Raises
    ------
    ConfigError
        If a JSON file cannot be read, or only the Markdown of a study is left.
    """
    return [_read_study(folder, study) for study in STUDIES]


def _read_study(folder: Path, study: Study[Any]) -> Section:
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
