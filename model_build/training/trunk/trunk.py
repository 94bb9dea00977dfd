"""The trunks: one grey image in, embedding and feature map out.

A network takes grey values divided by 127.5 (0 to 2), not centred: what centring its weights expect is folded into the first batch
normalisation, so that a zero-padded border means black in training, in the float model and in the int8 model alike.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np

from edge_agent.errors import ModelError
from model_build.arrays import read_arrays, write_arrays
from model_build.config import TrunkConfig
from model_build.training.trunk.efficientnet import build_efficientnet_lite0, load_imagenet_weights
from model_build.training.trunk.imagenet_weights import imagenet_weights_path, read_state_dict
from model_build.training.trunk.tiny import build_tiny

INPUT_DIVISOR = 127.5
TRAINING_HEAD = "logits"
"""The layer that training puts on top of a trunk. A file of weights may hold it; a trunk alone has no place for it."""


def build_network(config: TrunkConfig, rows: int, columns: int) -> Any:
    """Build the trunk that a config asks for: EfficientNet-Lite0 with its ImageNet weights, or the tiny one with random weights.

    Parameters
    ----------
    config : TrunkConfig
    rows, columns : int
        Input size in pixels.

    Returns
    -------
    keras.Model
        Input float32 (batch, rows, columns, 1), grey / 127.5. Outputs: the embedding, float32 (batch, D), which is the feature map
        averaged over its area, and the feature map itself, float32 (batch, h, w, D).

    Raises
    ------
    ModelError
        If the package with the ImageNet weights is not installed.
    """
    match config.kind:
        case "efficientnet_lite0":
            trunk = build_efficientnet_lite0(rows, columns, config.kept_blocks)
            load_imagenet_weights(trunk, read_state_dict(imagenet_weights_path()))
            return trunk
        case "tiny":
            return build_tiny(rows, columns, config.width_factor)


def multiply_adds(trunk: Any) -> int:
    """Multiplications with addition that one image takes in a trunk's convolutions and dense layers; all else is small beside them."""
    total = 0
    for layer in trunk.layers:
        match layer:
            case keras.layers.DepthwiseConv2D() | keras.layers.Conv2D():
                # Every kernel value is used once at each place of the output.
                total += int(np.prod(layer.kernel.shape)) * int(np.prod(layer.output.shape[1:3]))
            case keras.layers.Dense():
                total += int(np.prod(layer.kernel.shape))
    return total


def save_trunk(model: Any, path: Path) -> None:
    """Write the float weights of a trunk, or of the model that is trained (trunk and training head), to an ``.npz`` file.

    Parameters
    ----------
    model : keras.Model
        Its weights are named by layer, such as ``block3_bn0/gamma``.
    path : Path
        An interrupted write leaves the older file.

    Raises
    ------
    DiskFullError, StorageError
        If it cannot be written.
    """
    write_arrays(path, **{weight.path: np.asarray(weight.value) for weight in model.weights})


def load_trunk(model: Any, path: Path) -> None:
    """Read what :func:`save_trunk` wrote into a model of the same architecture, in place.

    Parameters
    ----------
    model : keras.Model
        The trunk, or trunk and training head. A trunk passes over the training head that the file may hold.
    path : Path

    Raises
    ------
    ModelError
        If the file cannot be read, or holds the weights of another architecture; the model is then left as it was.
    """
    arrays = read_arrays(path)
    weights = {weight.path: weight for weight in model.weights}
    foreign = [name for name in arrays if name not in weights and not name.startswith(f"{TRAINING_HEAD}/")]
    for name in [*foreign, *(name for name in weights if name not in arrays)]:
        where = "is not in this network" if name in arrays else "is missing there"
        raise ModelError(f"{path}: the weights of another network ({name} {where}); use the [trunk] section that they were trained with")
    for name, weight in weights.items():
        if arrays[name].shape != tuple(weight.shape):
            raise ModelError(
                f"{path}: {name} has the shape {arrays[name].shape}, this network needs {tuple(weight.shape)};"
                " use the [trunk] section and the labels that it was trained with"
            )
    for name, weight in weights.items():
        weight.assign(arrays[name])
