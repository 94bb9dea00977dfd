"""Installing a model: tried, written to the disk as a whole, then made active. A power cut at any point leaves the old one active.

The order of the steps makes this safe: first the files, then their folder's name, then the pointer. The next installation removes what an
interrupted one has left.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edge_agent.deployment.model_store import KEPT_MODELS, InstalledModel, ModelStore, Pointer, is_whole
from edge_agent.deployment.trial import try_bundle
from edge_agent.errors import EdgeAgentError, ModelContractError, ModelError
from edge_agent.files.atomic import storage_error, sync_folder, write_files
from edge_agent.inference.bundle import default_bundle_path, load_bundle

if TYPE_CHECKING:
    from edge_agent.config import Config
    from edge_agent.inference.bundle import Bundle

LOCK_TIMEOUT_S = 60.0
"""How long an installation waits for the end of another one."""

_PART_PREFIX = ".part-"
_MODEL_FOLDER = re.compile(r"-\d+-[0-9a-f]{8}$")


def install_bundle(store: ModelStore, bundle: Bundle, contents: Mapping[str, bytes], *, serial: int | None = None) -> InstalledModel:
    """Install a verified bundle and activate it.

    Parameters
    ----------
    store : ModelStore
        Of an existing home folder.
    bundle : Bundle
        From :func:`edge_agent.inference.bundle.verify_bundle`.
    contents : mapping of str to bytes
        The files that were verified; these very bytes are written.
    serial : int, optional
        The serial that a person asked for. A serial older than one seen here is taken only so.

    Returns
    -------
    InstalledModel
        As the pointer has it now. A model that was installed before keeps its history.

    Raises
    ------
    ModelError
        If the serial is not taken, or the trial in a child process fails; nothing has changed then.
    StorageError
        If it cannot be written, or another installation does not end; the old model is still active.
    """
    with store.locked("install.lock", LOCK_TIMEOUT_S):
        pointer = store.read()
        if refusal := serial_refusal(pointer, bundle, serial):
            raise ModelContractError(refusal)
        _remove_leftovers(store, pointer)
        try:
            part = _write_part(store, contents)
            try_bundle(part, bundle.digest)
            with store.changing() as pointer:
                directory = _place(part, store.folder / folder_name(bundle), bundle.digest)
                pointer = _with_installed(pointer, bundle, directory)
                store.write(pointer)
        finally:
            # What could not be finished, and models that were forgotten: an agent has its model in memory.
            with suppress(EdgeAgentError):
                _remove_leftovers(store, store.read())
        return _entry(pointer, bundle.digest)


def activate_installed(store: ModelStore, model: InstalledModel, config: Config) -> InstalledModel:
    """Activate an installed model. Its serial does not count, because somebody asked for the model by name.

    A model that was rolled back for a fault gets another chance, and counts as not yet proven.

    Raises
    ------
    ModelError
        If it is not what was installed, not signed as the configuration asks, or fails its trial.
    StorageError
        As :func:`install_bundle`.
    """
    bundle = load_bundle(model.directory, allow_unsigned=config.model.allow_unsigned, trusted_keys=config.trusted_keys)
    if bundle.digest != model.digest:
        raise ModelError(f"{model.directory}: not the bundle that was installed there; install it again with  edge-agent model install ZIP")
    try_bundle(model.directory, model.digest)
    with store.changing() as pointer:
        known = _entry(pointer, model.digest)
        if known.left_because is not None:
            known = msgspec.structs.replace(known, left_because=None, proven=False)
        store.write(pointer.with_model(known).with_active(model.digest))
        return known


def activate_shipped(store: ModelStore) -> None:
    """Activate the model that came with the program.

    Raises
    ------
    ModelError, StorageError
        As :meth:`ModelStore.rollback`.
    """
    with store.changing() as pointer:
        store.write(pointer.with_active(None))


def serial_refusal(pointer: Pointer, bundle: Bundle, asked: int | None = None) -> str | None:
    """Say why a bundle may not be installed, going by its serial; None where it may.

    Parameters
    ----------
    pointer : Pointer
        The box's, which knows every serial that was installed there. The model that came with the program counts as seen.
    bundle : Bundle
    asked : int, optional
        The serial that a person asked for.
    """
    manifest = bundle.manifest
    seen = dict(pointer.seen.get(manifest.name, {}))
    shipped = load_bundle(default_bundle_path())
    if shipped.manifest.name == manifest.name:
        seen.setdefault(shipped.manifest.serial, shipped.digest)
    what = f"{manifest.name} {manifest.version} has the serial {manifest.serial}"
    if asked is not None and asked != manifest.serial:
        return f"{what}, and --serial asks for {asked}"
    if seen.get(manifest.serial, bundle.digest) != bundle.digest:
        return f"{what}, which another model of that name had on this box before: build it again with a serial of its own"
    highest = max(seen, default=manifest.serial)
    if manifest.serial < highest and asked is None:
        return (
            f"{what}, and the serial {highest} was on this box before: this model is older and may bring an old fault back."
            f" If you do want it, ask for it by its number:  --serial {manifest.serial}"
        )
    return None


def folder_name(bundle: Bundle) -> str:
    """Give the name of an installed model's folder: name, serial and the first eight digits of the digest."""
    return f"{bundle.manifest.name}-{bundle.manifest.serial}-{bundle.digest[:8]}"


