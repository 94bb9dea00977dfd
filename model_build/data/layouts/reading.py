"""From the name of a layout to its examples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edge_agent.errors import ConfigError
from model_build.config import LayoutName, SourceConfig
from model_build.data.example import SPLITS, Example
from model_build.data.layouts.cbis_ddsm import list_cbis_ddsm
from model_build.data.layouts.folders import list_folders
from model_build.data.layouts.manifest import list_manifest
from model_build.data.layouts.mini_mias import list_mini_mias
from model_build.data.layouts.nih import list_nih


def list_examples(
    root: Path, layout: LayoutName, *, labels: Sequence[str] | None = None, patient_pattern: str = "", table: str = "manifest.csv"
) -> list[Example]:
    """List the images of a data set without opening one.

    Parameters
    ----------
    root : Path
        The data folder.
    layout : str
        How it is laid out.
    labels, patient_pattern
        For ``folders``: the class folders (None: all) and how a file name gives the patient.
    table : str
        For ``manifest``: the file's name.

    Returns
    -------
    list of Example
        At least one.

    Raises
    ------
    ConfigError
        Whatever the layout's own reader finds wrong, with file and line.
    """
    if not root.is_dir():
        raise ConfigError(f"{root}: no such folder; name the folder that holds the data set")
    match layout:
        case "folders":
            return list_folders(root, labels, patient_pattern)
        case "nih":
            return list_nih(root)
        case "cbis-ddsm":
            return list_cbis_ddsm(root)
        case "mini-mias":
            return list_mini_mias(root)
        case "manifest":
            return list_manifest(root, table)


def list_source(root: Path, source: SourceConfig) -> list[Example]:
    """List the images of a build's data set; for ``folders``, those of its classes and of the folders merged into them.

    Raises
    ------
    ConfigError
        As :func:`list_examples`.
    """
    folders = [*source.labels, *source.merge, *source.negative]
    # A class that only gathers others needs no folder of its own.
    gathering = {label for label in source.merge.values() if not any((root / split / label).is_dir() for split in ("", *SPLITS))}
    wanted = [name for name in dict.fromkeys(folders) if name not in gathering]
    return list_examples(root, source.layout, labels=wanted, patient_pattern=source.patient_pattern, table=source.table)
