"""Calls that fail as told, in a process under test: the nth ``os.fsync``, every write to one file, a commit of SQLite.

A fault is told as one JSON object, the setting ``faults`` of ``support.agent_process`` is a list of them:

``call``    what fails: the dotted name of any function (``os.open``, ``os.rename``, ``pathlib.Path.replace``,
            ``edge_agent.outbox.results.sync_file_system``); or ``file.read``, ``file.write``, ``file.flush`` of what Python's ``open``
            gives; or ``sqlite.execute``
``error``   the name of an errno (``EIO``, ``ENOSPC``, ``EROFS``), or SQLite's (``SQLITE_IOERR_FSYNC``, ``SQLITE_FULL``, ``SQLITE_BUSY``)
``where``   only calls whose path (or SQL) contains this; a descriptor's path is looked up
``nth``     the first call that fails, from 1
``times``   how many fail from there on; 0 is all of them
``while``   a file: calls fail (and count) only as long as it exists, so that a test can end the cause from outside
"""

from __future__ import annotations

import builtins
import errno
import functools
import importlib
import io
import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Taken before any fault is put in: a fault must not hit its own bookkeeping.
_lstat, _readlink = os.lstat, os.readlink

_SQLITE_SAYS = {
    sqlite3.SQLITE_FULL: "database or disk is full",
    sqlite3.SQLITE_BUSY: "database is locked",
    sqlite3.SQLITE_IOERR: "disk I/O error",
    sqlite3.SQLITE_READONLY: "attempt to write a readonly database",
    sqlite3.SQLITE_CORRUPT: "database disk image is malformed",
}


class Fuse:
    """Counts the calls that a fault is about, and raises the error when its time has come. For any thread."""

    def __init__(self, fault: dict[str, Any]) -> None:
        self._error: str = fault["error"]
        self._where: str = fault.get("where", "")
        self._first: int = fault.get("nth", 1)
        self._times: int = fault.get("times", 1)
        self._cause = Path(fault["while"]) if "while" in fault else None
        self._seen = 0
        self._lock = threading.Lock()

    def check(self, *about: Any) -> None:
        """Look at one call; ``about`` is what it was given: paths, descriptors, SQL."""
        if self._where and not any(self._where in _text(each) for each in about):
            return
        if self._cause is not None and not _exists(self._cause):
            return
        with self._lock:
            self._seen += 1
            is_due = self._seen >= self._first and (self._times == 0 or self._seen < self._first + self._times)
        if is_due:
            raise _error(self._error)


def inject(faults: list[dict[str, Any]]) -> None:
    """Put faults into this process, for the rest of its life."""
    for fault in faults:
        fuse, call = Fuse(fault), fault["call"]
        if call.startswith("file."):
            _wrap_files(fuse, call.removeprefix("file."))
        elif call == "sqlite.execute":
            _wrap_sqlite(fuse)
        else:
            _wrap(fuse, call)


def stub(dotted: str) -> None:
    """Let a function do nothing for the rest of this process's life: for a control, which must fail where a proof holds."""
    owner, name = _find(dotted)
    setattr(owner, name, lambda *_arguments, **_options: None)


def replace_sql(instead: dict[str, str]) -> None:
    """Let statements be others than the program gives, word for word: for a control."""
    _sql_instead.update(instead)
    _wrap_connect()


def _wrap(fuse: Fuse, dotted: str) -> None:
    owner, name = _find(dotted)
    real: Callable[..., Any] = getattr(owner, name)

    def faulty(*arguments: Any, **options: Any) -> Any:
        fuse.check(*arguments, *options.values())
        return real(*arguments, **options)

    setattr(owner, name, faulty)


def _find(dotted: str) -> tuple[Any, str]:
    """The module or class that a function is looked up in, and its name there."""
    parts = dotted.split(".")
    for length in range(len(parts) - 1, 0, -1):
        try:
            owner: Any = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:-1]:
            owner = getattr(owner, part)
        return owner, parts[-1]
    raise LookupError(dotted)


class _FaultyFile:
    """A file, one method of which may fail."""

    def __init__(self, file: Any, fuse: Fuse, method: str, path: Any) -> None:
        self._file, self._fuse, self._method, self._path = file, fuse, method, path

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._file, name)
        if name != self._method and (name, self._method) != ("readinto", "read"):
            return found

        def faulty(*arguments: Any) -> Any:
            self._fuse.check(self._path)
            return found(*arguments)

        return faulty

    def __enter__(self) -> _FaultyFile:
        self._file.__enter__()
        return self

    def __exit__(self, *fault: object) -> None:
        self._file.__exit__(*fault)

    def __iter__(self) -> Any:
        return iter(self._file)


def _wrap_files(fuse: Fuse, method: str) -> None:
    real = io.open

    def faulty(path: Any, *arguments: Any, **options: Any) -> Any:
        return _FaultyFile(real(path, *arguments, **options), fuse, method, path)

    for module in (io, builtins):  # the first is where Path.open and os.fdopen look
        setattr(module, "open", faulty)  # noqa: B010 - to mypy it is no variable


_sql_fuses: list[Fuse] = []
_sql_instead: dict[str, str] = {}


class _FaultyCursor(sqlite3.Cursor):
    """A cursor whose statements may fail."""

    def execute(self, sql: str, values: Any = (), /) -> Any:
        _check_sql(sql)
        return super().execute(_sql_instead.get(sql, sql), values)

    def executemany(self, sql: str, values: Any, /) -> Any:
        _check_sql(sql)
        return super().executemany(sql, values)

    def executescript(self, script: str, /) -> Any:
        _check_sql(script)
        return super().executescript(script)


class _FaultyConnection(sqlite3.Connection):
    """A connection whose statements may fail, also those that it makes the cursor for by itself."""

    def cursor(self, factory: Any = _FaultyCursor) -> Any:
        return super().cursor(factory)

    def execute(self, sql: str, values: Any = (), /) -> Any:
        return self.cursor().execute(sql, values)

    def executemany(self, sql: str, values: Any, /) -> Any:
        return self.cursor().executemany(sql, values)

    def executescript(self, script: str, /) -> Any:
        return self.cursor().executescript(script)


def _wrap_sqlite(fuse: Fuse) -> None:
    _sql_fuses.append(fuse)
    _wrap_connect()


def _wrap_connect() -> None:
    setattr(sqlite3, "connect", functools.partial(_connect, factory=_FaultyConnection))  # noqa: B010 - to mypy it is no variable


_connect: Callable[..., sqlite3.Connection] = sqlite3.connect


def _check_sql(sql: str) -> None:
    for fuse in _sql_fuses:
        fuse.check(sql)


def _error(name: str) -> OSError | sqlite3.Error:
    if not name.startswith("SQLITE_"):
        number: int = getattr(errno, name)
        return OSError(number, os.strerror(number))
    # As Python's own module makes it: the class, SQLite's words, the code and its name.
    code: int = getattr(sqlite3, name)
    is_damage = code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
    fault = (sqlite3.DatabaseError if is_damage else sqlite3.OperationalError)(_SQLITE_SAYS.get(code & 0xFF, name))
    fault.sqlite_errorcode, fault.sqlite_errorname = code, name
    return fault


def _exists(path: Path) -> bool:
    try:
        _lstat(path)
    except OSError:
        return False
    return True


def _text(about: Any) -> str:
    if isinstance(about, int) and not isinstance(about, bool):
        try:
            return _readlink(f"/proc/self/fd/{about}")
        except OSError:
            return ""
    return os.fsdecode(about) if isinstance(about, str | bytes | os.PathLike) else ""
