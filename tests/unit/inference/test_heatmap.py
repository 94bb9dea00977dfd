"""Class activation maps stand where the evidence is."""

from __future__ import annotations

import numpy as np

from edge_agent.inference.heatmap import draw_heatmap


def test_evidence_colours_its_own_place_only() -> None:
    pixels = np.full((80, 120), 100, np.uint8)
    evidence = np.full((10, 10), -5.0, np.float32)
    evidence[2, 7] = 10.0
    picture = draw_heatmap(pixels, evidence, 0.99)
    assert picture.shape == (80, 120, 3)
    assert picture.dtype == np.uint8
    colour = np.ptp(picture.astype(int), axis=2)
    row, column = np.unravel_index(colour.argmax(), colour.shape)
    assert 16 <= row < 24
    assert 84 <= column < 96
    assert (picture[60:, :60] == 100).all()


def test_a_normal_image_stays_nearly_grey() -> None:
    pixels = np.full((80, 80), 100, np.uint8)
    evidence = np.random.default_rng(0).normal(0.0, 20.0, (10, 10)).astype(np.float32)
    calm = np.ptp(draw_heatmap(pixels, evidence, 0.02).astype(int), axis=2).max()
    assert calm < 0.2 * np.ptp(draw_heatmap(pixels, evidence, 0.98).astype(int), axis=2).max()


def test_without_evidence_the_image_stays_as_it_is() -> None:
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    picture = draw_heatmap(pixels, np.full((4, 4), -1.0, np.float32), 0.9)
    assert (picture == pixels[:, :, np.newaxis]).all()
