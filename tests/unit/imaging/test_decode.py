"""Decoding of JPEG, PNG, TIFF, BMP and WebP: what the pixels become, and what is refused with which words."""

from __future__ import annotations

import threading
import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edge_agent.errors import InputFault
from edge_agent.imaging.decode import decode_image
from edge_agent.imaging.grey import grey_range, to_8_bits
from edge_agent.imaging.preprocess import InputContract, prepare_input
from edge_agent.imaging.quiet import quiet_libraries
from edge_agent.records import Frame

GREY = np.add.outer(np.arange(120), np.arange(90)).astype(np.uint8)
"""120 rows, 90 columns, from 0 in the upper left to 208 in the lower right corner."""


def encoded(image: Image.Image, file_format: str, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def decoded(content: bytes, side: int = 160, max_pixels: int = 1_000_000) -> Frame:
    return decode_image(content, rows=side, columns=side, max_pixels=max_pixels)


def fault(content: bytes, max_pixels: int = 1_000_000) -> InputFault:
    with pytest.raises(InputFault) as caught:
        decoded(content, max_pixels=max_pixels)
    return caught.value


@pytest.mark.parametrize(
    ("file_format", "options"),
    [
        ("JPEG", {"quality": 95}),
        ("JPEG", {"quality": 95, "progressive": True}),
        ("PNG", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "tiff_adobe_deflate"}),
        ("BMP", {}),
        ("WEBP", {"lossless": True}),
    ],
)
def test_every_accepted_format_gives_the_grey_values_back(file_format: str, options: dict[str, Any]) -> None:
    frame = decoded(encoded(Image.fromarray(GREY), file_format, **options))
    assert (frame.rows, frame.columns, frame.file_format) == (120, 90, file_format)
    assert frame.pixels.dtype == np.uint8
    assert np.abs(frame.pixels.astype(int) - GREY).max() <= (3 if file_format == "JPEG" else 0)


@pytest.mark.parametrize(
    ("file_format", "mode"),
    [
        *(("PNG", mode) for mode in ("RGB", "RGBA", "P", "LA")),
        *(("TIFF", mode) for mode in ("RGB", "RGBA", "P", "LA", "CMYK", "YCbCr")),
        *(("BMP", mode) for mode in ("RGB", "RGBA", "P")),
        *(("JPEG", mode) for mode in ("RGB", "CMYK", "YCbCr")),
        *(("WEBP", mode) for mode in ("RGB", "RGBA")),
    ],
)
def test_a_grey_picture_in_a_colour_file_keeps_its_values(file_format: str, mode: str) -> None:
    lossless = {"lossless": True} if file_format == "WEBP" else {}
    content = encoded(Image.fromarray(GREY).convert(mode), file_format, **lossless)
    assert np.abs(decoded(content).pixels.astype(int) - GREY).max() <= 4


def test_colour_becomes_luma() -> None:
    red_green_blue = np.zeros((3, 3, 3), np.uint8)
    red_green_blue[np.arange(3), :, np.arange(3)] = 255
    assert decoded(encoded(Image.fromarray(red_green_blue), "PNG")).pixels[:, 0].tolist() == [76, 150, 29]


def test_what_is_transparent_is_black() -> None:
    white = Image.new("RGBA", (4, 2), (255, 255, 255, 255))
    white.paste((255, 255, 255, 0), (0, 0, 2, 2))
    white.paste((255, 255, 255, 128), (2, 0, 3, 2))
    assert decoded(encoded(white, "PNG")).pixels[0].tolist() == [0, 0, 128, 255]
    grey_with_a_transparent_value = encoded(Image.fromarray(np.array([[200, 100]], np.uint8)), "PNG", transparency=200)
    assert decoded(grey_with_a_transparent_value).pixels.tolist() == [[0, 100]]


def test_one_bit_is_black_and_white() -> None:
    assert set(decoded(encoded(Image.fromarray(GREY).convert("1"), "TIFF", compression="group4")).pixels.ravel().tolist()) == {0, 255}


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
@pytest.mark.parametrize("used_bits", [10, 12, 16])
def test_deep_grey_is_scaled_by_its_own_range_and_never_clipped(file_format: str, used_bits: int) -> None:
    deep = np.linspace(0, 2**used_bits - 1, 256 * 40).round().astype(np.uint16).reshape(256, 40)
    frame = decoded(encoded(Image.fromarray(deep), file_format))
    assert np.abs(frame.pixels[:, 0].astype(int) - np.arange(256)).max() <= 1


def test_floating_point_grey_is_scaled_too() -> None:
    ramp = np.linspace(-1.0, 1.0, 256 * 40, dtype=np.float32).reshape(256, 40)
    ramp[3, 3] = np.nan
    ramp[4, 4] = np.inf
    pixels = decoded(encoded(Image.fromarray(ramp), "TIFF")).pixels
    assert np.abs(pixels[:, 0].astype(int) - np.arange(256)).max() <= 1
    assert (pixels[3, 3], pixels[4, 4]) == (0, 255)


