"""Places and bytes: what is taken is given back, and who is refused is told when to come again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.middleware.admission import Admission
from app.errors import LONGEST_RETRY, Overloaded, TooLarge


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_as_many_as_there_are_places_come_in() -> None:
    admission = Admission(2, 100)
    admission.enter()
    admission.enter()
    for refuse in (admission.check, admission.enter):
        with pytest.raises(Overloaded) as caught:
            refuse()
        assert (caught.value.limit, caught.value.value) == (2, 2)
    assert admission.in_service == 2
    admission.leave()
    admission.enter()


def test_bytes_that_are_refused_are_not_held() -> None:
    admission = Admission(2, 100)
    admission.take_bytes(60)
    with pytest.raises(Overloaded) as caught:
        admission.take_bytes(41)
    assert (caught.value.limit, caught.value.value) == (100, 101)
    assert admission.bytes == 60
    admission.take_bytes(40)
    admission.free_bytes(100)
    assert admission.bytes == 0


def test_what_can_never_fit_is_not_to_come_again() -> None:
    admission = Admission(2, 100)
    admission.take_bytes(60)
    with pytest.raises(TooLarge, match="this request alone needs 101 bytes") as caught:
        admission.take_bytes(41, own=60)
    assert (caught.value.limit, caught.value.value) == (100, 101)
    assert admission.bytes == 60


def test_retry_after_is_when_those_who_wait_are_done() -> None:
    clock = Clock()
    admission = Admission(100, 100, clock)
    for _ in range(100):
        admission.enter()
    assert admission.retry_after() == 1  # nothing is known yet
    for _ in range(50):
        clock.now += 0.2
        admission.leave()
        admission.enter()
    assert admission.retry_after() == 20
    for _ in range(200):
        clock.now += 10.0
        admission.leave()
        admission.enter()
    assert admission.retry_after() == LONGEST_RETRY


def test_a_time_in_which_nobody_asked_is_no_slow_answer() -> None:
    clock = Clock()
    admission = Admission(100, 100, clock)
    for _ in range(100):
        admission.enter()
        admission.enter()
        clock.now += 0.1
        admission.leave()
        clock.now += 0.1
        admission.leave()
        clock.now += 3600.0
    for _ in range(100):
        admission.enter()
    assert admission.retry_after() == 10


@given(st.lists(st.booleans(), max_size=60))
def test_nobody_is_counted_twice_or_forgotten(moves: list[bool]) -> None:
    admission, inside = Admission(5, 1), 0
    for enters in moves:
        if not enters and inside:
            admission.leave()
            inside -= 1
        elif enters and inside < 5:
            admission.enter()
            inside += 1
        elif enters:
            with pytest.raises(Overloaded):
                admission.enter()
    assert admission.in_service == inside
