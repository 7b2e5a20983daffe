"""What the compose files promise: stores that last, a service that can do little harm."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.server.settings import Settings

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docker"
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))
GPU: dict[str, Any] = yaml.safe_load((FOLDER / "compose.gpu.yaml").read_text(encoding="utf-8"))
OPENVOCAB, REDIS = COMPOSE["services"]["openvocab"], COMPOSE["services"]["redis"]
CONF = dict(
    line.split(" ", 1)
    for line in (FOLDER / "redis.conf").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
)
UNITS = {"k": 2**10, "m": 2**20, "g": 2**30}


def size(text: str) -> int:
    """Bytes, of "512mb", "1g" or "${MEMORY:-4g}"."""
    match = re.search(r"(\d+)([kmg])b?\}?$", text)
    assert match
    return int(match[1]) * UNITS[match[2]]


def test_there_are_these_two_services() -> None:
    assert set(COMPOSE["services"]) == {"openvocab", "redis"}


@pytest.mark.parametrize("service", [OPENVOCAB, REDIS], ids=["openvocab", "redis"])
def test_a_service_can_do_little_harm(service: dict[str, Any]) -> None:
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    # what may be written: memory, and the named volume
    assert all(mount.startswith("/tmp:") and "size=" in mount for mount in service["tmpfs"])


@pytest.mark.parametrize("service", [OPENVOCAB, REDIS], ids=["openvocab", "redis"])
def test_a_service_is_bounded_and_comes_back(service: dict[str, Any]) -> None:
    assert size(service["mem_limit"]) >= 2**30
    assert service["restart"] == "unless-stopped"
    assert service["logging"]["options"] == {"max-size": "10m", "max-file": "3"}


def test_the_port_is_bound_to_this_machine_alone() -> None:
    assert OPENVOCAB["ports"] == ["127.0.0.1:${PORT:-8000}:8000"]
    assert "ports" not in REDIS
    assert COMPOSE["networks"]["store"]["internal"] is True
    assert REDIS["networks"] == ["store"]


def test_every_variable_of_ours_is_a_setting() -> None:
    names = {f"OPENVOCAB_{name.upper()}" for name in Settings.model_fields}
    for service in (OPENVOCAB, GPU["services"]["openvocab"]):
        assert set(service["environment"]) <= names | {"TMPDIR"}


def test_archives_fit_where_they_are_written_to() -> None:
    # on the volume, as large as the disk; Ray keeps all its own in /tmp
    assert OPENVOCAB["volumes"] == [f"data:{OPENVOCAB['environment']['TMPDIR']}"]
    cluster = yaml.safe_load((FOLDER / "compose.cluster.yaml").read_text(encoding="utf-8"))["x-ray"]
    (tmp,) = cluster["tmpfs"]
    assert int(cluster["environment"]["OPENVOCAB_MAX_UPLOAD_BYTES"]) < size(tmp) / 2


def test_the_bundled_model_is_served_unless_another_is_named() -> None:
    assert OPENVOCAB["environment"]["OPENVOCAB_MODEL"] == "${OPENVOCAB_MODEL:-everyday}"


def test_the_store_is_the_redis_beside_it() -> None:
    assert OPENVOCAB["environment"]["OPENVOCAB_STORE_URL"] == "redis://redis:6379/0"
    assert CONF["port"] == "6379"
    assert OPENVOCAB["depends_on"] == {"redis": {"condition": "service_healthy"}}
    assert set(OPENVOCAB["networks"]) & set(REDIS["networks"])


def test_both_services_have_a_health_check() -> None:
    assert "redis-cli ping" in REDIS["healthcheck"]["test"][1]
    # none of its own: the one of the image counts, and a test of the Dockerfile holds it
    assert "healthcheck" not in OPENVOCAB
    assert "HEALTHCHECK" in (ROOT / "Dockerfile").read_text(encoding="utf-8")


def test_what_must_last_lies_in_named_volumes() -> None:
    assert OPENVOCAB["volumes"] == ["data:/data"]
    assert "redis:/data" in REDIS["volumes"]
    assert set(COMPOSE["volumes"]) == {"data", "redis"}
    assert CONF["dir"] == "/data"


def test_redis_reads_the_file_beside_it() -> None:
    source, target, mode = REDIS["volumes"][1].split(":")
    assert (FOLDER / source).samefile(FOLDER / "redis.conf")
    assert mode == "ro"
    assert REDIS["command"] == ["redis-server", target]
    assert REDIS["user"] == "redis"


def test_redis_keeps_definitions_and_lets_vectors_go() -> None:
    assert CONF["maxmemory-policy"] == "volatile-lru"
    assert (CONF["appendonly"], CONF["appendfsync"]) == ("yes", "everysec")


def test_redis_has_room_to_rewrite_its_file() -> None:
    assert 2 * size(CONF["maxmemory"]) <= size(REDIS["mem_limit"])


def test_the_grace_period_covers_the_longest_request() -> None:
    grace = int(OPENVOCAB["stop_grace_period"].removesuffix("s"))
    assert grace > Settings.model_fields["request_timeout"].default


def test_images_have_a_tag_and_no_host() -> None:
    for service in (OPENVOCAB, REDIS, GPU["services"]["openvocab"]):
        assert re.fullmatch(r"[a-z]+:[a-z0-9]+(-[a-z]+)?", service["image"])
        assert not service["image"].endswith(":latest")


def test_the_images_are_targets_of_the_dockerfile() -> None:
    assert (FOLDER / OPENVOCAB["build"]["context"] / "Dockerfile").is_file()
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    for service in (OPENVOCAB, GPU["services"]["openvocab"]):
        assert f" AS {service['build']['target']}\n" in text
        assert service["image"] == f"openvocab:{service['build']['target']}"


def test_the_gpu_file_reserves_a_gpu_and_changes_nothing_that_protects() -> None:
    service = GPU["services"]["openvocab"]
    (device,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    assert set(service) == {"image", "build", "environment", "deploy", "mem_limit"}


def test_ray_has_every_gpu_of_the_machine_to_give_away() -> None:
    """Docker gives each container that reserves one GPU the first one, however many there are."""
    cluster = yaml.safe_load((FOLDER / "compose.cluster.yaml").read_text(encoding="utf-8"))
    resources = cluster["services"]["encoder"]["deploy"]["resources"]
    (device,) = resources["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    assert device["count"] == "all"
