"""The tiny trunk keeps to its size as int8, and a config asks for it in one way."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from edge_agent.errors import ConfigError

keras = pytest.importorskip("keras", reason="TensorFlow is not installed")

from edge_agent.inference.interpreter import Interpreter  # noqa: E402
from model_build.config import TrainConfig, TrunkConfig, load_build_config  # noqa: E402
from model_build.training.quantize import convert_to_int8  # noqa: E402
from model_build.training.trunk.trunk import INPUT_DIVISOR, build_network, multiply_adds  # noqa: E402

MLPERF_TINY_BYTES = 333_288
"""The visual-wake-words model of MLPerf Tiny v1.0, int8."""


@pytest.fixture(scope="module")
def trunk(repository: Path) -> keras.Model:
    """As the shipped config has it."""
    config = load_build_config(repository / "model_build" / "configs" / "tiny.toml")
    keras.utils.set_random_seed(1)
    return build_network(config.trunk, config.input.rows, config.input.columns)


def test_the_tiny_trunk_as_int8_is_no_larger_than_mlperfs_and_computes_the_same(trunk: keras.Model) -> None:
    images = np.random.default_rng(0).integers(0, 256, (8, *trunk.input_shape[1:])).astype(np.uint8)
    model = convert_to_int8(trunk, images)
    assert len(model) <= MLPERF_TINY_BYTES
    interpreter = Interpreter(model)
    ours = np.stack([interpreter.invoke(grey) for grey in images])
    floats, maps = (np.asarray(output) for output in trunk(images.astype(np.float32) / INPUT_DIVISOR))
    assert interpreter.feature_map().shape == maps.shape[1:]
    assert np.abs(ours - floats).mean() < 0.1 * np.abs(floats).max()


def test_the_tiny_trunk_takes_a_seventh_of_the_large_ones_multiply_adds(trunk: keras.Model) -> None:
    assert multiply_adds(trunk) < multiply_adds(build_network(TrunkConfig(), 160, 160)) / 7


def test_it_has_no_layer_that_boards_lack(trunk: keras.Model) -> None:
    """Convolutions, their normalisations, ReLU6 and sums: nothing that int8 kernels would do in floats or slowly."""
    kinds = {type(layer).__name__ for layer in trunk.layers}
    assert kinds == {"InputLayer", "Conv2D", "DepthwiseConv2D", "BatchNormalization", "ReLU", "Add", "GlobalAveragePooling2D"}


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"kind": "tiny", "block_count": 3}, "block_count is for kind efficientnet_lite0"),
        ({"width": 0.5}, "width is for kind tiny"),
        ({"kind": "tiny", "width": 0.0}, r"\$\.width"),
        ({"kind": "resnet"}, r"\$\.kind"),
    ],
)
def test_what_a_kind_has_not_is_refused(section: dict[str, object], message: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.convert(section, TrunkConfig)


def test_weight_decay_is_for_adamw() -> None:
    with pytest.raises(msgspec.ValidationError, match="weight_decay is for the optimizer adamw"):
        msgspec.convert({"optimizer": "sgd", "weight_decay": 0.1}, TrainConfig)
    assert TrainConfig().decay > 0.0 == TrainConfig(weight_decay=0.0).decay


def test_few_labels_do_not_go_with_a_random_trunk(repository: Path, tmp_path: Path) -> None:
    path = tmp_path / "few.toml"
    text = (repository / "model_build" / "configs" / "tiny.toml").read_text()
    path.write_text(text.replace("[train]", "[train]\nlabels_per_class = 50"))
    with pytest.raises(ConfigError, match=r"few\.toml: train\.labels_per_class = 50 leaves the trunk as it is"):
        load_build_config(path)
