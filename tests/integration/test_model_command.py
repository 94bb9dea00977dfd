"""``edge-agent model``: a model's way from the signed file to the records of a running agent, and back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.agents import AgentHome, drop, image_bytes, wait_until
from support.bundles import replace_file
from support.killer_model import make_killer_model
from support.signed import Maker, check_is_sound, folders

from edge_agent import config
from edge_agent.agent.agent import load_classifiers
from edge_agent.agent.timings import Timings
from edge_agent.cli import main
from edge_agent.commands.status import read_status
from edge_agent.deployment import install as installation
from edge_agent.deployment.model_store import ModelStore
from edge_agent.inference.bundle import default_bundle_path, load_bundle


@pytest.fixture(scope="module")
def maker(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    return Maker(tmp_path_factory.mktemp("maker") / "m")


@pytest.fixture(scope="module")
def archives(maker: Maker) -> dict[int, Path]:
    return {serial: maker.archive(serial) for serial in (13, 14)}


@pytest.fixture
def box(maker: Maker, tmp_path: Path) -> Path:
    """A home that trusts the maker."""
    return maker.trust(tmp_path / "home")


@pytest.fixture
def untried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the trial in a child process, which takes most of the time of an installation."""
    monkeypatch.setattr(installation, "try_bundle", lambda *_: None)


