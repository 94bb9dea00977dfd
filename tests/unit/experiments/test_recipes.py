"""JSON recipes: every key is honoured or refused by name, and wrong ones are all told at once."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from support.runs import CONFIG

from edge_agent.errors import ConfigError
from model_build.config import AugmentationConfig, parse_build_config
from model_build.experiments.recipes import DEFAULT_BASE, KEYS, Recipe, read_recipes
from model_build.training.augmentation_presets import augmentation_preset

WHOLE = {
    "epochs": 5,
    "batch_size": 16,
    "learning_rate": 0.002,
    "num_workers": 2,
    "optimizer": "Adam",
    "loss": "focal",
    "metrics": ["AUC", "sensitivity"],
    "encoder": "efficientnet_lite0:7",
    "validation_split": 0.25,
    "shuffle": False,
    "verbose": 2,
    "augmentation": "geometric",
    "callbacks": ["checkpoint"],
    "model_save_dir": "here",
}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "base.toml"
    path.write_text(CONFIG)
    return path


def read(base: Path, recipe: object) -> list[Recipe]:
    path = base.with_name("grid.json")
    path.write_text(recipe if isinstance(recipe, str) else json.dumps(recipe))
    return read_recipes(path, base)


def test_every_key_does_something(base: Path) -> None:
    assert WHOLE.keys() == KEYS.keys()
    recipe = read(base, WHOLE)[0]
    config, settings = recipe.config, recipe.settings
    train = config.train
    assert (train.epochs, train.batch_size, train.optimizer, train.loss, train.shuffle) == (5, 16, "adam", "focal", False)
    assert (config.trunk.kind, config.trunk.block_count) == ("efficientnet_lite0", 7)
    assert config.source.held_out_fraction == 0.25
    assert train.augmentation == augmentation_preset("geometric", AugmentationConfig())
    assert (settings.threads, settings.verbose, settings.metrics, settings.save_dir) == (2, 2, ("auc", "sensitivity"), "here")
    # What the recipe does not say is the base's.
    assert (config.name, config.input.rows, config.train.finish_epochs) == ("tiny", 32, 1)


def test_the_other_rates_keep_their_ratio(base: Path) -> None:
    train = read(base, {"learning_rate": 0.01})[0].config.train
    assert (train.learning_rate, train.head_learning_rate, train.finish_learning_rate) == (0.01, 0.04, 0.002)


def test_a_share_of_patients_takes_the_place_of_the_data_sets_own_split(base: Path) -> None:
    base.write_text(CONFIG.replace("[source]", '[source]\nlayout = "manifest"').replace("patient_pattern", "# patient_pattern"))
    source = read(base, {"validation_split": 0.1})[0].config.source
    assert (source.held_out_fraction, source.official_split) == (0.1, False)
    assert read(base, {})[0].config.source.official_split


def test_weight_decay_of_the_base_does_not_follow_another_optimizer(base: Path) -> None:
    train = read(base, {"optimizer": "sgd"})[0].config.train
    assert (train.optimizer, train.weight_decay) == ("sgd", None)


def test_the_text_says_the_same_as_the_config(base: Path) -> None:
    recipe = read(base, WHOLE)[0]
    assert parse_build_config(recipe.config_text, "text") == recipe.config
    assert recipe.config_text.startswith("# grid.json, on base.toml\n")


@pytest.mark.parametrize(("encoder", "kind", "blocks"), [("tiny", "tiny", None), ("EfficientNet_Lite0", "efficientnet_lite0", 3)])
def test_encoders(base: Path, encoder: str, kind: str, blocks: int | None) -> None:
    trunk = read(base, {"encoder": encoder})[0].config.trunk
    assert (trunk.kind, trunk.block_count) == (kind, blocks)


def test_augmentation_by_its_own_keys(base: Path) -> None:
    augmentation = read(base, {"augmentation": {"rotation_deg": 30, "flip": False}})[0].config.train.augmentation
    assert (augmentation.rotation_deg, augmentation.flip, augmentation.gamma) == (30.0, False, 1.5)


def test_presets_switch_each_kind_off() -> None:
    ranges = AugmentationConfig(scale=0.25)
    none, geometric, intensity = (augmentation_preset(name, ranges) for name in ("none", "geometric", "intensity"))
    assert augmentation_preset("all", ranges) == ranges
    assert (geometric.scale, geometric.gamma, geometric.noise) == (0.25, 1.0, 0.0)
    assert (intensity.scale, intensity.flip, intensity.gamma) == (0.0, False, 1.5)
    assert (none.scale, none.flip, none.gamma, none.blur_probability) == (0.0, False, 1.0, 0.0)


def test_a_list_is_a_grid(base: Path) -> None:
    recipes = read(base, [{"epochs": 1}, {"epochs": 2}, {}])
    assert [recipe.config.train.epochs for recipe in recipes] == [1, 2, 2]
    assert recipes[1].origin.endswith("grid.json, recipe 2")


def test_the_shipped_config_is_the_base_unless_another_is_named(tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text('{"epochs": 3}')
    config = read_recipes(tmp_path / "one.json")[0].config
    assert (config.name, config.train.epochs) == ("cxr-pneumonia", 3)
    assert DEFAULT_BASE.is_file()


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"epochs": -3}, "grid.json: epochs: Expected `int` >= 1; accepted: a whole number from 1"),
        ({"epochs": "8"}, "epochs: Expected `int`, got `str`"),
        ({"epochs": True}, "epochs: Expected `int`, got `bool`"),
        ({"batch_size": 0}, "batch_size: Expected `int` >= 1"),
        ({"learning_rate": "1e-3"}, "learning_rate: Expected `float`, got `str`; accepted: a number above 0"),
        ({"learning_rate": 0}, "learning_rate: Expected `float` > 0"),
        ({"num_workers": 0}, "num_workers: Expected `int` >= 1; accepted: a whole number from 1: the threads"),
        ({"optimizer": "adamx"}, "optimizer: 'adamx' is not known; did you mean 'adam'?; accepted: adamw, adam, sgd"),
        ({"optimizer": "rmsprop"}, "optimizer: 'rmsprop' is not known; accepted: adamw, adam, sgd"),
        ({"loss": "categorical_crossentropy"}, "did you mean 'cross_entropy'?"),
        ({"metrics": ["recall"]}, "metrics: 'recall' is not known; did you mean 'sensitivity'?"),
        ({"metrics": []}, "metrics: Expected `array` of length >= 1"),
        ({"encoder": "resnet50"}, "encoder: 'resnet50' is not known; accepted: efficientnet_lite0, efficientnet_lite0:N"),
        ({"encoder": "efficientnet_lite:7"}, "did you mean 'efficientnet_lite0'?"),
        ({"encoder": "efficientnet_lite0:17"}, "asks for 17 blocks of 16"),
        ({"encoder": "efficientnet_lite0:0"}, "asks for 0 blocks of 16"),
        ({"encoder": "tiny:3"}, "'tiny:3' is not known"),
        ({"validation_split": 1.0}, "validation_split: Expected `float` < 1.0"),
        ({"shuffle": "yes"}, "shuffle: Expected `bool`, got `str`; accepted: true, false"),
        ({"verbose": 3}, "verbose: Expected `int` <= 2"),
        ({"augmentation": "strong"}, "augmentation: 'strong' is not known; accepted: none, geometric, intensity, all"),
        ({"augmentation": {"rotation": 3}}, "augmentation: 'rotation' is not known; did you mean 'rotation_deg'?"),
        ({"augmentation": {"gamma": 0.5}}, "augmentation: Expected `float` >= 1"),
        ({"callbacks": ["EarlyStopping"]}, "callbacks: 'early_stopping' is not offered"),
        ({"callbacks": ["tensorboard"]}, "callbacks: 'tensorboard' is not known; accepted: a list of checkpoint"),
        ({"model_save_dir": ""}, "model_save_dir: Expected `str` of length >= 1"),
        ({"leraning_rate": 1}, "unknown key 'leraning_rate': did you mean 'learning_rate'?"),
        ({"zzz": 1}, "unknown key 'zzz': Known keys: epochs, batch_size"),
        ([{"epochs": 1}, {"epochs": 0}], "grid.json, recipe 2: epochs"),
        ([], "an empty list"),
        ([3], "grid.json, recipe 1: a recipe is an object"),
        ("3", "a recipe is an object"),
        ('{\n"epochs": 1,,}', "grid.json: line 2: is not JSON"),
        ('{"epochs": 1, "epochs": 2}', "the key 'epochs' stands twice"),
        ('{"learning_rate": NaN}', "NaN is not a number of JSON"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(base: Path, recipe: object, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        read(base, recipe)


def test_everything_wrong_is_told_at_once(base: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        read(base, [{"epochs": 0, "loss": "x"}, {"shuffel": True}])
    lines = str(raised.value).splitlines()
    assert [re.search(r"recipe (\d)", line)[1] for line in lines] == ["1", "1", "2"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("old", "new", "recipe", "message"),
    [
        ("epochs = 2", "labels_per_class = 10", {"epochs": 3}, "fits only a head, on train.labels_per_class = 10"),
        ("held_out_fraction = 0.3", "folds = 3", {"validation_split": 0.2}, "source.folds = 3"),
    ],
)
def test_a_key_that_the_base_would_make_void_is_refused(base: Path, old: str, new: str, recipe: dict[str, Any], message: str) -> None:
    base.write_text(CONFIG.replace(old, new))
    with pytest.raises(ConfigError, match=message):
        read(base, recipe)


def test_missing_files_are_named(tmp_path: Path, base: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.json: no such recipe"):
        read_recipes(tmp_path / "none.json", base)
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read as the recipes' base"):
        read_recipes(tmp_path / "a.json", tmp_path / "none.toml")


def test_the_example_that_ships_can_be_read(repository: Path) -> None:
    recipes = read_recipes(repository / "model_build" / "configs" / "grid.json")
    assert len({recipe.config_text for recipe in recipes}) == 3
