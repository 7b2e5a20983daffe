"""One file made into another that is nearly as good. Knows no format."""

import random
import struct
from collections.abc import Callable, Sequence
from typing import Final

INTERESTING: Final = (
    0, 1, 2, 3, 7, 8, 15, 16, 31, 32, 63, 64, 127, 128, 255, 256, 1_000, 4_095, 4_096, 32_767,
    32_768, 65_535, 65_536, 2**24 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1,
)  # fmt: skip
LARGEST: Final = 200_000

Change = Callable[[bytearray, random.Random, Sequence[bytes]], bytearray]


def mutated(dice: random.Random, data: bytes, files: Sequence[bytes]) -> bytes:
    """A file changed in one place or a few, with parts of the others."""
    changed = bytearray(data)
    for _ in range(dice.choice((1, 1, 1, 2, 3, 8))):
        if not changed:
            break
        changed = dice.choice(CHANGES)(changed, dice, files)[:LARGEST]
    return bytes(changed)


def _place(data: bytearray, dice: random.Random) -> int:
    """Anywhere, but in the header half of the time: that is where files are understood."""
    return dice.randrange(min(len(data), 200) if dice.random() < 0.5 else len(data))


def _flip(data: bytearray, dice: random.Random, _: Sequence[bytes]) -> bytearray:
    data[_place(data, dice)] ^= 1 << dice.randrange(8)
    return data


def _overwrite(data: bytearray, dice: random.Random, _: Sequence[bytes]) -> bytearray:
    place = _place(data, dice)
    count = dice.choice((1, 1, 2, 4, 16))
    data[place : place + count] = dice.randbytes(len(data[place : place + count]))
    return data


def _number(data: bytearray, dice: random.Random, _: Sequence[bytes]) -> bytearray:
    """A number of 1, 2, 3 or 4 bytes, of either order: sizes, counts, offsets."""
    place, size = _place(data, dice), dice.choice((1, 2, 2, 3, 4, 4))
    value = dice.choice(INTERESTING) & (1 << 8 * size) - 1
    order = dice.choice(("big", "little"))
    data[place : place + size] = value.to_bytes(size, "big" if order == "big" else "little")
    return data


def _add(data: bytearray, dice: random.Random, _: Sequence[bytes]) -> bytearray:
    """A number a little larger or smaller: the length of a chunk, above all."""
    place, order = _place(data, dice), dice.choice("<>")
    if place + 4 <= len(data):
        (value,) = struct.unpack_from(order + "I", data, place)
        changed = value + dice.choice((-256, -8, -1, 1, 8, 256)) & 2**32 - 1
        struct.pack_into(order + "I", data, place, changed)
    return data


def _cut(data: bytearray, dice: random.Random, _: Sequence[bytes]) -> bytearray:
    return data[: _place(data, dice)]


def _remove(data: bytearray, dice: random.Random, _: Sequence[bytes]) -> bytearray:
    place = _place(data, dice)
    del data[place : place + dice.choice((1, 2, 4, 12, 64, 500))]
    return data


def _repeat(data: bytearray, dice: random.Random, _: Sequence[bytes]) -> bytearray:
    place, size = _place(data, dice), dice.choice((1, 4, 12, 64, 500))
    data[place:place] = data[place : place + size] * dice.choice((1, 2, 10, 200))
    return data


def _splice(data: bytearray, dice: random.Random, files: Sequence[bytes]) -> bytearray:
    donor = dice.choice(files)
    end = dice.randrange(len(donor) + 1)
    return data[: _place(data, dice)] + donor[end:]


def _insert(data: bytearray, dice: random.Random, files: Sequence[bytes]) -> bytearray:
    donor, place = dice.choice(files), _place(data, dice)
    start = dice.randrange(len(donor) + 1)
    data[place:place] = donor[start : start + dice.choice((8, 64, 2_000))]
    return data


def _append(data: bytearray, dice: random.Random, files: Sequence[bytes]) -> bytearray:
    return data + dice.choice(files)


CHANGES: Final[tuple[Change, ...]] = (
    _flip, _flip, _overwrite, _overwrite, _number, _number, _number, _add, _add, _cut, _remove,
    _repeat, _splice, _insert, _append,
)  # fmt: skip
