"""What of the recorded passes can be tested without a GPU: sizes, and that their lack harms nobody.

The recording checks itself against plain passes whenever it is made.
"""

import logging

import pytest
import torch

from models import cuda_graphs
from models.cuda_graphs import ladder, record, rung
from models.encoder import Encoder


@pytest.mark.parametrize(
    ("most", "sizes"),
    [(1, (1,)), (2, (1, 2)), (3, (1, 2, 3)), (64, (1, 2, 4, 8, 16, 32, 64)), (5, (1, 2, 4, 5))],
)
def test_sizes_are_powers_of_two_and_the_largest(most: int, sizes: tuple[int, ...]) -> None:
    assert ladder(most) == sizes
    assert all(rung(sizes, n) >= n for n in range(1, most + 1))
    assert all(rung(sizes, size) == size for size in sizes)


def test_nothing_is_recorded_on_a_cpu(plain_pictogram: Encoder) -> None:
    assert record(plain_pictogram.images.vision, (64, 64), 8, 1) is None


def test_a_recording_that_fails_leaves_plain_passes(
    plain_pictogram: Encoder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(cuda_graphs, "Graphs", fails)
    monkeypatch.setattr(plain_pictogram.images.vision, "device", torch.device("cuda"))
    with caplog.at_level(logging.WARNING):
        assert record(plain_pictogram.images.vision, (64, 64), 8, 1) is None
    assert "no CUDA graphs" in caplog.text
