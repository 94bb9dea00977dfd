"""The agent's configuration: one TOML file into frozen values, every error at once.

``docs/edge-agent.toml`` is the documented default file; a test compares it with the classes below.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from edge_agent.config_errors import allowed, shown, suggestion
from edge_agent.errors import ConfigError
from edge_agent.files.deadline import real_path

HOME_VARIABLE = "EDGE_AGENT_HOME"
DEFAULT_HOME = Path("edge-agent-home")
BOX_CONFIG = Path("/etc/edge-agent/edge-agent.toml")
"""Where scripts/install puts it."""
WRITTEN_FOLDERS = ("results", "done", "rejected", "state")
"""Folders of the home that the agent writes into itself: an inbox in one of them would classify its own output."""

_Seconds = Annotated[float, Meta(ge=0, le=3600)]
_PositiveSeconds = Annotated[float, Meta(gt=0, le=3600)]
_GreyLevels = Annotated[float, Meta(ge=0, le=255)]
_Days = Annotated[int, Meta(ge=0, le=36_500)]
_Bytes = Annotated[int, Meta(ge=0, le=10**15)]
_S = TypeVar("_S", bound=msgspec.Struct)


class IntakeConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[intake]``: how files are taken from the inbox.

    Attributes
    ----------
    inbox : Path or None
        The watched folder, sub-folders included; ``HOME/inbox`` where not given.
    settle_time_s : float
        A file is taken when its size and modification time have not changed for this many seconds.
    on_done : {"move", "keep", "delete"}
        What becomes of an image after its record is durable: moved to ``HOME/done``, left in the inbox, or deleted.
    max_file_bytes : int
        A larger file is rejected unread.
    ignore : tuple of str
        Shell patterns, without regard to case. A file or folder whose name matches one is never looked at.
    order : {"newest", "oldest"}
        Which of the files that wait is taken first, by modification time.
    watch : {"auto", "native", "polling"}
        How new files are noticed: by the kernel's events, or by listing the inbox again and again, as a network share needs it, where
        others write past this kernel; "auto" looks up what the inbox stands on.
    poll_interval_s : float
        How long after a listing the next one begins, where files are noticed so. A listing that takes long is repeated less often.
    rescan_interval_s : float
        The same where there are events: a listing finds the files whose events were lost.
    """

    inbox: Path | None = None
    settle_time_s: _Seconds = 1.0
    on_done: Literal["move", "keep", "delete"] = "move"
    max_file_bytes: Annotated[int, Meta(ge=1024, le=4 * 1024**3)] = 256 * 1024**2
    ignore: tuple[str, ...] = (
        *("*.part", "*.partial", "*.filepart", "*.crdownload", "*.tmp", "~*", "._*", ".*", ".DS_Store", "Thumbs.db", "desktop.ini"),
        *("@eaDir", "#recycle", "@Recycle", "__MACOSX", "lost+found", "System Volume Information", "$RECYCLE.BIN"),
    )
    order: Literal["newest", "oldest"] = "newest"
    watch: Literal["auto", "native", "polling"] = "auto"
    poll_interval_s: _PositiveSeconds = 2.0
    rescan_interval_s: _PositiveSeconds = 300.0


class CameraConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[camera]``: pictures taken from a video source; needs the extra ``camera``.

    Attributes
    ----------
    source : str
        A V4L2 index ("0"), a URL or a video file; "" is no camera.
    still_s : float
        A picture is taken when the scene has been still for this many seconds.
    motion_threshold : float
        Mean absolute difference from the frame that the stillness began with, in grey levels (0 to 255), above which the scene moves.
    difference_threshold : float
        Mean absolute difference from the last picture taken, in grey levels, from which the scene is a new one.
    stall_timeout_s : float
        A source that gives no frame for this many seconds is closed and opened again.
    reopen_after_s : float
        First wait before opening a failed source again; doubles with each failure.
    reopen_max_s : float
        Longest such wait.
    """

    source: str = ""
    still_s: _PositiveSeconds = 1.0
    motion_threshold: _GreyLevels = 2.0
    difference_threshold: _GreyLevels = 6.0
    stall_timeout_s: _PositiveSeconds = 5.0
    reopen_after_s: _PositiveSeconds = 1.0
    reopen_max_s: _PositiveSeconds = 30.0


class ImagingConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[imaging]``: how files become pixels.

    Attributes
    ----------
    max_pixels : int
        An image with more pixels (rows times columns) is rejected from its header, before any is decoded.
    """

    max_pixels: Annotated[int, Meta(ge=4096, le=1_000_000_000)] = 100_000_000


class ModelConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[model]``: which bundle classifies, and with how many threads.

    Attributes
    ----------
    bundle : Path or None
        The bundle's folder. Where not given: the one that was installed and activated on this box, else the one that ships.
    allow_unsigned : bool
        Whether a bundle may run that carries no signature, or one by an unknown key. The one that ships always may.
    trusted_keys : Path or None
        Folder of the public keys (``*.pub``) that may sign bundles; ``HOME/keys`` where not given.
    threads : int
        Worker threads, each with its own interpreter; 0 is one per core.
    """

    bundle: Path | None = None
    allow_unsigned: bool = False
    trusted_keys: Path | None = None
    threads: Annotated[int, Meta(ge=0, le=64)] = 0


class StorageConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[storage]``: the disk that the home is on.

    Attributes
    ----------
    min_free_bytes : int
        No image is taken while less is free on a file system that the agent writes to; 0 is off.
    """

    min_free_bytes: _Bytes = 200 * 1024**2


class RetentionConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[retention]``: how long things are kept. 0 is for ever, or without limit.

    Attributes
    ----------
    done_max_age_days, rejected_max_age_days : int
        Images are deleted from ``HOME/done`` and ``HOME/rejected`` this many days after they came there.
    done_max_bytes, rejected_max_bytes : int
        The oldest images are deleted from a folder that holds more.
    results_max_age_days : int
        Sidecars, daily CSV files and JSON lines in ``HOME/results`` are deleted this many days after their image was finished.
    rows_max_age_days : int
        The same for the records in the database, which are the last thing known of an image: everything else must go earlier.
    """

    done_max_age_days: _Days = 365
    done_max_bytes: _Bytes = 0
    rejected_max_age_days: _Days = 365
    rejected_max_bytes: _Bytes = 0
    results_max_age_days: _Days = 365
    rows_max_age_days: _Days = 0


class LogConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[log]``: what is written to standard error.

    Attributes
    ----------
    level : {"debug", "info", "warning", "error"}
        The least important line still written.
    """

    level: Literal["debug", "info", "warning", "error"] = "info"


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything an agent needs to know. All paths are absolute.

    Attributes
    ----------
    home : Path
        Holds results, done, rejected and state, and the inbox unless that is given.
    """

    home: Path
    intake: IntakeConfig = IntakeConfig()
    camera: CameraConfig = CameraConfig()
    imaging: ImagingConfig = ImagingConfig()
    model: ModelConfig = ModelConfig()
    storage: StorageConfig = StorageConfig()
    retention: RetentionConfig = RetentionConfig()
    log: LogConfig = LogConfig()

    @property
    def inbox(self) -> Path:
        """The watched folder: ``intake.inbox``, else ``inbox`` in the home."""
        return self.intake.inbox if self.intake.inbox is not None else self.home / "inbox"

    @property
    def trusted_keys(self) -> Path:
        """The folder of the keys that may sign bundles: ``model.trusted_keys``, else ``keys`` in the home."""
        return self.model.trusted_keys if self.model.trusted_keys is not None else self.home / "keys"


def config_of_box(path: Path | None, home: Path | None) -> Path | None:
    """Choose the configuration of a command about a whole box: the one it is given, else the installed agent's unless it is given a home.

    Parameters
    ----------
    path, home : Path or None
        From the command line.

    Returns
    -------
    Path or None
        For :func:`load_config`.
    """
    return BOX_CONFIG if path is None and home is None and os.access(BOX_CONFIG, os.F_OK) else path


def load_config(path: Path | None, *, home: Path | None = None, inbox: Path | None = None, bundle: Path | None = None) -> Config:
    """Read and check a configuration.

    Parameters
    ----------
    path : Path or None
        The TOML file; None is all defaults. Relative paths in it are relative to its folder.
    home, inbox, bundle : Path or None
        From the command line, relative to the current folder; each wins over the file, and a bundle named here may be unsigned.
        Where neither names a home, the environment variable ``EDGE_AGENT_HOME`` does (a service unit sets it); else it is
        ``edge-agent-home`` in the current folder.

    Returns
    -------
    Config
        Checked values; nothing has been created or opened.

    Raises
    ------
    ConfigError
        If the file cannot be read, is not TOML, or holds anything wrong: all of it in one message, a line each, with its key path.
    """
    table = {} if path is None else _read_toml(path)
    base = Path.cwd() if path is None else path.absolute().parent
    problems: list[str] = []
    # A home is always there for the check; the one that counts is chosen below.
    checked = _check_table(Config, {"home": str(DEFAULT_HOME)} | table, "", base, problems)
    if checked is None:
        raise _config_error(path, problems)

    if home is None and "home" not in table:
        home = Path(os.environ.get(HOME_VARIABLE) or DEFAULT_HOME)
    config = msgspec.structs.replace(
        checked,
        home=checked.home if home is None else _absolute(home, Path.cwd()),
        intake=checked.intake if inbox is None else msgspec.structs.replace(checked.intake, inbox=_absolute(inbox, Path.cwd())),
        # Whoever names a bundle on the command line vouches for it, as with one that was built a minute ago.
        model=checked.model
        if bundle is None
        else msgspec.structs.replace(checked.model, bundle=_absolute(bundle, Path.cwd()), allow_unsigned=True),
    )
    _check_relations(config, problems)
    if problems:
        raise _config_error(path, problems)
    return config


def _read_toml(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        raise ConfigError(f"the config file {path} does not exist; leave --config out to run with the defaults") from None
    except OSError as error:
        raise ConfigError(f"the config file {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"the config file {path} is not UTF-8 text; save it as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"the config file {path} is not valid TOML: {error}") from None


def _check_table(struct: type[_S], table: Mapping[str, Any], prefix: str, base: Path, problems: list[str]) -> _S | None:
    """Build ``struct`` from a TOML table; append to ``problems`` all that is wrong and return None if anything is."""
    problems_before = len(problems)
    fields = {field.name: field.type for field in msgspec.structs.fields(struct)}
    values: dict[str, Any] = {}
    for key, value in table.items():
        key_path = f"{prefix}{key}"
        if key not in fields:
            problems.append(f"{key_path}: unknown key; {suggestion(key, list(fields))}")
            continue
        kind = fields[key]
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            if isinstance(value, dict):
                values[key] = _check_table(kind, value, f"{key_path}.", base, problems)
            else:
                problems.append(f"{key_path}: expected a table, [{key_path}], got {shown(value)}")
            continue
        try:
            values[key] = msgspec.convert(value, kind, dec_hook=lambda _, text: _path_from_text(text, base))
        except msgspec.ValidationError:
            problems.append(f"{key_path}: expected {allowed(kind)}, got {shown(value)}")
            continue
        if isinstance(value, float) and not math.isfinite(value):  # nan passes every bound
            problems.append(f"{key_path}: expected {allowed(kind)}, got {value}")
    return struct(**values) if len(problems) == problems_before else None


def _check_relations(config: Config, problems: list[str]) -> None:
    """What no single key can show: where a folder really is, and an inbox in which the agent would find its own output."""
    inbox, home = real_path(config.inbox), real_path(config.home)
    for key, path in (("home", home), ("intake.inbox", inbox)):
        raw = os.fsencode(path)
        if raw.decode("utf-8", "ignore").encode() != raw:
            readable = raw.decode("utf-8", "backslashreplace")
            problems.append(f"{key}: {readable} is not UTF-8, so no log or table can name it; rename that folder, or use another")
    if home.is_relative_to(inbox):
        problems.append(f"intake.inbox: {config.inbox} holds the home folder {config.home}; use a folder that does not")
    problems.extend(
        f"intake.inbox: {config.inbox} lies in {home / name}, where the agent writes its output; use another folder"
        for name in WRITTEN_FOLDERS
        if inbox.is_relative_to(home / name)
    )
    if config.camera.reopen_max_s < config.camera.reopen_after_s:
        problems.append(f"camera.reopen_max_s: expected at least camera.reopen_after_s ({config.camera.reopen_after_s:g})")
    rows_days = config.retention.rows_max_age_days
    for name in ("done", "rejected", "results"):
        days = getattr(config.retention, f"{name}_max_age_days")
        if rows_days and not 0 < days <= rows_days:
            problems.append(
                f"retention.{name}_max_age_days: expected from 1 to retention.rows_max_age_days ({rows_days}), got {days}: "
                "an image that is still there needs its record"
            )


def _config_error(path: Path | None, problems: list[str]) -> ConfigError:
    where = "the configuration" if path is None else str(path)
    count = "1 error" if len(problems) == 1 else f"{len(problems)} errors"
    return ConfigError("\n  ".join([f"{where} has {count}:", *problems]))


def _absolute(path: Path, base: Path) -> Path:
    with suppress(RuntimeError):  # "~name" of a user whom this machine does not know: a folder may really be called that
        path = path.expanduser()
    return Path(os.path.normpath(base / path))


def _path_from_text(text: object, base: Path) -> Path:
    if not isinstance(text, str) or not text or "\0" in text:
        raise ValueError  # msgspec turns it into the ValidationError that the caller reports
    return _absolute(Path(text), base)