def test_white_is_zero_is_turned_around_at_every_depth() -> None:
    photometric = {262: 0}
    assert decoded(encoded(Image.fromarray(GREY), "TIFF", tiffinfo=photometric)).pixels[0, 0] == 0  # Pillow writes the values inverted
    deep = np.linspace(0, 65535, 1000).astype(np.uint16).reshape(25, 40)
    pixels = decoded(encoded(Image.fromarray(deep), "TIFF", tiffinfo=photometric)).pixels
    assert (pixels[0, 0], pixels[-1, -1]) == (255, 0)


def test_one_dead_pixel_does_not_decide_the_brightness() -> None:
    values = np.linspace(0, 4095, 10_000).reshape(100, 100)
    values[50, 50] = 65535
    low, high = grey_range(values)
    assert -1 < low < 10
    assert 4080 < high < 4096
    assert to_8_bits(values, low, high)[50, 50] == 255


def test_the_range_of_a_flat_or_empty_image() -> None:
    flat = np.full((10, 10), 7)
    assert to_8_bits(flat, *grey_range(flat)).max() == 0
    nothing = np.full((10, 10), np.nan)
    assert to_8_bits(nothing, *grey_range(nothing)).max() == 0
    one_bright = np.zeros((100, 100))
    one_bright[0, 0] = 9
    assert to_8_bits(one_bright, *grey_range(one_bright))[0, :2].tolist() == [255, 0]


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_orientation_is_applied(file_format: str, orientation: int) -> None:
    upright = np.zeros((64, 32), np.uint8)
    upright[:32, :16] = 250  # upper left quarter
    upright[:32, 16:] = 150
    upright[32:, :16] = 60
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 100} | ({"lossless": True} if file_format == "WEBP" else {})
    frame = decoded(encoded(Image.fromarray(np.ascontiguousarray(stored)), file_format, exif=exif, **options))
    assert (frame.rows, frame.columns) == (64, 32)
    assert np.abs(frame.pixels.astype(int) - upright).max() <= 6


def test_a_large_jpeg_is_decoded_reduced_but_not_below_the_input() -> None:
    content = encoded(Image.fromarray(GREY).resize((1500, 2000)), "JPEG")
    frame = decode_image(content, rows=160, columns=160)
    assert frame.pixels.shape == (250, 188)
    assert (frame.rows, frame.columns) == (2000, 1500)
    assert decode_image(content, rows=100, columns=300).pixels.shape == (500, 375)
    assert decode_image(content, rows=300, columns=400).pixels.shape == (1000, 750)
    assert decode_image(content, rows=300, columns=800).pixels.shape == (2000, 1500)


def test_a_reduced_decode_gives_nearly_the_same_input(real_data: Path) -> None:
    contract = InputContract(rows=224, columns=224)
    differences = []
    for path in sorted(real_data.glob("kermany/fullres/*/*"))[::8]:
        reduced = prepare_input(decode_image(path.read_bytes(), rows=224, columns=224).pixels, contract)
        with Image.open(path) as image:
            full = prepare_input(np.asarray(image.convert("L")), contract)
        differences.append(np.abs(reduced.astype(int) - full.astype(int)).mean())
    assert len(differences) == 8
    assert np.mean(differences) < 0.5
    assert max(differences) < 1.0


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF", "BMP", "WEBP"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_cut_file_is_never_half_a_picture(file_format: str, share: float) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (100, 100), dtype=np.uint8)
    content = encoded(Image.fromarray(noise), file_format)
    assert fault(content[: int(len(content) * share)]).code == "truncated"


