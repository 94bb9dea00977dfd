"""Who gets which arrival, and when outcomes are entered: an image that is alone waits for nobody. Time moves only where a test moves it."""

from __future__ import annotations

import math
from typing import Literal

import pytest
from support.agents import make_arrival, make_record

from edge_agent.agent.dispatch import GROUP_SIZE, IN_HAND_PER_WORKER, Dispatch
from edge_agent.agent.quarantine import CRASHES_TO_QUARANTINE, Quarantine
from edge_agent.agent.worker import Claims, Outcome
from edge_agent.database.attempts import Attempt

WORKERS = 2
GROUP_S = 0.1
NOW_S = 1000.0


@pytest.fixture
def claims() -> Claims:
    return Claims()


@pytest.fixture
def dispatch(claims: Claims) -> Dispatch:
    return Dispatch(WORKERS, Quarantine([]), claims, group_s=GROUP_S)


def accused(path: str, crashes: int) -> Attempt:
    """A file (as make_arrival makes it) that was in hand when the program died."""
    return Attempt(path, size_bytes=10, mtime_ns=20, crashes=crashes, deaths=0)


def wakes_at_once(dispatch: Dispatch) -> bool:
    return dispatch.wake_at_s(NOW_S, may_pick=True) == NOW_S


def hand_out(dispatch: Dispatch) -> list[str]:
    """Pick for the workers; gives the paths."""
    jobs = dispatch.pick(NOW_S)
    dispatch.give(len(jobs))
    return [job.arrival.path for job in jobs]


def outcome_of(path: str, kind: Literal["record", "twin", "gone"] = "record", *, claim: str = "") -> Outcome:
    return Outcome(kind, make_arrival(path), make_record() if kind == "record" else None, claim, has_claim=kind == "record" and bool(claim))


def finish(dispatch: Dispatch, count: int, *, still_in_hand: int) -> None:
    """Let workers finish images while others are still in their hands."""
    dispatch.give(count + still_in_hand)
    for number in range(count):
        dispatch.finish(outcome_of(f"{number}"), NOW_S)


class TestGroups:
    def test_without_outcomes_nothing_is_due(self, dispatch: Dispatch) -> None:
        assert not dispatch.is_group_due(NOW_S)
        assert dispatch.wake_at_s(NOW_S, may_pick=True) == math.inf

    def test_an_image_alone_is_entered_at_once(self, dispatch: Dispatch) -> None:
        finish(dispatch, 1, still_in_hand=0)
        assert dispatch.is_group_due(NOW_S)
        assert wakes_at_once(dispatch)

    @pytest.mark.parametrize("others", range(1, WORKERS + 1))
    def test_so_is_one_while_every_other_has_a_worker(self, dispatch: Dispatch, others: int) -> None:
        finish(dispatch, 1, still_in_hand=others)
        assert dispatch.is_group_due(NOW_S)
        assert wakes_at_once(dispatch)

    def test_only_under_load_do_images_wait_for_each_other_and_not_for_long(self, dispatch: Dispatch) -> None:
        finish(dispatch, 1, still_in_hand=WORKERS + 1)
        assert not dispatch.is_group_due(NOW_S)
        assert dispatch.wake_at_s(NOW_S, may_pick=True) == NOW_S + GROUP_S
        dispatch.finish(outcome_of("later"), NOW_S + GROUP_S / 2)
        assert dispatch.is_group_due(NOW_S + GROUP_S), "the first one counts"

    def test_a_full_group_does_not_wait(self, dispatch: Dispatch) -> None:
        finish(dispatch, GROUP_SIZE - 1, still_in_hand=WORKERS + 2)
        assert not dispatch.is_group_due(NOW_S)
        dispatch.finish(outcome_of("last"), NOW_S)
        assert dispatch.is_group_due(NOW_S)

    def test_outcomes_are_taken_once_and_in_order(self, dispatch: Dispatch) -> None:
        finish(dispatch, 3, still_in_hand=0)
        assert dispatch.has_outcomes
        assert [outcome.arrival.path for outcome in dispatch.take_outcomes()] == ["0", "1", "2"]
        assert not dispatch.has_outcomes
        assert dispatch.take_outcomes() == []


