"""Many images: a steady stream, then many at once. The queue and the memory stay bounded, the newest come first, nothing is lost."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.proofs.load import bear_load


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
