"""The models that were installed on this box: which one runs, which one ran before, and what may take its place.

``HOME/state/models`` holds a folder for each model and ``active.json``, the pointer. Only the pointer says what is installed: a folder it
does not name is a leftover of an installation that was cut off. It is replaced as a whole and durably, so that after a power cut either
the old model runs or the new one.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from edge_agent.errors import ModelError, StorageAwayError, StorageError
from edge_agent.files.atomic import replacing, storage_error

if TYPE_CHECKING:
    from edge_agent.config import Config
    from edge_agent.inference.bundle import Bundle

_log = logging.getLogger(__name__)

POINTER_NAME = "active.json"
POINTER_FORMAT = 1
KEPT_MODELS = 3
"""How many of the latest models stay on the disk, besides the one that runs and the one that ``rollback`` would bring back."""
LOCK_TIMEOUT_S = 10.0
"""How long to wait for the pointer's lock. Its holder writes one small file, so this is for slow disks."""
_POLL_S = 0.02


class InstalledModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model on this box.

    Attributes
    ----------
    name, version, serial
        As its manifest says.
    digest : str
        SHA-256 of its manifest, which holds the SHA-256 of all else; the same as in every record.
    directory : Path
        Where its files are; the pointer file holds the folder's name only, so that a home can be moved.
    installed_at : datetime
    signed_by : str or None
        Id of the key that signed it; None where it came without a signature.
    proven : bool
        Whether the agent has classified its first images with it without an inference error.
    left_because : str or None
        Why it was rolled back; ``rollback`` does not bring such a model back. None for all others.
    """

    name: str
    version: str
    serial: int
    digest: str
    directory: Path
    installed_at: datetime
    signed_by: str | None = None
    proven: bool = False
    left_because: str | None = None


class Pointer(msgspec.Struct, frozen=True, kw_only=True):
    """``active.json``: what is installed here.

    Attributes
    ----------
    active : str or None
        Digest of the model that runs; None is the one that ships with the package.
    history : tuple of str or None
        What ran before, the last one first, each once.
    models : tuple of InstalledModel
        All that are installed, the newest first.
    seen : dict
        For each name all serials that were ever installed here, with their digests, so that an older model is refused.
    """

    format: int = POINTER_FORMAT
    active: str | None = None
    history: tuple[str | None, ...] = ()
    models: tuple[InstalledModel, ...] = ()
    seen: dict[str, dict[int, str]] = {}

    def find(self, digest: str | None) -> InstalledModel | None:
        """Give the installed model of that digest."""
        return next((model for model in self.models if model.digest == digest), None)

    def to_return_to(self) -> list[InstalledModel | None]:
        """Give what a rollback may bring back, the best first: what ran before and was not left, then the model that ships (None)."""
        by_digest = {None: None} | {model.digest: model for model in self.models if model.left_because is None}
        last_resort = [] if self.active is None else [None]
        return [by_digest[digest] for digest in dict.fromkeys([*self.history, *last_resort]) if digest in by_digest]

    def with_active(self, digest: str | None, *, remember: bool = True) -> Pointer:
        """Give the pointer that lets another model run; ``remember`` says whether ``rollback`` may bring back the one that runs now."""
        before = [self.active] if remember else []
        history = dict.fromkeys(past for past in [*before, *self.history] if past != digest)
        return msgspec.structs.replace(self, active=digest, history=tuple(history))

    def with_model(self, changed: InstalledModel) -> Pointer:
        """Give the pointer with another entry for one of its models."""
        models = tuple(changed if model.digest == changed.digest else model for model in self.models)
        return msgspec.structs.replace(self, models=models)


class BundleChoice(NamedTuple):
    """Which bundle runs, whether it may be unsigned, and the folder of the keys that check its signature."""

    directory: Path
    allow_unsigned: bool
    trusted_keys: Path

    def load(self) -> Bundle:
        """Load and verify the bundle; raises as :func:`edge_agent.inference.bundle.load_bundle`."""
        from edge_agent.inference.bundle import load_bundle

        return load_bundle(self.directory, allow_unsigned=self.allow_unsigned, trusted_keys=self.trusted_keys)


def bundle_for(config: Config) -> BundleChoice:
    """Choose the bundle: the one that the configuration names, else the installed one that is active, else the one that ships.

    Raises
    ------
    ModelError, StorageError
        As :meth:`ModelStore.active`.
    """
    keys = config.trusted_keys
    if config.model.bundle is not None:
        return BundleChoice(config.model.bundle, config.model.allow_unsigned, keys)
    active = ModelStore(config.home).active()
    if active is not None:
        return BundleChoice(active.directory, config.model.allow_unsigned, keys)
    from edge_agent.inference.bundle import default_bundle_path

    return BundleChoice(default_bundle_path(), True, keys)


def load_configured_bundle(config: Config) -> Bundle:
    """Load and verify the bundle that :func:`bundle_for` chooses; one whose origin is not known leaves a line in the log.

    Raises
    ------
    ModelError, StorageError
        As :func:`bundle_for` and :meth:`BundleChoice.load`.
    """
    bundle = bundle_for(config).load()
    if bundle.signed_by is None and not bundle.is_shipped:
        _log.warning("model_of_unknown_origin bundle=%s reason=%r", bundle.directory, bundle.origin)
    return bundle


class ModelStore:
    """The installed models of one home folder. For one thread; safe against other processes.

    Parameters
    ----------
    home : Path
        Nothing in it is made or changed before the first write.
    """

    def __init__(self, home: Path) -> None:
        self.folder = home / "state" / "models"
        self._path = self.folder / POINTER_NAME
        self._seen: tuple[int, int, int] | None = None
        self._stamp: str | None = None

    def stamp(self) -> object:
        """Give something that compares unequal once another model has been activated. One ``stat`` where nothing has changed.

        A pointer that cannot be read changes nothing: the agent goes on with what it has in memory.
        """
        try:
            found = self._path.stat()
            seen = (found.st_ino, found.st_mtime_ns, found.st_size)
        except FileNotFoundError:
            seen = None
        except OSError:
            return self._stamp
        if seen != self._seen:
            with suppress(ModelError, StorageError):
                self._stamp = self.read().active
                self._seen = seen
        return self._stamp

    def active(self) -> InstalledModel | None:
        """Give the installed model that runs where the configuration names none; None is the one that ships with the package.

        Raises
        ------
        ModelError
            If the pointer file is damaged or was written by a newer version.
        StorageError
            If the disk does not let it be read.
        """
        pointer = self.read()
        return pointer.find(pointer.active)

    def prove(self, digest: str) -> None:
        """Note, durably, that a model has classified its first images without a fault.

        Raises
        ------
        ModelError, StorageError
            As :meth:`active`, and if the note cannot be written.
        """
        with self.changing() as pointer:
            model = pointer.find(digest)
            if model is not None and not model.proven:
                self.write(pointer.with_model(msgspec.structs.replace(model, proven=True)))

    def rollback(self, why: str) -> InstalledModel | None:
        """Activate the model that ran before; the one that is left is marked, so that no rollback returns to it.

        A model whose files are damaged, and one that was itself left in this way, is passed over. The model that ships is the last resort.

        Parameters
        ----------
        why : str
            For people; it is shown by ``edge-agent model list``.

        Returns
        -------
        InstalledModel or None
            What is active now; None is the model that ships.

        Raises
        ------
        ModelError
            If there is nothing to go back to.
        StorageError
            If the disk does not let the pointer be read or written; the old one then still counts.
        """
        with self.changing() as pointer:
            whole = [model for model in pointer.to_return_to() if model is None or is_whole(model.directory, model.digest)]
            if not whole:
                raise ModelError("no other model ran here before, so there is nothing to go back to; see  edge-agent model list")
            left = pointer.find(pointer.active)
            if left is not None:
                pointer = pointer.with_model(msgspec.structs.replace(left, left_because=why))
            pointer = pointer.with_active(whole[0].digest if whole[0] else None, remember=False)
            self.write(pointer)
            return whole[0]

    def read(self) -> Pointer:
        """Read the pointer file; where there is none, nothing is installed.

        Raises
        ------
        ModelError, StorageError
            As :meth:`active`.
        """
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return Pointer()
        except OSError as fault:
            raise storage_error(fault, f"read {self._path}") from fault
        try:
            pointer = msgspec.json.decode(content, type=Pointer, dec_hook=lambda _, name: self.folder / Path(name).name)
        except (msgspec.DecodeError, UnicodeDecodeError, TypeError) as fault:
            raise ModelError(f"{self._path}: damaged ({fault}), so it is not known which model ran last; {_AFTER_DAMAGE}") from fault
        if pointer.format != POINTER_FORMAT:
            raise ModelError(f"{self._path}: written by another version of edge-agent; install that version again, or {_AFTER_DAMAGE}")
        if pointer.active is not None and pointer.find(pointer.active) is None:
            raise ModelError(f"{self._path}: damaged (it names an active model that it does not list); {_AFTER_DAMAGE}")
        return pointer

    def write(self, pointer: Pointer) -> None:
        """Replace the pointer file durably. Only within :meth:`changing`.

        Raises
        ------
        StorageError
            If it cannot be written; the old one then still counts.
        """
        content = msgspec.json.format(msgspec.json.encode(pointer, enc_hook=lambda directory: directory.name), indent=2)
        with replacing(self._path, durable=True) as file:
            file.write(content + b"\n")

    @contextmanager
    def changing(self) -> Iterator[Pointer]:
        """Hold the pointer's lock, so that nobody writes it between our reading and our writing.

        Yields
        ------
        Pointer
            As it stands.

        Raises
        ------
        ModelError, StorageError
            As :meth:`active`, and if another process does not let go of the lock.
        """
        with self.locked("pointer.lock", LOCK_TIMEOUT_S):
            yield self.read()

    @contextmanager
    def locked(self, name: str, timeout_s: float) -> Iterator[None]:
        """Hold a lock file in the folder of the models; the system lets go of it however the process ends.

        Raises
        ------
        StorageAwayError
            If another process still holds it after ``timeout_s`` seconds, or the file cannot be made.
        """
        path = self.folder / name
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o664)
        except OSError as fault:
            raise storage_error(fault, f"open {path}") from fault
        try:
            deadline_s = time.monotonic() + timeout_s
            while not _try_lock(descriptor):
                if time.monotonic() > deadline_s:
                    raise StorageAwayError(
                        f"another program is changing the models in {self.folder}: wait until it is done, then try again"
                    )
                time.sleep(_POLL_S)
            yield
        finally:
            os.close(descriptor)


_AFTER_DAMAGE = (
    "remove that file to run the model that came with the program, then install the model that you want with  edge-agent model install ZIP"
)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_whole(directory: Path, digest: str) -> bool:
    """Tell whether all files of an installed model are there and are what was installed."""
    from edge_agent.inference.bundle import load_bundle

    try:
        return load_bundle(directory).digest == digest
    except ModelError:
        return False
