"""Quality flags: what raises them, and how seldom real radiographs do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_agent.imaging.decode import decode_image
from edge_agent.imaging.quality import QUALITY_MESSAGES, assess_quality
from edge_agent.records import Frame


def frame(low: float, high: float, rows: int = 300, columns: int = 400) -> Frame:
    """A ramp of grey values between two limits, every value as often."""
    ramp = np.linspace(low, high, rows * columns).round().astype(np.uint8).reshape(rows, columns)
    return Frame(pixels=ramp, rows=rows, columns=columns, file_format="PNG")


@pytest.mark.parametrize(
    ("image", "flags"),
    [
        (frame(0, 255), []),
        (frame(0, 255, rows=128), []),
        (frame(0, 255, rows=127), ["low_resolution"]),
        (frame(0, 255, columns=64), ["low_resolution"]),
        (frame(90, 165), []),
        (frame(90, 155), ["low_contrast"]),
        (frame(0, 115), []),
        (frame(0, 105), ["too_dark"]),
        (frame(130, 255), []),
        (frame(150, 255), ["too_bright"]),
        (frame(0, 0), ["low_contrast", "too_dark"]),
        (frame(255, 255, rows=9), ["low_resolution", "low_contrast", "too_bright"]),
    ],
)
def test_flags_of_ramps(image: Frame, flags: list[str]) -> None:
    assert assess_quality(image) == flags


def test_resolution_is_that_of_the_file_not_of_a_reduced_decode() -> None:
    reduced = frame(0, 255, rows=100, columns=100)
    assert assess_quality(Frame(pixels=reduced.pixels, rows=800, columns=800, file_format="JPEG")) == []


def test_a_single_pixel_is_judged_without_failing() -> None:
    assert "low_resolution" in assess_quality(frame(7, 7, rows=1, columns=1))


def test_every_flag_has_words_for_the_technician() -> None:
    assert set(QUALITY_MESSAGES) == {"low_resolution", "low_contrast", "too_dark", "too_bright"}
    assert all(len(words) > 40 for words in QUALITY_MESSAGES.values())


def test_real_radiographs_are_hardly_ever_flagged(real_data: Path) -> None:
    paths = sorted(real_data.glob("kermany/train/*/*"))[::10] + sorted(real_data.glob("kermany/fullres/*/*"))
    flagged = [path for path in paths if assess_quality(decode_image(path.read_bytes(), rows=160, columns=160))]
    assert len(paths) > 500
    assert len(flagged) <= 0.005 * len(paths)
