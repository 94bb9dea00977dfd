"""The Keras trunk is EfficientNet-Lite0, and its grey stem is the colour stem."""

from __future__ import annotations

import numpy as np
import pytest

from edge_agent.errors import ConfigError

keras = pytest.importorskip("keras", reason="TensorFlow is not installed")

from model_build.network import BLOCKS, INPUT_DIVISOR, build_trunk, load_imagenet_weights, parameter_count  # noqa: E402
from model_build.weights import imagenet_weights_path, read_state_dict  # noqa: E402


def test_shapes_and_size_after_eleven_blocks() -> None:
    trunk = build_trunk(160, 160, 11)
    assert [tuple(output.shape) for output in trunk.outputs] == [(None, 112), (None, 10, 10, 112)]
    assert 0.68e6 < parameter_count(trunk) < 0.73e6


def test_all_sixteen_blocks_take_the_weights() -> None:
    trunk = build_trunk(64, 64, len(BLOCKS))
    load_imagenet_weights(trunk, read_state_dict(imagenet_weights_path()))
    embedding = np.asarray(trunk(np.full((1, 64, 64, 1), 1.0, np.float32))[0])
    assert np.isfinite(embedding).all()
    assert embedding.std() > 0.01


@pytest.mark.parametrize("block_count", [0, 17])
def test_a_cut_outside_the_network_is_refused(block_count: int) -> None:
    with pytest.raises(ConfigError, match="between 1 and 16"):
        build_trunk(64, 64, block_count)


def test_grey_stem_equals_the_colour_stem_on_a_grey_image() -> None:
    state = read_state_dict(imagenet_weights_path())
    trunk = build_trunk(32, 32, 1)
    load_imagenet_weights(trunk, state)
    grey = np.random.default_rng(0).integers(0, 256, (32, 32)).astype(np.float64)
    stem = keras.Model(trunk.input, trunk.get_layer("stem_bn0").output)
    ours = np.asarray(stem((grey / INPUT_DIVISOR)[np.newaxis, :, :, np.newaxis].astype(np.float32)))[0]
    # By hand: one inner output pixel of the colour network on the same image, (x / 127.5 - 1) in all three channels.
    kernel = state["_conv_stem.weight"].astype(np.float64)
    row, column = 5, 7
    patch = grey[2 * row : 2 * row + 3, 2 * column : 2 * column + 3] / INPUT_DIVISOR - 1.0
    raw = (kernel * patch).sum(axis=(1, 2, 3))
    expected = (raw - state["_bn0.running_mean"]) / np.sqrt(state["_bn0.running_var"] + 1e-3) * state["_bn0.weight"] + state["_bn0.bias"]
    np.testing.assert_allclose(ours[row, column], expected, atol=2e-4)
