"""The pointer to the model that runs: what it remembers, and what a rollback brings back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.bundles import change_manifest

from edge_agent.config import Config, ModelConfig
from edge_agent.deployment import install, model_store
from edge_agent.deployment.model_store import KEPT_MODELS, InstalledModel, ModelStore, bundle_for, load_configured_bundle
from edge_agent.errors import ModelError, StorageAwayError
from edge_agent.inference.bundle import default_bundle_path, load_bundle

Add = Callable[[int], InstalledModel]


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path)


@pytest.fixture
def add(store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Add:
    """Install a model of that serial, without a trial in a child process."""
    monkeypatch.setattr(install, "try_bundle", lambda *_: None)

    def put(serial: int) -> InstalledModel:
        source = tmp_path / "sources" / str(serial)
        shutil.copytree(default_bundle_path(), source)
        change_manifest(source, lambda manifest: manifest.update(name="m", serial=serial))
        contents = {path.name: path.read_bytes() for path in source.iterdir()}
        return install.install_bundle(store, load_bundle(source), contents, serial=serial)

    return put


def serial_of(model: InstalledModel | None) -> int | None:
    return None if model is None else model.serial


def test_where_nothing_was_installed_the_shipped_model_runs(store: ModelStore, tmp_path: Path) -> None:
    assert store.active() is None
    assert store.stamp() is None
    assert bundle_for(Config(home=tmp_path)) == (default_bundle_path(), True, tmp_path / "keys")
    assert list(tmp_path.iterdir()) == []  # looking changes nothing


def test_the_active_model_is_chosen_unless_the_configuration_names_one(add: Add, tmp_path: Path) -> None:
    model = add(3)
    assert bundle_for(Config(home=tmp_path)) == (model.directory, False, tmp_path / "keys")
    named = Config(home=tmp_path, model=ModelConfig(bundle=tmp_path / "b", trusted_keys=tmp_path / "k"))
    assert bundle_for(named) == (tmp_path / "b", False, tmp_path / "k")


def test_an_unsigned_active_model_runs_only_where_the_configuration_says_so(
    add: Add, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    add(3)
    with pytest.raises(ModelError, match="not signed"):
        load_configured_bundle(Config(home=tmp_path))
    assert load_configured_bundle(Config(home=tmp_path, model=ModelConfig(allow_unsigned=True))).manifest.serial == 3
    assert "model_of_unknown_origin" in caplog.text
    caplog.clear()
    ModelStore(tmp_path).rollback("a test")
    assert load_configured_bundle(Config(home=tmp_path)).is_shipped
    assert caplog.text == ""


def test_the_stamp_changes_with_the_active_model_and_with_nothing_else(store: ModelStore, add: Add, tmp_path: Path) -> None:
    stamps = [store.stamp()]
    model = add(3)
    stamps.append(store.stamp())
    store.prove(model.digest)
    assert store.stamp() == stamps[-1]
    (store.folder / "active.json").write_text("spoiled")
    assert store.stamp() == stamps[-1]  # the agent goes on with what it has in memory
    (store.folder / "active.json").unlink()
    assert store.stamp() == stamps[0] != stamps[1]


def test_a_home_can_be_moved(add: Add, tmp_path: Path) -> None:
    add(3)
    home = tmp_path.with_name(f"{tmp_path.name}-moved")
    tmp_path.rename(home)
    active = ModelStore(home).active()
    home.rename(tmp_path)
    assert active is not None
    assert active.directory.is_relative_to(home)


def test_prove_is_remembered_and_an_unknown_digest_is_not(store: ModelStore, add: Add) -> None:
    model = add(3)
    store.prove("0" * 64)
    assert store.active() == model
    store.prove(model.digest)
    assert store.active() == msgspec.structs.replace(model, proven=True)


def test_rollback_goes_back_step_by_step_and_never_to_a_model_that_was_left(store: ModelStore, add: Add) -> None:
    for serial in (3, 4, 5):
        add(serial)
    assert serial_of(store.rollback("one")) == 4
    assert serial_of(store.rollback("two")) == 3
    assert serial_of(store.rollback("three")) is None
    with pytest.raises(ModelError, match="nothing to go back to"):
        store.rollback("four")
    assert {model.serial: model.left_because for model in store.read().models} == {5: "one", 4: "two", 3: "three"}


@pytest.mark.parametrize("spoil", [shutil.rmtree, lambda folder: (folder / "head.json").write_bytes(b"rotten")], ids=["gone", "rotten"])
def test_rollback_passes_over_a_model_whose_files_are_not_whole(spoil: Callable[[Path], object], store: ModelStore, add: Add) -> None:
    add(3)
    spoil(add(4).directory)
    add(5)
    assert serial_of(store.rollback("a test")) == 3


def test_from_the_shipped_model_a_rollback_brings_back_the_installed_one(store: ModelStore, add: Add) -> None:
    add(3)
    install.activate_shipped(store)
    assert store.active() is None
    assert serial_of(store.rollback("a test")) == 3
    assert serial_of(store.rollback("again")) is None  # the last resort, also where history does not name it


def test_old_models_are_forgotten_but_for_the_last_ones_and_the_one_to_go_back_to(store: ModelStore, add: Add) -> None:
    first = add(3)
    for serial in range(4, 4 + KEPT_MODELS):
        add(serial)
        with store.changing() as pointer:  # the first one is what a rollback would bring back
            left = pointer.find(pointer.active)
            assert left is not None
            store.write(pointer.with_model(msgspec.structs.replace(left, left_because="x")).with_active(first.digest))
    add(20)
    pointer = store.read()
    assert [model.serial for model in pointer.models] == [20, 6, 5, 3]
    assert serial_of(pointer.to_return_to()[0]) == 3
    assert sorted(pointer.seen["m"]) == [3, 4, 5, 6, 20]  # a serial is never forgotten


def test_forgotten_models_leave_history_too(store: ModelStore, add: Add) -> None:
    for serial in range(3, 10):
        add(serial)
    pointer = store.read()
    assert [model.serial for model in pointer.models] == [9, 8, 7]
    assert [serial_of(model) for model in pointer.to_return_to()] == [8, 7, None]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda _: b"", "damaged"),
        (lambda _: b"\xff\xfe", "damaged"),
        (lambda content: content[: len(content) // 2], "damaged"),
        (lambda content: content.replace(b'"format": 1', b'"format": 2'), "another version"),
        (lambda content: content.replace(b'"serial": 3', b'"serial": "3"'), "damaged"),
        (lambda content: json.dumps(json.loads(content) | {"active": "f" * 64}).encode(), "does not list"),
    ],
)
def test_a_spoiled_pointer_is_named_with_the_way_out(
    spoil: Callable[[bytes], bytes], message: str, store: ModelStore, add: Add, tmp_path: Path
) -> None:
    add(3)
    path = store.folder / "active.json"
    path.write_bytes(spoil(path.read_bytes()))
    for call in (store.active, lambda: store.rollback("x"), lambda: store.prove("x"), lambda: bundle_for(Config(home=tmp_path))):
        with pytest.raises(ModelError, match=message) as caught:
            call()
        assert "remove that file" in str(caught.value)
    path.unlink()
    assert store.active() is None


def test_a_path_in_the_pointer_does_not_lead_out_of_the_folder(store: ModelStore, add: Add) -> None:
    add(3)
    path = store.folder / "active.json"
    table: dict[str, Any] = json.loads(path.read_bytes())
    table["models"][0]["directory"] = "../../../etc"
    path.write_text(json.dumps(table))
    active = store.active()
    assert active is not None
    assert active.directory == store.folder / "etc"


def test_a_lock_that_is_held_is_waited_for_and_then_named(store: ModelStore, add: Add, monkeypatch: pytest.MonkeyPatch) -> None:
    add(3)
    monkeypatch.setattr(model_store, "LOCK_TIMEOUT_S", 0.05)
    with store.changing(), pytest.raises(StorageAwayError, match="another program is changing the models"):
        ModelStore(store.folder.parents[1]).rollback("x")
    assert store.rollback("x") is None


def test_an_entry_keeps_its_time_in_utc(add: Add) -> None:
    assert abs((datetime.now(UTC) - add(3).installed_at).total_seconds()) < 60
