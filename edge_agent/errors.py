"""Every way this software gives up, each with the exit code that a script or systemd can act on.

The question that sorts them: whose fault is it? A fault of the *input* is an :class:`InputFault`: it is recorded, shown and stepped
over. Everything else is a fault of *our own* side (config, model, storage, interpreter): it stops the agent, or lets it wait where the
error may be transient (:attr:`StorageError.passes`).
"""

from __future__ import annotations


class EdgeAgentError(Exception):
    """A fault of our own side. The message is for a person and names the next step."""

    exit_code = 1


class ConfigError(EdgeAgentError):
    """The configuration, or what it points to, cannot be used."""

    exit_code = 10


class ModelError(EdgeAgentError):
    """A bundle or a model file cannot be used."""

    exit_code = 20


class ModelContractError(ModelError):
    """A bundle is whole, but says or holds something that this version cannot honour."""


class ModelChecksumError(ModelError):
    """A file of the bundle is not the file that was packed."""


class ModelSignatureError(ModelError):
    """A bundle is not signed by a trusted key, or its signature is wrong."""


class GoldenVectorError(ModelError):
    """The interpreter of this board does not compute what the model computed when it was built."""


class SourceGoneError(EdgeAgentError):
    """The inbox or the camera is gone for good."""

    exit_code = 30


class CameraGoneError(SourceGoneError):
    """The camera is gone for good for this process: hanging calls hold the device, and only a new process can open it again."""


class StorageError(EdgeAgentError):
    """The database or the home folder cannot be used, and waiting changes nothing: another agent works there, or a newer version wrote it.

    Attributes
    ----------
    passes : bool
        Whether the error may be transient: it may end by itself, or a person may mend it outside the agent. The agent waits until it has
        ended.
    state : str
        What surfaces call it: "disk_full", "read_only", "database_locked" or "storage_error".
    """

    exit_code = 40
    passes = False
    state = "storage_error"


class StorageAwayError(StorageError):
    """The disk did not do what was asked: an I/O error, a folder that is not there, a right that was taken away."""

    passes = True


class DiskFullError(StorageAwayError):
    """No space is left where the agent must write."""

    exit_code = 41
    state = "disk_full"


class ReadOnlyError(StorageAwayError):
    """The disk takes no writes: it is mounted read-only, often by the system itself after an error of the disk."""

    state = "read_only"


class DatabaseLockedError(StorageAwayError):
    """Another program holds the database locked."""

    state = "database_locked"


class DatabaseDamagedError(StorageAwayError):
    """The database is no longer whole. The next opening sets it aside and builds it again."""


class InferenceError(EdgeAgentError):
    """The interpreter failed on an input that was prepared correctly."""

    exit_code = 50


class InputFault(Exception):
    """A file cannot be classified, and the file is to blame.

    Parameters
    ----------
    code : str
        Stable and short, for programs: ``empty``, ``not_an_image``, ``truncated`` and so on.
    message : str
        For the technician: what is wrong and what to do next. Never the file's path or a patient's name.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
