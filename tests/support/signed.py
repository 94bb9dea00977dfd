"""Signed bundles to install: the one that ships, with other serials, and with what an attacker would change."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_agent.deployment.install import install_bundle
from edge_agent.deployment.model_store import InstalledModel, ModelStore
from edge_agent.inference.bundle import Bundle, default_bundle_path, load_bundle, read_contents, verify_bundle
from model_build.bundle.signing import KeyPair, make_key_pair, pack_bundle, read_private_key, sign_bundle
from support.bundles import change_manifest

SERIAL = 7
"""Of the bundle in the fixture ``good``: above that of the bundle that ships."""
SHIPPED_SERIAL = load_bundle(default_bundle_path()).manifest.serial


class Maker:
    """Somebody who builds models and signs them.

    Parameters
    ----------
    folder : Path
        For keys and bundles; must not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.keys: KeyPair = make_key_pair(folder / "keys")
        self._count = 0

    def trust(self, home: Path) -> Path:
        """Make a home that trusts this maker; gives ``home``."""
        (home / "keys").mkdir(parents=True, exist_ok=True)
        shutil.copy(self.keys.public, home / "keys")
        return home

    def bundle(self, serial: int, change: Callable[[Path], object] = lambda _: None, *, note: str = "") -> Path:
        """Make a bundle and sign it; ``change`` is made before, ``note`` makes another one of the same serial."""
        self._count += 1
        directory = self.folder / f"bundle-{self._count}"
        shutil.copytree(default_bundle_path(), directory)

        def number(manifest: dict[str, Any]) -> None:
            manifest.update(serial=serial, version=f"0.{serial}.0", training=manifest["training"] | {"note": note})

        change_manifest(directory, number)
        change(directory)
        self.sign(directory)
        return directory

    def sign(self, directory: Path) -> None:
        """Sign a bundle as it is now."""
        sign_bundle(directory, read_private_key(self.keys.private))

    def archive(self, serial: int, change: Callable[[Path], object] = lambda _: None, *, note: str = "") -> Path:
        """Make, sign and pack a bundle."""
        directory = self.bundle(serial, change, note=note)
        archive = directory.with_suffix(".zip")
        pack_bundle(directory, archive)
        return archive


def read_and_verify(path: Path, home: Path) -> tuple[dict[str, bytes], Bundle]:
    """Read a bundle and hold it against the keys of a home, as the command does."""
    contents = read_contents(path)
    return contents, verify_bundle(path, contents, allow_unsigned=False, trusted_keys=home / "keys")


def install(path: Path, home: Path, *, serial: int | None = None) -> InstalledModel:
    """Install a bundle into a home, as the command does."""
    contents, bundle = read_and_verify(path, home)
    return install_bundle(ModelStore(home), bundle, contents, serial=serial)


def check_is_sound(home: Path, *, allowed: set[int | None]) -> int | None:
    """Check that what is active is whole and one of the ``allowed`` serials (None is the shipped model); gives its serial."""
    active = ModelStore(home).active()
    if active is None:
        assert None in allowed, "the shipped model runs"
        return None
    assert active.serial in allowed
    bundle = load_bundle(active.directory, allow_unsigned=False, trusted_keys=home / "keys")
    assert bundle.digest == active.digest
    assert bundle.manifest.serial == active.serial
    return active.serial


def folders(home: Path) -> set[str]:
    """Names of the folders of ``HOME/state/models``."""
    root = home / "state" / "models"
    return {path.name for path in root.iterdir() if path.is_dir()} if root.exists() else set()
