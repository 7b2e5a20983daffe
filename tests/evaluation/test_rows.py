"""Vectors in a file: what was kept is there again, whatever happened to the file since."""

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from app.evaluation.picture_vectors import DIGEST, HEAD, RowFile

WIDTH = 16
RECORD = DIGEST + 4 * WIDTH + 4


def digest(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()


def row(number: int) -> np.ndarray:
    return np.full(WIDTH, number / 7, np.float32)


def stored_numbers(path: Path) -> list[int]:
    """Numbers up to 60 whose row is there, and is right."""
    file = RowFile(path, WIDTH)
    try:
        rows = {number: file.get(digest(number)) for number in range(60)}
    finally:
        file.close()
    assert all(np.array_equal(stored, row(n)) for n, stored in rows.items() if stored is not None)
    return [number for number, stored in rows.items() if stored is not None]


def filled(path: Path, count: int) -> Path:
    file = RowFile(path, WIDTH)
    for number in range(count):
        file.put(digest(number), row(number))
    file.close()
    return path


def cut(data: bytearray) -> None:
    del data[-RECORD // 2 :]


def flip(data: bytearray) -> None:
    data[HEAD.size + 3 * RECORD + 50] ^= 1


def wipe(data: bytearray) -> None:
    data[: HEAD.size] = b"something!!!"


@pytest.mark.parametrize(
    ("damage", "remaining"),
    [(cut, [*range(9)]), (flip, [0, 1, 2, *range(4, 10)]), (wipe, [])],
)
def test_damage_costs_the_damaged_records_alone_and_writing_goes_on(
    tmp_path: Path, damage: Callable[[bytearray], None], remaining: list[int]
) -> None:
    path = filled(tmp_path / "deep" / "a.rows", 10)
    data = bytearray(path.read_bytes())
    damage(data)
    path.write_bytes(data)
    assert stored_numbers(path) == remaining
    file = RowFile(path, WIDTH)
    file.put(digest(20), row(20))
    file.close()
    assert stored_numbers(path) == [*remaining, 20]


def test_half_a_record_of_a_killed_process_does_not_shift_those_of_another(tmp_path: Path) -> None:
    path = tmp_path / "a.rows"
    file = RowFile(path, WIDTH)
    file.put(digest(0), row(0))
    with path.open("ab") as other:
        other.write(os.urandom(RECORD - 1))
    file.put(digest(1), row(1))
    file.close()
    assert stored_numbers(path) == [0, 1]


def test_rows_of_another_width_are_not_taken_for_these(tmp_path: Path) -> None:
    path = filled(tmp_path / "a.rows", 3)
    file = RowFile(path, WIDTH * 2)
    assert len(file) == 0
    file.close()


def test_several_may_write_one_file(tmp_path: Path) -> None:
    path = tmp_path / "a.rows"

    def write(start: int) -> None:
        file = RowFile(path, WIDTH)
        for number in range(start, 60, 4):
            file.put(digest(number), row(number))
        file.close()

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(write, range(4)))
    assert stored_numbers(path) == [*range(60)]