class TestArrivals:
    def test_an_arrival_alone_is_handed_out_at_once(self, dispatch: Dispatch) -> None:
        dispatch.add([make_arrival()])
        assert wakes_at_once(dispatch)
        assert dispatch.wake_at_s(NOW_S, may_pick=False) == math.inf
        assert hand_out(dispatch) == ["a/scan.png"]
        assert dispatch.waiting == dispatch.in_hand == 1

    def test_no_more_are_in_hand_than_the_limit(self, dispatch: Dispatch) -> None:
        limit = WORKERS * IN_HAND_PER_WORKER
        dispatch.add(make_arrival(f"{number}") for number in range(limit + 5))
        assert not dispatch.wants_more
        assert len(hand_out(dispatch)) == limit
        assert dispatch.wants_more
        assert hand_out(dispatch) == []
        assert dispatch.waiting == limit + 5

    def test_while_outcomes_wait_so_do_the_next_arrivals(self, dispatch: Dispatch) -> None:
        finish(dispatch, 1, still_in_hand=WORKERS + 1)
        dispatch.add([make_arrival("next")])
        assert dispatch.pick(NOW_S) == []
        assert [job.arrival.path for job in dispatch.pick(NOW_S + GROUP_S)] == ["next"]

    def test_a_stop_hands_out_nothing_more(self, dispatch: Dispatch) -> None:
        dispatch.give(2)
        dispatch.add([make_arrival()])
        dispatch.stop()
        dispatch.drop()
        assert (dispatch.has_ready, dispatch.in_hand) == (False, 1)


class TestQuarantine:
    def test_a_file_that_was_in_hand_at_a_crash_is_tried_alone(self, claims: Claims) -> None:
        dispatch = Dispatch(WORKERS, Quarantine([accused("bad", 1)]), claims, group_s=GROUP_S)
        dispatch.add(make_arrival(path) for path in ("a", "bad", "b"))
        assert hand_out(dispatch) == ["a"]
        assert hand_out(dispatch) == [], "another one is in hand"
        dispatch.finish(outcome_of("a"), NOW_S)
        assert hand_out(dispatch) == ["bad"]
        assert hand_out(dispatch) == [], "nobody stands beside it"
        dispatch.finish(outcome_of("bad"), NOW_S)
        dispatch.take_outcomes()
        dispatch.add([make_arrival("bad")])
        assert hand_out(dispatch) == ["b", "bad"], "it lived"

    def test_one_that_crashed_too_often_is_set_aside(self, claims: Claims) -> None:
        dispatch = Dispatch(WORKERS, Quarantine([accused("bad", CRASHES_TO_QUARANTINE)]), claims, group_s=GROUP_S)
        dispatch.add([make_arrival("bad"), make_arrival("b")])
        [job] = dispatch.pick(NOW_S)
        assert (job.arrival.path, job.quarantine) == ("bad", True)


class TestTwins:
    def test_a_twin_waits_until_the_record_of_its_first_copy_is_durable(self, dispatch: Dispatch, claims: Claims) -> None:
        claims.claim("sha")
        dispatch.give(2)
        dispatch.finish(outcome_of("copy", "twin", claim="sha"), NOW_S)
        dispatch.take_outcomes()
        assert not dispatch.has_ready
        first = outcome_of("first", claim="sha")
        dispatch.finish(first, NOW_S)
        dispatch.take_outcomes()
        assert not dispatch.has_ready, "it is not durable yet"
        dispatch.release(first)
        assert not claims.holds("sha")
        assert hand_out(dispatch) == ["copy"]

    def test_one_whose_first_copy_has_become_durable_is_looked_at_again(self, dispatch: Dispatch) -> None:
        dispatch.give(1)
        dispatch.add([make_arrival("b")])
        dispatch.finish(outcome_of("copy", "twin", claim="sha"), NOW_S)
        dispatch.take_outcomes()
        assert hand_out(dispatch) == ["copy", "b"]

    def test_an_outcome_without_a_claim_releases_nobodys(self, dispatch: Dispatch, claims: Claims) -> None:
        claims.claim("sha")
        dispatch.release(outcome_of("set aside"))
        assert claims.holds("sha")
