"""Examples of label sets over HTTP: added, used, listed, removed, and still there afterwards."""

import asyncio
import base64
import hashlib
import io
import json
import re
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image, ImageEnhance

from app.api.middleware.keys import digest
from app.labelsets.definition import Definition, Entry, Example, from_body, new
from app.labelsets.registry import GRACE, Sweeper
from app.stores.memory import MemoryPictures, MemoryStore
from app.stores.sqlite.store import SqliteStore
from benchmarks.servers import redis_server
from models.encoder import Encoder

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
        for one in (picture, mirrored, darker, smaller):
            file = io.BytesIO()
            one.save(file, "PNG")
            yield file.getvalue()

    return {label: list(variants(samples[shown])) for label, shown in NAMES.items()}


@pytest.fixture
def stored(pictogram: Encoder, serve: Serve, tmp_path: Path) -> Callable[..., Any]:
    """Servers that share a SQLite file, as worker processes do."""
    return lambda **more: serve(pictogram, store_url="", data_dir=tmp_path, **more)


@pytest.fixture(scope="module")
def shared(pictogram: Encoder, serve: Serve) -> Iterator[httpx.Client]:
    """One server for all tests that leave its settings alone."""
    with serve(pictogram) as found:
        yield found


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


def add_all(client: httpx.Client, pictures: Pictures, count: int = 3) -> dict[str, Any]:
    for label, files in pictures.items():
        response = add(client, label, *files[:count])
        assert response.status_code == 200, response.text
    return dict(response.json())


def told(client: httpx.Client, pictures: Pictures) -> list[str]:
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
    before = told(client, pictures)
    assert before != list(NAMES)
    done = add_all(client, pictures)
    assert told(client, pictures) == list(NAMES)
    assert done["examples"] == dict.fromkeys(NAMES, 3)
    blend = done["blend"]
    assert blend["weight"] > 0.3
    assert blend["tried"] == 9
    assert blend["blend"]["accuracy"] > blend["text"]["accuracy"]
    found = client.get("/labelsets/own").json()
    assert (found["examples"], found["blend"]) == (done["examples"], blend)
    # other templates change the texts, and leave the pictures
    fields = {"labelset": "own", "templates": "a drawing of {}"}
    answer = client.post("/classify", files={"image": pictures["beta"][3]}, data=fields).json()
    assert answer["predictions"][0]["label"] == "beta"
    removed = client.delete("/labelsets/own/examples?wait=true").json()
    assert (removed["removed"], removed["examples"], removed["blend"]) == (9, {}, None)
    assert told(client, pictures) == before


def test_the_lines_of_the_api_page_work_as_pasted(client: httpx.Client) -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8").partition("### Examples")[2]
    script = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)[0]
    script = script.replace("localhost:8000", f"127.0.0.1:{client.base_url.port}")
    script = script.replace("curl ", "curl -sS --fail-with-body ")
    completed = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert completed.returncode == 0, completed.stdout + completed.stderr
    answers = [json.loads(line) for line in re.split(r"(?<=})\s*(?={)", completed.stdout)]
    assert answers[3]["examples"] == {"cat": 2, "dog": 2, "guitar": 2}
    assert answers[3]["blend"]["tried"] == 6
    assert len(answers[4]["examples"]) == 2
    assert answers[5]["predictions"][0]["label"] == "cat"
    assert (answers[6]["removed"], answers[7]["removed"]) == (2, 4)


