"""From pixels to model input: shape, values, and no surprise at any size."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.imaging.preprocess import InputContract, prepare_input

CONTRACT = InputContract(rows=24, columns=32)


@given(rows=st.integers(1, 300), columns=st.integers(1, 300), low=st.integers(0, 255), high=st.integers(0, 255), seed=st.integers(0, 99))
def test_any_size_gives_the_models_size_within_the_values_of_the_image(rows: int, columns: int, low: int, high: int, seed: int) -> None:
    low, high = sorted((low, high))
    pixels = np.random.default_rng(seed).integers(low, high + 1, (rows, columns), dtype=np.uint8)
    prepared = prepare_input(pixels, CONTRACT)
    assert (prepared.shape, prepared.dtype) == ((24, 32, 1), np.uint8)
    assert low <= prepared.min() <= prepared.max() <= high


def test_an_image_of_the_models_size_is_copied_unchanged() -> None:
    pixels = np.arange(24 * 32, dtype=np.uint16).astype(np.uint8).reshape(24, 32)
    prepared = prepare_input(pixels, CONTRACT)
    assert np.array_equal(prepared[:, :, 0], pixels)
    prepared[0, 0] = 99
    assert pixels[0, 0] == 0


def test_each_output_pixel_averages_what_lies_below_it() -> None:
    checkerboard = (np.indices((24 * 8, 32 * 8)).sum(axis=0) % 2 * 255).astype(np.uint8)
    assert np.abs(prepare_input(checkerboard, CONTRACT).astype(int) - 127).max() <= 2


def test_a_place_stays_a_place() -> None:
    pixels = np.zeros((240, 640), np.uint8)
    pixels[:120, 320:] = 200  # upper right quarter
    prepared = prepare_input(pixels, CONTRACT)[:, :, 0]
    assert (prepared[4, 24], prepared[4, 8], prepared[18, 24]) == (200, 0, 0)


def test_a_read_only_image_is_fine_and_stays_as_it_is() -> None:
    pixels = np.full((50, 50), 7, np.uint8)
    pixels.flags.writeable = False
    assert prepare_input(pixels, CONTRACT).max() == 7


@pytest.mark.parametrize("wrong", [b'{"rows":1,"columns":1,"channels":3}', b'{"rows":1,"columns":1,"resize":"crop"}', b'{"rows":1}'])
def test_a_contract_that_this_version_cannot_honour_is_refused(wrong: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(wrong, type=InputContract)
