"""How many cores a process may use."""

import math
import os
from dataclasses import replace

import pytest

from app.server.cpus import available_cores
from app.server.run import described
from app.server.settings import Settings
from app.server.workers import share
from models.encoder import Encoder


@pytest.mark.parametrize(
    ("quota", "cores"), [(math.inf, 8), (2.5, 3), (0.5, 1), (9.0, 8), (0.001, 1)]
)
def test_a_quota_bounds_the_cores(
    monkeypatch: pytest.MonkeyPatch, quota: float, cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr("app.server.cpus.cpu_quota", lambda: quota)
    assert available_cores() == cores


def test_threads_follow_the_affinity_mask(
    monkeypatch: pytest.MonkeyPatch, pictogram: Encoder
) -> None:
    monkeypatch.setattr("app.server.cpus.cpu_quota", lambda: math.inf)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5})
    settings = Settings()
    assert (settings.cores_for_decoding(), settings.cores_for_encoding()) == (2, 2)
    info = replace(pictogram.info, threads=1)
    line = "threads: 2 to decode images, 1 for the model; 2 CPU cores"
    assert described(settings, info).splitlines()[1] == line
    info = replace(info, threads=0)
    line = "threads: 2 to decode images, 2 for the model; 2 CPU cores"
    assert described(settings, info).splitlines()[1] == line
    assert Settings(decode_threads=7).cores_for_decoding() == 7
    two = share(Settings(), 2)
    assert (two.torch_threads, two.decode_threads) == (1, 1)
    # nothing limits: the libraries know best
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert settings.cores_for_encoding() == 0
    line = "threads: 2 to decode images, 2 for the model; 2 CPU cores"
    assert described(settings, info).splitlines()[1] == line
