"""``report.json``: everything that the report of a build says, as data."""

from __future__ import annotations

from typing import Any

import msgspec

from edge_agent.records import Task
from model_build.data.audit.shortcuts import Shortcut
from model_build.evaluation.held_out_metrics import Counts, Measured


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that ``report.json`` holds."""

    name: str
    version: str
    serial: int
    task: Task
    left_out: dict[str, int]
    leakage: str
    shortcuts: list[Shortcut]
    fingerprint: str
    measured: Measured
    shipped: Counts
    shipped_finish_epochs: int
    shipped_agreement_with_measured: float
    model_size_bytes: int
    multiply_adds: int
    embedding_size: int
    latency_ms: dict[str, float]
    build_seconds: float
    environment: dict[str, Any]
