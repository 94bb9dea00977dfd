"""Keys that sign bundles, the signature, and the one file in which a bundle travels. The private key stays where models are built."""

from __future__ import annotations

import base64
import io
import os
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from edge_agent.errors import ConfigError, ModelError
from edge_agent.files.atomic import sync_folder
from edge_agent.inference.bundle import BUNDLE_FILES, SIGNATURE_NAME, Bundle, read_contents, verify_bundle
from edge_agent.inference.manifest import MANIFEST_NAME
from edge_agent.inference.signature import ALGORITHM, KEY_SUFFIX, Signature, key_id_of, public_key_text, signed_message
from model_build.run_folder import BUNDLE, write_json, write_whole

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PRIVATE_KEY_NAME = "signing.key"
_MAX_KEY_BYTES = 4096
_EARLIEST = (1980, 1, 1, 0, 0, 0)
"""The first date that a zip file can hold: one that says nothing about the day of packing."""


class KeyPair(NamedTuple):
    """Where a new pair of keys was written, and the id under which boxes know it."""

    key_id: str
    private: Path
    public: Path


def make_key_pair(folder: Path) -> KeyPair:
    """Make a new ed25519 key that may sign bundles.

    Parameters
    ----------
    folder : Path
        Is made, for its owner alone, where it does not exist. The private key is ``signing.key`` (PEM, PKCS 8, mode 0600), the public one
        ``KEYID.pub``.

    Raises
    ------
    ConfigError
        If there is a private key already, which is never overwritten, or the folder cannot be written.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    raw = key.public_key().public_bytes_raw()
    key_id = key_id_of(raw)
    private, public = folder / PRIVATE_KEY_NAME, folder / f"{key_id}{KEY_SUFFIX}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # The public key first: without it a private key would be of no use, and would stand in the way of the next attempt.
        write_whole(public, public_key_text(raw).encode())
        _write_new(private, pem)
    except FileExistsError:
        public.unlink(missing_ok=True)
        raise ConfigError(f"{private}: there is a key already, and a key is never overwritten; name another folder with --out") from None
    except OSError as fault:
        public.unlink(missing_ok=True)
        raise ConfigError(f"{folder}: the keys cannot be written: {fault.strerror}; name another folder with --out") from fault
    return KeyPair(key_id, private, public)


def _write_new(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read, durably; fails where there is one, and leaves none half-written."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123  a descriptor, so that it is never readable for others
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        sync_folder(path.parent)
    except OSError:
        path.unlink(missing_ok=True)
        raise


def read_private_key(path: Path) -> Ed25519PrivateKey:
    """Read a key that :func:`make_key_pair` wrote.

    Raises
    ------
    ConfigError
        If it cannot be read, or holds no ed25519 key without a password.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        with path.open("rb") as file:
            key = load_pem_private_key(file.read(_MAX_KEY_BYTES), password=None)
    except OSError as fault:
        raise ConfigError(f"{path}: the key cannot be read: {fault.strerror}; make one with  model-build keygen --out DIR") from fault
    except (ValueError, TypeError, UnsupportedAlgorithm) as fault:
        raise ConfigError(f"{path}: not a private key of model-build keygen; name its {PRIVATE_KEY_NAME}") from fault
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{path}: not an ed25519 key; make one with  model-build keygen --out DIR")
    return key


def sign_bundle(directory: Path, key: Ed25519PrivateKey) -> Signature:
    """Sign a bundle: write its ``manifest.sig``, in the place of an older one.

    Raises
    ------
    ModelError
        If it is no whole bundle; nothing is signed that would be refused.
    DiskFullError, StorageError
        If the signature cannot be written.
    """
    contents = _read_folder(directory)
    contents.pop(SIGNATURE_NAME, None)
    verify_bundle(directory, contents, allow_unsigned=True, trusted_keys=None)
    signature = Signature(
        algorithm=ALGORITHM,
        key_id=key_id_of(key.public_key().public_bytes_raw()),
        signature=base64.b64encode(key.sign(signed_message(contents[MANIFEST_NAME]))).decode(),
    )
    write_json(directory / SIGNATURE_NAME, signature)
    return signature


def find_bundle(run_or_bundle: Path) -> Path:
    """Give the bundle of a run folder; a bundle's folder is its own."""
    inner = run_or_bundle / BUNDLE
    return inner if (inner / MANIFEST_NAME).is_file() else run_or_bundle


def pack_bundle(directory: Path, archive: Path) -> Bundle:
    """Write a bundle's files into one zip file. The same bundle gives the same bytes, on every machine.

    For that they are stored as they are, without times and in a fixed order: most of a bundle is packed already, and libraries differ in
    how they pack.

    Returns
    -------
    Bundle
        What was packed.

    Raises
    ------
    ModelError
        If it is no whole bundle.
    DiskFullError, StorageError
        If the file cannot be written; an older one then still stands.
    """
    contents = _read_folder(directory)
    bundle = verify_bundle(directory, contents, allow_unsigned=True, trusted_keys=None)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as packed:
        for name in BUNDLE_FILES:
            if name in contents:
                member = zipfile.ZipInfo(name, _EARLIEST)
                member.create_system = 3  # unix, whatever packs it
                member.external_attr = 0o100644 << 16
                packed.writestr(member, contents[name])
    write_whole(archive, stream.getvalue())
    return bundle


def _read_folder(directory: Path) -> dict[str, bytes]:
    if directory.is_file():
        raise ModelError(f"{directory}: is a file; name the folder of a bundle or of a run")
    return read_contents(directory)
