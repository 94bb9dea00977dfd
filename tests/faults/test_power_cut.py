"""Power cuts: what had been shown, exported or moved before is there after, and no image is lost."""

from __future__ import annotations

import pytest
from support.proofs.power import cut_power

NO_SYNC = {"PRAGMA synchronous = FULL": "PRAGMA synchronous = OFF"}


def test_power_cuts_lose_nothing(disks: None) -> None:
    """
    1. Many drop images, some waiting for the disk and some not; an agent works; somebody reads its records, its lines and ``done/``.
    2. The power fails: what the page cache had not given to the disk is gone. Some boxes lose it once more while they start again.
    3. The agent starts on what is left.
    Result: all that was read is still true; each image has one record and one file; database and ``results/`` agree.
    """
    figures = cut_power(seed=1, cuts=4, longest_s=1.0, real_every=3, at_least=10)
    assert figures.faults == []
    assert figures.shown > 20
    assert figures.moved > 20
    assert figures.cuts_of_the_shipped_model > 0


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_many_power_cuts_lose_nothing(disks: None) -> None:
    figures = cut_power(seed=2, cuts=60, real_every=5)
    assert figures.faults == []


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param({"sql_instead": NO_SYNC, "inboxes": (2,)}, id="the database does not wait for the disk"),
        pytest.param({"stubs": ["edge_agent.outbox.disposal.Disposal.secure"], "inboxes": (1,)}, id="images are not waited for"),
    ],
)
def test_the_proof_can_fail(disks: None, broken: dict[str, object]) -> None:
    """
    1. The same with an agent that leaves out one of the waits for the disk, on boxes where no other wait makes up for it: the wait for
       the images empties the cache of a disk that the database shares, and a move to another disk is a copy that is waited for.
    2. The power fails when twenty images have been shown and moved.
    Result: something that had been shown or moved is lost. What is lost is what the kernel has not written by itself, which it does after
    half a minute: the last images, at least. Of sixteen boxes tried on a busy machine each had lost twenty
    and more; were it one in ten that had not, the odds that six in a row have not are one in a million.
    """
    faults: list[str] = []
    for seed in range(6):
        faults = faults or cut_power(seed=seed, cuts=1, longest_s=0.2, at_least=20, **broken).faults
    assert any("is lost" in fault for fault in faults)
