"""Draw frontal chest radiographs from a seed: synthetic patients for tests and the demo.

The film is exposed through a drawn anatomy with scatter and quantum noise, and developed so that bone is bright.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from edge_agent.errors import ConfigError
from model_build.array_types import UInt8Array
from model_build.data.phantom.anatomy import CANVAS_SIZE, HALF_HEIGHT, HALF_WIDTH, PX_PER_UNIT, Anatomy, Map, draw_anatomy, draw_attenuation

LABEL = "synthetic phantom"
"""Stands in every file's metadata; the word SYNTHETIC is burned into the picture."""


def _expose(attenuation: Map, anatomy: Anatomy, size: tuple[int, int]) -> Map:
    """Turn, zoom and crop the canvas onto a film of ``size`` (columns, rows)."""
    turned = Image.fromarray(attenuation).rotate(anatomy.rotation_deg, Image.Resampling.BILINEAR)
    aspect = min(max(size[0] / size[1], 0.7), 1.2)
    half_height = min(0.5 / anatomy.zoom, HALF_HEIGHT - 0.03)
    half_width = half_height * aspect
    centre = ((anatomy.shift[0] + HALF_WIDTH) * PX_PER_UNIT, (anatomy.shift[1] + HALF_HEIGHT) * PX_PER_UNIT)
    reach = (half_width * PX_PER_UNIT, half_height * PX_PER_UNIT)
    box = (centre[0] - reach[0], centre[1] - reach[1], centre[0] + reach[0], centre[1] + reach[1])
    inside = (max(box[0], 0.0), max(box[1], 0.0), min(box[2], float(CANVAS_SIZE[0])), min(box[3], float(CANVAS_SIZE[1])))
    return np.asarray(turned.resize(size, Image.Resampling.BILINEAR, box=inside), dtype=np.float32)


def _develop(attenuation: Map, anatomy: Anatomy, rng: np.random.Generator) -> UInt8Array:
    """From attenuation on the film to grey values: scatter, quantum noise that grows with attenuation, logarithm, film curve."""
    rows, columns = attenuation.shape
    beam = np.exp(-attenuation)
    coarse = Image.fromarray(beam).resize((max(1, columns // 64), max(1, rows // 64)), Image.Resampling.BOX)
    veil = np.asarray(coarse.resize((columns, rows), Image.Resampling.BICUBIC), dtype=np.float32)
    signal = beam + 0.12 * np.minimum(veil, 0.25) + 0.003
    quanta = 5000.0
    signal = signal + np.sqrt(signal / quanta) * rng.standard_normal(signal.shape, dtype=np.float32)
    density = -np.log(np.maximum(signal, 1e-4))
    level = anatomy.contrast * 1.2 * (density - 2.7 - anatomy.exposure)
    return np.clip(255.0 / (1.0 + np.exp(-level)), 0, 255).astype(np.uint8)


def _burn_in(pixels: UInt8Array) -> UInt8Array:
    """Write SYNTHETIC into the lower left corner and the radiographer's R beside the patient's right shoulder."""
    film = Image.fromarray(pixels)
    pen = ImageDraw.Draw(film)
    rows, columns = pixels.shape
    small, large = ImageFont.load_default(max(8, rows // 40)), ImageFont.load_default(max(8, rows // 22))
    pen.text((columns * 0.02, rows * 0.98), "SYNTHETIC", fill=235, font=small, anchor="ls")
    pen.text((columns * 0.045, rows * 0.06), "R", fill=235, font=large, anchor="lt")
    return np.asarray(film, dtype=np.uint8)


def draw_phantom(seed: int, *, rows: int = 1024, columns: int = 1024, opacity_count: int = 0) -> UInt8Array:
    """Draw one frontal chest radiograph.

    Parameters
    ----------
    seed : int
        The patient: size, age, posture, exposure and noise. The same seed gives the same pixels.
    rows, columns : int
        Size of the film in pixels, at least 32 each.
    opacity_count : int
        Consolidations to place inside the lungs. They do not change the patient.

    Returns
    -------
    ndarray, uint8, shape (rows, columns)
        Bone bright, air dark; the patient's left is on the right. SYNTHETIC is burned into a corner.

    Raises
    ------
    ConfigError
        If a size or the count is out of range.
    """
    if rows < 32 or columns < 32:
        raise ConfigError(f"a phantom needs at least 32 rows and columns, not {rows} x {columns}")
    if opacity_count < 0:
        raise ConfigError(f"the number of opacities cannot be negative: {opacity_count}")
    # Separate streams: the patient stays the same whatever else is drawn.
    patient, texture, noise = (np.random.default_rng([seed, stream]) for stream in range(3))
    anatomy = draw_anatomy(patient)
    attenuation = draw_attenuation(anatomy, texture, opacity_count)
    return _burn_in(_develop(_expose(attenuation, anatomy, (columns, rows)), anatomy, noise))


def save_phantom(path: Path, seed: int, *, rows: int = 1024, columns: int = 1024, opacity_count: int = 0) -> None:
    """Draw a phantom into a PNG or JPEG file whose metadata says that it is synthetic.

    Parameters
    ----------
    path : Path
        Ends in ``.png``, ``.jpg`` or ``.jpeg``; an existing file is replaced.
    seed, rows, columns, opacity_count
        As for :func:`draw_phantom`.

    Raises
    ------
    ConfigError
        If the name ends in something else, or the drawing's numbers are out of range.
    """
    image = Image.fromarray(draw_phantom(seed, rows=rows, columns=columns, opacity_count=opacity_count))
    match path.suffix.lower():
        case ".png":
            text = PngImagePlugin.PngInfo()
            text.add_text("Description", f"{LABEL}, seed {seed}")
            image.save(path, pnginfo=text)
        case ".jpg" | ".jpeg":
            image.save(path, quality=92, comment=f"{LABEL}, seed {seed}")
        case other:
            raise ConfigError(f"{path.name}: a phantom is written as .png or .jpg, not as '{other}'")
