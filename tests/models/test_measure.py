"""What is chosen from given times, and that everything is timed in turns. No real time decides."""

from types import SimpleNamespace
from typing import Any

import pytest

from models import measure
from models.measure import (
    SECONDS,
    SIZES,
    Cost,
    Costs,
    costs,
    fastest_precision,
    fewest_threads,
    images_at_once,
    in_passes,
    torch_is_worth_it,
)


def cpu(seconds: dict[int, float]) -> Costs:
    return {size: Cost(each, each) for size, each in seconds.items()}


def batches(single: float, eight: float, many: float) -> Costs:
    return cpu({1: single, 8: eight, 32: many})


def test_images_run_together_as_far_as_that_is_cheaper() -> None:
    sizes = cpu({1: 1.28, 2: 1.07, 4: 0.82, 8: 0.73, 16: 0.70, 32: 0.69})
    assert images_at_once(sizes) == 8
    assert images_at_once(cpu({1: 11.5, 2: 10.7, 4: 11.1, 8: 12.5})) == 1
    assert images_at_once(cpu({1: 5.0})) == 1


def test_a_batch_costs_what_its_passes_cost() -> None:
    sizes = cpu({1: 9.0, 2: 7.0, 4: 5.0, 8: 4.9, 16: 6.0})
    assert in_passes(sizes, 4) == batches(9.0, 5.0, 5.0)
    assert in_passes(sizes, 16) == batches(9.0, 4.9, 6.0)


def test_fewer_bits_are_taken_only_where_they_are_clearly_faster() -> None:
    exact = batches(50.0, 42.0, 42.0)
    assert fastest_precision({"bf16": batches(27.0, 23.0, 23.0), "fp32": exact}) == "bf16"
    assert fastest_precision({"bf16": batches(48.0, 40.0, 40.0), "fp32": exact}) == "fp32"
    assert fastest_precision({"bf16": batches(90.0, 80.0, 80.0), "fp32": exact}) == "fp32"
    assert fastest_precision({"bf16": exact}) == "bf16"


@pytest.mark.parametrize(
    ("torch", "is_worth_it"),
    [
        ((27.0, 10.0, 10.0), True),
        ((28.0, 10.0, 10.0), False),  # a single image takes longer
        ((27.0, 18.0, 10.0), False),  # a batch of eight gains little
        ((20.0, 10.0, 19.0), False),
    ],
)
def test_torch_must_be_clearly_faster(torch: tuple[float, float, float], is_worth_it: bool) -> None:
    assert torch_is_worth_it(batches(*torch), batches(27.0, 20.0, 20.0)) == is_worth_it


def test_torch_is_not_taken_for_what_was_not_measured() -> None:
    assert not torch_is_worth_it(cpu({1: 1.0, 8: 1.0}), batches(27.0, 20.0, 20.0))


def test_the_fewest_threads_that_are_as_fast_at_every_size() -> None:
    most = batches(5.0, 4.0, 4.0)
    assert fewest_threads({16: most, 8: batches(5.2, 4.2, 4.1), 4: batches(5.0, 7.0, 7.0)}) == 8
    assert fewest_threads({16: most, 8: batches(4.0, 8.0, 8.0), 4: batches(9.0, 9.0, 9.0)}) == 16
    assert fewest_threads({16: most, 4: batches(3.0, 4.0, 4.0)}) == 4


def test_all_candidates_are_timed_in_turns_at_every_size() -> None:
    calls: list[tuple[str, int]] = []
    runs = {name: lambda batch, name=name: calls.append((name, len(batch))) for name in "ab"}
    measured = costs(runs, (2, 3))
    assert {name: tuple(measured[name]) for name in "ab"} == {"a": SIZES, "b": SIZES}
    # the second of two passes counts: one of another size than the last is prepared first
    turns = calls[::2]
    assert calls[1::2] == turns
    assert turns[2 * len(SIZES) :][:4] == [("a", 1), ("b", 1), ("a", 2), ("b", 2)]


def test_a_slow_tower_is_timed_at_small_sizes_within_the_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [0.0]

    def run(batch: Any) -> None:
        clock[0] += 0.11 * len(batch)

    def now() -> float:
        return clock[0]

    monkeypatch.setattr(measure, "time", SimpleNamespace(perf_counter=now, process_time=now))
    measured = costs({"a": run, "b": run}, (2, 3))
    assert {name: tuple(measured[name]) for name in "ab"} == {"a": (1, 2, 4), "b": (1, 2, 4)}
    assert measured["a"][4].cpu == pytest.approx(0.11)
    last_turn = 2 * 2 * 4 * 0.11
    assert clock[0] < 2 * SECONDS + last_turn
    monkeypatch.setattr(measure, "SECONDS", 0)
    assert tuple(costs({"a": run}, (2, 3))["a"]) == (1,)
