"""POST /classify/batch: forms, archives and JSON, streamed and whole, bounded and fair."""

import asyncio
import base64
import csv
import io
import json
import socket
import tarfile
import threading
import time
import zipfile
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.api import batch
from app.classify.bulk import WAITING_BYTES, WINDOW, WINDOW_BYTES, Item, outcomes
from app.errors import Invalid, Overloaded
from models.encoder import Encoder

LABELS = "cat,dog,pizza,rocket,banana"
NAMES = ("cat", "dog", "pizza", "rocket", "banana")


@pytest.fixture(scope="module")
def pictures(samples: dict[str, Path]) -> dict[str, bytes]:
    return {f"{name}{samples[name].suffix}": samples[name].read_bytes() for name in NAMES}


def best(line: dict[str, Any]) -> str:
    label: str = line["result"]["predictions"][0]["label"]
    return label


def form(client: httpx.Client, files: list[tuple[str, bytes]], **fields: Any) -> httpx.Response:
    parts = [("image", (name, data)) for name, data in files]
    return client.post("/classify/batch", data={"labels": LABELS}, files=parts, **fields)


def zipped(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def tarred(files: dict[str, bytes], mode: str = "w:gz") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def test_a_form_of_images_is_answered_in_its_order(
    client: httpx.Client, pictures: dict[str, bytes]
) -> None:
    answer = form(client, list(pictures.items())).json()
    assert (answer["count"], answer["failed"]) == (5, 0)
    assert [(line["index"], line["name"]) for line in answer["results"]] == list(
        enumerate(pictures)
    )
    assert [best(line) for line in answer["results"]] == list(NAMES)
    alone = client.post(
        "/classify", files={"image": pictures["cat.png"]}, data={"labels": LABELS}
    ).json()
    together = answer["results"][0]["result"]
    assert together["image"]["sha256"] == alone["image"]["sha256"]
    assert together["predictions"][0]["score"] == pytest.approx(
        alone["predictions"][0]["score"], abs=1e-4
    )


@pytest.mark.parametrize(
    "pack", [zipped, tarred, lambda f: tarred(f, "w"), lambda f: tarred(f, "w:xz")]
)
def test_an_archive_is_a_batch(
    client: httpx.Client, pictures: dict[str, bytes], pack: Callable[[dict[str, bytes]], bytes]
) -> None:
    aside = {"__MACOSX/x.png": b"x", "folder/._cat.png": b"x"}
    folder = {f"folder/{name}": data for name, data in pictures.items()}
    answer = client.post(f"/classify/batch?labels={LABELS}", content=pack({**aside, **folder}))
    assert answer.status_code == 200, answer.text
    results = answer.json()["results"]
    assert [line["name"] for line in results] == list(folder)
    assert [best(line) for line in results] == list(NAMES)


def test_json_carries_images_with_or_without_names(
    client: httpx.Client, pictures: dict[str, bytes]
) -> None:
    cat, dog = (base64.b64encode(pictures[f"{n}.png"]).decode() for n in ("cat", "dog"))
    body = {"images": [cat, {"name": "my dog", "image": dog}, "%%%", 7], "labels": list(NAMES)}
    answer = client.post("/classify/batch", json=body).json()
    assert (answer["count"], answer["failed"]) == (4, 2)
    first, second, third, fourth = answer["results"]
    assert (best(first), best(second), second["name"]) == ("cat", "dog", "my dog")
    assert (third["error"]["status"], fourth["error"]["field"]) == (422, "images")


def test_an_unknown_field_of_an_image_in_json_fails_that_image(
    client: httpx.Client, pictures: dict[str, bytes]
) -> None:
    cat = base64.b64encode(pictures["cat.png"]).decode()
    images = [cat, {"image": cat, "name": "a", "labels": ["x"]}, {"image": cat, "nmae": "b"}]
    answer = client.post(
        "/classify/batch", json={"images": images, "labels": ["cat", "dog"]}
    ).json()
    assert (answer["count"], answer["failed"]) == (3, 2)
    first, second, third = answer["results"]
    assert (best(first), second["name"], second["error"]["field"]) == ("cat", "a", "labels")
    assert third["error"]["detail"] == (
        "images[2] has the unknown field 'nmae'; the fields of an image are image, name"
    )


def test_one_bad_image_fails_alone(client: httpx.Client, pictures: dict[str, bytes]) -> None:
    files = [("a.png", pictures["cat.png"]), ("b.txt", b"no image"), ("c.png", b""),
             ("d.png", pictures["cat.png"][:2000]), ("e.png", pictures["dog.png"])]  # fmt: skip
    answer = form(client, files).json()
    assert answer["failed"] == 3
    kinds = [line.get("error", {}).get("error_type", "") for line in answer["results"]]
    assert kinds == ["", "unsupported_image", "invalid", "damaged_image", ""]


def test_lines_come_as_images_are_done_while_others_are_still_being_sent(
    client: httpx.Client, pictures: dict[str, bytes]
) -> None:
    rest = threading.Event()
    boundary = b"XXXX"

    def body() -> Iterator[bytes]:
        yield b"--XXXX\r\nContent-Disposition: form-data; name=labels\r\n\r\n" + LABELS.encode()
        for number, data in enumerate(pictures.values()):
            head = f'Content-Disposition: form-data; name=image; filename="{number}.png"'
            yield b"\r\n--XXXX\r\n" + head.encode() + b"\r\n\r\n" + data
            if number == 1:
                yield b"\r\n--XXXX\r\nContent-Disposition: form-data; name=image; filename=x"
                assert rest.wait(120), "no line came before the end of the body"
                yield b"\r\n\r\n"
        yield b"\r\n--XXXX--\r\n"

    # a client that reads while it sends, as curl does
    host, port = client.base_url.host, client.base_url.port
    with socket.create_connection((host, port or 80), timeout=120) as sock:
        sock.sendall(
            b"POST /classify/batch HTTP/1.1\r\nHost: x\r\nAccept: application/x-ndjson\r\n"
            b"Content-Type: multipart/form-data; boundary=" + boundary + b"\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )

        def send() -> None:
            for chunk in body():
                sock.sendall(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            sock.sendall(b"0\r\n\r\n")

        sender = threading.Thread(target=send)
        sender.start()
        received = b""
        while b'"index":0' not in received or b'"index":1' not in received:
            received += sock.recv(65536)
        rest.set()
        while b"\r\n0\r\n\r\n" not in received:
            received += sock.recv(65536)
        sender.join()
    lines = [json.loads(part) for part in received.split(b"\r\n") if part.startswith(b"{")]
    assert all("index" in line for line in lines), lines
    assert sorted(line["index"] for line in lines) == list(range(6))


def test_lines_wait_for_the_end_of_a_body_of_known_length_up_to_a_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def lines() -> AsyncGenerator[bytes, None]:
        for line in (b"a\n", b"b\n", b"c\n", b"d\n"):
            yield line

    async def sent(*arrived: bool) -> list[bytes]:
        answers = iter(arrived)
        return [part async for part in batch._after_body(lines(), lambda: next(answers))]

    assert asyncio.run(sent(True, True, True, True)) == [b"a\n", b"b\n", b"c\n", b"d\n"]
    assert asyncio.run(sent(False, False, True, True)) == [b"a\nb\nc\n", b"d\n"]
    assert asyncio.run(sent(False, False, False, False)) == [b"a\nb\nc\nd\n"]
    monkeypatch.setattr(batch, "LARGEST_WHOLE", 4)
    assert asyncio.run(sent(False, False, False, False)) == [b"a\nb\nc\n", b"d\n"]


def test_ndjson_has_each_image_once_with_its_index(
    client: httpx.Client, pictures: dict[str, bytes]
) -> None:
    files = list(pictures.items()) * 8
    answer = form(client, files, headers={"Accept": "application/x-ndjson"})
    assert answer.headers["content-type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert sorted(line["index"] for line in lines) == list(range(40))
    assert all(best(line) == NAMES[line["index"] % 5] for line in lines)
    for accept, kind in {
        "Application/X-NDJSON": "application/x-ndjson",
        "application/x-ndjson;q=0": "application/json",
        "application/x-ndjson;q=0.1, text/csv": "text/csv; charset=utf-8",
    }.items():
        answer = form(client, files[:1], headers={"Accept": accept})
        assert answer.headers["content-type"] == kind


@pytest.mark.parametrize(
    ("content", "kind", "status", "field"),
    [
        (b"", "application/zip", 400, None),
        (b"PK\x03\x04 is no archive", "application/zip", 400, None),
        (b"\x1f\x8b\x08 neither", "application/gzip", 400, None),
        (b"{}", "application/json", 422, "images"),
        (b'{"images": []}', "application/json", 422, "images"),
        (b"[]", "application/json", 400, None),
        (b"--B\r\n", "multipart/form-data; boundary=B", 400, None),
        (b"x", "multipart/form-data", 400, None),
        (b"--B--\r\n", "multipart/form-data; boundary=B", 422, "image"),
    ],
)
def test_a_body_that_is_no_batch_is_refused(
    client: httpx.Client, content: bytes, kind: str, status: int, field: str | None
) -> None:
    answer = client.post(
        "/classify/batch?labels=cat,dog", content=content, headers={"Content-Type": kind}
    )
    assert answer.status_code == status, answer.text
    assert answer.json().get("field") == field


def test_what_is_asked_is_checked_before_any_image_is_read(
    client: httpx.Client, pictures: dict[str, bytes]
) -> None:
    body = zipped(pictures)
    statuses = {"labels=cat": 422, "labelset=none": 404, "labels=a,b&templates=x": 404}
    for query, status in (statuses | {"labels=a,b&colour=red": 422}).items():
        for accept in ("application/json", "application/x-ndjson"):
            answer = client.post(
                f"/classify/batch?{query}", content=body, headers={"Accept": accept}
            )
            assert answer.status_code == status, answer.text


def test_fields_after_an_image_and_files_of_other_names_are_refused(client: httpx.Client) -> None:
    head = b'--B\r\nContent-Disposition: form-data; name="labels"\r\n\r\ncat,dog\r\n'
    image = b'--B\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\nx\r\n'
    other = image.replace(b'"image"', b'"other"')
    late = b'--B\r\nContent-Disposition: form-data; name="top_k"\r\n\r\n1\r\n'
    for parts, field in ((head + image + late, "top_k"), (head + other, "other")):
        answer = client.post(
            "/classify/batch", content=parts + b"--B--\r\n",
            headers={"Content-Type": "multipart/form-data; boundary=B"},
        )  # fmt: skip
        assert (answer.status_code, answer.json()["field"]) == (422, field), answer.text


def test_limits_of_a_batch_are_named(
    pictogram: Encoder, serve: Callable[..., Any], pictures: dict[str, bytes]
) -> None:
    with serve(
        pictogram, max_upload_images=3, max_image_bytes=20_000, max_upload_bytes=400_000
    ) as c:
        many = form(c, list(pictures.items()))
        assert (many.status_code, many.json()["limit"]) == (413, 3)
        streamed = form(c, list(pictures.items()), headers={"Accept": "application/x-ndjson"})
        lines = [json.loads(line) for line in streamed.text.splitlines()]
        assert [line.get("index") for line in lines].count(None) == 1
        assert lines[-1]["error"]["limit"] == 3

        large = {"a.png": pictures["cat.png"], "large": bytes(30_000)}
        url = f"/classify/batch?labels={LABELS}"
        requests = [form(c, list(large.items()))]
        requests += [c.post(url, content=pack(large)) for pack in (zipped, tarred)]
        for answer in requests:
            good, bad = answer.json()["results"]
            assert best(good) == "cat"
            assert (bad["error"]["status"], bad["error"]["limit"]) == (413, 20_000)

        bomb = tarred({"zeros": bytes(10_000_000)})
        refused = c.post(f"/classify/batch?labels={LABELS}", content=bomb)
        assert (refused.status_code, refused.json()["field"]) == (413, "archive")
        whole = c.post(f"/classify/batch?labels={LABELS}", content=bytes(500_000))
        assert (whole.status_code, whole.json()["limit"]) == (413, 400_000)


@pytest.mark.parametrize(
    "kind", ["application/json", "application/x+json", "Application/JSON; a=b"]
)
def test_json_is_held_as_a_whole_and_so_has_the_limit_of_one_image_whatever_it_is_called(
    pictogram: Encoder, serve: Callable[..., Any], kind: str
) -> None:
    with serve(pictogram, max_image_bytes=20_000) as client:
        request = {"content": b" " * 1_100_000, "headers": {"Content-Type": kind}}
        refused = client.post("/classify/batch?labels=cat,dog", **request)
        assert (refused.status_code, refused.json()["limit"]) == (413, 1_026_666)


def test_a_tar_whose_header_records_are_huge_is_refused(client: httpx.Client) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:xz", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("a")
        info.pax_headers = {"comment": "x" * 5_000_000}
        archive.addfile(info)
    answer = client.post(f"/classify/batch?labels={LABELS}", content=out.getvalue())
    assert answer.status_code == 400, answer.text


def test_so_many_batches_at_a_time_and_no_more(
    pictogram: Encoder, serve: Callable[..., Any], pictures: dict[str, bytes]
) -> None:
    with serve(pictogram, max_uploads=1) as client:
        go, arriving = threading.Event(), threading.Event()

        def slowly() -> Iterator[bytes]:
            yield b"PK\x03\x04"
            arriving.set()
            assert go.wait(120)
            yield b"x"

        url = f"/classify/batch?labels={LABELS}"
        thread = threading.Thread(target=lambda: client.post(url, content=slowly()))
        thread.start()
        assert arriving.wait(120)  # it was let in before anybody else asked
        end = time.monotonic() + 60
        while (refused := client.post(url, content=zipped(pictures))).status_code != 503:
            time.sleep(0.05)
            assert time.monotonic() < end
        assert int(refused.headers["retry-after"]) >= 1
        go.set()
        thread.join()
        assert client.post(url, content=zipped(pictures)).status_code == 200


def run_batch(items: list[Item], work: Callable[[bytes], Awaitable[bytes]]) -> list[Any]:
    async def arriving() -> AsyncIterator[Item]:
        for item in items:
            yield item

    async def run() -> list[Any]:
        return [outcome async for outcome in outcomes(arriving(), work, len)]

    return asyncio.run(asyncio.wait_for(run(), 120))


def test_no_more_than_a_window_is_on_its_way_however_large_the_batch() -> None:
    now = most = buffered = most_held = 0
    filled = asyncio.Event()

    async def classify(image: bytes) -> bytes:
        nonlocal now, most, buffered, most_held
        now, buffered = now + 1, buffered + len(image)
        most, most_held = max(most, now), max(most_held, buffered)
        if now == WINDOW:
            await asyncio.sleep(0.05)  # in which more would come
            filled.set()
        await filled.wait()
        await asyncio.sleep(0.001)
        now, buffered = now - 1, buffered - len(image)
        return b""

    outcomes = run_batch([Item(n, None, b"x") for n in range(500)], classify)
    assert (len(outcomes), most) == (500, WINDOW)

    large = b"x" * (WINDOW_BYTES // 3)
    most_held = 0
    assert len(run_batch([Item(n, None, large) for n in range(9)], classify)) == 9
    assert most_held <= WINDOW_BYTES
    alone = b"x" * (WINDOW_BYTES + 1)
    assert len(run_batch([Item(n, None, alone) for n in range(2)], classify)) == 2


def test_answers_that_nobody_reads_stop_the_reading_of_images() -> None:
    started = 0
    answer = b"x" * (WAITING_BYTES // 10)

    async def classify(_image: bytes) -> bytes:
        nonlocal started
        started += 1
        return answer

    async def arriving() -> AsyncIterator[Item]:
        for number in range(100):
            yield Item(number, None, b"x")

    async def run() -> int:
        results = outcomes(arriving(), classify, len)
        await anext(results)
        while True:
            before = started
            await asyncio.sleep(0.05)
            if started == before:
                break
        assert started <= 10 + WINDOW
        return 1 + len([outcome async for outcome in results])

    assert asyncio.run(asyncio.wait_for(run(), 120)) == 100


def test_an_answer_that_is_held_as_a_whole_has_a_limit_and_a_stream_has_none(
    client: httpx.Client, pictures: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "LARGEST_WHOLE", 3_000)
    files = list(pictures.items())
    refused = form(client, files)
    assert (refused.status_code, refused.json()["field"]) == (413, "top_k")
    streamed = form(client, files, headers={"Accept": "application/x-ndjson"})
    assert len(streamed.text.splitlines()) == len(files)


def test_an_image_that_meets_a_full_queue_waits_and_one_at_fault_fails_alone() -> None:
    contents: list[bytes] = []

    async def classify(image: bytes) -> bytes:
        contents.append(image)
        if image == b"bad":
            raise Invalid("bad")
        if image == b"bug":
            raise RuntimeError("secret")
        if contents.count(image) < 3:
            raise Overloaded("full")
        return image

    items = [Item(n, None, data) for n, data in enumerate([b"a", b"bad", b"bug", b"b"])]
    results = {outcome.index: outcome.result for outcome in run_batch(items, classify)}
    assert (results[0], results[3]) == (b"a", b"b")
    assert (results[1].detail, results[2].status) == ("bad", 500)
    assert "secret" not in results[2].detail


def test_an_archive_for_which_the_system_has_no_thread_left_may_be_sent_again(
    plain_pictogram: Encoder,
    serve: Callable[..., Any],
    pictures: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = threading.Thread.start

    def refuses(thread: threading.Thread) -> None:
        if thread.name.startswith("archive"):
            raise RuntimeError("can't start new thread")
        start(thread)

    with serve(plain_pictogram) as client:

        def send() -> httpx.Response:
            headers = {"Content-Type": "application/zip"}
            return client.post(
                "/classify/batch",
                content=zipped(pictures),
                headers=headers,
                params={"labels": LABELS},
            )

        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuses)
            answer = send()
        assert (answer.status_code, answer.json()["error_type"]) == (503, "overloaded")
        assert answer.headers["retry-after"] == "5"
        assert [best(line) for line in send().json()["results"]] == list(NAMES)


def table(answer: httpx.Response) -> list[dict[str, str]]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["vary"].startswith("Accept")
    return list(csv.DictReader(io.StringIO(answer.text, newline="")))


def test_a_batch_is_answered_as_a_table(client: httpx.Client, pictures: dict[str, bytes]) -> None:
    files = [("ca,t.png", pictures["cat.png"]), ("no picture", b"nothing"), *pictures.items()]
    options = {"headers": {"Accept": "text/csv"}, "params": {"top_k": 2}}
    rows = table(form(client, files, **options))
    assert list(rows[0]) == ["index", "name", "label", "score", "similarity", "reason", "error"]
    assert [row["index"] for row in rows] == ["0", "0", "1", *"2233445566"]
    assert (rows[0]["name"], rows[0]["label"]) == ("ca,t.png", "cat")
    assert rows[2]["error"].startswith("this is text")
    whole = form(client, files, params={"top_k": 2}).json()["results"]
    first = whole[0]["result"]["predictions"][0]
    assert (float(rows[0]["score"]), float(rows[0]["similarity"])) == (
        first["score"], first["similarity"],
    )  # fmt: skip
    empty = form(client, [("cat.png", pictures["cat.png"])], headers={"Accept": "text/csv"},
                 params={"threshold": 1, "multi_label": True})  # fmt: skip
    (row,) = table(empty)
    assert (row["label"], row["error"]) == ("", "")
    assert row["reason"]


def test_a_table_has_columns_for_label_sets_and_boxes(
    client: httpx.Client, pictures: dict[str, bytes]
) -> None:
    for name, labels in (("animals", ["cat", "dog"]), ("things", ["pizza", "rocket"])):
        client.put(f"/labelsets/{name}", json={"labels": labels}, params={"wait": True})
    fields = {"labelset": "animals,things", "boxes": "[[0,0,1,1],[0,0,0.5,0.5]]", "top_k": "1"}
    answer = client.post(
        "/classify/batch",
        data=fields,
        files=[("image", ("cat.png", pictures["cat.png"])), ("image", ("x", b"nothing"))],
        headers={"Accept": "text/csv"},
    )
    rows = table(answer)
    assert [(row["labelset"], row["box"]) for row in rows] == [
        ("animals", "0"), ("things", "0"), ("animals", "1"), ("things", "1"), ("", ""),
    ]  # fmt: skip
    assert rows[0]["label"] == "cat"
    assert rows[-1]["error"]
    for name in ("animals", "things"):
        client.delete(f"/labelsets/{name}")


def test_a_batch_is_answered_as_lines_of_text(
    client: httpx.Client, pictures: dict[str, bytes]
) -> None:
    cat, dog = (base64.b64encode(pictures[f"{n}.png"]).decode() for n in ("cat", "dog"))
    images = [{"name": "a\tb.png", "image": cat}, {"name": "x", "image": "YQ=="}, dog]
    body = {"labels": LABELS, "images": images, "top_k": 1}
    headers = {"Accept": "text/plain", "Content-Type": "application/json"}
    answer = client.post("/classify/batch", content=json.dumps(body), headers=headers)
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    first, wrong, last = [line.split("\t") for line in answer.text.splitlines()]
    assert first[1:] == ["cat", "a?b.png"]
    assert (wrong[0], wrong[2]) == ("-", "x")
    assert wrong[1].startswith("error: ")
    assert last[1:] == ["dog", "2"]
    uploads = [("cat.png", pictures["cat.png"])]
    none = form(client, uploads, headers={"Accept": "text/plain"},
                params={"abstain": True, "threshold": 1, "multi_label": True})  # fmt: skip
    assert none.text.split("\t")[:2] == ["-", "none of these"]


def test_a_table_that_is_too_large_is_refused(
    client: httpx.Client, pictures: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "LARGEST_WHOLE", 100)
    answer = form(client, list(pictures.items()), headers={"Accept": "text/csv"})
    assert (answer.status_code, answer.json()["field"]) == (413, "top_k")


def test_cached_is_whether_and_labels_cached_is_how_many(
    client: httpx.Client, pictures: dict[str, bytes]
) -> None:
    (line,) = form(client, [("cat.png", pictures["cat.png"])]).json()["results"]
    assert line["result"]["image"]["cached"] is False
    assert line["result"]["labels_cached"] == line["result"]["cached"]
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    for name, field in (("ResultAnswer", "cached"), ("TextEmbeddingsAnswer", "cached")):
        assert schemas[name]["properties"][field]["deprecated"] is True
