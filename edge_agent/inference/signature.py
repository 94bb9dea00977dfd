"""Signatures of bundles: ed25519 over the manifest, which holds the SHA-256 of all else.

``manifest.sig`` is made on the machine that builds models, by a private key that never leaves it; the box has the public keys that it
trusts in a folder. What is signed begins with a text that says what it is, so that no signature made for another purpose fits.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta

from edge_agent.errors import ModelError, ModelSignatureError

ALGORITHM: Literal["ed25519"] = "ed25519"
KEY_SUFFIX = ".pub"
_DOMAIN = b"edge-agent bundle manifest, signature 1\0"
_KEY_BYTES = 32
_SIGNATURE_BYTES = 64
_KEY_ID_DIGITS = 16
_MAX_KEY_FILE_BYTES = 4096


class Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``manifest.sig``: which key signed, and the 64 bytes of the signature in base64."""

    algorithm: Literal["ed25519"]
    key_id: Annotated[str, Meta(pattern="^[0-9a-f]{16}$")]
    signature: str


class PublicKey(NamedTuple):
    """A key that may sign bundles: its id, and its 32 bytes."""

    key_id: str
    raw: bytes


@dataclass(frozen=True)
class TrustedKeys:
    """The public keys of a folder, by their ids; ``unreadable`` names files that hold none."""

    folder: Path | None = None
    keys: dict[str, PublicKey] = field(default_factory=dict)
    unreadable: tuple[str, ...] = ()

    def described(self) -> str:
        """Say for people which keys are trusted, and where."""
        if self.folder is None:
            return "no folder of trusted keys was given"
        held = f"{self.folder} holds {', '.join(sorted(self.keys)) or 'no key'}"
        return held + (f"; no public key in {', '.join(self.unreadable)}" if self.unreadable else "")


def signed_message(manifest: bytes) -> bytes:
    """Give the bytes that are signed for a manifest: what they are for, then the manifest as it stands in its file."""
    return _DOMAIN + manifest


def key_id_of(raw: bytes) -> str:
    """Give the id of a public key of 32 bytes: the first 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(raw).hexdigest()[:_KEY_ID_DIGITS]


def public_key_text(raw: bytes) -> str:
    """Write a public key of 32 bytes as the text of its file."""
    return (
        "# A public key that may sign models for edge-agent. It is no secret. Copy this file into the folder of trusted keys of each box.\n"
        f"{ALGORITHM} {key_id_of(raw)} {base64.b64encode(raw).decode()}\n"
    )


def parse_public_key(text: str) -> PublicKey:
    """Read the text of a public key's file.

    Raises
    ------
    ValueError
        If it is not one line of algorithm, key id and base64 among comments, or the id is not the key's.
    """
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    words = lines[0].split() if len(lines) == 1 else []
    if len(words) != 3 or words[0] != ALGORITHM:
        raise ValueError("not a public key of edge-agent")
    raw = base64.b64decode(words[2], validate=True)
    if len(raw) != _KEY_BYTES or words[1] != key_id_of(raw):
        raise ValueError("the key does not fit its id")
    return PublicKey(words[1], raw)


def read_trusted_keys(folder: Path | None) -> TrustedKeys:
    """Read the public keys (``*.pub``) of a folder.

    A file that holds no key is left out and named where a signature is refused: one spoiled file must not stop a box.

    Parameters
    ----------
    folder : Path or None
        A folder that is not there holds no key.

    Raises
    ------
    ModelError
        If the folder is there and cannot be listed.
    """
    if folder is None:
        return TrustedKeys()
    try:
        files = sorted(path for path in folder.iterdir() if path.name.endswith(KEY_SUFFIX))
    except FileNotFoundError:
        return TrustedKeys(folder)
    except OSError as fault:
        raise ModelError(f"the folder of trusted keys {folder} cannot be read: {fault.strerror}; let the agent's user read it") from fault
    keys: dict[str, PublicKey] = {}
    unreadable = []
    for path in files:
        try:
            with path.open("rb") as file:
                key = parse_public_key(file.read(_MAX_KEY_FILE_BYTES).decode())
            keys[key.key_id] = key
        except (OSError, ValueError):
            unreadable.append(path.name)
    return TrustedKeys(folder, keys, tuple(unreadable))


def check_signature(name: str, manifest: bytes, content: bytes | None, trusted: TrustedKeys, *, allow_unsigned: bool) -> str | None:
    """Check a bundle's signature with the trusted keys.

    Parameters
    ----------
    name : str
        The bundle's folder or file, for messages.
    manifest : bytes
        ``manifest.json`` as it will be used.
    content : bytes or None
        ``manifest.sig``; None where the bundle has none.
    trusted : TrustedKeys
    allow_unsigned : bool
        Whether a bundle of unknown origin may run: without a signature, or with one by a key that is not trusted here.

    Returns
    -------
    str or None
        Id of the trusted key that signed it; None where the origin is not known.

    Raises
    ------
    ModelSignatureError
        If the signature is wrong, whatever is allowed, or the origin is not known and must be.
    ModelError
        If the library that checks signatures is missing.
    """
    if content is None:
        if not allow_unsigned:
            raise ModelSignatureError(
                f"{name}: this model is not signed, and the configuration asks for a signature ([model] allow_unsigned is false):"
                " have it signed with  model-build sign  by a key that is trusted on this box"
            )
        return None
    signature = _parse_signature(name, content)
    key = trusted.keys.get(signature.key_id)
    if key is not None:
        _verify(name, manifest, signature, key)
        return key.key_id
    if not allow_unsigned:
        raise ModelSignatureError(
            f"{name}: this model is signed by the key {signature.key_id}, which is not trusted on this box ({trusted.described()});"
            " if you know where the model comes from, ask there for the public key and copy it into that folder"
        )
    return None


def _parse_signature(name: str, content: bytes) -> Signature:
    try:
        signature = msgspec.json.decode(content, type=Signature)
        if len(base64.b64decode(signature.signature, validate=True)) != _SIGNATURE_BYTES:
            raise ValueError(f"the signature has not {_SIGNATURE_BYTES} bytes")
    except (msgspec.DecodeError, binascii.Error, ValueError) as fault:
        raise ModelSignatureError(
            f"{name}: manifest.sig cannot be read ({fault}); copy the bundle again, or have it signed again"
        ) from fault
    return signature


def _verify(name: str, manifest: bytes, signature: Signature, key: PublicKey) -> None:
    # Only a signed bundle pays for the import: 17 ms and 10 MiB.
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ImportError as fault:
        raise ModelError(
            f"{name}: its signature cannot be checked, because a library is missing ({fault}): pip install cryptography"
        ) from fault
    try:
        public_key = Ed25519PublicKey.from_public_bytes(key.raw)
        public_key.verify(base64.b64decode(signature.signature), signed_message(manifest))
    except InvalidSignature:
        raise ModelSignatureError(
            f"{name}: the signature is not valid: the manifest was changed after the key {key.key_id} signed it, or somebody else made it;"
            " do not use this model, and tell the people who built it"
        ) from None