def listing(box: Path, capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["model", "list", "--home", str(box), "--format", "json", *options]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def states(box: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """State by version, the shipped one under "shipped"."""
    models = listing(box, capsys)["models"]
    return {"shipped" if model["shipped"] else model["version"]: model["state"] for model in models}


def test_a_model_is_verified_installed_listed_rolled_back_and_activated(
    box: Path, archives: dict[int, Path], maker: Maker, capsys: pytest.CaptureFixture[str]
) -> None:
    home = ["--home", str(box)]
    assert states(box, capsys) == {"shipped": "active"}
    assert main(["model", "verify", str(archives[13]), *home]) == 0
    said = capsys.readouterr().out
    assert f"cxr-pneumonia 0.13.0 (serial 13): good, signed by the key {maker.keys.key_id}" in said
    assert folders(box) == set()

    assert main(["model", "install", str(archives[13]), *home]) == 0
    assert f"installed and active: cxr-pneumonia 0.13.0 (serial 13), signed by the key {maker.keys.key_id}" in capsys.readouterr().out
    assert main(["model", "install", str(archives[14]), *home]) == 0
    assert states(box, capsys) == {"0.14.0": "active", "0.13.0": "previous", "shipped": "kept"}

    assert main(["model", "rollback", *home]) == 0
    assert capsys.readouterr().out == "active: cxr-pneumonia 0.13.0 (serial 13)\n"
    assert states(box, capsys) == {"0.14.0": "left", "0.13.0": "active", "shipped": "previous"}
    assert main(["model", "rollback", *home]) == 0
    assert capsys.readouterr().out == "active: the model that came with the program\n"
    assert main(["model", "rollback", *home]) == 20
    assert "nothing to go back to" in capsys.readouterr().err

    assert main(["model", "activate", "cxr-pneumonia-14", *home]) == 0
    assert states(box, capsys) == {"0.14.0": "active", "0.13.0": "left", "shipped": "previous"}
    assert main(["model", "activate", "shipped", *home]) == 0
    assert states(box, capsys) == {"0.14.0": "previous", "0.13.0": "left", "shipped": "active"}


def test_without_options_the_commands_are_about_the_installed_agent(
    box: Path, archives: dict[int, Path], tmp_path: Path, untried: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    1. As scripts/install leaves a box: the home and the trusted keys stand in its configuration, and the keys not in the home.
    Result: no option is needed, and another home that is named has nothing to do with it.
    """
    (box / "keys").rename(tmp_path / "keys")
    installed = tmp_path / "installed.toml"
    installed.write_text(f'home = "{box}"\n[model]\ntrusted_keys = "{tmp_path / "keys"}"\n')
    monkeypatch.setattr(config, "BOX_CONFIG", installed)
    (tmp_path / "other").mkdir()
    assert main(["model", "install", str(archives[13]), "--home", str(tmp_path / "other")]) == 20
    assert main(["model", "install", str(archives[13])]) == 0
    capsys.readouterr()
    assert main(["model", "list"]) == 0
    assert capsys.readouterr().out.startswith("active")
    assert states(box, capsys)["shipped"] == "previous"


def test_the_list_is_made_for_people_too(
    untried: None, box: Path, archives: dict[int, Path], maker: Maker, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["model", "install", str(archives[13]), "--home", str(box)]) == 0
    active = check_is_sound(box, allowed={13})
    capsys.readouterr()
    assert main(["model", "list", "--home", str(box)]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.split()[:3] == ["active", next(iter(folders(box))), "0.13.0"]
    assert " ".join(first.split()[3:]) == f"serial {active} signed by {maker.keys.key_id}; not proven yet"
    assert second.split()[:2] == ["previous", "shipped"]


def test_installing_again_changes_nothing_but_what_is_active(
    untried: None, box: Path, archives: dict[int, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert main(["model", "install", str(archives[13]), "--home", str(box)]) == 0
    assert states(box, capsys) == {"0.13.0": "active", "shipped": "previous"}
    active = ModelStore(box).active()
    assert active is not None
    ModelStore(box).prove(active.digest)
    assert main(["model", "install", str(archives[13]), "--home", str(box)]) == 0
    assert listing(box, capsys)["models"][0]["proven"]


@pytest.mark.parametrize("name", ["cxr", "cxr-pneumonia-", "nothing"])
def test_a_name_must_mean_one_model(
    name: str, untried: None, box: Path, archives: dict[int, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for serial in (13, 14):
        assert main(["model", "install", str(archives[serial]), "--home", str(box)]) == 0
    assert main(["model", "activate", name, "--home", str(box)]) == 2
    assert "cxr-pneumonia-13-" in capsys.readouterr().err
    check_is_sound(box, allowed={14})


@pytest.mark.parametrize("harm", ["rotten", "replaced", "gone"])
def test_what_is_not_what_was_installed_is_not_activated(
    harm: str, untried: None, box: Path, archives: dict[int, Path], maker: Maker, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["model", "install", str(archives[13]), "--home", str(box)]) == 0
    assert main(["model", "activate", "shipped", "--home", str(box)]) == 0
    (folder,) = (ModelStore(box).folder / name for name in folders(box))
    if harm == "rotten":
        (folder / "model.tflite").write_bytes(b"rotten")
    else:
        shutil.rmtree(folder)
    if harm == "replaced":
        shutil.copytree(maker.bundle(9), folder)
    assert main(["model", "activate", folder.name, "--home", str(box)]) == 20
    assert ModelStore(box).active() is None


def test_verify_survives_a_model_that_kills_its_process(box: Path, maker: Maker, capsys: pytest.CaptureFixture[str]) -> None:
    def arm(bundle: Path) -> None:
        replace_file(bundle, "model.tflite", make_killer_model((bundle / "model.tflite").read_bytes()))

    armed = maker.bundle(5, arm)
    assert main(["model", "verify", str(armed), "--home", str(box)]) == 20
    assert "brought its process down (SIGSEGV)" in capsys.readouterr().err


def test_a_bundle_of_the_configuration_wins_and_every_command_says_so(
    untried: None, box: Path, archives: dict[int, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "edge-agent.toml"
    config.write_text(f'home = "{box}"\n[model]\nbundle = "{default_bundle_path()}"\n')
    options = ["--config", str(config)]
    for words in (["install", str(archives[13])], ["activate", "cxr-pneumonia-13"], ["list"], ["rollback"]):
        assert main(["model", *words, *options]) == 0
        assert f"note: the configuration names a bundle ([model] bundle = '{default_bundle_path()}')" in capsys.readouterr().err
    assert listing(box, capsys, *options)["overruled_by"] == str(default_bundle_path())


def test_unsigned_models_are_installed_only_where_the_configuration_says_so(
    untried: None, box: Path, maker: Maker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unsigned = maker.bundle(13)
    (unsigned / "manifest.sig").unlink()
    assert main(["model", "install", str(unsigned), "--home", str(box)]) == 20
    assert "allow_unsigned is false" in capsys.readouterr().err
    config = tmp_path / "edge-agent.toml"
    config.write_text(f'home = "{box}"\n[model]\nallow_unsigned = true\n')
    assert main(["model", "install", str(unsigned), "--config", str(config)]) == 0
    assert "not signed by a key that is trusted here" in capsys.readouterr().out
    active = ModelStore(box).active()
    assert active is not None
    assert active.signed_by is None


def test_a_home_that_is_not_there_is_not_made(tmp_path: Path, archives: dict[int, Path], capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["install", str(archives[13])], ["rollback"], ["activate", "shipped"]):
        assert main(["model", *words, "--home", str(tmp_path / "typo")]) == 10
        assert "there is no home folder" in capsys.readouterr().err
    assert main(["model", "list", "--home", str(tmp_path / "typo")]) == 0
    assert list(tmp_path.iterdir()) == []


def test_a_running_agent_takes_over_what_is_installed_and_each_record_names_its_model(
    tmp_path: Path, archives: dict[int, Path], maker: Maker
) -> None:
    """
    1. An agent runs with the shipped model; images come all the time.
    2. A signed model is installed, then rolled back.
    Result: every image has one record, which names the model that was active; status names it too; none is dropped.
    """
    home = AgentHome(tmp_path)
    home.timings = Timings(heartbeat_s=0.05)
    maker.trust(home.home)
    versions = []

    def drop_three_with(version: str) -> None:
        wait_until(lambda: (model := read_status(home.home).model) is not None and model["version"] == version)
        for _ in range(3):
            drop(home.inbox, f"{len(versions)}.png", image_bytes(len(versions), (64, 64)))
            versions.append(version)
        home.wait_for(1 + len(versions))

    shipped_bundle = load_bundle(default_bundle_path())
    shipped = shipped_bundle.manifest
    with home.running(load=load_classifiers):
        drop(home.inbox, "first.png", image_bytes(99, (64, 64)))
        home.wait_for(1)
        drop_three_with(shipped.version)
        assert main(["model", "install", str(archives[13]), "--home", str(home.home)]) == 0
        drop_three_with("0.13.0")
        assert main(["model", "rollback", "--home", str(home.home)]) == 0
        drop_three_with(shipped.version)
    digests = {shipped.version: shipped_bundle.digest, "0.13.0": load_bundle(archives[13]).digest}
    named = {row["path"]: (row["status"], row["model_version"], row["model_digest"]) for row in home.rows()}
    assert named == {f"{number}.png": ("done", version, digests[version]) for number, version in enumerate(versions)} | {
        "first.png": ("done", shipped.version, digests[shipped.version])
    }
