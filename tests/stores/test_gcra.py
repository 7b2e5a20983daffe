"""Buckets of requests: what is granted, how long is to be waited, and that clocks may lie."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.stores.gcra import SLACK, take

rates = st.floats(0.01, 10_000)
bursts = st.integers(1, 1_000)
NOW = 1_800_000_000.0  # a wall clock: what is smallest counts most there


def test_a_new_bucket_holds_a_burst_and_not_one_more() -> None:
    tat, grant = take(None, NOW, 7, 2, 5)
    assert (grant.granted, grant.wait) == (5, pytest.approx(0.5))
    _, grant = take(tat, NOW, 1, 2, 5)
    assert (grant.granted, grant.wait) == (0, pytest.approx(0.5))


def test_it_fills_at_its_rate_up_to_the_burst() -> None:
    tat, _ = take(None, NOW, 5, 2, 5)
    for later, there in ((0.4, 0), (0.6, 1), (1.1, 2), (2.5, 5), (1000, 5)):
        assert take(tat, NOW + later, 100, 2, 5)[1].granted == there


def test_as_many_as_there_are_are_granted() -> None:
    tat, grant = take(None, NOW, 3, 1, 5)
    assert (grant.granted, grant.wait) == (3, 0)
    _, grant = take(tat, NOW, 3, 1, 5)
    assert (grant.granted, grant.wait) == (2, pytest.approx(1))


@given(rates, bursts, st.integers(1, 2_000))
def test_who_waits_as_long_as_told_is_granted_one_and_not_before(
    rate: float, burst: int, count: int
) -> None:
    tat, grant = take(None, NOW, burst + count, rate, burst)
    assert grant.granted == burst
    assert 0 < grant.wait <= 1 / rate + SLACK
    assert take(tat, NOW + grant.wait, 1, rate, burst)[1].granted == 1
    early = grant.wait - 10 * SLACK
    if early > 0:
        assert take(tat, NOW + early, 1, rate, burst)[1].granted == 0


@given(rates, bursts, st.lists(st.tuples(st.floats(0, 2), st.integers(0, 50)), max_size=50))
def test_no_stretch_of_time_has_more_than_its_rate_and_a_burst(
    rate: float, burst: int, requests: list[tuple[float, int]]
) -> None:
    tat, now, granted = None, NOW, [(NOW, 0)]
    for pause, count in requests:
        now += pause
        tat, grant = take(tat, now, count, rate, burst)
        assert 0 <= grant.granted <= count
        assert (grant.wait == 0) == (grant.granted == count)
        granted.append((now, granted[-1][1] + grant.granted))
    for first in range(len(granted) - 1):
        start, before = granted[first + 1][0], granted[first][1]
        for end, total in granted[first + 1 :]:
            allowed = burst + (end - start) * rate
            assert total - before <= allowed + 1e-3 * len(granted) + 10 * SLACK * rate * len(
                granted
            )


def test_a_refusal_changes_nothing() -> None:
    tat, _ = take(None, NOW, 5, 1, 5)
    assert take(tat, NOW + 0.5, 1, 1, 5)[0] == tat


@pytest.mark.parametrize("back", [1.0, 3_600.0, 1e9])
def test_a_clock_that_is_set_back_empties_the_bucket_and_no_more(back: float) -> None:
    tat, _ = take(None, NOW, 5, 2, 5)
    waits = []
    for later in (0.0, 0.5, 1.0, 1.5):
        tat, grant = take(tat, NOW - back + later, 1, 2, 5)
        waits.append(grant.wait)
        assert grant.granted == (later > 0)
    assert waits[0] <= 0.5 + SLACK


def test_a_clock_that_jumps_ahead_fills_the_bucket_and_no_more() -> None:
    tat, _ = take(None, NOW, 5, 2, 5)
    assert take(tat, NOW + 1e9, 100, 2, 5)[1].granted == 5


def test_a_lower_rate_holds_at_once_and_a_higher_one_forgives() -> None:
    tat, _ = take(None, NOW, 10, 1, 10)  # full again in 10 seconds
    assert take(tat, NOW, 1, 100, 10)[1].wait <= 0.01 + SLACK
    tat, _ = take(None, NOW, 10, 100, 10)
    assert take(tat, NOW + 1, 10, 0.5, 1)[1].granted == 1


@pytest.mark.parametrize("tat", [math.nan, math.inf, -math.inf, 1e300])
def test_a_damaged_bucket_is_one_that_is_full_or_empty(tat: float) -> None:
    after, grant = take(tat, NOW, 1, 1, 3)
    assert NOW < after <= NOW + 3
    assert grant.wait <= 1 + SLACK


@pytest.mark.parametrize(
    ("rate", "burst"), [(0, 1), (-1, 1), (math.nan, 1), (math.inf, 1), (1, 0), (1, -1)]
)
def test_there_is_no_rate_of_nothing_and_no_burst_of_none(rate: float, burst: int) -> None:
    with pytest.raises(ValueError, match="a burst 1 or more"):
        take(None, NOW, 1, rate, burst)


def test_many_small_takes_are_worth_one_large() -> None:
    tat, grants = None, []
    for _ in range(12):
        tat, grant = take(tat, NOW, 1, 3, 10)
        grants.append(grant.granted)
    assert grants == [1] * 10 + [0] * 2
    assert all(later >= earlier for later, earlier in pairwise(grants))
