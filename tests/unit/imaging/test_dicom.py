"""DICOM to grey: the value chain against pydicom's own, real files as a viewer shows them, and refusals without a patient's name."""

from __future__ import annotations

import logging
import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut
from pydicom.uid import (
    MPEG2MPML,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

from edge_agent.errors import InputFault
from edge_agent.imaging.decode import decode_image
from edge_agent.imaging.dicom import decode_dicom, is_dicom
from edge_agent.records import Frame

RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)
"""Every 12-bit value once."""

PATIENT = "Zzyzx^Quentin"


def dataset(
    stored: np.ndarray[Any, Any] = RAMP, *, bits_stored: int = 12, syntax: UID = ExplicitVRLittleEndian, **elements: Any
) -> Dataset:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = UID("1.2.840.10008.5.1.4.1.1.1.1")
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = UID("1.2.3")
    ds.PatientName = PATIENT
    ds.Rows, ds.Columns = stored.shape[:2]
    ds.SamplesPerPixel = 1 if stored.ndim == 2 else 3
    ds.PhotometricInterpretation = "MONOCHROME2" if stored.ndim == 2 else "RGB"
    if stored.ndim == 3:
        ds.PlanarConfiguration = 0
    ds.BitsAllocated = stored.itemsize * 8
    ds.BitsStored = bits_stored
    ds.HighBit = bits_stored - 1
    ds.PixelRepresentation = int(stored.dtype.kind == "i")
    ds.PixelData = stored.astype(stored.dtype.newbyteorder("<" if syntax.is_little_endian else ">")).tobytes()
    ds["PixelData"].VR = "OW"
    for name, value in elements.items():
        setattr(ds, name, value)
    return ds


def written(ds: Dataset) -> bytes:
    file = BytesIO()
    ds.save_as(file, enforce_file_format=True)
    return file.getvalue()


def shown(ds: Dataset) -> np.ndarray[Any, Any]:
    frame = decode_dicom(written(ds))
    assert frame.pixels.dtype == np.uint8
    assert frame.pixels.shape == (frame.rows, frame.columns) == (ds.Rows, ds.Columns)
    return frame.pixels


def fault(content: bytes) -> InputFault:
    with pytest.raises(InputFault) as caught:
        decode_image(content, rows=160, columns=160)
    assert "Zzyzx" not in caught.value.message
    return caught.value


def lut(first: int, bits: int, entries: list[int]) -> list[Dataset]:
    item = Dataset()
    item.LUTDescriptor = [len(entries), first, bits]
    item.LUTData = entries
    item["LUTData"].VR = "US"
    return [item]


