"""One examination: which things are looked at, and in which order."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from edge_agent.bench.board import read_board
from edge_agent.bench.condition import read_state
from edge_agent.config import WRITTEN_FOLDERS, Config
from edge_agent.database.database import DATABASE_NAME
from edge_agent.doctor.access import User, home_findings, inbox_findings, user_finding
from edge_agent.doctor.board import board_findings
from edge_agent.doctor.clock import clock_findings, kernel_synchronised
from edge_agent.doctor.disk import file_system_findings, space_finding, wear_findings
from edge_agent.doctor.finding import AREAS, Area, Finding, ok, problem
from edge_agent.doctor.probe import Probe
from edge_agent.doctor.program import build_finding, config_finding, model_findings, package_findings, python_findings
from edge_agent.doctor.service import (
    agent_finding,
    agent_umask,
    crash_finding,
    database_findings,
    running_agent,
    unit_finding,
)
from edge_agent.errors import SourceGoneError
from edge_agent.files.mounts import Mount
from edge_agent.intake.capture import source_kind, without_password
from edge_agent.intake.presence import check_present
from edge_agent.outbox.results import JSONL_NAME

_ANSWER_S = 2.0
"""How long a disk or a server may take to answer."""
_MODEL_S = 30.0
_CAMERA_MARGIN_S = 5.0
"""What loading OpenCV takes on a small board, beyond the wait for a frame."""


class ExaminedAgent(msgspec.Struct, frozen=True, kw_only=True):
    """The agent to examine.

    Attributes
    ----------
    config : Config
        The configuration in force; the defaults where it cannot be read.
    config_path : Path or None
        Where it came from.
    config_fault : str
        Why it cannot be used; empty where it can.
    user : User
        Whose rights count.
    """

    config: Config
    config_path: Path | None
    config_fault: str
    user: User


def examine(agent: ExaminedAgent, areas: Collection[Area] = AREAS) -> list[Finding]:
    """Look at everything.

    Parameters
    ----------
    agent : ExaminedAgent
        Which agent, seen by whom.
    areas : collection of str
        What to look at: some of :data:`AREAS`.

    Returns
    -------
    list of Finding
        In the order of the areas, each with its area.
    """
    config = agent.config
    state = config.home / "state"
    with ExitStack() as probes:
        # Both take their time, so they run beside all else.
        model = probes.enter_context(Probe("model", config)) if "program" in areas else None
        holder = running_agent(state)
        camera = probes.enter_context(Probe("camera", config)) if "camera" in areas and _may_open_camera(config, holder) else None
        board = read_board()
        database, newest = database_findings(config.home) if {"service", "clock"} & set(areas) else ([], None)
        found: dict[Area, Sequence[Finding]] = {}
        if "board" in areas:
            found["board"] = list(board_findings(board, read_state(), config.imaging.max_pixels))
        if "folders" in areas:
            found["folders"] = list(_folder_findings(agent, holder))
        if "clock" in areas:
            witnesses = _witnesses(config.home, newest)
            found["clock"] = list(clock_findings(witnesses, datetime.now(UTC), synchronised=kernel_synchronised()))
        if "service" in areas:
            crash = crash_finding(state)
            found["service"] = [unit_finding(), agent_finding(state), *database, *([crash] if crash else [])]
        if model is not None:
            found["program"] = [
                build_finding(),
                *python_findings(board),
                *package_findings(),
                config_finding(agent.config_path, agent.config_fault),
                *model_findings(board, model.finish(_MODEL_S)),
            ]
        if "camera" in areas:
            found["camera"] = [_camera_finding(config, camera)]
    return [msgspec.structs.replace(finding, area=area) for area in AREAS if area in found for finding in found[area]]


def _folder_findings(agent: ExaminedAgent, holder: int | None) -> Iterator[Finding]:
    config = agent.config
    umask = agent_umask(holder)
    if umask is None:
        umask = os.umask(0o077)
        os.umask(umask)
    yield user_finding(agent.user, umask)
    yield from home_findings(config.home, agent.user)
    home = _look(config.home)
    if isinstance(home, Mount):
        yield from file_system_findings("home", home)
        yield space_finding("home", _fullest(config.home), config.storage.min_free_bytes)
        yield from wear_findings(home)
    elif config.home.exists():
        yield problem("home's disk", str(home), "check the disk")
    inbox = _look(config.inbox)
    if not isinstance(inbox, Mount):
        if config.intake.inbox is not None or config.home.is_dir():
            yield problem("inbox", str(inbox), "a running agent waits for it and goes on by itself")
        return
    yield from inbox_findings(config.inbox, config.intake)
    if not isinstance(home, Mount) or inbox != home:
        yield from file_system_findings("inbox", inbox)


def _look(folder: Path) -> Mount | SourceGoneError:
    """Find what a folder stands on, without waiting for a server that does not answer."""
    try:
        return check_present(folder.resolve(), None, answer_s=_ANSWER_S)
    except SourceGoneError as fault:
        return fault


def _fullest(home: Path) -> os.statvfs_result:
    """Give the file system with the least room: each folder of a home may have one of its own."""
    folders = (home, *(path for path in home.iterdir() if path.name in WRITTEN_FOLDERS)) if os.access(home, os.R_OK) else (home,)
    return min((os.statvfs(folder) for folder in folders), key=lambda space: space.f_bavail * space.f_frsize)


def _witnesses(home: Path, newest: datetime | None) -> dict[str, datetime]:
    """Find times that must lie in the past. Those of images do not count: they come from other clocks."""
    files = {"the program": Path(__file__), "the database": home / "state" / DATABASE_NAME, "the results": home / "results" / JSONL_NAME}
    seen = {"the newest record": newest} if newest else {}
    for name, path in files.items():
        try:
            seen[name] = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        except (OSError, ValueError, OverflowError):
            continue
    return seen


def _may_open_camera(config: Config, holder: int | None) -> bool:
    # A device gives its frames to one program at a time, and the running agent is that one.
    return bool(config.camera.source) and (holder is None or source_kind(config.camera.source) != "device")


def _camera_finding(config: Config, probe: Probe | None) -> Finding:
    source = without_password(config.camera.source)
    if not source:
        return ok("camera", "none is configured")
    if probe is None:
        return ok("camera", f"{source} is in use by the running agent, and was not opened a second time")
    result = probe.finish(config.camera.stall_timeout_s + _CAMERA_MARGIN_S)
    if result.failure:
        advice = "check cable, power and the number or address; a Raspberry Pi's own camera module needs  libcamerify  before the agent"
        return problem("camera", f"{source}: {result.step}: {result.failure}", advice)
    return ok("camera", f"{source}: {result.facts['frame']}")
