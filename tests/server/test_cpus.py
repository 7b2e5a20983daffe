"""How many cores a process may use."""

import os
from pathlib import Path

import pytest

from app.server.cpus import available_cores
from app.server.run import threads
from app.server.settings import Settings
from app.server.workers import share


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("max 100000", 8), ("250000 100000", 3), ("50000 100000", 1), ("900000 100000", 8), ("?", 8)],
)
def test_a_containers_quota_bounds_the_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    (tmp_path / "cpu.max").write_text(quota + "\n")
    assert available_cores(tmp_path / "cpu.max") == cores


def test_the_first_version_of_control_groups_is_read_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    files = tmp_path / "quota", tmp_path / "period"
    for quota, cores in (("150000", 2), ("-1", 8)):
        files[0].write_text(quota)
        files[1].write_text("100000\n")
        assert available_cores(tmp_path / "none", files) == cores


def test_threads_follow_the_affinity_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5})
    settings = Settings()
    assert (settings.cores_for_decoding(), settings.cores_for_encoding()) == (2, 2)
    assert threads(settings) == "threads: 2 to decode images, 2 for the model; 2 CPU cores"
    assert Settings(decode_threads=7, torch_threads=5).cores_for_decoding() == 7
    two = share(Settings(), 2)
    assert (two.torch_threads, two.decode_threads) == (1, 1)
    # nothing limits: the libraries know best
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert settings.cores_for_encoding() == 0
    assert threads(settings) == "threads: 2 to decode images, 2 for the model; 2 CPU cores"
