"""The playground's files as they are sent."""

import re
from pathlib import Path

import httpx
import pytest

from app.api.playground import FOLDER, SAMPLES, assets, samples

PARTS = sorted(name for name in assets() if name != "index.html")


def test_the_page_is_at_the_root_and_brings_its_own_policy(client: httpx.Client) -> None:
    answer = client.get("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("name", PARTS)
def test_each_file_is_sent_once_and_then_only_asked_about(client: httpx.Client, name: str) -> None:
    first = client.get(f"/page/{name}")
    if name == SAMPLES:
        pictures = {path.name for path in (FOLDER / "samples").iterdir()} - {"ATTRIBUTION.md"}
        assert set(first.json()) == pictures
    else:
        assert first.content == (FOLDER / name).read_bytes()
    assert first.headers["cache-control"] == "no-cache"
    again = client.get(
        f"/page/{name}", headers={"If-None-Match": f'"x", W/{first.headers["etag"]}'}
    )
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    assert client.get(f"/page/{name}", headers={"If-None-Match": '"other"'}).status_code == 200


def test_a_head_has_no_body(client: httpx.Client) -> None:
    answer = client.head("/")
    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize(
    "path", ["/page/", "/page/gone.js", "/page/../gate.py", "/page/%2e%2e/gate.py", "/page/samples"]
)
def test_what_is_no_file_of_the_page_does_not_exist(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("name", ["index.html", "reference.html"])
def test_nothing_on_the_page_is_inline_or_from_elsewhere(name: str) -> None:
    page = (FOLDER / name).read_text()
    assert not re.search(r"\sstyle=|\son\w+=|<style|<script(?![^>]*\ssrc=)", page)
    loaded = re.findall(r'(?:src|href)="([^"]*)"', page)
    elsewhere = [address for address in loaded if re.match(r"(?:[a-z]+:)?//|/", address)]
    assert elsewhere == []


def test_the_samples_are_small_and_name_their_authors() -> None:
    pictures = [FOLDER / "samples" / name for name in samples()]
    assert sum(picture.stat().st_size for picture in pictures) < 400_000
    # a sample is known by its name, whatever its format
    assert len({picture.stem for picture in pictures}) == len(pictures)
    attribution = (FOLDER / "samples" / "ATTRIBUTION.md").read_text()
    assert all(f"`{picture.name}`" in attribution for picture in pictures)


def test_no_script_makes_markup_from_texts() -> None:
    sinks = re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|Function\("
    )
    for script in Path(FOLDER).glob("*.js"):
        assert not sinks.search(script.read_text()), script.name
