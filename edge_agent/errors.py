"""Every way this software gives up, each with the exit code that a script or systemd can act on.

The question that sorts them: whose fault is it? A fault of the *input* is an :class:`InputFault`: it is recorded, shown and stepped
over. Everything else is a fault of *our own* side (config, model, storage, interpreter): it stops the agent.
"""

from __future__ import annotations


class EdgeAgentError(Exception):
    """A fault of our own side. The message is for a person and names the next step."""

    exit_code = 1


class ConfigError(EdgeAgentError):
    """The configuration, or what it points to, can not be used."""

    exit_code = 10


class ModelError(EdgeAgentError):
    """A bundle or a model file can not be used."""

    exit_code = 20


class ModelContractError(ModelError):
    """A bundle is whole, but says or holds something that this version can not honour."""


class ModelChecksumError(ModelError):
    """A file of the bundle is not the file that was packed."""


class GoldenVectorError(ModelError):
    """The interpreter of this board does not compute what the model computed when it was built."""


class SourceGoneError(EdgeAgentError):
    """The inbox or the camera is gone for good."""

    exit_code = 30


class StorageError(EdgeAgentError):
    """The database or the home folder can not be read or written."""

    exit_code = 40


class DiskFullError(StorageError):
    """No space is left where the agent must write."""

    exit_code = 41


class InferenceError(EdgeAgentError):
    """The interpreter failed on an input that was prepared correctly."""

    exit_code = 50


class InputFault(Exception):
    """A file can not be classified, and the file is to blame.

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
