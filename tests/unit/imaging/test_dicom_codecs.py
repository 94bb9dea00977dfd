"""Compressed DICOM with the decoders of the extra ``dicom``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_agent.imaging.dicom import decode_dicom

data_store = pytest.importorskip("data_store", reason="the package pydicom-data is not installed")
for package in ("libjpeg", "openjpeg", "rle"):
    pytest.importorskip(package, reason="the extra dicom is not installed")


def real(name: str) -> bytes:
    import pydicom

    for folder in (Path(data_store.__file__).parent / "data", Path(pydicom.__file__).parent / "data" / "test_files"):
        if (folder / name).is_file():
            return (folder / name).read_bytes()
    raise FileNotFoundError(name)


@pytest.mark.parametrize(
    ("compressed", "plain"),
    [("MR_small_jpeg_ls_lossless.dcm", "MR_small.dcm"), ("RG1_J2KR.dcm", "RG1_UNCR.dcm"), ("MR_small_RLE.dcm", "MR_small.dcm")],
)
def test_lossless_compression_changes_no_pixel(compressed: str, plain: str) -> None:
    assert np.array_equal(decode_dicom(real(compressed)).pixels, decode_dicom(real(plain)).pixels)


def test_lossless_jpeg_is_read() -> None:
    frame = decode_dicom(real("JPEG-LL.dcm"))
    assert frame.pixels.shape == (frame.rows, frame.columns) == (1024, 256)
    assert np.ptp(frame.pixels) > 200
