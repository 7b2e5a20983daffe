"""The byte-bounded cache, also against a plain model of it."""

from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.stores.lru import OVERHEAD, ByteLru

ENTRY = 40 + OVERHEAD  # bytes of ten float32


def vector(value: float = 0.0, size: int = 10) -> np.ndarray:
    return np.full(size, value, np.float32)


def test_the_least_recently_used_goes_first() -> None:
    cache = ByteLru(2 * ENTRY)
    cache.put("a", vector(1))
    cache.put("b", vector(2))
    assert cache.get("a") is not None
    cache.put("c", vector(3))
    assert cache.get("b") is None
    assert cache.get("a") is not None
    assert cache.get("c") is not None
    assert (len(cache), cache.bytes) == (2, 2 * ENTRY)


def test_what_does_not_fit_alone_is_not_kept_and_pushes_nothing_out() -> None:
    cache = ByteLru(ENTRY)
    cache.put("a", vector())
    cache.put("b", vector(size=1000))
    assert cache.get("a") is not None
    assert cache.get("b") is None


def test_no_bytes_keep_nothing() -> None:
    cache = ByteLru(0)
    cache.put("a", vector())
    assert len(cache) == 0


def test_what_is_kept_is_a_copy_that_cannot_be_written() -> None:
    cache, row = ByteLru(10 * ENTRY), vector(1)
    cache.put("a", row)
    row[:] = 7
    copy = cache.get("a")
    assert copy is not None
    assert copy[0] == 1
    with pytest.raises(ValueError, match="read-only"):
        copy[0] = 2


def test_a_view_into_a_large_array_does_not_keep_it_alive() -> None:
    cache = ByteLru(10 * ENTRY)
    cache.put("a", np.zeros((1000, 10), np.float32)[5])
    row = cache.get("a")
    assert row is not None
    assert row.base is None


def test_hits_and_misses_are_counted() -> None:
    cache = ByteLru(10 * ENTRY)
    cache.get("a")
    cache.put("a", vector())
    cache.get("a")
    assert (cache.hits, cache.misses) == (1, 1)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 6), st.integers(1, 30)), max_size=80))
def test_it_behaves_like_an_ordered_dict_with_a_budget(moves: list[tuple[bool, int, int]]) -> None:
    budget = 3 * ENTRY
    cache, model = ByteLru(budget), OrderedDict[str, int]()
    for is_put, number, size in moves:
        key, cost = str(number), 4 * size + OVERHEAD
        if is_put:
            cache.put(key, vector(size=size))
            model.pop(key, None)
            model[key] = cost
            while sum(model.values()) > budget:
                model.popitem(last=False)
        else:
            assert (cache.get(key) is not None) == (key in model)
            if key in model:
                model.move_to_end(key)
        assert cache.bytes == sum(model.values()) <= budget
