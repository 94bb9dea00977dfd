"""Convert the fine-tuned trunk to fully int8 TFLite."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from model_build.array_types import Float32Array, UInt8Array
from model_build.training.trunk.trunk import INPUT_DIVISOR


def make_converter(trunk: Any) -> Any:
    """A TFLite converter of a trunk that takes one image at a time: no shape is left open in the file."""
    rows, columns, channels = trunk.input_shape[1:]
    image = keras.Input(batch_shape=(1, rows, columns, channels), name="image")
    return tf.lite.TFLiteConverter.from_keras_model(keras.Model(image, trunk(image)))


def convert_quietly(converter: Any) -> bytes:
    """Convert, without what Keras prints of every variable and without a warning of a choice that is made here on purpose."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Statistics for quantized inputs were expected", UserWarning)
        return bytes(converter.convert())


def convert_to_int8(trunk: Any, representative: UInt8Array, *, per_channel: bool = True) -> bytes:
    """Quantise a trunk after training.

    Parameters
    ----------
    trunk : keras.Model
        From :func:`model_build.training.trunk.trunk.build_network`: one image in, embedding and feature map out.
    representative : ndarray, uint8, shape (images, rows, columns, 1)
        Prepared images of training patients only; they set the range of every activation.
    per_channel : bool
        One scale for each channel of a kernel; otherwise one for each kernel, which only the comparison of precisions asks for.

    Returns
    -------
    bytes
        A ``.tflite`` file, int8 input and outputs. Grey value g enters as g - 128.

    References
    ----------
    LiteRT 8-bit quantization specification; Jacob et al., CVPR 2018.
    """
    # The input's scale follows from the range seen; a full ramp makes it exactly one step per grey value.
    ramp = np.resize(np.arange(256, dtype=np.uint8), representative.shape[1:])

    def representative_dataset() -> Iterator[list[Float32Array]]:
        for grey in (ramp, *representative):
            yield [grey[np.newaxis].astype(np.float32) / INPUT_DIVISOR]

    converter = make_converter(trunk)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = representative_dataset
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.int8
    converter.inference_output_type = tf.int8
    # There is no public switch for it (TensorFlow 2.21); the comparison reads the scales in the file, so a change of it cannot go unseen.
    converter._experimental_disable_per_channel = not per_channel
    return convert_quietly(converter)
