"""Vectors as bytes: exact, and nothing damaged passes for a vector."""

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from app.stores.vectors import FORMAT, MAGIC, decode, encode

numbers = st.floats(-1, 1, width=32)
unit_vectors = (
    st.integers(1, 64)
    .flatmap(lambda width: arrays(np.float32, width, elements=numbers))
    .filter(lambda row: np.linalg.norm(row) > 1e-3)
    .map(lambda row: (row / np.linalg.norm(row)).astype(np.float32))
)


def packed(numbers: np.ndarray, magic: bytes = MAGIC, version: int = FORMAT) -> bytes:
    """What `encode` writes, with any magic and version, and a checksum that is right."""
    head = struct.pack("<4sII", magic, version, len(numbers))
    payload = numbers.astype("<f4").tobytes()
    return head + struct.pack("<I", zlib.crc32(head + payload)) + payload


@given(unit_vectors)
def test_a_vector_comes_back_to_the_bit(vector: np.ndarray) -> None:
    data = encode(vector)
    assert data == packed(vector)
    row = decode(data, len(vector))
    assert row is not None
    assert row.dtype == np.float32
    assert row.tobytes() == vector.tobytes()


@given(unit_vectors, st.data())
def test_every_single_changed_byte_is_noticed(vector: np.ndarray, data: st.DataObject) -> None:
    encoded = bytearray(encode(vector))
    change = data.draw(st.integers(1, 255))
    for place in range(len(encoded)):
        encoded[place] ^= change
        assert decode(bytes(encoded), len(vector)) is None
        encoded[place] ^= change


@given(unit_vectors, st.binary(min_size=1, max_size=8))
def test_every_truncation_and_every_addition_is_noticed(vector: np.ndarray, more: bytes) -> None:
    encoded = encode(vector)
    for length in range(len(encoded)):
        assert decode(encoded[:length], len(vector)) is None
    assert decode(encoded + more, len(vector)) is None


@given(st.binary(max_size=100), st.integers(0, 20))
def test_any_bytes_are_no_vector_and_no_error(data: bytes, width: int) -> None:
    assert decode(data, width) is None


@pytest.mark.parametrize("answer", [None, 5, 0.5, "text", [], b"", "OVEC" * 10, memoryview(b"x")])
def test_what_are_no_bytes_is_no_vector_and_no_error(answer: object) -> None:
    assert decode(answer, 2) is None


@given(unit_vectors)
def test_another_width_is_refused(vector: np.ndarray) -> None:
    for width in (0, len(vector) - 1, len(vector) + 1):
        assert decode(encode(vector), width) is None


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38, 0.0, 1.002, 0.998])
def test_what_is_not_a_finite_unit_vector_is_refused(value: float) -> None:
    assert decode(packed(np.array([value, 0], np.float32)), 2) is None


def test_what_rounding_does_to_the_norm_is_allowed() -> None:
    assert decode(packed(np.array([1.0005, 0], np.float32)), 2) is not None


def test_another_format_version_or_magic_is_refused() -> None:
    vector = np.array([0, 1], np.float32)
    assert decode(packed(vector), 2) is not None
    assert decode(packed(vector, version=FORMAT + 1), 2) is None
    assert decode(packed(vector, magic=b"OVEX"), 2) is None


def test_a_matrix_is_not_a_vector() -> None:
    with pytest.raises(ValueError, match="one dimension"):
        encode(np.eye(2, dtype=np.float32))


def test_a_wider_type_is_kept_as_float32() -> None:
    row = decode(encode(np.array([0.6, 0.8])), 2)
    assert row is not None
    assert row.tolist() == np.array([0.6, 0.8], np.float32).tolist()