@pytest.mark.parametrize("options", [{}, {"restart_marker_rows": 1}])
def test_a_jpeg_that_ends_early_with_an_end_marker_is_not_half_grey(options: dict[str, Any]) -> None:
    content = encoded(Image.fromarray(GREY).resize((800, 1000)), "JPEG", **options)
    assert fault(content[: len(content) // 2] + b"\xff\xd9").code == "truncated"


def test_a_jpeg_whose_rest_is_zeros_is_truncated() -> None:
    content = encoded(Image.fromarray(GREY), "JPEG")
    half = len(content) // 2
    assert fault(content[:half] + bytes(len(content) - half)).code == "truncated"


def test_a_jpeg_of_nothing_but_half_grey_is_complete() -> None:
    assert decoded(encoded(Image.new("L", (300, 200), 128), "JPEG")).pixels.tolist() == [[128] * 300] * 200


def test_a_jpeg_with_bytes_after_its_end_is_complete() -> None:
    assert decoded(encoded(Image.fromarray(GREY), "JPEG") + bytes(1000)).rows == 120


def test_a_png_with_one_flipped_bit_is_damaged() -> None:
    content = bytearray(encoded(Image.fromarray(GREY), "PNG"))
    content[len(content) // 2] ^= 1
    assert fault(bytes(content)).code == "damaged"


@pytest.mark.parametrize("file_format", ["TIFF", "PNG", "WEBP"])
def test_several_pages_or_frames_are_refused(file_format: str) -> None:
    image = Image.fromarray(GREY)
    content = encoded(image, file_format, save_all=True, append_images=[image.rotate(9)])
    assert fault(content).code == "multi_frame"
    assert "Export one image a file" in fault(content).message


def test_of_a_multi_picture_jpeg_the_first_counts() -> None:
    image = Image.fromarray(GREY)
    frame = decoded(encoded(image, "MPO", save_all=True, append_images=[image.rotate(90, expand=True)]))
    assert (frame.rows, frame.columns, frame.file_format) == (120, 90, "JPEG")


@pytest.mark.parametrize(
    ("content", "code", "looks"),
    [
        (b"", "empty", "0 bytes"),
        (b"Patient came back on Monday.\n", "not_an_image", "looks like text"),
        ("Größe: 3 µm".encode("utf-16"), "not_an_image", "looks like text"),
        (b"\xef\xbb\xbf<!DOCTYPE html>\n<html>", "not_an_image", "a web page"),
        (b"<?xml version='1.0'?>", "not_an_image", "an XML"),
        (b"%PDF-1.7\n", "not_an_image", "a PDF document"),
        (b"PK\x03\x04aaaa", "not_an_image", "a ZIP archive"),
        (b"\x7fELF\x02", "not_an_image", "a program"),
        (bytes(100), "not_an_image", "nothing but zeros"),
        (bytes(range(256)), "not_an_image", "unknown binary"),
        (b"GIF89a", "unsupported_format", "a GIF picture"),
        (b"\0\0\0\x18ftypheic", "unsupported_format", "HEIC"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "unsupported_format", "JPEG 2000"),
    ],
)
def test_what_is_not_read_is_named(content: bytes, code: str, looks: str) -> None:
    assert fault(content).code == code
    assert looks in fault(content).message


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF", "BMP", "WEBP"])
def test_too_many_pixels_are_refused_with_both_numbers(file_format: str) -> None:
    content = encoded(Image.new("L", (1200, 1000)), file_format)
    assert fault(content).code == "too_large"
    assert "1,200 x 1,000 pixels; at most 1 million" in fault(content).message
    assert decoded(content, max_pixels=1_200_000).columns == 1200


def test_more_pixels_than_pillows_own_limit_raise_no_warning() -> None:
    content = encoded(Image.new("1", (10_000, 9_500)), "PNG")  # Pillow warns from 89 million on
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode_image(content, rows=160, columns=160).rows == 9_500


def test_colour_spaces_that_hold_no_luma_are_refused() -> None:
    assert fault(encoded(Image.new("LAB", (9, 9)), "TIFF")).code == "unsupported_pixels"


def test_a_broken_exif_block_does_not_spoil_good_pixels() -> None:
    content = encoded(Image.fromarray(GREY), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    assert decoded(content).rows == 120


SMALL = [
    encoded(Image.fromarray(GREY[:24, :24]).convert(mode), file_format, **options)
    for file_format, mode, options in [
        ("JPEG", "L", {}),
        ("JPEG", "RGB", {"progressive": True}),
        ("PNG", "RGBA", {}),
        ("TIFF", "I;16", {}),
        ("TIFF", "L", {"compression": "tiff_lzw"}),
        ("BMP", "P", {}),
        ("WEBP", "RGBA", {}),
    ]
]


@settings(max_examples=400, deadline=None, derandomize=True)
@given(
    original=st.sampled_from(SMALL),
    edits=st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), min_size=1, max_size=12),
    cut=st.integers(1, 4000),
)
def test_any_change_of_bytes_gives_a_picture_or_a_fault_of_the_file(original: bytes, edits: list[tuple[int, int]], cut: int) -> None:
    content = bytearray(original)
    for position, value in edits:
        content[position % len(content)] = value
    for variant in (bytes(content), bytes(content[:cut])):
        try:
            frame = decode_image(variant, rows=16, columns=16, max_pixels=100_000)
        except InputFault as told:
            assert told.code
        else:
            assert (frame.pixels.dtype, frame.pixels.ndim) == (np.uint8, 2)
            assert 0 < frame.pixels.size <= frame.rows * frame.columns <= 100_000


def test_libraries_are_quiet_in_every_thread_and_the_filters_come_back() -> None:
    filters = list(warnings.filters)
    inside, leave = threading.Barrier(3), threading.Event()

    def warn_inside() -> None:
        with quiet_libraries():
            inside.wait(60)
            warnings.warn("an oddity", UserWarning, stacklevel=1)
            leave.wait(60)

    threads = [threading.Thread(target=warn_inside) for _ in range(2)]
    for thread in threads:
        thread.start()
    inside.wait(60)
    leave.set()
    for thread in threads:
        thread.join(60)
    assert warnings.filters == filters
    with pytest.warns(UserWarning, match="an oddity"):
        warnings.warn("an oddity", UserWarning, stacklevel=1)