def test_every_form_of_upload_adds_the_same(client: httpx.Client, pictures: Pictures) -> None:
    one, two, three, four = pictures["alpha"]
    url = "/labelsets/own/examples"
    coded = [base64.b64encode(file).decode() for file in (two, three)]
    uploads: list[dict[str, Any]] = [
        {"files": {"image": one}, "data": {"label": "alpha"}},
        {"content": one, "params": {"label": "alpha"}, "headers": {"Content-Type": "image/png"}},
        {"json": {"image": coded[0], "label": "alpha"}},
        {"json": {"images": [{"image": code, "label": "alpha"} for code in coded]}},
    ]
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        for label, file in (("alpha", four), ("beta", pictures["beta"][0])):
            entry = tarfile.TarInfo(f"{label}/1.png")
            entry.size = len(file)
            archive.addfile(entry, io.BytesIO(file))
    uploads.append({"content": tar.getvalue(), "headers": {"Content-Type": "application/x-tar"}})
    done = [client.post(url, **upload) for upload in uploads]
    assert {response.status_code for response in done} <= {200, 202}
    assert [(response.json()["added"], response.json()["unchanged"]) for response in done] == [
        (1, 0), (0, 1), (1, 0), (1, 1), (2, 0),
    ]  # fmt: skip
    versions = [response.json()["version"] for response in done]
    assert versions[0] == versions[1]  # nothing changed
    listed = client.get(f"{url}?label=alpha").json()["examples"]
    assert [one["id"] for one in listed] == [
        hashlib.sha256(file).hexdigest() for file in pictures["alpha"]
    ]


def test_what_cannot_be_added_says_why_and_changes_nothing(
    client: httpx.Client, pictures: Pictures
) -> None:
    one, two = pictures["alpha"][:2]
    add(client, "alpha", one)
    version = client.get("/labelsets/own").json()["version"]
    answer = problem(add(client, "alhpa", two), 422, "invalid")
    assert (answer["field"], "'alpha'" in answer["detail"]) == ("label", True)
    answer = problem(add(client, "beta", one), 409, "example_elsewhere")
    assert (answer["field"], answer["value"]) == ("label", "alpha")
    assert problem(add(client, "alpha", b"GIF89a"), 422, "damaged_image")["field"] == "image"
    assert problem(add(client, "alpha"), 400, "unparsable_body")
    url = "/labelsets/own/examples"
    assert problem(client.post(url, files={"image": two}), 422, "invalid")["field"] == "label"
    two_labels = {"label": ["alpha", "beta"]}
    problem(client.post(url, files={"image": two}, data=two_labels), 422, "invalid")
    problem(client.post(url, files={"image": two}, data={"lable": "beta"}), 422, "invalid")
    problem(client.post("/labelsets/none/examples", files={"image": two}), 404, "unknown_labelset")
    assert client.get("/labelsets/own").json()["version"] == version
    # of several the good ones are taken
    done = add(client, "alpha", b"no image", two).json()
    assert (done["added"], done["failed"], done["errors"][0]["index"]) == (1, 1, 0)
    assert done["errors"][0]["error"]["error_type"] == "unsupported_image"


def test_limits_name_themselves(pictogram: Encoder, serve: Serve, pictures: Pictures) -> None:
    one, two, three = pictures["alpha"][:3]
    room = len(one) + len(two)
    cases = [
        ({"max_examples": 2}, "max_examples", 2, 3),
        ({"max_example_bytes": room}, "max_example_bytes", room, room + len(three)),
        ({"example_store_bytes": room}, "example_store_bytes", room, room + len(three)),
    ]
    for settings, name, limit, value in cases:
        with serve(pictogram, **settings) as client:
            register(client)
            assert add(client, "alpha", one, two).json()["added"] == 2
            answer = problem(add(client, "alpha", three), 413, "too_large")
            assert name in answer["detail"]
            assert (answer["field"], answer["limit"], answer["value"]) == ("image", limit, value)
            assert client.get("/labelsets/own").json()["examples"] == {"alpha": 2}
            # what is removed makes room
            first = hashlib.sha256(one).hexdigest()
            assert client.delete(f"/labelsets/own/examples/{first}").json()["removed"] == 1


