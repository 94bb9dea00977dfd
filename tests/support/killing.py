"""Homes whose agents are killed at named points, and what must be there when an agent was left alone afterwards."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

from support.agent_process import run_agent, start_agent
from support.agents import LIMIT_S, AgentHome, drop, image_bytes
from support.reckoning import faults_of
from support.writers import Drop

KILLED = -9
AT_WORK = {
    "before a worker reads": 3,
    "after a worker is done": 3,
    "inside a transaction": 3,
    "before the commit": 1,
    "after the commit": 1,
    "before the disposal": 3,
    "after the disposal": 3,
    "after the note of a rejection": 2,
    "half-way through a line": 1,
    "before the sidecars": 3,
    "with a sidecar half written": 3,
    "after results": 1,
    "before results are noted as synced": 1,
}
"""The points, and the how-many-th time that each is reached the agent dies: some come once for a whole group of images."""
CROSSING = "between copy and removal"
DELETING = "between the inbox and deletion"


def some_images() -> dict[str, bytes]:
    """Different images, two with the same bytes, one in a sub-folder, two that are none."""
    images = {f"{seed}.png": image_bytes(seed) for seed in range(6)}
    return images | {"copy.png": image_bytes(0), "sub/deep.png": image_bytes(7), "text.jpg": b"text\n" * 9, "zero.png": b""}


def drop_all(home: AgentHome, images: dict[str, bytes]) -> None:
    """Put images into the inbox, all at once."""
    for name, content in images.items():
        drop(home.inbox, name, content)


def kill_at(home: AgentHome, point: str, nth: int, **settings: Any) -> None:
    """Run an agent that must die at the ``nth`` time that a point is reached."""
    given = {} if home.config.intake.inbox is None else {"inbox": home.inbox}
    with start_agent(home.home, kill_at=point, nth=nth, on_done=home.config.intake.on_done, **given, **settings) as process:
        _, said = process.communicate(timeout=LIMIT_S)
        assert process.returncode == KILLED, said


def check_all_is_there_once(home: AgentHome, images: dict[str, bytes]) -> None:
    """Let an agent do what is left to do, undisturbed. Then each image has one record and one file, everywhere."""
    given = {} if home.config.intake.inbox is None else {"inbox": home.inbox}
    code, said = run_agent(home.home, once=True, on_done=home.config.intake.on_done, **given)
    assert code == 0, said
    deletes = home.config.intake.on_done == "delete"
    book = book_of(images)
    if deletes:
        book = [replace(drop, overwritten=drop.is_image) for drop in book]
    assert faults_of(home.home, home.inbox, book) == []
    assert not deletes or home.files("done") == []


def book_of(images: dict[str, bytes]) -> list[Drop]:
    """The book of files that were put into an inbox as they are; what does not begin like a PNG is no image."""
    return [
        Drop((name,), hashlib.sha256(content).hexdigest(), "there", is_image=content.startswith(b"\x89PNG"))
        for name, content in images.items()
    ]
