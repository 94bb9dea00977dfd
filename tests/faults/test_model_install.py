"""Installations of a model that are cut off, meet a bad disk or each other: the box runs the old model or the new one, whole."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from support.disks import LoopDisk, NoDisksError, fill, memory_disk
from support.model_installer import KILL_POINTS, NEW_FOR_GOOD_FROM, NEW_FROM, run_install, start_install
from support.signed import Maker, check_is_sound, folders, install

from edge_agent.deployment import install as installation
from edge_agent.deployment.model_store import POINTER_NAME, ModelStore
from edge_agent.errors import StorageAwayError

OLD, NEW, KILLED = 13, 14, -9
DISK_MIB = 24
POINTS = list(KILL_POINTS)


@pytest.fixture(scope="session")
def archives(maker: Maker) -> dict[int, Path]:
    """Archives by their serials."""
    return {serial: maker.archive(serial) for serial in (OLD, NEW)}


@pytest.fixture
def old_box(box: Path, archives: dict[int, Path]) -> Path:
    """A home on which the old model is installed."""
    assert run_install(archives[OLD], box) == (0, "")
    return box


def check_next_install_succeeds(home: Path, archives: dict[int, Path]) -> None:
    """Install the new one undisturbed: it is active, and nothing else is left."""
    code, said = run_install(archives[NEW], home)
    assert code == 0, said
    assert check_is_sound(home, allowed={NEW}) == NEW
    assert {model.directory.name for model in ModelStore(home).read().models} == folders(home)
    assert sorted(path.name for path in ModelStore(home).folder.iterdir() if path.is_file()) == [
        POINTER_NAME,
        "install.lock",
        "pointer.lock",
    ]


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_at_each_point(point: str, old_box: Path, archives: dict[int, Path]) -> None:
    """
    1. An installation is killed at a named point.
    2. The same archive is installed again.
    Result: until the pointer is replaced the old model is active, then the new one; the second installation leaves no leftovers.
    """
    code, said = run_install(archives[NEW], old_box, kill_at=point)
    assert code == KILLED, said
    check_is_sound(old_box, allowed={NEW if POINTS.index(point) >= POINTS.index(NEW_FROM) else OLD})
    check_next_install_succeeds(old_box, archives)


def test_a_kill_while_the_model_is_tried(old_box: Path, archives: dict[int, Path]) -> None:
    with start_install(archives[NEW], old_box, trial=True) as process:
        while not any(name.startswith(".part-") for name in folders(old_box)):
            assert process.poll() is None
        process.kill()
    check_is_sound(old_box, allowed={OLD})
    check_next_install_succeeds(old_box, archives)


def after_power_cut(point: str, folder: Path, maker: Maker, archives: dict[int, Path], **settings: object) -> int | None:
    """Cut the power at a point of an installation; check what is on the disk then, and give the serial of the active model."""
    disk = LoopDisk.make(folder / "disk.img", folder / "disk", DISK_MIB)
    with disk.mounted() as mounted:
        home = maker.trust(mounted / "home")
        assert run_install(archives[OLD], home) == (0, "")
    with disk.mounted() as mounted:
        code, said = run_install(archives[NEW], mounted / "home", kill_at=point, **settings)
        assert code == KILLED, said
        left = disk.cut(folder / "left.img", folder / "left")
    with left.mounted() as mounted:
        active = check_is_sound(mounted / "home", allowed={OLD, NEW})
        check_next_install_succeeds(mounted / "home", archives)
    return active


@pytest.mark.parametrize("point", POINTS)
def test_a_power_cut_at_each_point(point: str, disks: None, quick_folder: Path, maker: Maker, archives: dict[int, Path]) -> None:
    """
    1. The power fails at a named point of an installation: what only the page cache holds is gone.
    2. The same archive is installed again.
    Result: before the pointer is replaced the old model is active; once the installation has reported it, the new one; it is whole.
    """
    active = after_power_cut(point, quick_folder, maker, archives)
    if POINTS.index(point) < POINTS.index(NEW_FROM):
        assert active == OLD
    if POINTS.index(point) >= POINTS.index(NEW_FOR_GOOD_FROM):
        assert active == NEW


def test_the_proof_can_fail(disks: None, quick_folder: Path, maker: Maker, archives: dict[int, Path]) -> None:
    """
    1. The same with an installation that does not wait for the disk.
    Result: the new model is lost, although it had been active.
    """
    assert after_power_cut(NEW_FOR_GOOD_FROM, quick_folder, maker, archives, stubs=["os.fsync"]) == OLD


@pytest.mark.parametrize("leave_kib", [0, 300, 1148, 1152, 1156, 1160])
def test_a_disk_that_fills_up(leave_kib: int, tmp_path: Path, maker: Maker, archives: dict[int, Path]) -> None:
    """
    1. The disk has too little space for the new model, or just enough for its files but not for the rest.
    2. Somebody frees space.
    Result: exit code 41 and what to do, or success; never half a model; then the installation succeeds.
    """
    try:
        with memory_disk(tmp_path / "disk", 6 * 1024) as mounted:
            home = maker.trust(mounted / "home")
            assert run_install(archives[OLD], home) == (0, "")
            filler = fill(mounted, leave_kib=leave_kib)
            code, said = run_install(archives[NEW], home)
            assert code in ((41,) if leave_kib < 1150 else (0, 41))
            check_is_sound(home, allowed={NEW if code == 0 else OLD})
            if code:
                assert "no space is left" in said
                assert len(folders(home)) == 1
            filler.unlink()
            check_next_install_succeeds(home, archives)
    except NoDisksError as fault:
        pytest.skip(f"no small disk can be mounted here: {fault}")


@pytest.mark.parametrize(
    ("call", "where"),
    [
        ("os.fsync", ""),
        ("os.open", ".lock"),
        ("file.write", "/state/models/"),
        ("file.read", "/state/models/"),
        ("tempfile.mkdtemp", ""),
        ("pathlib.Path.rename", ""),
        ("pathlib.Path.replace", ""),
        ("pathlib.Path.chmod", ""),
    ],
)
def test_an_input_output_error(call: str, where: str, old_box: Path, archives: dict[int, Path]) -> None:
    """
    1. The disk refuses one call: the first of its kind, the second, and so on until no more are made.
    Result: exit code 40 and a message each time; the old model is active, or the new one where only a last wait for the disk failed.
    """
    active = OLD
    for nth in range(1, 40):
        code, said = run_install(archives[NEW], old_box, faults=[{"call": call, "where": where, "error": "EIO", "nth": nth}])
        if code == 0:
            break
        assert code in (20, 40), said
        assert said.startswith("error: ")
        assert "Traceback" not in said
        active = check_is_sound(old_box, allowed={active, NEW}) or active
    else:
        pytest.fail("it never succeeded")
    assert nth > 1
    check_next_install_succeeds(old_box, archives)


def test_two_installations_at_once(box: Path, archives: dict[int, Path]) -> None:
    """
    1. Two archives are installed at the same time, over and over.
    Result: one waits for the other; the newer one is active in the end, whichever came first; nothing is left over.
    """
    for _ in range(2):
        with start_install(archives[OLD], box, trial=True) as one, start_install(archives[NEW], box, trial=True) as other:
            (_, said), (_, said_other) = one.communicate(60), other.communicate(60)
            assert one.returncode in (0, 20), said
            assert other.returncode == 0, said_other
        if one.returncode == 20:
            assert f"the serial {NEW} was on this box before" in said
        assert check_is_sound(box, allowed={NEW}) == NEW
        assert {model.directory.name for model in ModelStore(box).read().models} == folders(box)


def test_an_installation_that_waits_too_long_is_refused(box: Path, archives: dict[int, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "LOCK_TIMEOUT_S", 0.05)
    with ModelStore(box).locked("install.lock", 1.0), pytest.raises(StorageAwayError, match="wait until it is done"):
        install(archives[NEW], box)
    assert install(archives[NEW], box).serial == NEW


def test_an_installed_model_that_was_damaged_is_repaired_by_installing_it_again(old_box: Path, archives: dict[int, Path]) -> None:
    active = ModelStore(old_box).active()
    assert active is not None
    (active.directory / "head.json").write_bytes(b"rotten")
    assert run_install(archives[OLD], old_box) == (0, "")
    check_is_sound(old_box, allowed={OLD})
    assert len(folders(old_box)) == 1


# Root and the user of the agent


def install_as_root(archive: Path, home: Path) -> subprocess.CompletedProcess[str]:
    """Install in a process of its own, which may give up its rights; the model is not tried, as this Python may be root's alone."""
    code = (
        "import sys; from edge_agent import cli; from edge_agent.deployment import install as installation, trial\n"
        "installation.try_bundle = lambda *_: None\n"
        "import cryptography.hazmat.primitives.asymmetric.ed25519, pwd, encodings.idna\n"
        "sys.exit(cli.main(['model', 'install', sys.argv[1], '--home', sys.argv[2]]))"
    )
    return subprocess.run([sys.executable, "-c", code, str(archive), str(home)], capture_output=True, text=True, check=False)


