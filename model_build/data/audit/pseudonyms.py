"""Names that stand for patients and files in whatever leaves the build."""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path

_HEX_DIGITS = 12
_SALT_BYTES = 16


class Pseudonyms:
    """Salted hashes: the same name gives the same hash within one run; without the salt, which is never stored, no list of names tells it.

    Parameters
    ----------
    salt : bytes, optional
        Up to 16 bytes; new and random if not given, so that the hashes of two runs cannot be linked.
    """

    def __init__(self, salt: bytes | None = None) -> None:
        self._salt = secrets.token_bytes(_SALT_BYTES) if salt is None else salt

    def patient(self, name: str) -> str:
        """What stands for a patient."""
        return f"patient-{self._hash('patient', name)}"

    def file(self, path: Path) -> str:
        """What stands for a file. The whole path is hashed: folders and names can both hold a patient."""
        return f"file-{self._hash('file', path.as_posix())}"

    def _hash(self, kind: str, name: str) -> str:
        return hashlib.blake2b(name.encode("utf-8", "surrogateescape"), key=self._salt, person=kind.encode()).hexdigest()[:_HEX_DIGITS]
