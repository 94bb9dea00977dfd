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
from numpy.typing import NDArray

from model_build.network import INPUT_DIVISOR


def convert_to_int8(trunk: Any, representative: NDArray[np.uint8]) -> bytes:
    """Quantise a trunk after training.

    Parameters
    ----------
    trunk : keras.Model
        From :func:`model_build.network.build_trunk`: one image in, embedding and feature map out.
    representative : ndarray, uint8, shape (images, rows, columns, 1)
        Prepared images of training patients only; they set the range of every activation.

    Returns
    -------
    bytes
        A ``.tflite`` file, int8 per channel, int8 input and outputs. Grey value g enters as g - 128.

    References
    ----------
    LiteRT 8-bit quantization specification; Jacob et al., CVPR 2018.
    """
    rows, columns, channels = representative.shape[1:]
    # The input's scale follows from the range seen; a full ramp makes it exactly one step per grey value.
    ramp = np.resize(np.arange(256, dtype=np.uint8), (rows, columns, channels))

    def representative_dataset() -> Iterator[list[NDArray[np.float32]]]:
        for grey in (ramp, *representative):
            yield [grey[np.newaxis].astype(np.float32) / INPUT_DIVISOR]

    # A batch of exactly one, so that no shape is left open in the file.
    image = keras.Input(batch_shape=(1, rows, columns, channels), name="image")
    converter = tf.lite.TFLiteConverter.from_keras_model(keras.Model(image, trunk(image)))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = representative_dataset
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.int8
    converter.inference_output_type = tf.int8
    # Keras prints the signature of every variable, and the converter warns of a choice that is made above on purpose.
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Statistics for quantized inputs were expected", UserWarning)
        return bytes(converter.convert())
