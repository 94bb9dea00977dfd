"""SQLite connections that the code under test opens, for what only the connection itself can be asked or told."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest


def collect_connections(monkeypatch: pytest.MonkeyPatch) -> list[sqlite3.Connection]:
    """Give a list that every connection is added to as it is opened, the newest last."""
    connect = sqlite3.connect
    opened: list[sqlite3.Connection] = []

    def collecting(*arguments: Any, **options: Any) -> sqlite3.Connection:
        opened.append(connect(*arguments, **options))
        return opened[-1]

    monkeypatch.setattr(sqlite3, "connect", collecting)
    return opened
