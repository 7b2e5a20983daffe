"""Vectors to bytes and back: raw float32 behind a checked header, nothing that can run code.

Knows not where the bytes are kept nor what a vector stands for.

The layout, little-endian throughout: magic `OVEC`, format version, dimension, CRC-32 of all the
other bytes, then the numbers.
"""

import struct
import zlib
from typing import Final

import numpy as np
import numpy.typing as npt

MAGIC: Final = b"OVEC"
FORMAT: Final = 1
UNIT_TOLERANCE: Final = 1e-3

_HEAD: Final = struct.Struct("<4sII")
_CHECKSUM: Final = struct.Struct("<I")
_START: Final = _HEAD.size + _CHECKSUM.size


def encode(vector: npt.NDArray[np.floating]) -> bytes:
    """One vector (D,) as bytes, in float32."""
    if vector.ndim != 1:
        raise ValueError(f"a vector has one dimension, not {vector.ndim}")
    head = _HEAD.pack(MAGIC, FORMAT, vector.size)
    numbers = vector.astype("<f4").tobytes()
    return head + _CHECKSUM.pack(_checksum(head, numbers)) + numbers


def decode(data: object, width: int) -> npt.NDArray[np.float32] | None:
    """The unit vector (width,), float32, or None for anything that is not exactly one."""
    # a damaged store may also answer a number or a text
    if not isinstance(data, bytes) or len(data) != _START + 4 * width:
        return None
    head, numbers = data[: _HEAD.size], data[_START:]
    if _HEAD.unpack(head) != (MAGIC, FORMAT, width):
        return None
    if _CHECKSUM.unpack_from(data, _HEAD.size) != (_checksum(head, numbers),):
        return None
    vector = np.frombuffer(numbers, "<f4").astype(np.float32)
    if not np.isfinite(vector).all():
        return None
    wide = vector.astype(np.float64)  # no finite float32 overflows in it
    return vector if abs(float(wide @ wide) ** 0.5 - 1) <= UNIT_TOLERANCE else None


def _checksum(head: bytes, numbers: bytes) -> int:
    return zlib.crc32(numbers, zlib.crc32(head))