def by_pydicom(ds: Dataset, stored: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """What pydicom makes of the values, scaled from the range that it maps to."""
    values = apply_modality_lut(stored, ds)
    with np.errstate(over="ignore"):
        ends = apply_voi_lut(np.concatenate([values.ravel(), [-1e6, 1e6]]), ds)
    low, high = float(ends[-2]), float(ends[-1])
    return ((ends[:-2].astype(float) - low) / (high - low) * 255).reshape(stored.shape)


@pytest.mark.parametrize(
    "elements",
    [
        {"WindowCenter": 2048, "WindowWidth": 4096},
        {"WindowCenter": 1000, "WindowWidth": 301, "VOILUTFunction": "LINEAR"},
        {"WindowCenter": 1000, "WindowWidth": 301, "VOILUTFunction": "LINEAR_EXACT"},
        {"WindowCenter": 1000, "WindowWidth": 700, "VOILUTFunction": "SIGMOID"},
        {"WindowCenter": [900, 3000], "WindowWidth": [500, 100], "WindowCenterWidthExplanation": ["lung", "bone"]},
        {"WindowCenter": 40, "WindowWidth": 400, "RescaleSlope": 1, "RescaleIntercept": -1024},
        {"WindowCenter": 40, "WindowWidth": 400, "RescaleSlope": 0.5, "RescaleIntercept": -300},
    ],
)
def test_windows_agree_with_pydicom(elements: dict[str, Any]) -> None:
    ds = dataset(**elements)
    assert np.abs(shown(ds) - by_pydicom(ds, RAMP)).max() <= 0.51


def test_a_window_on_signed_values() -> None:
    stored = (np.arange(4096) - 2048).astype(np.int16).reshape(64, 64)
    ds = dataset(stored, WindowCenter=-500, WindowWidth=1500, RescaleSlope=1, RescaleIntercept=0)
    assert np.abs(shown(ds) - by_pydicom(ds, stored)).max() <= 0.51


def test_a_negative_slope_turns_the_values_around_and_not_the_window() -> None:
    pixels = shown(dataset(RescaleSlope=-1, RescaleIntercept=4095, WindowCenter=2048, WindowWidth=4096))
    assert (pixels[0, 0], pixels[-1, -1]) == (255, 0)


@pytest.mark.parametrize(("width", "function"), [(0, "LINEAR"), (0.5, "LINEAR"), (-4, "LINEAR_EXACT"), (100, "MAGIC"), (None, "LINEAR")])
def test_a_window_that_no_viewer_could_apply_counts_as_none(width: float | None, function: str) -> None:
    pixels = shown(dataset(WindowCenter=10, WindowWidth=width, VOILUTFunction=function))
    assert np.array_equal(pixels, shown(dataset()))


def test_the_narrowest_window_is_a_threshold() -> None:
    pixels = shown(dataset(WindowCenter=2000, WindowWidth=1)).ravel()
    assert (pixels[:2000].max(), pixels[2000:].min()) == (0, 255)


def test_without_a_window_the_images_own_range_decides() -> None:
    pixels = shown(dataset(RAMP // 16 + 1000))
    assert np.abs(pixels.ravel() - np.linspace(0, 255, 4096)).max() <= 2
    flat = shown(dataset(np.full((8, 8), 77, np.uint16)))
    assert flat.max() == 0


def test_padding_does_not_take_part_in_that_range() -> None:
    stored = RAMP // 16 + 1000
    stored[:, :20] = 4095
    pixels = shown(dataset(stored, PixelPaddingValue=4095))
    assert pixels[:, 20:].max() == 255
    assert pixels[:, 20:].min() < 10


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_a_voi_lut_wins_over_a_window(bits: int) -> None:
    entries = (np.linspace(0, 1, 4096) ** 2 * (2**bits - 1)).round().astype(int)
    pixels = shown(dataset(VOILUTSequence=lut(0, bits, entries.tolist()), WindowCenter=1, WindowWidth=2))
    assert np.abs(pixels.ravel() - entries / (2**bits - 1) * 255).max() <= 0.51


def test_values_outside_of_a_lut_get_its_ends() -> None:
    pixels = shown(dataset(VOILUTSequence=lut(1000, 10, list(range(1024))))).ravel()
    assert pixels[:1001].max() == 0
    assert pixels[2023:].min() == 255


def test_a_lut_may_use_fewer_bits_than_it_states() -> None:
    assert shown(dataset(VOILUTSequence=lut(0, 16, list(range(4096))))).max() == 255


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_a_modality_lut_comes_before_the_window(bits: int) -> None:
    top = 2**bits - 1
    entries = (np.arange(4096) * top // 4095)[::-1]
    ds = dataset(ModalityLUTSequence=lut(0, bits, entries.tolist()), WindowCenter=top / 2, WindowWidth=top)
    pixels = shown(ds).ravel()
    assert np.abs(pixels - np.linspace(255, 0, 4096)).max() <= 2


def test_packed_8_bit_lut_entries_are_read() -> None:
    item = Dataset()
    item.LUTDescriptor = [256, 0, 8]
    item.add_new("LUTData", "OW", bytes(range(255, -1, -1)))
    stored = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert shown(dataset(stored, bits_stored=8, VOILUTSequence=[item])).ravel().tolist() == list(range(255, -1, -1))


@pytest.mark.parametrize(
    "elements",
    [
        {"PhotometricInterpretation": "MONOCHROME1"},
        {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"},
        {"PresentationLUTShape": "INVERSE"},
    ],
)
@pytest.mark.parametrize("window", [{}, {"WindowCenter": 1000, "WindowWidth": 1200}, {"VOILUTSequence": lut(500, 8, list(range(256)))}])
def test_monochrome1_is_inverted_once_and_last(elements: dict[str, Any], window: dict[str, Any]) -> None:
    straight = shown(dataset(**window))
    assert np.array_equal(shown(dataset(**window, **elements)), 255 - straight)


def test_overlay_bits_above_the_stored_ones_are_masked() -> None:
    window = {"WindowCenter": 2048, "WindowWidth": 4096}
    assert np.array_equal(shown(dataset(RAMP | 0x8000, **window)), shown(dataset(**window)))
    negative = np.int16(-5)
    signed = np.full((8, 8), negative & 0x0FFF, np.int16)  # the sign bit of twelve, nothing above it
    signed[:, 4:] = 100
    pixels = shown(dataset(signed, WindowCenter=50, WindowWidth=100))
    assert (pixels[0, 0], pixels[0, 7]) == (0, 255)


def test_stored_bits_that_do_not_begin_at_the_lowest() -> None:
    high = dataset(RAMP << 4, HighBit=15, WindowCenter=2048, WindowWidth=4096)
    assert np.array_equal(shown(high), shown(dataset(WindowCenter=2048, WindowWidth=4096)))


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("stored", [RAMP, RAMP.astype(np.int16) - 2048, (RAMP // 16).astype(np.uint8)])
def test_every_uncompressed_transfer_syntax_gives_the_same_picture(syntax: UID, stored: np.ndarray[Any, Any]) -> None:
    bits = 12 if stored.itemsize == 2 else 8
    ds = dataset(stored, bits_stored=bits, syntax=syntax, WindowCenter=(int(stored.max()) + int(stored.min()) + 1) / 2, WindowWidth=2**bits)
    assert np.abs(shown(ds).ravel() - np.linspace(0, 255, 4096)).max() <= 1.5


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("keep_meta", [True, False])
def test_a_file_without_its_preamble_is_found_by_content(syntax: UID, keep_meta: bool) -> None:
    whole = written(dataset(syntax=syntax))
    meta_bytes = 12 + int.from_bytes(whole[140:144], "little")
    bare = whole[132:] if keep_meta else whole[132 + meta_bytes :]
    assert is_dicom(bare)
    assert np.array_equal(decode_dicom(bare).pixels, decode_dicom(whole).pixels)


@pytest.mark.parametrize(
    "content", [b"", b"DICM", b"\x08\x00", bytes(200), b"\x89PNG\r\n\x1a\n" + bytes(200), b"\xff\xd8\xff\xe0" + bytes(200)]
)
def test_other_files_are_not_dicom(content: bytes) -> None:
    assert not is_dicom(content)


def test_colour_becomes_luma() -> None:
    rgb = np.zeros((3, 3, 3), np.uint8)
    rgb[np.arange(3), :, np.arange(3)] = 255
    assert shown(dataset(rgb, bits_stored=8))[:, 0].tolist() == [76, 150, 29]


REAL_FILES = {
    "MR_small.dcm": (64, 64),
    "MR_small_bigendian.dcm": (64, 64),
    "MR_small_implicit.dcm": (64, 64),
    "MR_small_expb.dcm": (64, 64),
    "MR_small_RLE.dcm": (64, 64),
    "MR_small_jp2klossless.dcm": (64, 64),
    "MR_small_padded.dcm": (64, 64),
    "CT_small.dcm": (128, 128),
    "examples_overlay.dcm": (300, 484),
    "SC_rgb_small_odd.dcm": (3, 3),
    "SC_rgb_small_odd_big_endian.dcm": (3, 3),
    "SC_ybr_full_422_uncompressed.dcm": (100, 100),
    "SC_rgb_dcmtk_+eb+cy+np.dcm": (100, 100),
}

REFUSED_FILES = {
    "MR_truncated.dcm": "truncated",
    "test-SR.dcm": "dicom_no_pixels",
    "rtplan.dcm": "dicom_no_pixels",
    "waveform_ecg.dcm": "dicom_no_pixels",
    "rtdose.dcm": "multi_frame",
    "rtdose_1frame.dcm": "unsupported_pixels",
    "liver_1frame.dcm": "unsupported_pixels",
    "examples_palette.dcm": "unsupported_pixels",
    "examples_ybr_color.dcm": "multi_frame",
    "image_dfl.dcm": "dicom_compressed",
    "badVR.dcm": "damaged",
    "JPEG2000-embedded-sequence-delimiter.dcm": "too_large",
}


def real(name: str) -> bytes:
    path = get_testdata_file(name, download=False)
    if path is None:
        pytest.skip(f"{name} is not installed (package pydicom-data)")
    return Path(str(path)).read_bytes()


@pytest.mark.parametrize(("name", "shape"), REAL_FILES.items())
def test_real_files_are_decoded(name: str, shape: tuple[int, int]) -> None:
    frame = decode_image(real(name), rows=160, columns=160)
    assert (frame.pixels.shape, frame.file_format) == (shape, "DICOM")
    assert np.ptp(frame.pixels) > 50


def test_one_picture_in_many_encodings_is_one_picture() -> None:
    names = [name for name in REAL_FILES if name.startswith("MR_small")]
    first, *others = (decode_dicom(real(name)).pixels for name in names)
    for name, other in zip(names[1:], others, strict=True):
        assert np.array_equal(other, first), name


@pytest.mark.parametrize(("name", "code"), REFUSED_FILES.items())
def test_real_files_that_are_no_single_picture_are_refused(name: str, code: str) -> None:
    assert fault(real(name)).code == code


def test_a_chest_radiograph_is_shown_with_dark_lungs_and_a_bright_spine() -> None:
    """RG1_UNCR: computed radiography, MONOCHROME1, 15 bits, one window. Places read off the picture."""
    frame = decode_dicom(real("RG1_UNCR.dcm"))
    assert (frame.rows, frame.columns) == (1955, 1841)
    right_lung, left_lung = frame.pixels[550:750, 450:650].mean(), frame.pixels[550:750, 1150:1350].mean()
    spine, liver = frame.pixels[550:750, 850:950].mean(), frame.pixels[1550:1700, 300:500].mean()
    assert max(right_lung, left_lung) + 40 < min(spine, liver)


def test_a_leg_radiograph_is_shown_with_bright_bone_in_dark_air() -> None:
    frame = decode_dicom(real("RG3_UNCR.dcm"))
    tibia, air = frame.pixels[500:600, 820:880].mean(), frame.pixels[500:600, 500:550].mean()
    assert air + 100 < tibia


def test_a_compressed_file_names_its_transfer_syntax_and_the_way_out() -> None:
    # A video: no decoder reads it, also with the extra installed.
    ds = dataset(syntax=MPEG2MPML)
    ds.PixelData = encapsulate([b"\xff\xd8" + bytes(100)])
    ds["PixelData"].is_undefined_length = True
    told = fault(written(ds))
    assert told.code == "dicom_compressed"
    assert "MPEG2 Main Profile" in told.message
    assert "edge-agent[dicom]" in told.message


@pytest.mark.parametrize(("syntax", "stream"), [(JPEGBaseline8Bit, "jpeg"), (JPEG2000Lossless, "j2k"), (JPEG2000Lossless, "jp2")])
def test_a_picture_larger_than_its_header_says_is_never_decoded(syntax: UID, stream: str) -> None:
    from PIL import Image

    file = BytesIO()
    image = Image.new("L", (64, 64) if stream == "jp2" else (80, 64))
    image.save(file, "JPEG" if stream == "jpeg" else "JPEG2000", **({} if stream == "jpeg" else {"no_jp2": stream == "j2k"}))
    ds = dataset(np.zeros((64, 64), np.uint8), bits_stored=8, syntax=syntax)
    ds.PixelData = encapsulate([file.getvalue()])
    ds["PixelData"].is_undefined_length = True
    assert fault(written(ds)).code == ("dicom_compressed" if stream == "jp2" else "damaged")


def test_more_pixels_than_the_file_holds_is_truncated() -> None:
    assert fault(written(dataset(Rows=65))).code == "truncated"
    assert fault(written(dataset(Rows=9000, Columns=9000))).code == "truncated"
    assert fault(written(dataset())[:-1]).code == "truncated"


def test_too_many_pixels_are_refused_from_the_header() -> None:
    assert fault(written(dataset(Rows=65535, Columns=65535))).code == "too_large"


def test_a_file_that_ends_after_its_header_is_truncated() -> None:
    whole = written(dataset())
    assert fault(whole[:132]).code == "truncated"
    assert fault(whole[:-8192]).code == "dicom_no_pixels"


def test_a_file_without_pixels_says_what_it_is() -> None:
    report = dataset(SOPClassUID=UID("1.2.840.10008.5.1.4.1.1.104.1"))
    del report.PixelData
    assert fault(written(report)).message == "The DICOM file holds no image (it is: Encapsulated PDF). Export the radiograph itself."
    odd = dataset(SOPClassUID=UID("1.2.3.4.5"))
    del odd.PixelData
    assert fault(written(odd)).message == "The DICOM file holds no image. Export the radiograph itself."


@pytest.mark.parametrize(
    "elements",
    [
        {"BitsStored": 17},
        {"BitsStored": 0},
        {"HighBit": 20},
        {"Rows": 0},
        {"VOILUTSequence": lut(0, 12, [1, 2, 3])},
    ],
)
def test_a_header_that_contradicts_itself_is_a_fault_of_the_file(elements: dict[str, Any]) -> None:
    ds = dataset(**elements)
    if "VOILUTSequence" in ds:
        ds.VOILUTSequence[0].LUTDescriptor = [4096, 0, 12]
    assert fault(written(ds)).code == "damaged"


def test_no_warning_and_no_log_line_leaves_the_decoder(caplog: pytest.LogCaptureFixture) -> None:
    ds = dataset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds.SOPClassUID = UID(f"not.a.{PATIENT}.uid")
        content = written(ds) + b"\x00" * 7  # an element cut short behind the pixels
    with caplog.at_level(logging.DEBUG):
        decode_dicom(content)
        decode_dicom(real("MR_small_padded.dcm"))
    assert caplog.records == []


def test_a_deflated_file_is_refused_without_inflating_it() -> None:
    ds = dataset(np.zeros((2000, 2000), np.uint16), syntax=DeflatedExplicitVRLittleEndian)
    assert fault(written(ds)).code == "dicom_compressed"


def test_run_length_coding_needs_no_extra() -> None:
    ds = dataset(WindowCenter=2048, WindowWidth=4096)
    straight = shown(ds)
    ds.compress(RLELossless)
    assert np.array_equal(shown(ds), straight)


SMALL = written(dataset(RAMP[:8, :8], WindowCenter=100, WindowWidth=200, VOILUTSequence=lut(0, 8, list(range(256)))))


@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    edits=st.lists(st.tuples(st.integers(0, len(SMALL) - 1), st.integers(0, 255)), min_size=1, max_size=12), cut=st.integers(1, len(SMALL))
)
def test_any_change_of_bytes_gives_a_picture_or_a_fault_of_the_file(edits: list[tuple[int, int]], cut: int) -> None:
    content = bytearray(SMALL)
    for position, value in edits:
        content[position] = value
    for variant in (bytes(content), bytes(content[:cut])):
        if not is_dicom(variant):
            continue
        try:
            frame = decode_dicom(variant, max_pixels=100_000)
        except InputFault as told:
            assert told.code
        else:
            assert isinstance(frame, Frame)
            assert frame.pixels.shape == (frame.rows, frame.columns)


@pytest.fixture
def decoders() -> None:
    """Those of the extra ``dicom``."""
    for package in ("libjpeg", "openjpeg", "rle"):
        pytest.importorskip(package, reason="the extra dicom is not installed")


@pytest.mark.parametrize(
    ("compressed", "plain"),
    [("MR_small_jpeg_ls_lossless.dcm", "MR_small.dcm"), ("RG1_J2KR.dcm", "RG1_UNCR.dcm"), ("MR_small_RLE.dcm", "MR_small.dcm")],
)
def test_lossless_compression_changes_no_pixel(decoders: None, compressed: str, plain: str) -> None:
    assert np.array_equal(decode_dicom(real(compressed)).pixels, decode_dicom(real(plain)).pixels)


def test_lossless_jpeg_is_read(decoders: None) -> None:
    frame = decode_dicom(real("JPEG-LL.dcm"))
    assert frame.pixels.shape == (frame.rows, frame.columns) == (1024, 256)
    assert np.ptp(frame.pixels) > 200
