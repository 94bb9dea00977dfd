"""What one look found."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

import msgspec

Area = Literal["board", "program", "folders", "clock", "service", "camera"]
Verdict = Literal["ok", "warning", "problem"]
AREAS: tuple[Area, ...] = get_args(Area)
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)


class Finding(msgspec.Struct, frozen=True):
    """One thing looked at.

    Attributes
    ----------
    check : str
        What was looked at, in two or three words.
    verdict : {"ok", "warning", "problem"}
        A problem keeps the agent from its work or endangers results; a warning may.
    saw : str
        What is so. Never the name of an image, nor a password.
    advice : str
        What to do; empty where all is well.
    area : str
        One of :data:`AREAS`.
    """

    check: str
    verdict: Verdict
    saw: str
    advice: str = ""
    area: Area = "board"


def ok(check: str, saw: str) -> Finding:
    """Say that all is well."""
    return Finding(check, "ok", saw)


def warning(check: str, saw: str, advice: str) -> Finding:
    """Say what may become a problem."""
    return Finding(check, "warning", saw, advice)


def problem(check: str, saw: str, advice: str) -> Finding:
    """Say what must be mended."""
    return Finding(check, "problem", saw, advice)


def worst(findings: Iterable[Finding]) -> Verdict:
    """Give the gravest verdict of all; "ok" where there are none."""
    return max((finding.verdict for finding in findings), key=VERDICTS.index, default="ok")
