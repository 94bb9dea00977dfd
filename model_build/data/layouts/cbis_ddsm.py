"""CBIS-DDSM as Kaggle ships it: case descriptions and ``dicom_info.csv`` in ``csv``, mammograms as ``jpeg/SERIES-UID/*.jpg``."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from edge_agent.errors import ConfigError
from model_build.data.example import Example, Split, check_image
from model_build.data.layouts.table import read_table

_TABLES: tuple[tuple[str, Split], ...] = (
    ("mass_case_description_train_set.csv", "train"),
    ("calc_case_description_train_set.csv", "train"),
    ("mass_case_description_test_set.csv", "test"),
    ("calc_case_description_test_set.csv", "test"),
)
_COLUMNS = ("patient_id", "left or right breast", "image view", "pathology", "image file path")
_LABELS = {"BENIGN": "benign", "BENIGN_WITHOUT_CALLBACK": "benign", "MALIGNANT": "malignant"}
_FULL_MAMMOGRAM = "full mammogram images"


def list_cbis_ddsm(root: Path) -> list[Example]:
    """List the full mammograms of a CBIS-DDSM folder.

    Returns
    -------
    list of Example
        One for each mammogram, labelled ``malignant`` where any of its abnormalities is, else ``benign`` (benign without callback counts as
        benign). ``view`` is the side and the projection, such as "LEFT CC"; ``split`` is that of the table which lists the mammogram.

    Raises
    ------
    ConfigError
        If no case description, no ``dicom_info.csv``, a column, a series or an image is missing, or a pathology is unknown.

    Notes
    -----
    Masses and calcifications were split apart from one another: a patient with both can stand in the training part of one and the test part
    of the other, which the audit reports and training refuses as leakage.

    References
    ----------
    Lee et al., Scientific Data 4 (2017) 170177; the layout is that of Kaggle's "CBIS-DDSM: Breast Cancer Image Dataset".
    """
    folder = root / "csv"
    tables = [(folder / name, split) for name, split in _TABLES if (folder / name).is_file()]
    if not tables:
        raise ConfigError(f"{folder}: holds no case description; this layout needs {_TABLES[0][0]} or one of its kin there")
    mammograms = _full_mammograms(folder / "dicom_info.csv")
    found: dict[Path, Example] = {}
    for table, split in tables:
        for row in read_table(table, _COLUMNS):
            pathology = row.require("pathology")
            if pathology not in _LABELS:
                raise ConfigError(f"{row.origin}: the pathology {pathology!r} is none of {', '.join(_LABELS)}; correct it")
            # PATIENT-FOLDER/STUDY-UID/SERIES-UID/000000.dcm: the series names the JPEG's folder.
            series = PurePosixPath(row.require("image file path")).parent.name
            if series not in mammograms:
                raise ConfigError(
                    f"{row.origin}: {folder / 'dicom_info.csv'} has no row {_FULL_MAMMOGRAM!r} for the series {series!r};"
                    " add it or remove the line"
                )
            path, label = mammograms[series], _LABELS[pathology]
            earlier = found.get(path)
            if earlier is None:
                check_image(root, path, row.origin)
            elif "malignant" in earlier.labels:
                label = "malignant"
            view = f"{row.require('left or right breast')} {row.require('image view')}"
            found[path] = Example(
                path,
                (label,),
                row.require("patient_id"),
                earlier.origin if earlier else row.origin,
                earlier.split if earlier else split,
                view=view,
            )
    return list(found.values())


def _full_mammograms(table: Path) -> dict[str, Path]:
    """From the series UID to the JPEG's path below the data folder."""
    mammograms = {}
    for row in read_table(table, ("image_path", "SeriesDescription")):
        if row.values["SeriesDescription"] == _FULL_MAMMOGRAM:
            path = PurePosixPath(row.require("image_path"))  # CBIS-DDSM/jpeg/SERIES-UID/1-172.jpg
            mammograms[path.parent.name] = Path("jpeg", path.parent.name, path.name)
    return mammograms