def _entry(pointer: Pointer, digest: str) -> InstalledModel:
    model = pointer.find(digest)
    if model is None:
        raise ModelError("the model was removed in the meantime by another program; install it again with  edge-agent model install ZIP")
    return model


def _with_installed(pointer: Pointer, bundle: Bundle, directory: Path) -> Pointer:
    manifest = bundle.manifest
    known = pointer.find(bundle.digest)
    model = InstalledModel(
        name=manifest.name,
        version=manifest.version,
        serial=manifest.serial,
        digest=bundle.digest,
        directory=directory,
        installed_at=datetime.now(UTC),
        signed_by=bundle.signed_by,
        proven=known is not None and known.proven and known.left_because is None,
    )
    models = (model, *(other for other in pointer.models if other.digest != bundle.digest))
    serials = pointer.seen.get(manifest.name, {}) | {manifest.serial: bundle.digest}
    pointer = msgspec.structs.replace(pointer, models=models, seen=pointer.seen | {manifest.name: serials})
    return _without_old(pointer.with_active(bundle.digest))


def _without_old(pointer: Pointer) -> Pointer:
    """Forget the models installed longest ago, but for the active one and the one that a rollback would bring back."""
    kept = {model.digest for model in pointer.models[:KEPT_MODELS]} | {pointer.active}
    kept |= {model.digest for model in pointer.to_return_to()[:1] if model is not None}
    return msgspec.structs.replace(
        pointer,
        models=tuple(model for model in pointer.models if model.digest in kept),
        history=tuple(digest for digest in pointer.history if digest is None or digest in kept),
    )


def _write_part(store: ModelStore, contents: Mapping[str, bytes]) -> Path:
    """Write the files into a folder that nothing names yet, and wait until the disk has them."""
    try:
        part = Path(tempfile.mkdtemp(prefix=_PART_PREFIX, dir=store.folder))
        part.chmod(store.folder.stat().st_mode & 0o777)  # mkdtemp made it for its user alone
        write_files(part, contents)
    except OSError as fault:
        raise storage_error(fault, f"write the model to {store.folder}") from fault
    return part


def _place(part: Path, directory: Path, digest: str) -> Path:
    """Give the folder its name, durably; one that stands there already stays if it is whole."""
    try:
        if directory.exists():
            if is_whole(directory, digest):
                return directory
            directory.rename(part.with_name(f"{part.name}-damaged"))
        part.rename(directory)
        sync_folder(directory.parent)
        sync_folder(directory.parent.parent)  # "models" may be new itself
    except OSError as fault:
        raise storage_error(fault, f"put the model into {directory}") from fault
    return directory


def _remove_leftovers(store: ModelStore, pointer: Pointer) -> None:
    """Remove the folders that the pointer does not name: of installations that were cut off. Only under the lock of installations."""
    known = {model.directory.name for model in pointer.models}
    with suppress(OSError):  # what cannot be removed now is removed by the next one
        for path in list(store.folder.iterdir()):
            is_ours = path.name.startswith(_PART_PREFIX) or (_MODEL_FOLDER.search(path.name) and path.name not in known)
            if is_ours and path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
