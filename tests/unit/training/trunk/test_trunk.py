"""The Keras trunk is EfficientNet-Lite0, and its grey stem is the colour stem."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_agent.errors import ConfigError, ModelError

keras = pytest.importorskip("keras", reason="TensorFlow is not installed")

from model_build.config import TrunkConfig  # noqa: E402
from model_build.training.trunk.efficientnet import BLOCKS, build_efficientnet_lite0, load_imagenet_weights  # noqa: E402
from model_build.training.trunk.imagenet_weights import imagenet_weights_path, read_state_dict  # noqa: E402
from model_build.training.trunk.trunk import (  # noqa: E402
    INPUT_DIVISOR,
    TRAINING_HEAD,
    build_network,
    load_trunk,
    multiply_adds,
    save_trunk,
)


def test_shapes_and_size_after_eleven_blocks() -> None:
    trunk = build_efficientnet_lite0(160, 160, 11)
    assert [tuple(output.shape) for output in trunk.outputs] == [(None, 112), (None, 10, 10, 112)]
    assert 0.68e6 < trunk.count_params() < 0.73e6


def test_all_sixteen_blocks_take_the_weights() -> None:
    trunk = build_efficientnet_lite0(64, 64, len(BLOCKS))
    load_imagenet_weights(trunk, read_state_dict(imagenet_weights_path()))
    embedding = np.asarray(trunk(np.full((1, 64, 64, 1), 1.0, np.float32))[0])
    assert np.isfinite(embedding).all()
    assert embedding.std() > 0.01


@pytest.mark.parametrize("block_count", [0, 17])
def test_a_cut_outside_the_network_is_refused(block_count: int) -> None:
    with pytest.raises(ConfigError, match="between 1 and 16"):
        build_efficientnet_lite0(64, 64, block_count)


def test_grey_stem_equals_the_colour_stem_on_a_grey_image() -> None:
    state = read_state_dict(imagenet_weights_path())
    trunk = build_efficientnet_lite0(32, 32, 1)
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


def test_a_config_names_the_network_and_pretrained_weights_come_with_it() -> None:
    pretrained = build_network(TrunkConfig(block_count=2), 32, 32)
    kernel = read_state_dict(imagenet_weights_path())["_blocks.1._expand_conv.weight"]
    np.testing.assert_array_equal(pretrained.get_layer("block1_expand_conv").kernel.numpy()[0, 0], kernel[:, :, 0, 0].T)
    tiny = build_network(TrunkConfig(kind="tiny", width=0.5), 64, 64)
    assert tiny.name == "tiny"
    assert tiny.count_params() < build_network(TrunkConfig(kind="tiny"), 64, 64).count_params()


def test_multiply_adds_by_hand() -> None:
    image = keras.Input((8, 6, 2))
    x = keras.layers.Conv2D(5, 3, strides=2, padding="same")(image)  # 4 x 3 places, 3 x 3 x 2 values, 5 filters
    x = keras.layers.DepthwiseConv2D(3, padding="same")(x)  # 4 x 3 places, 3 x 3 values, 5 channels
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(image, keras.layers.Dense(7)(x))
    assert multiply_adds(model) == 12 * 18 * 5 + 12 * 9 * 5 + 5 * 7


def test_efficientnet_lite0_takes_what_its_authors_publish() -> None:
    """407 million multiply-adds at 224 x 224 in colour, with its last layers; the trunk alone has 80 % of them or more."""
    assert 0.33e9 < multiply_adds(build_efficientnet_lite0(224, 224, len(BLOCKS))) < 0.407e9


def outputs_of(model: keras.Model) -> list[np.ndarray]:
    image = np.random.default_rng(0).random((1, 32, 32, 1)).astype(np.float32)
    return [np.asarray(output) for output in model(image)]


def test_saved_weights_make_the_same_network(tmp_path: Path) -> None:
    path = tmp_path / "trunk.npz"
    saved, loaded = build_efficientnet_lite0(32, 32, 2), build_efficientnet_lite0(32, 32, 2)
    save_trunk(saved, path)
    load_trunk(loaded, path)
    for ours, theirs in zip(outputs_of(loaded), outputs_of(saved), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_trunk_takes_its_part_of_a_model_with_a_training_head(tmp_path: Path) -> None:
    path = tmp_path / "trunk.npz"
    trunk = build_efficientnet_lite0(32, 32, 2)
    with_head = keras.Model(trunk.input, keras.layers.Dense(3, name=TRAINING_HEAD)(trunk.outputs[0]))
    save_trunk(with_head, path)
    loaded = build_efficientnet_lite0(32, 32, 2)
    load_trunk(loaded, path)
    np.testing.assert_array_equal(outputs_of(loaded)[0], outputs_of(trunk)[0])


@pytest.mark.parametrize(("block_count", "message"), [(1, "is not in this network"), (3, "is missing there")])
def test_weights_of_another_network_are_refused_and_change_nothing(tmp_path: Path, block_count: int, message: str) -> None:
    path = tmp_path / "trunk.npz"
    save_trunk(build_efficientnet_lite0(32, 32, 2), path)
    other = build_efficientnet_lite0(32, 32, block_count)
    before = other.get_weights()
    with pytest.raises(ModelError, match=rf"trunk\.npz: the weights of another network \(.*{message}"):
        load_trunk(other, path)
    for ours, theirs in zip(other.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_training_head_for_other_labels_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trunk.npz"
    trunk = build_efficientnet_lite0(32, 32, 1)
    save_trunk(keras.Model(trunk.input, keras.layers.Dense(3, name=TRAINING_HEAD)(trunk.outputs[0])), path)
    with pytest.raises(ModelError, match=r"logits/kernel has the shape \(16, 3\), this network needs \(16, 2\)"):
        load_trunk(keras.Model(trunk.input, keras.layers.Dense(2, name=TRAINING_HEAD)(trunk.outputs[0])), path)
