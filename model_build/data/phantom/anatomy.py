"""The synthetic patient: one anatomy drawn from a seed, and how much it weakens the beam at each point.

Lengths are in units of the film's height; x grows to the patient's left, which is the image's right, y grows downwards, and the origin is
the film's centre. Attenuation is summed along the beam: soft tissue, less the air of the lungs, plus bone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from model_build.array_types import Float32Array, Float64Array

Map = Float32Array
Points = Sequence[tuple[float, float]]

PX_PER_UNIT = 1000
HALF_HEIGHT, HALF_WIDTH = 0.56, 0.72
CANVAS_SIZE = (round(2 * HALF_WIDTH * PX_PER_UNIT), round(2 * HALF_HEIGHT * PX_PER_UNIT))
_SHARP = 0.0035
"""Half width of an organ's edge: the focal spot's blur and the beating heart."""


def _single(values: Any) -> Map:
    """In single precision: a grey value needs no more, and it halves the memory."""
    return np.asarray(values, dtype=np.float32)


@dataclass(frozen=True)
class Anatomy:
    """One synthetic patient, and how it stands before the film.

    ``age`` runs from 0 (small child: round chest, flat ribs, large heart) to 1 (adult). Angles in degrees.
    """

    age: float
    chest_half_width: float
    apex_y: float
    angle_y: float
    right_dome_y: float
    left_dome_y: float
    heart_width: float
    fat: float
    arms_raised: bool
    rotation_deg: float
    zoom: float
    shift: tuple[float, float]
    exposure: float
    contrast: float


def draw_anatomy(rng: np.random.Generator) -> Anatomy:
    """Draw one patient from ``rng``: every value from a plausible range, in a fixed order, so that a seed is a patient."""
    age = float(rng.uniform(0.0, 1.0))
    apex = float(rng.uniform(-0.40, -0.37)) + 0.03 * (1 - age)
    angle = float(rng.uniform(0.31, 0.36)) - 0.03 * (1 - age)
    right_dome = angle - float(rng.uniform(0.105, 0.145))
    half_width = float(rng.uniform(0.345, 0.385))
    return Anatomy(
        age=age,
        chest_half_width=half_width,
        apex_y=apex,
        angle_y=angle,
        right_dome_y=right_dome,
        left_dome_y=right_dome + float(rng.uniform(0.018, 0.04)),
        # The cardiothoracic ratio: about 0.57 in a small child, 0.49 in an adult of this film.
        heart_width=half_width * (0.57 - 0.08 * age + float(rng.uniform(-0.03, 0.03))),
        fat=float(rng.uniform(0.035, 0.07)),
        arms_raised=bool(rng.random() < 0.7 * (1 - age)),
        rotation_deg=float(np.clip(rng.normal(0.0, 1.8), -4.0, 4.0)),
        zoom=float(rng.uniform(0.94, 1.12)),
        shift=(float(rng.normal(0.0, 0.012)), float(rng.normal(0.0, 0.012))),
        exposure=float(rng.uniform(-0.25, 0.25)),
        contrast=float(rng.uniform(0.9, 1.2)),
    )


class Canvas:
    """A drawing board in film units; ``x`` is a row vector and ``y`` a column vector, so that profiles broadcast."""

    def __init__(self) -> None:
        self.x = _single((np.arange(CANVAS_SIZE[0]) + 0.5) / PX_PER_UNIT - HALF_WIDTH)[np.newaxis, :]
        self.y = _single((np.arange(CANVAS_SIZE[1]) + 0.5) / PX_PER_UNIT - HALF_HEIGHT)[:, np.newaxis]

    def lines(self, strokes: Sequence[tuple[Points, float, float]], blur: float) -> Map:
        """Lines of a width and a value in [0, 1]; where they cross, the last one stands."""
        board = Image.new("L", CANVAS_SIZE)
        pen = ImageDraw.Draw(board)
        for points, width, value in strokes:
            pen.line(self._pixels(points), fill=round(255 * value), width=max(1, round(width * PX_PER_UNIT)), joint="curve")
        return self._blurred(board, blur)

    def polygon(self, points: Points, blur: float) -> Map:
        board = Image.new("L", CANVAS_SIZE)
        ImageDraw.Draw(board).polygon(self._pixels(points), fill=255)
        return self._blurred(board, blur)

    def ellipsoid(self, centre: tuple[float, float], radii: tuple[float, float], angle_deg: float = 0.0) -> Map:
        """Chord through an ellipsoid along the beam, 1 at its centre and 0 outside."""
        c, s = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
        dx, dy = self.x - centre[0], self.y - centre[1]
        u, v = (c * dx + s * dy) / radii[0], (c * dy - s * dx) / radii[1]
        return _single(np.sqrt(np.clip(1.0 - u * u - v * v, 0.0, None)))

    @staticmethod
    def _pixels(points: Points) -> list[tuple[float, float]]:
        return [((x + HALF_WIDTH) * PX_PER_UNIT, (y + HALF_HEIGHT) * PX_PER_UNIT) for x, y in points]

    @staticmethod
    def _blurred(board: Image.Image, blur: float) -> Map:
        # A box of the same standard deviation as a Gaussian of that width: a third of the time.
        return _single(board.filter(ImageFilter.BoxBlur(1.73 * blur * PX_PER_UNIT))) / 255.0


def _step(distance: Map, softness: float = _SHARP) -> Map:
    """0 well below zero, 1 well above."""
    return _single(0.5 + 0.5 * np.tanh(distance / softness))


def _chest_half_width(anatomy: Anatomy, y: Map) -> Map:
    """Half width of the inside of the rib cage at each height: a dome on nearly parallel walls."""
    t = np.clip((y - anatomy.apex_y) / (anatomy.angle_y - anatomy.apex_y), 0.0, 1.0)
    roundness = 3.8 - 0.7 * anatomy.age
    return _single(anatomy.chest_half_width * (1.0 - (1.0 - t) ** roundness) ** 0.55)


def _soft_tissue(canvas: Canvas, anatomy: Anatomy) -> Map:
    """Thickness of neck, shoulders, trunk and arms, 1 at the middle of the trunk."""
    y = canvas.y
    wall = _chest_half_width(anatomy, y) + anatomy.fat
    shoulder_y = anatomy.apex_y + 0.03
    neck = 0.105 + 0.02 * anatomy.age
    # The trapezius: from the neck down to the shoulder.
    slope = np.interp(
        y[:, 0],
        [shoulder_y - 0.16, shoulder_y - 0.07, shoulder_y, shoulder_y + 0.09],
        [neck, neck + 0.05, 0.33, anatomy.chest_half_width + anatomy.fat],
    )[:, np.newaxis]
    outline = _single(np.maximum(slope, np.where(y > shoulder_y + 0.09, wall, 0.0)))
    depth = _single(np.interp(y[:, 0], [shoulder_y - 0.1, shoulder_y + 0.08, 0.1, 0.5], [0.68, 0.86, 1.0, 1.05])[:, np.newaxis])
    trunk = depth * np.sqrt(np.clip(1.0 - (canvas.x / outline) ** 2, 0.0, None))
    hand_y, reach = (-0.62, 0.52) if anatomy.arms_raised else (0.62, 0.60)
    arms = [
        canvas.lines([([(side * 0.43, shoulder_y + 0.06), (side * reach, hand_y)], 0.15, 0.42) for side in (-1, 1)], 0.018),
        *(0.6 * canvas.ellipsoid((side * 0.385, shoulder_y + 0.055), (0.135, 0.075), side * 8.0) for side in (-1, 1)),
    ]
    return _single(np.maximum.reduce([trunk, *arms]))


def _smooth(points: Points, steps: int = 12) -> list[tuple[float, float]]:
    """A closed Catmull-Rom curve through ``points``."""
    p = np.asarray(points, dtype=np.float64)
    before, after, beyond = np.roll(p, 1, axis=0), np.roll(p, -1, axis=0), np.roll(p, -2, axis=0)
    t = np.linspace(0.0, 1.0, steps, endpoint=False)[:, np.newaxis, np.newaxis]
    curve = 0.5 * (
        2 * p + (after - before) * t + (2 * before - 5 * p + 4 * after - beyond) * t**2 + (3 * (p - after) + beyond - before) * t**3
    )
    return [(float(x), float(y)) for x, y in curve.transpose(1, 0, 2).reshape(-1, 2)]


def _heart_and_vessels(canvas: Canvas, anatomy: Anatomy) -> Map:
    """1 inside the shadow of the mediastinum: vessels, aortic knob, pulmonary trunk, and the heart with its apex to the left."""
    w, top, age = anatomy.heart_width, anatomy.apex_y, anatomy.age
    floor, right_floor = anatomy.left_dome_y + 0.035, anatomy.right_dome_y + 0.02
    base = floor - 1.45 * w
    thymus = 0.028 * (1 - age)
    knob = 0.050 + thymus + 0.022 * age
    left = [
        (0.110, top - 0.05),
        (0.060 + thymus, top + 0.06),
        (0.046 + thymus, top + 0.14),
        (knob, top + 0.225),
        (knob - 0.004, top + 0.26),
        (0.048 + 0.5 * thymus, top + 0.295),
        (max(0.34 * w, 0.062), base),
        (0.74 * w, base + 0.26 * w),
        (1.18 * w, floor - 0.80 * w),
        (1.38 * w, floor - 0.38 * w),
        (1.28 * w, floor),
        (0.8 * w, floor + 0.03),
    ]
    right = [
        (-0.30 * w, right_floor + 0.05),
        (-0.58 * w, right_floor),
        (-0.67 * w, right_floor - 0.34 * w),
        (-0.62 * w, right_floor - 0.70 * w),
        (-0.42 * w, right_floor - 1.05 * w),
        (-0.050 - 0.6 * thymus, top + 0.26),
        (-0.050 - thymus, top + 0.13),
        (-0.062 - thymus, top + 0.06),
        (-0.110, top - 0.05),
    ]
    return canvas.polygon(_smooth([*left, *right]), _SHARP)


def _lungs(canvas: Canvas, anatomy: Anatomy, shadow: Map) -> Map:
    """Path through aerated lung, at most 1; the recess behind each dome of the diaphragm keeps a little of it."""
    half_width = np.maximum(_chest_half_width(anatomy, canvas.y), 1e-3)
    chord = np.sqrt(np.clip(1.0 - (canvas.x / half_width) ** 2, 0.0, None)) * _step(canvas.y - anatomy.apex_y)
    # Each dome: highest a little inside its middle, steep towards the costophrenic angle.
    u = (np.abs(canvas.x) - 0.46 * anatomy.chest_half_width) / (0.54 * anatomy.chest_half_width)
    lateral = anatomy.angle_y + 0.005 - np.where(canvas.x < 0, anatomy.right_dome_y, anatomy.left_dome_y)
    dome = np.where(canvas.x < 0, anatomy.right_dome_y, anatomy.left_dome_y) + np.where(u > 0, lateral * np.abs(u) ** 2.4, 0.03 * u * u)
    above = _step(_single(dome - canvas.y))
    recess = 0.16 * _step(_single(dome + 0.09 - canvas.y), 0.03)
    # Some lung lies before and behind the heart, nearly none where the spine is.
    behind = 0.20 * np.clip(np.abs(canvas.x) / 0.2, 0.0, 1.0)
    return _single(chord * np.maximum(above, recess) * (1.0 - (1.0 - behind) * shadow))


def _rib(anatomy: Anatomy, number: int, side: int, angles_deg: Float64Array) -> list[tuple[float, float]]:
    """Points of one rib: 0 degrees at the spine, 90 at the lateral wall, beyond that the anterior part, sloping down to the middle."""
    spacing = 0.094 * (anatomy.angle_y - anatomy.apex_y)
    drop = (0.20 + 0.10 * anatomy.age) * (0.5 + 0.5 * min(1.0, number / 5))
    y = anatomy.apex_y - 0.005 + spacing * (number - 1) + drop * (angles_deg / 180.0) ** 1.3 - 0.01 * np.sin(np.radians(2 * angles_deg))
    wall = _chest_half_width(anatomy, _single(np.maximum(y, anatomy.apex_y + 0.012))) + 0.004
    x = np.maximum(wall, 0.07) * np.sin(np.radians(angles_deg))
    return [(side * float(a), float(b)) for a, b in zip(x, y, strict=True)]


def _ribs(canvas: Canvas, anatomy: Anatomy) -> Map:
    """Twelve pairs: hollow tubes, so that their edges are the brightest part; the ends of the anterior parts are cartilage."""
    width = 0.0165 + 0.003 * anatomy.age
    total = np.zeros((CANVAS_SIZE[1], CANVAS_SIZE[0]), dtype=np.float32)
    # Odd and even ribs apart, and front apart from back, so that crossings add up.
    for numbers, front in ((range(1, 12, 2), False), (range(2, 11, 2), False), (range(1, 9, 2), True), (range(2, 9, 2), True)):
        value, scale = (0.7, 1.15) if front else (1.0, 1.0)
        spans = {n: np.linspace(92, 150 - 6 * max(0, n - 3), 24) if front else np.linspace(7, 97 if n < 10 else 75, 40) for n in numbers}
        curves = [_rib(anatomy, number, side, span) for number, span in spans.items() for side in (-1, 1)]
        total += canvas.lines([(curve, scale * width, value) for curve in curves], 0.0016)
        total -= canvas.lines([(curve, 0.5 * scale * width, 0.45 * value) for curve in curves], 0.002)
    return total


def _spine(canvas: Canvas) -> Map:
    """Vertebral bodies that grow downwards, the discs between them, pedicles and spinous processes."""
    bodies, details = [], []
    top = -0.54
    while top < 0.56:
        height = 0.040 + 0.012 * (top + 0.5)
        half = 0.030 + 0.008 * (top + 0.5)
        middle = top + 0.5 * height
        bodies.append(([(0.0, top + 0.003), (0.0, top + height - 0.004)], 2 * half, 0.85))
        details += [([(side * 0.68 * half, middle - 0.008), (side * 0.68 * half, middle + 0.008)], 0.010, 0.8) for side in (-1, 1)]
        details.append(([(0.0, middle + 0.008), (0.0, middle + 0.026)], 0.008, 0.9))
        top += height
    return canvas.lines(bodies, 0.0025) + 0.55 * canvas.lines(details, 0.002)


def _shoulder_girdle(canvas: Canvas, anatomy: Anatomy) -> Map:
    """Clavicles, scapulae and the heads of the humeri."""
    y = anatomy.apex_y + 0.03
    lift = 0.05 if anatomy.arms_raised else 0.0
    total = np.zeros((CANVAS_SIZE[1], CANVAS_SIZE[0]), dtype=np.float32)
    clavicles, inner, arms, heads = [], [], [], []
    for side in (-1, 1):
        curve = [
            (side * a, b)
            for a, b in ((0.035, y + 0.085), (0.10, y + 0.066), (0.19, y + 0.028), (0.28, y - 0.002 - lift), (0.37, y - 0.004 - 1.4 * lift))
        ]
        clavicles.append((curve, 0.021 + 0.004 * anatomy.age, 1.0))
        inner.append((curve, 0.010, 0.4))
        head = (side * 0.43, y + 0.045 - lift)
        elbow = (side * 0.56, -0.62) if anatomy.arms_raised else (side * 0.59, 0.62)
        arms.append(([head, elbow], 0.042, 0.9))
        heads.append(canvas.ellipsoid(head, (0.036, 0.040)))
        blade = [(0.39, y + 0.02 - lift), (0.27, y + 0.03), (0.265, y + 0.08), (0.325, y + 0.30), (0.345, y + 0.30), (0.38, y + 0.12)]
        total += 0.3 * canvas.polygon([(side * a, b) for a, b in blade], 0.004)
        total += 0.25 * canvas.lines([([(side * 0.345, y + 0.30), (side * 0.375, y + 0.14), (side * 0.40, y + 0.05)], 0.008, 1.0)], 0.002)
    humeri = np.maximum.reduce([canvas.lines(arms, 0.002), *heads])
    return _single(total + canvas.lines(clavicles, 0.0018) - canvas.lines(inner, 0.002) + humeri)


def _vessels(canvas: Canvas, anatomy: Anatomy, rng: np.random.Generator) -> Map:
    """Arteries and veins that leave each hilum and branch, thinner at every step."""
    strokes: list[tuple[Points, float, float]] = []

    def grow(start: tuple[float, float], angle: float, width: float, length: float, depth: int) -> None:
        bend = angle + float(rng.normal(0.0, 0.12))
        middle = (start[0] + 0.5 * length * math.cos(angle), start[1] + 0.5 * length * math.sin(angle))
        end = (middle[0] + 0.5 * length * math.cos(bend), middle[1] + 0.5 * length * math.sin(bend))
        strokes.append(([start, middle, end], width, min(1.0, width / 0.013)))
        if depth:
            spread = float(rng.uniform(0.3, 0.6))
            grow(end, bend + spread * 0.6, 0.74 * width, 0.83 * length, depth - 1)
            grow(end, bend - spread, 0.66 * width, 0.78 * length, depth - 1)

    right_y = anatomy.apex_y + 0.345
    roots = ((-1, right_y), (1, right_y - 0.022))  # the left hilum stands higher
    for side, y in roots:
        for direction in (-68, -38, -8, 22, 46, 66):
            angle = math.radians(direction + float(rng.normal(0.0, 5.0)))
            start = (side * 0.062, y + 0.02 * math.sin(angle))
            grow(start, angle if side > 0 else math.pi - angle, float(rng.uniform(0.010, 0.0145)), 0.075, 5)
    strokes.sort(key=lambda stroke: stroke[2])
    tree = canvas.lines(strokes, 0.0016)
    hila = [canvas.ellipsoid((side * 0.072, y + 0.012), (0.026, 0.045), side * -12.0) for side, y in roots]
    return _single(tree + 0.9 * np.sum(hila, axis=0))


def _airway(canvas: Canvas, anatomy: Anatomy) -> Map:
    """Trachea and main bronchi, and the gas bubble of the stomach below the left dome."""
    carina = anatomy.apex_y + 0.285
    tubes = [
        ([(0.0, -0.56), (0.002, anatomy.apex_y + 0.1), (-0.006, carina)], 0.026 + 0.006 * anatomy.age, 1.0),
        ([(-0.006, carina), (-0.055, carina + 0.055)], 0.017, 0.8),
        ([(-0.006, carina), (0.065, carina + 0.050)], 0.015, 0.7),
    ]
    stomach = canvas.ellipsoid((0.16, anatomy.left_dome_y + 0.065), (0.075, 0.04), 12.0)
    return _single(canvas.lines(tubes, 0.003) + 0.55 * stomach)


def _opacities(canvas: Canvas, lungs: Map, count: int, rng: np.random.Generator) -> Map:
    """Consolidations: lumps with soft edges, centred where there is lung; 1 where all air is gone."""
    total = np.zeros_like(lungs)
    rows, columns = np.nonzero(lungs[::8, ::8] > 0.55)
    for _ in range(count):
        pick = int(rng.integers(len(rows)))
        x, y = float(canvas.x[0, columns[pick] * 8]), float(canvas.y[rows[pick] * 8, 0])
        for _ in range(int(rng.integers(5, 9))):
            dx, dy = (float(offset) for offset in rng.normal(0.0, 0.028, 2))
            radius = float(rng.uniform(0.022, 0.05))
            total += 0.42 * np.exp(-((canvas.x - x - dx) ** 2) / (2 * radius**2)) * np.exp(-((canvas.y - y - dy) ** 2) / (2 * radius**2))
    return _single(1.0 - np.exp(-1.4 * total))


def _mottle(rng: np.random.Generator, grain_px: int) -> Map:
    """Smooth random field over the canvas, about zero, with a standard deviation a little below 1."""
    coarse = _single(rng.standard_normal((CANVAS_SIZE[1] // grain_px + 1, CANVAS_SIZE[0] // grain_px + 1)))
    return _single(Image.fromarray(coarse).resize(CANVAS_SIZE, Image.Resampling.BICUBIC))


def draw_attenuation(anatomy: Anatomy, rng: np.random.Generator, opacity_count: int) -> Map:
    """Sum the attenuation along the beam at each point of the canvas.

    Parameters
    ----------
    anatomy : Anatomy
        The patient.
    rng : numpy.random.Generator
        For the texture of the lungs, the branching of the vessels and, after these, the opacities.
    opacity_count : int
        Consolidations inside the lungs, >= 0.

    Returns
    -------
    ndarray, float32, shape (CANVAS_SIZE[1], CANVAS_SIZE[0])
        Natural logarithm of the beam's weakening, 0 in air, about 2 in lung and 4 to 5 in the mediastinum.
    """
    canvas = Canvas()
    tissue = _soft_tissue(canvas, anatomy)
    shadow = _heart_and_vessels(canvas, anatomy)
    lungs = _lungs(canvas, anatomy, shadow)
    lungs *= 1.0 + 0.035 * _mottle(rng, 9) + 0.03 * _mottle(rng, 30)
    vessels = _vessels(canvas, anatomy, rng)
    consolidated = _opacities(canvas, lungs, opacity_count, rng)
    aerated = lungs * (1.0 - 0.85 * consolidated)
    bone = 0.42 * _ribs(canvas, anatomy) + 0.5 * _spine(canvas) + 0.6 * _shoulder_girdle(canvas, anatomy)
    bone *= 0.75 + 0.35 * anatomy.age
    inside = np.minimum(1.0, 3.0 * aerated)
    total = 4.3 * tissue - 2.35 * aerated + 0.62 * vessels * inside * (1.0 - 0.7 * consolidated) - 0.75 * _airway(canvas, anatomy) * tissue
    return _single(np.maximum(total + bone * np.minimum(1.0, 4.0 * tissue), 0.0))
