"""Behind a real nginx that keeps its connections: none closes under a request."""

import base64
import io
import json
import re
import zipfile
from pathlib import Path

import httpx
import pytest

from app.server.settings import Settings
from benchmarks.reliability.proxied import nginx, nginx_program, passed
from benchmarks.servers import openvocab

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(nginx_program() is None, reason="needs nginx")
def test_a_proxy_that_keeps_connections_for_less_time_never_meets_a_closed_one(
    data_dir: Path,
) -> None:
    # idle for as long as the proxy keeps a connection, give or take, and less than the server does
    found = passed(data_dir, keep_alive=15, proxy=1, every=1, count=8)
    assert found.statuses == {200: 8}, (data_dir / "error.log").read_text()


@pytest.mark.skipif(nginx_program() is None, reason="needs nginx")
def test_large_batches_come_through_an_nginx_that_is_configured_as_the_guide_says(
    data_dir: Path,
) -> None:
    guide = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```nginx\n(.*?)```", guide, re.DOTALL)
    cat = (ROOT / "tests" / "samples" / "cat.png").read_bytes()
    # more than connections hold on their way: the last ones are sent when the first are answered
    names = [f"{number}.png" for number in range(40)]
    files = [("image", (name, cat + bytes(500_000) + name.encode())) for name in names]
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as writer:
        for _, (name, data) in files:
            writer.writestr(name, data)
    with (
        openvocab("memory://", data_dir) as server,
        nginx(server.url.removeprefix("http://"), data_dir, block) as url,
    ):
        headers = {"Accept": "application/x-ndjson"}
        address = f"{url}/classify/batch?labels=cat,dog&top_k=1"
        for sent in ({"files": files}, {"content": archive.getvalue()}):
            response = httpx.post(address, headers=headers, timeout=120, **sent)
            lines = [json.loads(line) for line in response.text.splitlines()]
            assert [line.get("error") for line in lines] == [None] * len(names)
            best = {line["result"]["predictions"][0]["label"] for line in lines}
            assert (best, len({line["index"] for line in lines})) == ({"cat"}, len(names))
        largest = cat + bytes(Settings.model_fields["max_image_bytes"].default - len(cat))
        for sent in (
            {"files": {"image": largest}, "data": {"labels": "cat,dog"}},
            {"json": {"image": base64.b64encode(largest).decode(), "labels": ["cat", "dog"]}},
        ):
            response = httpx.post(f"{url}/classify", timeout=120, **sent)
            assert response.status_code == 200, response.text
