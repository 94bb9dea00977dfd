"""Shifts change what they say and nothing else, and are read image by image."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from model_build.data.phantom.draw import draw_phantom
from model_build.studies.shift.transforms import AS_IT_IS, SHIFTS, Shift, ShiftedPixels

BY_NAME = {shift.name: shift for shift in SHIFTS}


@functools.cache
def phantom(side: int = 96) -> np.ndarray:
    return draw_phantom(1, rows=side, columns=side, opacity_count=1)


@pytest.mark.parametrize("shift", SHIFTS, ids=lambda shift: shift.name)
def test_a_shift_gives_another_image_of_the_same_kind_and_leaves_its_input(shift: Shift) -> None:
    grey = phantom()
    kept = grey.copy()
    changed = shift.change(grey)
    assert changed.shape == grey.shape
    assert changed.dtype == np.uint8
    assert np.array_equal(grey, kept)
    assert np.array_equal(changed, shift.change(grey))
    assert (changed != grey).mean() > 0.05


@pytest.mark.parametrize("shift", SHIFTS, ids=lambda shift: shift.name)
def test_a_shift_takes_films_that_are_not_square_and_films_without_any_contrast(shift: Shift) -> None:
    assert shift.change(np.full((40, 72), 90, np.uint8)).shape == (40, 72)


def test_names_differ_and_every_family_can_be_left_out() -> None:
    assert len(BY_NAME) == len(SHIFTS)
    assert AS_IT_IS.family not in {shift.family for shift in SHIFTS}
    assert len({shift.family for shift in SHIFTS}) >= 7


def test_as_they_are_is_a_copy() -> None:
    grey = phantom()
    assert np.array_equal(AS_IT_IS.change(grey), grey)
    assert AS_IT_IS.change(grey) is not grey


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gamma 0.6", [0, 169, 255]),
        ("gamma 1.6", [0, 85, 255]),
        ("brighter by 30", [30, 158, 255]),
        ("darker by 30", [0, 98, 225]),
        ("contrast 0.6", [51, 128, 204]),
        ("contrast 1.4", [0, 128, 255]),
    ],
)
def test_grey_values(name: str, expected: list[int]) -> None:
    assert BY_NAME[name].change(np.array([[0, 128, 255]], np.uint8)).tolist() == [expected]


def test_framing_moves_the_borders_of_the_film() -> None:
    square = np.zeros((100, 100), np.uint8)
    square[30:70, 30:70] = 200
    for name, side in (("cropped by 8 %", 40 / 0.84), ("padded by 15 %", 40 * 0.85)):
        area = (BY_NAME[name].change(square) > 100).sum()
        assert area == pytest.approx(side**2, rel=0.06)
    white = np.full((100, 100), 255, np.uint8)
    padded = BY_NAME["padded by 15 %"].change(white)
    assert (padded[:7] == 0).all()
    assert (padded[50, 10:90] == 255).all()


def test_a_coarse_film_has_lost_its_fine_lines() -> None:
    lines = np.tile(np.array([[0, 255]], np.uint8), (100, 50))
    for name in ("blur of 1 px", "resolution 40 %"):
        assert BY_NAME[name].change(lines).std() < 0.5 * lines.std()


@pytest.mark.parametrize("index", [1, np.int64(1)])
def test_one_image_is_read_and_changed(index: int) -> None:
    pixels = np.stack([phantom(48), phantom(48)[::-1], phantom(48)[:, ::-1]])[..., np.newaxis]
    shifted = ShiftedPixels(pixels, np.array([2, 0]), BY_NAME["gamma 0.6"])
    assert shifted.shape == (2, 48, 48, 1)
    assert len(shifted) == 2
    assert np.array_equal(shifted[int(index)][:, :, 0], BY_NAME["gamma 0.6"].change(pixels[0, :, :, 0]))


@pytest.mark.parametrize("index", [slice(0, 2), np.array([0, 1]), np.array([True, True])], ids=["slice", "indices", "flags"])
def test_several_images_are_those_one_by_one(index: slice | np.ndarray) -> None:
    pixels = np.stack([phantom(48), phantom(48)[::-1], phantom(48)[:, ::-1]])[..., np.newaxis]
    shifted = ShiftedPixels(pixels, np.array([2, 0]), BY_NAME["equalised"])
    assert np.array_equal(shifted[index], np.stack([shifted[0], shifted[1]]))