def test_examples_are_listed_page_by_page_fetched_and_removed_one_by_one(
    client: httpx.Client, pictures: Pictures
) -> None:
    add_all(client, pictures)
    url: str | None = "/labelsets/own/examples?limit=4"
    found: list[dict[str, Any]] = []
    while url is not None:
        page = client.get(url)
        found += page.json()["examples"]
        url = page.links["next"]["url"] if "next" in page.links else None
    sent = [(label, file) for label, files in pictures.items() for file in files[:3]]
    assert [(one["label"], one["bytes"]) for one in found] == [(la, len(f)) for la, f in sent]
    picture = client.get(f"/labelsets/own/examples/{found[4]['id']}")
    assert picture.content == sent[4][1]
    assert picture.headers["content-type"] == "image/png"
    assert picture.headers["content-disposition"] == "attachment"
    gone = f"/labelsets/own/examples/{found[4]['id']}"
    etag = client.get("/labelsets/own").headers["etag"]
    problem(client.delete(gone, headers={"If-Match": '"1"'}), 412, "precondition_failed")
    assert client.delete(gone, headers={"If-Match": etag}).json()["examples"]["beta"] == 2
    problem(client.get(gone), 404, "not_found")
    problem(client.delete(gone), 404, "not_found")
    stale = add(client, "beta", sent[4][1], **{"If-Match": etag})
    problem(stale, 412, "precondition_failed")
    left = client.delete("/labelsets/own/examples?label=gamma").json()
    assert (left["removed"], left["examples"]) == (3, {"alpha": 3, "beta": 2})


def test_a_put_keeps_the_examples_of_labels_that_stay_and_a_delete_keeps_nothing(
    stored: Callable[..., Any], pictures: Pictures, tmp_path: Path
) -> None:
    def kept() -> int:
        return asyncio.run(count_pictures(tmp_path / "openvocab.sqlite3"))

    with stored() as client:
        register(client)
        add_all(client, pictures)
        version = client.get("/labelsets/own").json()["version"]
        assert register(client).json()["version"] == version  # a nightly PUT of the same
        assert register(client, ["beta", "gamma", "delta"]).json()["examples"] == {
            "beta": 3, "gamma": 3,
        }  # fmt: skip
        assert kept() == 6
        client.delete("/labelsets/own")
        assert kept() == 0
        assert register(client).json()["examples"] == {}


async def count_pictures(path: Path) -> int:
    store = SqliteStore(path, 5.0, 60, 0)
    await store.open()
    try:
        return len(await store.pictures.listed())
    finally:
        await store.close()


def test_another_worker_knows_examples_in_the_next_request_and_a_restart_loses_none(
    stored: Callable[..., Any], pictures: Pictures
) -> None:
    with stored() as one, stored() as other:
        register(one)
        assert told(other, pictures) != list(NAMES)
        done = add_all(one, pictures)
        assert told(other, pictures) == list(NAMES)
        assert other.get("/labelsets/own").json()["blend"] == done["blend"]
        other.delete("/labelsets/own/examples")
        assert one.get("/labelsets/own").json()["examples"] == {}
        add_all(other, pictures)
    with stored() as again:
        assert told(again, pictures) == list(NAMES)


def test_another_model_makes_the_vectors_of_stored_pictures_anew(
    pictogram: Encoder, plain_pictogram: Encoder, serve: Serve, pictures: Pictures, tmp_path: Path
) -> None:
    where: dict[str, Any] = {"store_url": "", "data_dir": tmp_path}
    with serve(pictogram, **where) as client:
        register(client)
        done = add_all(client, pictures)
    info = plain_pictogram.info
    changed = type(info)(**{**vars_of(info), "fingerprint": "another"})
    seen: list[int] = []
    submit = plain_pictogram.submit_images

    def noting(images: Any) -> Any:
        seen.append(len(images))
        return submit(images)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plain_pictogram, "info", changed)
        patch.setattr(plain_pictogram, "submit_images", noting)
        with serve(plain_pictogram, **where) as client:
            assert told(client, pictures) == list(NAMES)
            assert sum(seen) >= 9 + 3  # the examples, and what was asked
            found = client.get("/labelsets/own").json()
            assert (found["examples"], found["blend"]["lost"]) == (done["examples"], 0)


def vars_of(info: Any) -> dict[str, Any]:
    return {name: getattr(info, name) for name in info.__dataclass_fields__}