@pytest.fixture
def nobodys_box(quick_folder: Path, maker: Maker) -> Path:
    """A home that belongs to another user, as on a box where the agent has a user of its own."""
    if os.geteuid() != 0:
        pytest.skip("only root can act for another user")
    quick_folder.chmod(0o755)
    home = maker.trust(quick_folder / "home")
    for path in (home, home / "keys", *(home / "keys").iterdir()):
        os.chown(path, 65534, 65534)
    return home


def test_what_root_installs_belongs_to_the_user_of_the_agent(nobodys_box: Path, archives: dict[int, Path]) -> None:
    done = install_as_root(archives[NEW], nobodys_box)
    assert done.returncode == 0, done.stderr
    assert check_is_sound(nobodys_box, allowed={NEW}) == NEW
    for path in nobodys_box.rglob("*"):
        found = path.lstat()
        assert (found.st_uid, found.st_gid) == (65534, 65534), path
        assert found.st_mode & stat.S_IRUSR


@pytest.mark.parametrize("link", ["state", "state/models", "state/models/pointer.lock", "state/models/active.json"])
def test_root_follows_no_link_that_the_user_of_the_agent_has_planted(link: str, nobodys_box: Path, archives: dict[int, Path]) -> None:
    """
    1. Somebody who took over the agent puts a link to a place of root's into the home; root installs a model.
    Result: refused, or done without touching that place.
    """
    secret = nobodys_box.with_name("roots")
    secret.mkdir(mode=0o755)
    (secret / "file").write_text("root's")
    place = nobodys_box / link
    place.parent.mkdir(parents=True, exist_ok=True)
    for path in (nobodys_box / "state", nobodys_box / "state" / "models"):
        if path.is_dir():
            os.chown(path, 65534, 65534)
    place.symlink_to(secret if link.endswith(("state", "models")) else secret / "file")
    done = install_as_root(archives[NEW], nobodys_box)
    assert "Traceback" not in done.stderr
    assert [path.name for path in secret.iterdir()] == ["file"]
    assert (secret / "file").read_text() == "root's"
    assert {path.lstat().st_uid for path in (secret, secret / "file")} == {0}
    if done.returncode == 0:
        check_is_sound(nobodys_box, allowed={NEW})
    else:
        assert done.stderr.startswith("error: ")
