"""Examples of label sets over HTTP: added, used, listed, removed, and still there afterwards."""

import asyncio
import base64
import contextlib
import hashlib
import io
import itertools
import json
import re
import sqlite3
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import redis
from PIL import Image, ImageEnhance

from app.api.middleware.keys import digest
from app.classify.bulk import Outcome
from app.errors import Invalid
from app.labelsets.definition import Definition, Entry, Example, from_body, new
from app.labelsets.examples import OFFERED, StoredPicture, checked_label, sorted_out
from app.labelsets.registry import GRACE, Sweeper
from app.stores.memory import MemoryPictures, MemoryStore
from app.stores.sqlite.store import SqliteStore
from benchmarks.servers import redis_server
from models.encoder import Encoder
from tests.conftest import alike

ROOT = Path(__file__).parents[2]

# words that say nothing of what the pictures show, so that only examples can tell
NAMES = {"alpha": "cat", "beta": "guitar", "gamma": "pizza"}
Serve = Callable[..., AbstractContextManager[httpx.Client]]
Pictures = dict[str, list[bytes]]


@pytest.fixture(scope="module")
def pictures(samples: dict[str, Path]) -> Pictures:
    """Four different files of each label: the sample mirrored, darker and smaller."""

    def variants(path: Path) -> Iterator[bytes]:
        picture = Image.open(path).convert("RGB")
        mirrored = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        darker = ImageEnhance.Brightness(picture).enhance(0.7)
        smaller = Image.new("RGB", picture.size, "white")
        size = (picture.width * 3 // 4, picture.height * 3 // 4)
        smaller.paste(picture.resize(size), (picture.width // 8, picture.height // 8))
        for variant in (picture, mirrored, darker, smaller):
            file = io.BytesIO()
            variant.save(file, "PNG")
            yield file.getvalue()

    return {label: list(variants(samples[sample])) for label, sample in NAMES.items()}


@pytest.fixture
def stored(pictogram: Encoder, serve: Serve, tmp_path: Path) -> Callable[..., Any]:
    """Servers that share a SQLite file, as worker processes do."""
    # a disk that is busy with other things answers late
    settings = {"store_url": "", "data_dir": tmp_path, "store_timeout": 60}
    return lambda **more: serve(pictogram, **settings, **more)


@pytest.fixture(scope="module")
def shared(pictogram: Encoder, serve: Serve) -> Iterator[httpx.Client]:
    """One server for all tests that leave its settings alone."""
    with serve(pictogram) as client:
        yield client


@pytest.fixture
def client(shared: httpx.Client) -> Iterator[httpx.Client]:
    """With the label set `own`, without examples."""
    register(shared)
    yield shared
    shared.delete("/labelsets/own")


def register(client: httpx.Client, labels: Any = tuple(NAMES)) -> httpx.Response:
    body = {"labels": list(labels), "templates": "none"}
    return client.put("/labelsets/own?wait=true", json=body)


def add(client: httpx.Client, label: str, *files: bytes, **headers: str) -> httpx.Response:
    images = [("image", (f"{n}.png", file)) for n, file in enumerate(files)]
    url = "/labelsets/own/examples?wait=true"
    return client.post(url, files=images, data={"label": label}, headers=headers)


def add_all(client: httpx.Client, pictures: Pictures) -> dict[str, Any]:
    for label, files in pictures.items():
        response = add(client, label, *files[:3])
        assert response.status_code == 200, response.text
    return dict(response.json())


def answers(client: httpx.Client, pictures: Pictures) -> list[str]:
    """What the pictures that are no examples are taken for."""
    answers = [
        client.post("/classify", files={"image": files[3]}, data={"labelset": "own"}).json()
        for files in pictures.values()
    ]
    return [answer["predictions"][0]["label"] for answer in answers]


def problem(response: httpx.Response, status: int, error_type: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    answer: dict[str, Any] = response.json()
    assert answer["error_type"] == error_type
    return answer


def test_examples_tell_what_words_do_not_and_removed_they_tell_nothing_any_more(
    client: httpx.Client, pictures: Pictures
) -> None:
    before = answers(client, pictures)
    assert before != list(NAMES)
    response = add_all(client, pictures)
    assert answers(client, pictures) == list(NAMES)
    assert response["examples"] == dict.fromkeys(NAMES, 3)
    blend = response["blend"]
    assert blend["weight"] > 0.3
    assert blend["tried"] == 9
    assert blend["blend"]["accuracy"] > blend["text"]["accuracy"]
    answer_ = client.get("/labelsets/own").json()
    assert (answer_["examples"], answer_["blend"]) == (response["examples"], blend)
    # other templates change the texts, and leave the pictures
    fields = {"labelset": "own", "templates": "a drawing of {}"}
    answer = client.post("/classify", files={"image": pictures["beta"][3]}, data=fields).json()
    assert answer["predictions"][0]["label"] == "beta"
    removed = client.delete("/labelsets/own/examples?wait=true").json()
    assert (removed["removed"], removed["examples"], removed["blend"]) == (9, {}, None)
    assert answers(client, pictures) == before


def test_the_lines_of_the_api_page_work_as_pasted(client: httpx.Client) -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8").partition("### Examples")[2]
    script = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)[0]
    script = script.replace("localhost:8000", f"127.0.0.1:{client.base_url.port}")
    script = script.replace("curl ", "curl -sS --fail-with-body ")
    completed = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=ROOT, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert completed.returncode == 0, completed.stdout + completed.stderr
    answers = [json.loads(line) for line in re.split(r"(?<=})\s*(?={)", completed.stdout)]
    assert answers[3]["examples"] == {"cat": 2, "dog": 2, "guitar": 2}
    assert answers[3]["blend"]["tried"] == 6
    assert len(answers[4]["examples"]) == 2
    assert answers[5]["predictions"][0]["label"] == "cat"
    assert (answers[6]["removed"], answers[7]["removed"]) == (2, 4)


def test_every_form_of_upload_adds_the_same(client: httpx.Client, pictures: Pictures) -> None:
    first, second, third, fourth = pictures["alpha"]
    url = "/labelsets/own/examples"
    coded = [base64.b64encode(file).decode() for file in (second, third)]
    uploads: list[dict[str, Any]] = [
        {"files": {"image": first}, "data": {"label": "alpha"}},
        {"content": first, "params": {"label": "alpha"}, "headers": {"Content-Type": "image/png"}},
        {"json": {"image": coded[0], "label": "alpha"}},
        {"json": {"images": [{"image": code, "label": "alpha"} for code in coded]}},
    ]
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        for label, file in (("alpha", fourth), ("beta", pictures["beta"][0])):
            entry = tarfile.TarInfo(f"{label}/1.png")
            entry.size = len(file)
            archive.addfile(entry, io.BytesIO(file))
    uploads.append({"content": tar.getvalue(), "headers": {"Content-Type": "application/x-tar"}})
    responses = [client.post(url, **upload) for upload in uploads]
    assert {response.status_code for response in responses} <= {200, 202}
    assert [(response.json()["added"], response.json()["unchanged"]) for response in responses] == [
        (1, 0), (0, 1), (1, 0), (1, 1), (2, 0),
    ]  # fmt: skip
    versions = [response.json()["version"] for response in responses]
    assert versions[0] == versions[1]  # nothing changed
    listed = client.get(f"{url}?label=alpha").json()["examples"]
    assert [example["id"] for example in listed] == [
        hashlib.sha256(file).hexdigest() for file in pictures["alpha"]
    ]


def test_what_cannot_be_added_says_why_and_changes_nothing(
    client: httpx.Client, pictures: Pictures
) -> None:
    first, second = pictures["alpha"][:2]
    add(client, "alpha", first)
    version = client.get("/labelsets/own").json()["version"]
    answer = problem(add(client, "alhpa", second), 422, "invalid")
    assert (answer["field"], "'alpha'" in answer["detail"]) == ("label", True)
    answer = problem(add(client, "beta", first), 409, "example_elsewhere")
    assert (answer["field"], answer["value"]) == ("label", "alpha")
    assert problem(add(client, "alpha", b"GIF89a"), 422, "damaged_image")["field"] == "image"
    assert problem(add(client, "alpha"), 400, "unparsable_body")
    url = "/labelsets/own/examples"
    assert problem(client.post(url, files={"image": second}), 422, "invalid")["field"] == "label"
    two_labels = {"label": ["alpha", "beta"]}
    problem(client.post(url, files={"image": second}, data=two_labels), 422, "invalid")
    problem(client.post(url, files={"image": second}, data={"lable": "beta"}), 422, "invalid")
    problem(
        client.post("/labelsets/none/examples", files={"image": second}), 404, "unknown_labelset"
    )
    assert client.get("/labelsets/own").json()["version"] == version
    # of several the good ones are taken
    result = add(client, "alpha", b"no image", second).json()
    assert (result["added"], result["failed"], result["errors"][0]["index"]) == (1, 1, 0)
    assert result["errors"][0]["error"]["error_type"] == "unsupported_image"


def test_limits_name_themselves(pictogram: Encoder, serve: Serve, pictures: Pictures) -> None:
    alpha, two, three = pictures["alpha"][:3]
    room = len(alpha) + len(two)
    cases = [
        ({"max_examples": 2}, "max_examples", 2, 3),
        ({"max_example_bytes": room}, "max_example_bytes", room, room + len(three)),
        ({"example_store_bytes": room}, "example_store_bytes", room, room + len(three)),
    ]
    for settings, name, limit, value in cases:
        with serve(pictogram, **settings) as client:
            register(client)
            assert add(client, "alpha", alpha, two).json()["added"] == 2
            answer = problem(add(client, "alpha", three), 413, "too_large")
            assert name in answer["detail"]
            assert (answer["field"], answer["limit"], answer["value"]) == ("image", limit, value)
            assert client.get("/labelsets/own").json()["examples"] == {"alpha": 2}
            # what is removed makes room
            first = hashlib.sha256(alpha).hexdigest()
            assert client.delete(f"/labelsets/own/examples/{first}").json()["removed"] == 1


def test_examples_are_listed_page_by_page_fetched_and_removed_one_by_one(
    client: httpx.Client, pictures: Pictures
) -> None:
    add_all(client, pictures)
    url: str | None = "/labelsets/own/examples?limit=4"
    examples: list[dict[str, Any]] = []
    while url is not None:
        page = client.get(url)
        examples += page.json()["examples"]
        url = page.links["next"]["url"] if "next" in page.links else None
    files = [(label, file) for label, files in pictures.items() for file in files[:3]]
    assert [(example["label"], example["bytes"]) for example in examples] == [
        (la, len(f)) for la, f in files
    ]
    picture = client.get(f"/labelsets/own/examples/{examples[4]['id']}")
    assert picture.content == files[4][1]
    assert picture.headers["content-type"] == "image/png"
    assert picture.headers["content-disposition"] == "attachment"
    example_url = f"/labelsets/own/examples/{examples[4]['id']}"
    etag = client.get("/labelsets/own").headers["etag"]
    problem(client.delete(example_url, headers={"If-Match": '"1"'}), 412, "precondition_failed")
    assert client.delete(example_url, headers={"If-Match": etag}).json()["examples"]["beta"] == 2
    problem(client.get(example_url), 404, "not_found")
    problem(client.delete(example_url), 404, "not_found")
    stale = add(client, "beta", files[4][1], **{"If-Match": etag})
    problem(stale, 412, "precondition_failed")
    answer = client.delete("/labelsets/own/examples?label=gamma").json()
    assert (answer["removed"], answer["examples"]) == (3, {"alpha": 3, "beta": 2})


def test_a_page_follows_one_whose_examples_were_deleted_meanwhile(
    client: httpx.Client, pictures: Pictures
) -> None:
    add_all(client, pictures)
    left = [example["id"] for example in client.get("/labelsets/own/examples").json()["examples"]]
    deleted = []
    page: str | None = ""
    while page is not None:
        answer = client.get("/labelsets/own/examples", params={"limit": 4, "after": page}).json()
        for example in answer["examples"]:
            deleted.append(example["id"])
            client.delete(f"/labelsets/own/examples/{example['id']}").raise_for_status()
        page = answer["next"]
    assert deleted == left
    assert client.get("/labelsets/own/examples").json() == {"examples": [], "next": None}


def test_examples_are_listed_as_they_came_also_where_the_clock_was_set_back(
    client: httpx.Client, pictures: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = itertools.count(2_000_000_000, -3_600)
    monkeypatch.setattr("app.labelsets.examples.time.time_ns", lambda: next(seconds) * 10**9)
    files = pictures["alpha"][:4]
    for together in (files[:2], files[2:3], files[3:]):
        assert add(client, "alpha", *together).json()["added"] == len(together)
    sent = [hashlib.sha256(file).hexdigest() for file in files]
    listed = client.get("/labelsets/own/examples").json()["examples"]
    assert [example["id"] for example in listed] == sent


def test_a_page_may_begin_behind_an_example_that_is_there(
    client: httpx.Client, pictures: Pictures
) -> None:
    add_all(client, pictures)
    url = "/labelsets/own/examples"
    ids = [example["id"] for example in client.get(url).json()["examples"]]
    behind = client.get(url, params={"after": ids[2], "limit": 2}).json()["examples"]
    assert [example["id"] for example in behind] == ids[3:5]
    # also where it is of another label
    gamma = client.get(url, params={"after": ids[2], "label": "gamma"}).json()["examples"]
    assert [example["id"] for example in gamma] == ids[6:]
    client.delete(f"{url}/{ids[2]}").raise_for_status()
    for gone in (ids[2], "nothing"):
        assert problem(client.get(url, params={"after": gone}), 404, "not_found")["field"] == (
            "after"
        )


def test_a_put_keeps_the_examples_of_labels_that_stay_and_a_delete_keeps_nothing(
    stored: Callable[..., Any], pictures: Pictures, tmp_path: Path
) -> None:
    def stored_count() -> int:
        return asyncio.run(count_pictures(tmp_path / "openvocab.sqlite3"))

    with stored() as client:
        register(client)
        add_all(client, pictures)
        version = client.get("/labelsets/own").json()["version"]
        assert register(client).json()["version"] == version  # a nightly PUT of the same
        assert register(client, ["beta", "gamma", "delta"]).json()["examples"] == {
            "beta": 3, "gamma": 3,
        }  # fmt: skip
        assert stored_count() == 6
        client.delete("/labelsets/own")
        assert stored_count() == 0
        assert register(client).json()["examples"] == {}


async def count_pictures(path: Path) -> int:
    store = SqliteStore(path, 60.0, 60, 0)
    await store.open()
    try:
        return len(await store.pictures.listed())
    finally:
        await store.close()


def test_another_worker_knows_examples_in_the_next_request_and_a_restart_loses_none(
    stored: Callable[..., Any], pictures: Pictures
) -> None:
    with stored() as first, stored() as second:
        register(first)
        assert answers(second, pictures) != list(NAMES)
        response = add_all(first, pictures)
        assert answers(second, pictures) == list(NAMES)
        assert second.get("/labelsets/own").json()["blend"] == alike(response["blend"])
        second.delete("/labelsets/own/examples")
        assert first.get("/labelsets/own").json()["examples"] == {}
        add_all(second, pictures)
    with stored() as again:
        assert answers(again, pictures) == list(NAMES)


def test_another_model_makes_the_vectors_of_stored_pictures_anew(
    pictogram: Encoder, plain_pictogram: Encoder, serve: Serve, pictures: Pictures, tmp_path: Path
) -> None:
    where: dict[str, Any] = {"store_url": "", "data_dir": tmp_path, "store_timeout": 60}
    with serve(pictogram, **where) as client:
        register(client)
        response = add_all(client, pictures)
    info = plain_pictogram.info
    changed = type(info)(**{**vars_of(info), "fingerprint": "another"})
    counts: list[int] = []
    submit = plain_pictogram.submit_images

    def noting(images: Any) -> Any:
        counts.append(len(images))
        return submit(images)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plain_pictogram, "info", changed)
        patch.setattr(plain_pictogram, "submit_images", noting)
        with serve(plain_pictogram, **where) as client:
            assert answers(client, pictures) == list(NAMES)
            assert sum(counts) >= 9 + 3  # the examples, and what was asked
            answer = client.get("/labelsets/own").json()
            assert (answer["examples"], answer["blend"]["lost"]) == (response["examples"], 0)


def vars_of(info: Any) -> dict[str, Any]:
    return {name: getattr(info, name) for name in info.__dataclass_fields__}


@pytest.mark.parametrize("damaged", [False, True])
def test_a_lost_or_damaged_picture_is_told_and_sent_again_it_counts_again(
    stored: Callable[..., Any], pictures: Pictures, tmp_path: Path, damaged: bool
) -> None:
    with stored(vector_store_bytes=0) as client:
        register(client)
        add_all(client, pictures)

    with contextlib.closing(sqlite3.connect(tmp_path / "openvocab.sqlite3")) as file:
        row, key, value = file.execute("SELECT id, key, value FROM pictures").fetchone()
        if damaged:
            value = value[:-1] + bytes([value[-1] ^ 1])
            file.execute("UPDATE pictures SET value = ? WHERE id = ?", (value, row))
        else:
            file.execute("DELETE FROM pictures WHERE id = ?", (row,))
        (body,) = file.execute("SELECT body FROM labelsets").fetchone()
        file.commit()
    (lost,) = (e.sha256 for e in from_body("own", 1, body).definition.examples if e.key == key)
    with stored(vector_store_bytes=0) as client:
        assert answers(client, pictures) == list(NAMES)
        assert client.get("/labelsets/own").json()["blend"]["lost"] == 1
        image = f"/labelsets/own/examples/{lost}"
        assert "has lost the picture" in problem(client.get(image), 404, "not_found")["detail"]
        assert add_all(client, pictures)["blend"]["lost"] == 0
        assert client.get(image).status_code == 200
        assert len(client.get("/labelsets/own/examples").json()["examples"]) == 9


def test_older_releases_read_what_has_no_examples_and_refuse_what_has() -> None:
    example = Example("ab", "a", 1, 2, 3, "0123456789ab00")
    plain = Definition((Entry("a", ("a",)),))
    few_shot = replace(plain, examples=(example,))
    for definition, previous, expected in (
        (plain, None, 1),
        (few_shot, None, 2),
        (plain, few_shot, 2),
        (plain, plain, 1),
    ):
        before = previous and replace(new("n", 1, previous), built=True)
        stored = new("n", 2, definition, before)
        body = stored.body()
        assert json.loads(body)["format"] == expected
        assert from_body("n", 2, body) == stored
    assert new("n", 1, plain).digest != new("n", 1, few_shot).digest
    newer = {name: value for name, value in json.loads(body).items() if name != "crc32"}
    with pytest.raises(ValueError, match="format 3"):
        from_body("n", 1, json.dumps(newer | {"format": 3}).encode())


def test_only_who_may_change_label_sets_may_see_their_pictures(
    pictogram: Encoder, serve: Serve, pictures: Pictures, tmp_path: Path
) -> None:
    keys = "".join(
        f'[keys.{name}]\nsha256 = "{digest(name)}"\nscopes = ["{scope}"]\nnamespace = "{space}"\n'
        for name, scope, space in (
            ("owner", "labelsets:write", "a"),
            ("reader", "classify", "a"),
            ("other", "labelsets:write", "b"),
        )
    )
    (tmp_path / "keys.toml").write_text(keys)
    with serve(pictogram, api_keys_file=tmp_path / "keys.toml") as client:

        def of(name: str) -> dict[str, str]:
            return {"Authorization": f"Bearer {name}"}

        client.headers.update(of("owner"))
        register(client)
        assert add(client, "alpha", pictures["alpha"][0]).status_code == 200
        url = "/labelsets/own/examples"
        id_ = client.get(url).json()["examples"][0]["id"]
        for path in (url, f"{url}/{id_}"):
            assert client.get(path).status_code == 200
            assert client.get(path, headers=of("reader")).status_code == 403
            assert client.get(path, headers=of("other")).status_code == 404
        assert client.get("/labelsets/own", headers=of("reader")).json()["examples"] == {"alpha": 1}


def test_pictures_that_nothing_names_are_swept_after_a_while_and_others_never(
    pictures: Pictures,
) -> None:
    async def test() -> None:
        store = MemoryStore()
        clock = 1_000.0
        # what a key says of its time counts for nothing: it was written by another machine's clock
        first, second = f"{0:012x}aa", f"{2**47:012x}aa"
        example_key, late = f"{0:012x}bb", f"{0:012x}cc"
        example = f'["", "a", 1, 1, 1, "{example_key}"]'
        body = (
            '{"format": 2, "built": true, "previous": null, "definition": {"entries": '
            f'[["a", ["a"], []]], "templates": null, "description": "", "examples": [{example}]}}}}'
        )
        await store.labelsets.write("kept", body.encode(), None, 10)
        await store.labelsets.write("newer", b'{"format": 3}', None, 10)
        await store.labelsets.write("gone", b"", None, 10)
        await store.labelsets.delete("gone", 1)
        for name in ("kept", "newer", "gone", "lost"):
            for key in (first, second, example_key):
                await store.pictures.put(name, key, b"1", 1_000)
        sweeper = Sweeper(store.labelsets, store.pictures, lambda: clock)
        assert await sweeper.sweep() == 0
        clock += GRACE - 1
        await store.pictures.put("kept", late, b"1", 1_000)
        assert await sweeper.sweep() == 0
        clock += 1
        assert await sweeper.sweep() == 5
        remaining = set(await store.pictures.listed())
        assert {("kept", example_key), ("kept", late)} <= remaining
        assert not [name for name, _ in remaining if name == "gone"]
        assert len(remaining) == 8
        # one that is named in time stays
        body = body.replace(example_key, late)
        await store.labelsets.write("kept", body.encode(), 1, 10)
        clock += 2 * GRACE
        assert await sweeper.sweep() == 0
        clock += GRACE
        assert await sweeper.sweep() == 1
        assert ("kept", late) in set(await store.pictures.listed())

    asyncio.run(test())


def test_an_upload_whose_pictures_left_the_store_meanwhile_is_refused_whole(
    client: httpx.Client, pictures: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def forgetful(self: MemoryPictures, name: str, keys: list[str]) -> list[str]:
        await self.delete(name, keys)  # as a sweep of hours later would
        return [key for key in keys if (name, key) not in set(await self.listed())]

    monkeypatch.setattr(MemoryPictures, "missing", forgetful)
    answer = problem(add(client, "alpha", pictures["alpha"][0]), 503, "store_unavailable")
    assert "send them again" in answer["detail"]
    assert client.get("/labelsets/own").json()["examples"] == {}
    monkeypatch.undo()
    assert add(client, "alpha", pictures["alpha"][0]).status_code == 200


def test_an_upload_that_others_were_faster_than_each_time_leaves_no_pictures(
    client: httpx.Client, pictures: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[int] = []
    delete = MemoryPictures.delete

    async def counting(self: MemoryPictures, name: str, keys: list[str]) -> None:
        left.append(len(await self.listed()))
        await delete(self, name, keys)
        left.append(len(await self.listed()))

    monkeypatch.setattr(MemoryPictures, "delete", counting)
    monkeypatch.setattr("app.labelsets.service.RACES", 0)
    answer = problem(add(client, "alpha", pictures["alpha"][0]), 503, "overloaded")
    assert answer["detail"] == "the label set own is being changed by others at the moment"
    assert left == [1, 0]


def test_with_redis_examples_survive_its_absence_and_a_restart(
    pictogram: Encoder, serve: Serve, pictures: Pictures, tmp_path: Path
) -> None:
    with redis_server(tmp_path) as url:
        port = int(url.rsplit(":", 1)[1].split("/")[0])
        with redis.Redis.from_url(url) as connection:
            # else Redis holds writes back while the disk is busy, and a kill loses them
            connection.config_set("appendfsync", "always")
        with serve(pictogram, store_url=url, store_timeout=60) as client:
            register(client)
            response = add_all(client, pictures)
    with serve(pictogram, store_url=url, store_timeout=60) as client:
        problem(add(client, "alpha", pictures["alpha"][3]), 503, "store_unavailable")
        with redis_server(tmp_path, port):
            assert patiently(lambda: answers(client, pictures) == list(NAMES))
            answer = client.get("/labelsets/own").json()
            assert answer["examples"] == response["examples"]
            assert answer["blend"] == alike(response["blend"])
        # gone again: what is known goes on, and nothing is promised
        assert answers(client, pictures) == list(NAMES)
        problem(add(client, "alpha", pictures["alpha"][3]), 503, "store_unavailable")


def patiently(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + 240
    while time.monotonic() < end:
        try:
            if condition():
                return True
        except KeyError:
            pass  # a problem, not predictions yet
        time.sleep(0.2)
    return False


def test_a_removal_that_is_not_understood_removes_nothing(
    client: httpx.Client, pictures: Pictures
) -> None:
    add_all(client, pictures)
    url = "/labelsets/own/examples"
    for query in ("?lable=alpha", "?label=alpha&label=beta", "?label=alpha&wait=true&wait=true"):
        problem(client.delete(url + query), 422, "invalid")
    for body in (
        {"content": b"label=alpha"},
        {"json": {"label": "alpha"}},
        {"content": iter([b"x"])},
    ):
        answer = problem(client.request("DELETE", url, **body), 422, "invalid")
        assert (answer["field"], "label" in answer["detail"]) == ("body", True)
    problem(client.delete("/labelsets/own?force=true"), 422, "invalid")
    assert client.get("/labelsets/own").json()["examples"] == dict.fromkeys(pictures, 3)
    # what says nothing is no body, and commands name their model in each request
    for body in ({"json": {}}, {"content": b""}, {"headers": {"Content-Length": "0"}}):
        removed = client.request("DELETE", f"{url}?label=alpha&model=pictogram", **body).json()
        assert removed["examples"] == {"beta": 3, "gamma": 3}
    assert client.get(f"{url}?model=pictogram").status_code == 200
    assert client.delete("/labelsets/own?model=pictogram").status_code == 204


def test_an_unknown_field_of_an_image_in_json_is_named(
    client: httpx.Client, pictures: Pictures
) -> None:
    first, second, third = (base64.b64encode(file).decode() for file in pictures["alpha"][:3])
    images = [
        {"image": first, "label": "alpha", "name": "1.png"},
        {"image": second, "label": "alpha", "nmae": "2.png"},
        {"image": third, "label": "alpha", "name": "3.png", "labels": ["alpha"]},
    ]
    answer = client.post("/labelsets/own/examples", json={"images": images}).json()
    assert (answer["added"], answer["failed"]) == (1, 2)
    errors = [
        (each["index"], each.get("name"), each["error"]["field"]) for each in answer["errors"]
    ]
    assert errors == [(1, None, "nmae"), (2, "3.png", "labels")]
    detail = answer["errors"][0]["error"]["detail"]
    assert (
        detail
        == "images[1] has the unknown field 'nmae'; the fields of an image are image, label, name"
    )


def test_near_labels_are_offered_where_they_are_few_enough_to_compare() -> None:
    with pytest.raises(Invalid, match="'guitra' is not a label in this label set; near are 'guit"):
        checked_label("guitra", ["cat", "guitar", "pizza"])
    # all of them are near, and to find that out of 10,000 takes minutes
    numbers = np.random.default_rng(1)
    known = ["".join(numbers.choice(["a", "b"], 199)) for _ in range(100)]
    with pytest.raises(Invalid, match=r"is not a label in this label set$"):
        checked_label(known.pop(), known)


def test_near_labels_are_offered_to_the_first_pictures_of_a_request_alone() -> None:
    definition = Definition((Entry("cat", ("cat",)), Entry("dog", ("dog",))))
    pictures = [Outcome(n, None, StoredPicture(f"{n}", 1, 1, 1, "")) for n in range(10)]
    kept, failed = sorted_out(pictures, lambda _: "cats", definition)
    details = [outcome.result.detail for outcome in failed if isinstance(outcome.result, Invalid)]
    assert (len(kept), len(details)) == (0, 10)
    assert ["near are 'cat'" in detail for detail in details] == [True] * OFFERED + [False] * 7