def test_a_lost_picture_is_told_and_sent_again_it_counts_again(
    stored: Callable[..., Any], pictures: Pictures, tmp_path: Path
) -> None:
    path = tmp_path / "openvocab.sqlite3"
    with stored(vector_store_bytes=0) as client:
        register(client)
        add_all(client, pictures)

    async def lose() -> None:
        store = SqliteStore(path, 5.0, 60, 0)
        await store.open()
        name, key = sorted(await store.pictures.listed())[0]
        await store.pictures.delete(name, [key])
        await store.close()

    asyncio.run(lose())
    with stored(vector_store_bytes=0) as client:
        assert told(client, pictures) == list(NAMES)
        assert client.get("/labelsets/own").json()["blend"]["lost"] == 1
        assert add_all(client, pictures)["blend"]["lost"] == 0
        assert len(client.get("/labelsets/own/examples").json()["examples"]) == 9


def test_older_releases_read_what_has_no_examples_and_refuse_what_has() -> None:
    example = Example("ab", "a", 1, 2, 3, "0123456789ab00")
    plain = Definition((Entry("a", ("a",)),))
    few_shot = replace(plain, examples=(example,))
    for definition, previous, wanted in (
        (plain, None, 1),
        (few_shot, None, 2),
        (plain, few_shot, 2),
        (plain, plain, 1),
    ):
        before = previous and replace(new("n", 1, previous), built=True)
        stored = new("n", 2, definition, before)
        body = stored.body()
        assert json.loads(body)["format"] == wanted
        assert from_body("n", 2, body) == stored
    assert new("n", 1, plain).digest != new("n", 1, few_shot).digest
    with pytest.raises(ValueError, match="format 3"):
        from_body("n", 1, body.replace(b'"format": 1', b'"format": 3'))


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
        named, late = f"{0:012x}bb", f"{0:012x}cc"
        example = f'["", "a", 1, 1, 1, "{named}"]'
        body = (
            '{"format": 2, "built": true, "previous": null, "definition": {"entries": '
            f'[["a", ["a"], []]], "templates": null, "description": "", "examples": [{example}]}}}}'
        )
        await store.labelsets.write("kept", body.encode(), None, 10)
        await store.labelsets.write("newer", b'{"format": 3}', None, 10)
        await store.labelsets.write("gone", b"", None, 10)
        await store.labelsets.delete("gone", 1)
        for name in ("kept", "newer", "gone", "lost"):
            for key in (first, second, named):
                await store.pictures.put(name, key, b"1", 1_000)
        sweeper = Sweeper(store.labelsets, store.pictures, lambda: clock)
        assert await sweeper.sweep() == 0
        clock += GRACE - 1
        await store.pictures.put("kept", late, b"1", 1_000)
        assert await sweeper.sweep() == 0
        clock += 1
        assert await sweeper.sweep() == 5
        left = set(await store.pictures.listed())
        assert {("kept", named), ("kept", late)} <= left
        assert not [name for name, _ in left if name == "gone"]
        assert len(left) == 8
        # one that is named in time stays
        body = body.replace(named, late)
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


def test_with_redis_examples_survive_its_absence_and_a_restart(
    pictogram: Encoder, serve: Serve, pictures: Pictures, tmp_path: Path
) -> None:
    with redis_server(tmp_path) as url:
        port = int(url.rsplit(":", 1)[1].split("/")[0])
        with serve(pictogram, store_url=url, store_timeout=2) as client:
            register(client)
            done = add_all(client, pictures)
    with serve(pictogram, store_url=url, store_timeout=2) as client:
        problem(add(client, "alpha", pictures["alpha"][3]), 503, "store_unavailable")
        with redis_server(tmp_path, port):
            assert patiently(lambda: told(client, pictures) == list(NAMES))
            found = client.get("/labelsets/own").json()
            assert (found["examples"], found["blend"]) == (done["examples"], done["blend"])
        # gone again: what is known goes on, and nothing is promised
        assert told(client, pictures) == list(NAMES)
        problem(add(client, "alpha", pictures["alpha"][3]), 503, "store_unavailable")


def patiently(done: Callable[[], bool]) -> bool:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            if done():
                return True
        except KeyError:
            pass  # a problem, not predictions yet
        time.sleep(0.2)
    return False
