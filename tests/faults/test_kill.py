"""kill -9 at any moment: after the restart every image has exactly one result, everywhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.agents import AgentHome
from support.killing import AT_WORK, CROSSING, DELETING, check_all_is_there_once, drop_all, kill_at, some_images
from support.proofs.kills import kill_at_random


@pytest.mark.parametrize("point", AT_WORK)
def test_killed_at_a_point(quick_folder: Path, point: str) -> None:
    """
    1. Images wait in the inbox. The agent starts, and is killed when it reaches a certain point.
    2. It starts again.
    Result: exactly one result for each image, and nothing half done.
    """
    home, images = AgentHome(quick_folder), some_images()
    drop_all(home, images)
    kill_at(home, point, AT_WORK[point], once=True)
    check_all_is_there_once(home, images)


@pytest.mark.parametrize("point", [DELETING, "after the commit", "after the disposal"])
def test_killed_while_deleting(quick_folder: Path, point: str) -> None:
    home, images = AgentHome(quick_folder, on_done="delete"), some_images()
    drop_all(home, images)
    kill_at(home, point, 1, once=True)
    check_all_is_there_once(home, images)


@pytest.mark.parametrize("point", [CROSSING, "after the commit", "with a sidecar half written"])
def test_killed_between_two_file_systems(tmp_path: Path, other_file_system: Path, point: str) -> None:
    home, images = AgentHome(tmp_path, inbox=other_file_system), some_images()
    drop_all(home, images)
    kill_at(home, point, 1, once=True)
    check_all_is_there_once(home, images)


def test_killed_while_it_recovers(quick_folder: Path) -> None:
    """
    1. The agent is killed after a commit; its next start is killed while it makes up for that, and the one after that too.
    Result: the start that is left alone finishes everything.
    """
    home, images = AgentHome(quick_folder), some_images()
    drop_all(home, images)
    for point, nth in (("after the commit", 1), ("after the disposal", 1), ("with a sidecar half written", 2)):
        kill_at(home, point, nth, once=True)
    check_all_is_there_once(home, images)


def test_killed_at_random_moments(quick_folder: Path) -> None:
    """
    1. Many drop images at once: fast, slowly, in several goes, renaming, the same again, others under the same name.
    2. The agent, in one trial of the shipped model, is killed at random moments and started again.
    Result: nothing is lost, nothing is twice, database and ``results/`` agree.
    """
    figures = kill_at_random(quick_folder, seed=1, kills=16, drops=150, real_every=12)
    assert figures.faults == []
    assert figures.broken_databases == 0
    assert figures.kills_of_the_shipped_model == 1


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_at_random_moments_many_times(tmp_path: Path) -> None:
    figures = kill_at_random(tmp_path, seed=2, kills=240, drops=2500, real_every=12)
    assert figures.faults == []
    assert figures.broken_databases == 0
