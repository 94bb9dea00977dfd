"""Many images: a steady stream, then many at once. The queue and the memory stay bounded, the newest come first, nothing is lost."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from support.agents import AgentHome, drop, image_bytes
from support.memory import resident_mib
from support.proofs.load import bear_load
from support.real_agent import RealAgent


def test_a_stream_and_then_a_burst(quick_folder: Path) -> None:
    """
    1. Images come, 50 in a second. Then ten times as many are there at once as the intake keeps in mind.
    Result: nothing is lost, nothing twice. Memory never holds all that wait. The newest are taken first: not strictly, because images
    that are in hand together are entered as they are finished.
    """
    figures = bear_load(quick_folder, stream_hz=50, stream_s=2, burst=1000, shipped=False, most_waiting=100)
    assert figures.faults == []
    assert figures.images == 1100
    assert 0 < figures.longest_queue <= figures.queue_bound < 1000
    assert figures.order_correlation > 0.99


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_minutes_of_images_and_then_twenty_thousand_at_once(tmp_path: Path) -> None:
    figures = bear_load(tmp_path, stream_hz=50, stream_s=600, burst=20_000, shipped=True)
    assert figures.faults == []
    assert 0 < figures.longest_queue <= figures.queue_bound < 20_000
    assert figures.order_correlation > 0.99
    assert figures.memory_growth_percent <= 10


def test_a_new_session_takes_no_more_memory_than_the_last(quick_folder: Path) -> None:
    """
    1. The shipped agent works; its configuration is read again, ten times, each time with images in between.
    Result: it holds one model and one set of workers, not those of the sessions before.
    """
    home = AgentHome(quick_folder)
    sizes: list[float] = []
    with RealAgent(quick_folder, home.home) as process:
        process.wait_until_started()
        for number in range(11):
            drop(home.inbox, f"{number}.png", image_bytes(number))
            home.wait_for(number + 1)
            sizes.append(resident_mib(process.pid))
            process.send_signal(signal.SIGHUP)
            process.wait_until_started(number + 2)
        process.terminate()
        assert process.wait(timeout=120) == 0
    assert sizes[-1] < sizes[0] + 10, sizes
