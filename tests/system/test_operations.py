"""What docs/operations.md tells operators to do, done: on real servers and a real Redis."""

import contextlib
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest
from redis import Redis
from redis.exceptions import NoPermissionError

from benchmarks import report, servers
from benchmarks.servers import Server, redis_server, wait_until

GUIDE = report.OPERATIONS.read_text(encoding="utf-8")
# a store that answers late on a busy machine is not away
openvocab = partial(servers.openvocab, store_timeout=10)
SETTINGS = ("maxmemory", "maxmemory-policy", "appendonly", "appendfsync")


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Redis with the settings and the user of the guide."""
    with redis_server(tmp_path_factory.mktemp("redis")) as url, Redis.from_url(url) as admin:
        for name in SETTINGS:
            (value,) = re.findall(rf"^{name} (\S+)", GUIDE, re.MULTILINE)
            admin.config_set(name, value)
        (user,) = re.findall(r"^ *user (openvocab .*)$", GUIDE, re.MULTILINE)
        admin.execute_command("ACL", "SETUSER", *user.replace(">PASSWORD", ">secret").split())
        admin.set("somebody-elses", "1")
        yield url.replace("redis://", "redis://openvocab:secret@")


def answer(server: Server, picture: Path, **fields: str) -> dict[str, object]:
    response = server.client.post("/classify", files={"image": picture.read_bytes()}, data=fields)
    assert response.status_code == 200, response.text
    content: dict[str, object] = response.json()
    return content


def states(client: httpx.Client) -> set[str]:
    return {labelset["status"] for labelset in client.get("/labelsets").json()["labelsets"]}


def test_the_sizes_are_what_was_measured() -> None:
    assert report.filled(GUIDE) == GUIDE, "run python -m benchmarks.report"


def test_the_redis_user_may_do_what_is_needed_and_no_more(
    redis: str, samples: dict[str, Path], data_dir: Path
) -> None:
    with openvocab(redis, data_dir, rate_limit=1000) as server:
        body = {"labels": ["cat", "dog"]}
        put = server.client.put("/labelsets/pets?wait=true", json=body)
        assert put.status_code == 201, put.text + (data_dir / "server.log").read_text()
        assert answer(server, samples["cat"], labelset="pets")["labelset"] == "pets"
        assert server.client.get("/readyz").json()["status"] == "ready"
        assert len(server.client.get("/labelsets").json()["labelsets"]) == 1
        assert server.client.delete("/labelsets/pets").status_code == 204
        assert server.client.get("/readyz").json()["status"] == "ready"
        assert "NOPERM" not in (data_dir / "server.log").read_text()
    with Redis.from_url(redis) as user:
        for command in (
            ["GET", "somebody-elses"],
            ["FLUSHALL"],
            ["CONFIG", "GET", "*"],
            ["KEYS", "*"],
        ):
            with pytest.raises(NoPermissionError):
                user.execute_command(*command)


def test_a_backup_moves_label_sets_from_a_file_to_redis_with_the_lines_of_the_guide(
    redis: str, data_dir: Path
) -> None:
    export, restore = re.findall(r"^openvocab labelset (?:export|import) .*$", GUIDE, re.MULTILINE)
    with contextlib.ExitStack() as stack:
        old = stack.enter_context(openvocab("", data_dir))
        new = stack.enter_context(openvocab(redis, data_dir))
        rich = {"labels": {"cat": ["cat", "kitten"], "dog": []}, "prompts": {"dog": ["a dog"]}}
        old.client.put("/labelsets/pets", json=rich).raise_for_status()
        for line, server in ((export, old), (restore, new)):
            command = line.replace("http://localhost:8000", server.url).replace(
                "openvocab", f"{sys.executable} -P -c 'from app.__main__ import app; app()'", 1
            )
            subprocess.run(["bash", "-c", command], check=True, cwd=data_dir, timeout=300)
        keys = ("labels", "synonyms", "prompts", "templates")
        before, after = (server.client.get("/labelsets/pets").json() for server in (old, new))
        assert [before[key] for key in keys] == [after[key] for key in keys]


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="on Debian: apt-get install sqlite3")
def test_the_file_is_restored_with_the_lines_of_the_guide_also_beside_the_log_of_a_killed_server(
    data_dir: Path,
) -> None:
    backup, restore = re.findall(r"^sqlite3 openvocab.sqlite3 .*$", GUIDE, re.MULTILINE)

    def run(line: str) -> None:
        subprocess.run(["bash", "-c", line], check=True, cwd=data_dir, timeout=300)

    with openvocab("", data_dir) as server:
        server.client.put("/labelsets/pets", json={"labels": ["cat", "dog"]}).raise_for_status()
        run(backup)
        for name in ("pets", *(f"later-{number}" for number in range(30))):
            labels = [f"{name} {number}" for number in range(50)]
            server.client.put(f"/labelsets/{name}", json={"labels": labels}).raise_for_status()
        server.kill()
    assert (data_dir / "openvocab.sqlite3-wal").stat().st_size > 0
    run(restore)
    with openvocab("", data_dir) as server:
        (pets,) = server.client.get("/labelsets").json()["labelsets"]
        assert (pets["name"], pets["label_count"]) == ("pets", 2)
    with contextlib.closing(sqlite3.connect(data_dir / "openvocab.sqlite3")) as file:
        assert file.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_an_old_and_a_new_model_serve_side_by_side_on_one_store(
    redis: str, samples: dict[str, Path], other_model: str, data_dir: Path
) -> None:
    with contextlib.ExitStack() as stack:
        old = stack.enter_context(openvocab(redis, data_dir))
        body = {"labels": ["cat", "rocket"], "templates": "pictogram"}
        old.client.put("/labelsets/things?wait=true", json=body).raise_for_status()
        before = answer(old, samples["cat"], labelset="things")
        new = stack.enter_context(openvocab(redis, data_dir, model=other_model, precision="fp32"))
        wait_until(lambda: states(new.client) == {"ready"})
        by_new = answer(new, samples["cat"], labelset="things")
        assert by_new["model"] != before["model"]
        # each with the vectors of its own model: with the other's every cosine is near 0
        for prediction in (before, by_new, answer(old, samples["cat"], labelset="things")):
            best = prediction["predictions"][0]  # type: ignore[index]
            assert (best["label"], best["score"] > 0.9) == ("cat", True)
        # what is registered at either is known to both
        more = {"labels": ["dog", "key"], "templates": "pictogram"}
        new.client.put("/labelsets/more?wait=true", json=more).raise_for_status()
        best = answer(old, samples["key"], labelset="more")["predictions"][0]  # type: ignore[index]
        assert best["label"] == "key"
