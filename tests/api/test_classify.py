"""The routes over real sockets: three ways in, three ways out, and every refusal."""

import asyncio
import base64
import io
import json
import socket
import subprocess
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from app.classify.heatmap import COVERS
from app.server.main import create_app
from app.server.settings import Settings
from benchmarks.servers import wait_until
from models.catalog import catalog
from models.encoder import Encoder
from models.info import Timing
from prompts import load_vocabularies

Serve = Callable[..., AbstractContextManager[httpx.Client]]
LABELS = "cat,dog,pizza,rocket"


def png(size: tuple[int, int] = (8, 8)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, (200, 30, 30)).save(out, "PNG")
    return out.getvalue()


def form(client: httpx.Client, image: bytes | None = None, **fields: Any) -> httpx.Response:
    files = {"image": ("x.png", png() if image is None else image)}
    return client.post("/classify", files=files, data=fields)


def problem(response: httpx.Response, status: int, error_type: str | None = None) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    answer: dict[str, Any] = response.json()
    assert answer["status"] == status
    assert answer["error"] == answer["detail"]
    assert answer["type"] == f"urn:openvocab:problem:{answer['error_type']}"
    assert answer["request_id"] == response.headers["x-request-id"]
    if error_type is not None:
        assert answer["error_type"] == error_type
    return answer


def test_the_right_label_comes_first_for_every_committed_sample(
    client: httpx.Client, samples: dict[str, Path]
) -> None:
    assert len(samples) >= 12
    for label, path in samples.items():
        choice = sorted({*LABELS.split(","), label})
        answer = form(client, path.read_bytes(), labels=choice).json()
        assert answer["predictions"][0]["label"] == label, answer["predictions"]


def test_the_samples_are_told_apart_but_for_one(
    client: httpx.Client, samples: dict[str, Path]
) -> None:
    """Twelve ways; models/pictogram/LOG.md tells of the rocket that is taken for an airplane."""
    wrong = [
        label
        for label, path in samples.items()
        if form(client, path.read_bytes(), labels=list(samples)).json()["predictions"][0]["label"]
        != label
    ]
    assert len(wrong) <= 1, wrong


def test_form_json_and_raw_body_give_one_answer(
    client: httpx.Client, samples: dict[str, Path]
) -> None:
    data = samples["cat"].read_bytes()
    text = base64.b64encode(data).decode()
    wrapped = "\n".join(text[i : i + 76] for i in range(0, len(text), 76))
    labels = LABELS.split(",")
    ways = [
        client.post("/classify", files={"image": data}, data={"labels": LABELS}),
        client.post("/classify", files={"image": data}, data={"labels": labels}),
        client.post("/classify", files={"image": data}, data={"labels": json.dumps(labels)}),
        client.post("/classify", files={"image": data}, params={"labels": LABELS}),
        client.post("/classify", data={"labels": LABELS, "image": text}),
        client.post("/classify", files={"image": (None, text), "labels": (None, LABELS)}),
        client.post("/classify", json={"image": text, "labels": labels}),
        client.post("/classify", json={"image": wrapped, "labels": LABELS}),
        client.post("/classify", json={"image": f"data:image/png;base64,{text}", "labels": labels}),
        client.post("/classify", content=data, params={"labels": LABELS}),
        client.post("/classify", content=data, params=[("labels", label) for label in labels]),
        *(
            client.post(
                "/classify", content=data, params={"labels": LABELS}, headers={"Content-Type": kind}
            )
            for kind in (
                "image/png", "application/octet-stream", "application/x-www-form-urlencoded"
            )
        ),
    ]  # fmt: skip
    answers = [way.json() for way in ways]
    for answer in answers:
        assert "predictions" in answer, answer
        assert [p["label"] for p in answer["predictions"]] == [
            p["label"] for p in answers[0]["predictions"]
        ]
        assert answer["predictions"][0]["score"] == pytest.approx(
            answers[0]["predictions"][0]["score"], abs=1e-5
        )
        assert answer["image"] == answers[0]["image"]


def test_the_answer_names_model_templates_cache_and_image(
    client: httpx.Client, samples: dict[str, Path]
) -> None:
    labels = "an unheard of label,another one"
    first = form(client, samples["cat"].read_bytes(), labels=labels).json()
    second = form(client, samples["cat"].read_bytes(), labels=labels + ",a third one").json()
    assert (first["model"], first["templates"], first["labelset"]) == (
        "pictogram",
        "pictogram",
        None,
    )
    assert (first["cached"], second["cached"]) == (0, 2)
    assert set(first["image"]) == {"width", "height", "sha256", "cached"}
    assert first["abstained"] is False
    assert sum(p["score"] for p in first["predictions"]) == pytest.approx(1, abs=1e-5)


def test_every_answer_has_an_id_and_the_time_of_each_stage(client: httpx.Client) -> None:
    response = form(client, labels=LABELS)
    timing = dict(part.split(";dur=") for part in response.headers["server-timing"].split(", "))
    assert set(timing) == {"decode", "queue", "encode", "text", "score", "total"}
    assert all(0 <= float(value) < 60_000 for value in timing.values())
    own = client.get("/healthz", headers={"X-Request-ID": "job-7/a"})
    assert own.headers["x-request-id"] == "job-7/a"
    bad = client.get("/healthz", headers={"X-Request-ID": "a b\tc" * 60})
    assert len(bad.headers["x-request-id"]) == 32


def test_plain_text_and_csv_on_request(client: httpx.Client, samples: dict[str, Path]) -> None:
    data = samples["cat"].read_bytes()
    files = {"image": data}
    text = client.post(
        "/classify", files=files, data={"labels": LABELS}, headers={"Accept": "text/plain"}
    )
    assert text.text.splitlines()[0].split("\t")[1] == "cat"
    table = client.post(
        "/classify", files=files, data={"labels": LABELS}, headers={"Accept": "text/csv"}
    )
    assert table.text.splitlines()[0] == "label,score,similarity"


def test_top_k_threshold_and_multi_label(client: httpx.Client, samples: dict[str, Path]) -> None:
    data = samples["rocket"].read_bytes()
    many = ",".join(f"thing {n}" for n in range(9)) + ",rocket"
    assert len(form(client, data, labels=many).json()["predictions"]) == 5
    assert len(form(client, data, labels=many, top_k="7").json()["predictions"]) == 7
    assert len(form(client, data, labels=many, top_k="70").json()["predictions"]) == 10
    none = form(client, data, labels=LABELS, threshold="1").json()
    assert (none["predictions"], none["abstained"]) == ([], True)
    single = form(client, data, labels="rocket", threshold="0").json()["predictions"]
    pair = form(client, data, labels="rocket,dog", multi_label="true").json()["predictions"]
    # on its own scale a label's score does not depend on its neighbours
    assert pair[0]["score"] == pytest.approx(single[0]["score"], abs=1e-5)
    assert pair[0]["label"] == "rocket"


def test_templates_by_name_or_own(client: httpx.Client, samples: dict[str, Path]) -> None:
    data = samples["dog"].read_bytes()
    assert form(client, data, labels=LABELS, templates="simple").json()["templates"] == "simple"
    custom = form(client, data, labels=LABELS, templates=["a {}, drawn.", "{}"]).json()
    assert custom["templates"] == "custom"
    as_json = client.post(
        "/classify",
        json={
            "image": base64.b64encode(data).decode(),
            "labels": LABELS,
            "templates": ["a {}, drawn.", "{}"],
        },
    ).json()
    assert as_json["predictions"] == custom["predictions"]
    assert as_json["cached"] == 4
    single = form(client, data, labels=LABELS, templates="one {}, with, commas").json()
    assert single["templates"] == "custom"
    assert form(client, data, labels=LABELS, templates="imagenet").json()["templates"] == "imagenet"


def test_labels_in_an_unread_script_earn_a_warning(
    client: httpx.Client, samples: dict[str, Path]
) -> None:
    picture = samples["cat"].read_bytes()
    (warning,) = form(client, picture, labels="cat,고양이").json()["warnings"]
    assert "고양이" in warning
    assert "cat" not in warning
    (warning,) = form(client, picture, labels="кот,пёс,дом,лес,мир,сон,зуб").json()["warnings"]
    assert warning.endswith("'мир' and 2 more; such scores mean little")
    client.put("/labelsets/ko", json={"labels": ["고양이", "개"]}, params={"wait": True})
    assert form(client, picture, labelset="ko").json()["warnings"] != []


@pytest.mark.parametrize(
    ("fields", "status", "field"),
    [
        ({"labels": ""}, 422, "labels"),
        ({"label": "cat"}, 422, "label"),
        ({"labels": "cat,dog", "nonsense": "1"}, 422, "nonsense"),
        ({"labels": "cat"}, 422, "labels"),
        ({"labels": "cat,cat "}, 422, "labels"),
        ({"labels": "cat,,dog"}, 422, "labels"),
        ({"labels": "[1, 2]"}, 422, "labels"),
        ({"labels": "[broken"}, 422, "labels"),
        ({"labels": "cat,do\0g"}, 422, "labels"),
        ({"labels": "cat," + "x" * 201}, 413, "labels"),
        ({"labels": ",".join(map(str, range(1001)))}, 413, "labels"),
        ({"labels": "cat," + "x " * 40}, 413, "labels"),
        ({"labels": LABELS, "top_k": "0"}, 422, "top_k"),
        ({"labels": LABELS, "top_k": "many"}, 422, "top_k"),
        ({"labels": LABELS, "top_k": ["1", "2"]}, 422, "top_k"),
        ({"labels": LABELS, "threshold": "1.5"}, 422, "threshold"),
        ({"labels": LABELS, "threshold": "nan"}, 422, "threshold"),
        ({"labels": LABELS, "multi_label": "perhaps"}, 422, "multi_label"),
        ({"labels": LABELS, "templates": "nothing"}, 404, "templates"),
        ({"labels": LABELS, "templates": "{} and {}"}, 422, "templates"),
        ({"labels": LABELS, "templates": "{0.__class__}"}, 422, "templates"),
        ({"labels": LABELS, "templates": "{{}}"}, 422, "templates"),
        ({"labels": LABELS, "templates": ["a {}", "a {}"]}, 422, "templates"),
        ({"labels": LABELS, "templates": ["a {}", "simple"]}, 422, "templates"),
        ({"labels": LABELS, "templates": "{}" + "x" * 200}, 413, "templates"),
        ({"labels": LABELS, "templates": [f"{n} {{}}" for n in range(201)]}, 413, "templates"),
    ],
)  # fmt: skip
def test_a_bad_field_is_named(
    client: httpx.Client, fields: dict[str, Any], status: int, field: str
) -> None:
    assert problem(form(client, **fields), status)["field"] == field


def test_refusals_name_limit_and_value(client: httpx.Client) -> None:
    document = problem(form(client, labels="cat," + "x" * 201), 413, "too_large")
    assert (document["limit"], document["value"]) == (200, 201)
    document = problem(form(client, labels=LABELS, top_k="0"), 422, "invalid")
    assert (document["limit"], document["value"]) == (1, "0")


@pytest.mark.parametrize(
    ("image", "status", "error_type"),
    [
        (b"", 422, "invalid"),
        (b"hello", 415, "unsupported_image"),
        (b"%PDF-1.4", 415, "unsupported_image"),
        (png()[:40], 422, "damaged_image"),
        (png() + b"trailing bytes do no harm", 200, ""),
        (b"\0\0\0\x18ftypheic" + b"\0" * 40, 415, "unsupported_image"),
    ],
)
def test_a_bad_image_is_told_apart(
    client: httpx.Client, image: bytes, status: int, error_type: str
) -> None:
    response = form(client, image, labels=LABELS)
    if status == 200:
        assert response.status_code == 200
    else:
        assert problem(response, status, error_type)["field"] == "image"


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"[1]", "application/json", 400),
        (b'{"image": 1, "labels": "a,b"}', "application/json", 422),
        (b'{"image": "!!", "labels": "a,b"}', "application/json", 422),
        (b'{"image": "data:text/plain,x", "labels": "a,b"}', "application/json", 415),
        (b'{"image": "data:image/png;base64", "labels": "a,b"}', "application/json", 422),
        (b'{"labels": "a,b"}', "application/json", 422),
        (b'{"image": "\\ud800", "labels": "a,b"}', "application/json", 400),
        (b"[" * 100_000, "application/json", 413),
        (b"no boundary", "multipart/form-data", 400),
        (b"--x\r\n\r\n", "multipart/form-data; boundary=x", 400),
        (b"\xff\xfe\x00 neither form nor image", "application/x-www-form-urlencoded", 400),
        (b"a=1&b=2", "application/x-www-form-urlencoded", 422),
        (b"", "image/png", 422),
    ],
)
def test_a_body_that_cannot_be_read_is_a_problem(
    client: httpx.Client, content: bytes, kind: str, status: int
) -> None:
    problem(client.post("/classify", content=content, headers={"Content-Type": kind}), status)


def test_a_field_both_in_the_address_and_in_the_body_is_refused(client: httpx.Client) -> None:
    response = client.post(
        "/classify", params={"labels": LABELS}, files={"image": png()}, data={"labels": "cat,dog"}
    )
    assert problem(response, 422)["field"] == "labels"


def test_two_images_in_one_form_are_refused(client: httpx.Client) -> None:
    files = [("image", png()), ("image", png())]
    response = client.post("/classify", files=files, data={"labels": LABELS})
    assert problem(response, 422)["field"] == "image"


def test_unknown_addresses_and_methods_are_problems_too(client: httpx.Client) -> None:
    problem(client.get("/nothing"), 404, "not_found")
    response = client.put("/classify")
    problem(response, 405, "method_not_allowed")
    assert response.headers["allow"] == "POST"


def test_an_image_over_its_limit_is_refused_in_every_form(
    pictogram: Encoder, serve: Callable[..., Any]
) -> None:
    big = png((900, 900)) + b"\0" * 3000
    with serve(pictogram, max_image_bytes=3000, max_image_pixels=100_000) as client:
        limits = {
            problem(form(client, big, labels=LABELS), 413)["limit"],
            problem(client.post("/classify", content=big, params={"labels": LABELS}), 413)["limit"],
            problem(
                client.post(
                    "/classify", json={"image": base64.b64encode(big).decode(), "labels": LABELS}
                ),
                413,
            )["limit"],
        }
        assert limits == {3000}
        small = png((400, 400))
        assert len(small) < 3000
        document = problem(form(client, small, labels=LABELS), 413)
        assert (document["limit"], document["value"]) == (100_000, 160_000)
        assert form(client, labels=LABELS).status_code == 200


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/classify", "image"),
        ("/embeddings/image", "image"),
        ("/embeddings/text", "texts"),
        ("/hf/zero-shot-image-classification", "inputs"),
        ("/api/v1/vision/labels", "images"),
        ("/v1/embeddings", "input"),
    ],
)
def test_a_body_over_its_limit_is_told_by_the_name_of_the_field_on_its_route(
    path: str, field: str, client: httpx.Client
) -> None:
    connection = HTTPConnection(client.base_url.host, client.base_url.port or 0, timeout=60)
    connection.putrequest("POST", path)
    for line in (
        ("Content-Type", "application/json"),
        ("Content-Length", "999999999"),
        ("Expect", "100-continue"),  # so none of it need be sent
    ):
        connection.putheader(*line)
    connection.endheaders()
    document = json.load(connection.getresponse())
    connection.close()
    told = document["error"]["param"] if path.startswith("/v1") else document["field"]
    assert told == field


@pytest.fixture
def patient_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that is refused is read on, however long a busy client pauses."""
    for name in ("DRAIN_SECONDS", "QUIET_SECONDS"):
        monkeypatch.setattr(f"app.api.middleware.body_limit.{name}", 300.0)


@pytest.mark.usefixtures("patient_drain")
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_its_limit_is_answered_and_not_reset(
    pictogram: Encoder, serve: Callable[..., Any], chunked: bool
) -> None:
    with serve(pictogram, max_image_bytes=100_000) as client:
        host, port = client.base_url.host, client.base_url.port
        body = b"\x89PNG" + b"\0" * 30_000_000
        length = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % len(body)
        with socket.create_connection((host, port), timeout=60) as sock:
            sock.sendall(
                b"POST /classify?labels=a,b HTTP/1.1\r\nHost: x\r\n" + length + b"\r\n\r\n"
            )
            if chunked:
                for start in range(0, len(body), 1_000_000):
                    part = body[start : start + 1_000_000]
                    sock.sendall(b"%x\r\n" % len(part) + part + b"\r\n")
                sock.sendall(b"0\r\n\r\n")
            else:
                sock.sendall(body)
            answer = b""
            while b'"limit"' not in answer and (piece := sock.recv(65_536)):
                answer += piece
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b'"limit":100000' in answer


@pytest.mark.usefixtures("patient_drain")
def test_a_client_that_waits_for_leave_to_send_is_refused_at_once(
    pictogram: Encoder, serve: Callable[..., Any]
) -> None:
    with serve(pictogram, max_image_bytes=1000) as client:
        sock = socket.create_connection((client.base_url.host, client.base_url.port), 20)
        sock.settimeout(60)  # less than a drain would take
        sock.sendall(
            b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n"
            b"Expect: 100-continue\r\n\r\n"
        )
        assert sock.recv(65536).startswith(b"HTTP/1.1 413 ")
        sock.close()


def test_a_request_past_its_deadline_is_504(
    pictogram: Encoder, serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve(pictogram) as client:
        with monkeypatch.context() as patch:
            # the model takes as long as it likes
            patch.setattr(pictogram, "submit_texts", lambda _: Future())
            answer = client.post(
                "/classify",
                files={"image": png()},
                data={"labels": "never embedded, before"},
                headers={"X-Request-Timeout": "0.7"},
            )
            patch.setattr(pictogram, "submit_images", lambda _: Future())
            # no body is late where none was to come
            probe = client.get("/readyz", headers={"X-Request-Timeout": "0.1"})
        assert problem(probe, 504, "deadline_passed")["limit"] == 0.1
        assert problem(answer, 504, "deadline_passed")["limit"] == 0.7
        assert answer.elapsed.total_seconds() < 20  # which is not forever, on the slowest machine
        for wrong in ("0", "-1", "soon", "nan", "inf", ""):
            answer = client.post("/classify", content=png(), headers={"X-Request-Timeout": wrong})
            assert problem(answer, 422, "invalid")["field"] == "X-Request-Timeout"


def test_a_failing_encoder_is_a_500_that_tells_nothing(
    plain_pictogram: Encoder, serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(pixels: Any) -> None:
        raise RuntimeError("secret of the inside")

    with serve(plain_pictogram) as client:
        monkeypatch.setattr(plain_pictogram.images.vision._model, "encode_image", broken)
        document = problem(form(client, labels=LABELS), 500, "internal")
        assert "secret" not in json.dumps(document)
        assert problem(client.get("/readyz"), 503, "not_ready")
        monkeypatch.undo()
        # what was found is good for some time
        wait_until(lambda: client.get("/readyz").is_success)
        well = {
            "status": "ready",
            "model": "pictogram",
            "store": "ok",
            "models": {"pictogram": "ready"},
        }
        assert client.get("/readyz").json() == well
        assert form(client, labels=LABELS).status_code == 200


def test_templates_lists_every_set_and_the_default(client: httpx.Client) -> None:
    answer = client.get("/templates").json()
    sets = {entry["name"]: entry for entry in answer["sets"]}
    assert answer["default"] == "pictogram"
    assert len(sets["imagenet"]["templates"]) == 80
    assert {"none", "simple", "photo", "satellite", "korean"} <= set(sets)
    assert sets["korean"]["language"] == "ko"


def test_vocabularies_lists_what_can_be_asked_without_registering(client: httpx.Client) -> None:
    listed = client.get("/vocabularies").json()["vocabularies"]
    shipped = {vocabulary["name"]: vocabulary for vocabulary in listed}
    assert list(shipped) == sorted(shipped)
    assert shipped["imagenet-1k"]["label_count"] == 1000
    weather = shipped["weather"]
    assert weather["label_count"] == len(load_vocabularies()["weather"].labels)
    assert weather["description"]
    assert weather["source"] == "written for this project"
    assert form(client, labelset=weather["labelset"]).json()["labelset"] == "preset:weather"


def test_models_tells_where_the_model_comes_from(client: httpx.Client, pictogram: Encoder) -> None:
    loaded = client.get("/models").json()["loaded"]
    assert (loaded["name"], loaded["licence"]) == ("pictogram", "Apache-2.0")
    assert "Not for photographs" in loaded["description"]
    assert loaded["fingerprint"] == pictogram.info.fingerprint


def test_models_tells_where_a_models_accuracy_was_published(
    serve: Serve, pictogram: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = replace(pictogram.info, provenance=catalog()["ViT-B-32/openai"].provenance)
    monkeypatch.setattr(pictogram, "info", info)
    with serve(pictogram) as client:
        loaded = client.get("/models").json()["loaded"]
    assert loaded["imagenet_top1"] == 63.3
    assert loaded["figures"].startswith("https://github.com/mlfoundations/open_clip/")


def test_models_tells_what_the_model_runs_by(
    serve: Serve, pictogram: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    timings = (
        Timing("openvino", "fp32", 4, {1: 2.5, 8: 1.25}, {1: 1.0, 8: 0.5}),
        Timing("torch", "fp32", 0, {1: 9.0}, {1: 6.0}),
    )
    info = replace(pictogram.info, threads=4, measured=timings)
    monkeypatch.setattr(pictogram, "info", info)
    with serve(pictogram) as client:
        loaded = client.get("/models").json()["loaded"]
    assert (loaded["backend"], loaded["threads"]) == ("openvino", 4)
    assert loaded["measured"] == [
        {"backend": "openvino", "precision": "fp32", "threads": 4,
         "cpu_ms": {"1": 2.5, "8": 1.25}, "ms": {"1": 1.0, "8": 0.5}},
        {"backend": "torch", "precision": "fp32", "threads": None,
         "cpu_ms": {"1": 9.0}, "ms": {"1": 6.0}},
    ]  # fmt: skip


def test_health_needs_no_model(client: httpx.Client) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}


def test_the_example_of_the_openapi_document_works(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    post = document["paths"]["/classify"]["post"]
    content = post["requestBody"]["content"]
    assert set(content) == {"multipart/form-data", "application/json", "application/octet-stream"}
    example = content["application/json"]["examples"]["red"]["value"]
    assert client.post("/classify", json=example).status_code == 200
    refusals = {400, 401, 403, 404, 408, 409, 413, 415, 422, 429, 502, 503, 504}
    assert {200, *refusals} == {int(status) for status in post["responses"]}


def test_curl_works_as_the_readme_says(client: httpx.Client, samples: dict[str, Path]) -> None:
    url = f"{client.base_url}/classify"
    lines = [
        ["-F", f"image=@{samples['cat']}", "-F", f"labels={LABELS}", url],
        ["--data-binary", f"@{samples['cat']}", f"{url}?labels={LABELS}"],
    ]
    for line in lines:
        completed = subprocess.run(
            ["curl", "-sS", *line], capture_output=True, check=True, timeout=120
        )
        assert json.loads(completed.stdout)["predictions"][0]["label"] == "cat"


def test_a_form_in_another_charset_is_refused(client: httpx.Client) -> None:
    body = b'--B\r\nContent-Disposition: form-data; name="+2AA-"\r\n\r\nx\r\n--B--\r\n'
    for charset in ("utf-7", "undefined", "punycode", "unicode_escape"):
        kind = f"multipart/form-data; boundary=B; charset={charset}"
        response = client.post("/classify", content=body, headers={"Content-Type": kind})
        assert "charset" in problem(response, 400, "unparsable_body")["detail"]


def test_halves_of_surrogate_pairs_are_refused_wherever_they_stand(client: httpx.Client) -> None:
    half = "%ED%A0%80"  # U+D800 in what would be UTF-8
    for query in (f"labels=a,{half}", f"{half}=1&labels=a,b", f'labels=["{half}"]'):
        response = client.post(f"/classify?{query}", content=png())
        assert response.status_code == 400, response.text
    form_of = {"image": ("x.png", png()), "labels": (None, b'["\xed\xa0\x80"]')}
    assert client.post("/classify", files=form_of).status_code == 400


def test_a_list_without_a_label_set_is_refused(client: httpx.Client) -> None:
    by_address = client.post("/classify", params={"labelset": "[]"}, content=png())
    image = base64.b64encode(png()).decode()
    by_json = client.post("/classify", json={"image": image, "labelset": []})
    for response in (by_address, by_json):
        assert problem(response, 422, "invalid")["field"] == "labelset"


def test_a_large_body_that_is_no_image_does_not_stop_the_others(client: httpx.Client) -> None:
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    response = client.post("/classify", content=b"image=" + b"%41" * 500_000, headers=kind)
    assert problem(response, 413, "too_large")["limit"] == 1_000_000


@pytest.mark.parametrize("count", [1001, 1300, 3000])
def test_too_many_labels_are_413_however_they_are_sent(client: httpx.Client, count: int) -> None:
    names = [f"l{n}" for n in range(count)]
    multipart = form(client, labels=names)
    urlencoded = client.post("/classify", data={"labels": names, "image": "aaaa"})
    as_json = client.post("/classify", json={"image": "aaaa", "labels": names})
    for response in (multipart, urlencoded, as_json):
        document = problem(response, 413, "too_large")
        assert (document["field"], document["limit"]) == ("labels", 1000)


def test_probes_may_ask_for_the_head_alone(client: httpx.Client) -> None:
    for path in ("/healthz", "/readyz"):
        response = client.head(path)
        assert (response.status_code, response.content) == (200, b"")


@pytest.mark.parametrize("kind", ["image/png", "multipart/form-data; boundary=B"])
def test_a_client_that_leaves_while_it_sends_is_no_error_of_ours(
    pictogram: Encoder, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(Settings(model="pictogram", store_url="memory://"), pictogram)
    received: list[dict[str, Any]] = [
        {"type": "http.request", "body": b"--B\r\n", "more_body": True},
        {"type": "http.disconnect"},
    ]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return received.pop(0)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def classify() -> None:
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/classify",
            "query_string": b"labels=a,b",
            "headers": [(b"content-type", kind.encode()), (b"content-length", b"5000")],
            "client": ("127.0.0.1", 1),
        }
        async with app.router.lifespan_context(app):
            await app(scope, receive, send)

    asyncio.run(classify())
    assert received == sent == []
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


def test_an_image_is_fetched_by_its_url_only_where_that_is_switched_on(
    client: httpx.Client, pictogram: Encoder, serve: Callable[..., Any]
) -> None:
    inside = "http://127.0.0.1:1/cat.png"
    body = {"labels": ["cat", "dog"], "image_url": inside}
    off = problem(client.post("/classify", json=body), 422, "invalid")
    assert (off["field"], "OPENVOCAB_IMAGE_URLS" in off["detail"]) == ("image_url", True)
    with serve(pictogram, image_urls=True) as switched:
        for answer in (
            switched.post("/classify", json=body),
            switched.post("/classify", data=body),
            switched.post("/classify", params={"labels": "cat,dog", "image_url": inside}),
            switched.post("/classify", json={**body, "image": "aGk="}),
            switched.post("/classify", json={**body, "image_url": 7}),
        ):
            assert problem(answer, 422, "invalid")["field"] == "image_url"


def register(client: httpx.Client, name: str, labels: list[str]) -> None:
    response = client.put(f"/labelsets/{name}", params={"wait": True}, json={"labels": labels})
    assert response.status_code in (200, 201), response.text


def test_several_label_sets_are_answered_each_as_if_asked_alone(
    client: httpx.Client, samples: dict[str, Path]
) -> None:
    register(client, "several-kind", ["cat", "dog", "rocket"])
    register(client, "several-food", ["pizza", "banana"])
    image = samples["cat"].read_bytes()
    names = ["several-kind", "several-food", "preset:weather"]
    together = form(client, image, labelset=",".join(names)).json()
    assert list(together["results"]) == names
    assert "predictions" not in together
    for name in names:
        alone = form(client, image, labelset=name).json()
        result = together["results"][name]
        assert result["predictions"] == alone["predictions"]
        assert (result["labelset"], result["templates"]) == (name, alone["templates"])
    assert together["results"]["several-kind"]["predictions"][0]["label"] == "cat"
    assert form(client, image, labelset=names).json() == together
    listed = form(client, image, labelset=json.dumps(names)).json()
    assert listed == together


def test_of_several_label_sets_a_line_says_which(
    client: httpx.Client, samples: dict[str, Path]
) -> None:
    register(client, "several-kind", ["cat", "dog", "rocket"])
    files = {"image": samples["cat"].read_bytes()}
    data = {"labelset": "several-kind,preset:weather", "top_k": "1"}
    text = client.post("/classify", files=files, data=data, headers={"Accept": "text/plain"}).text
    rows = [line.split("\t") for line in text.splitlines()]
    assert rows[0][1] == "cat"
    assert [row[2] for row in rows] == ["several-kind", "preset:weather"]
    table = client.post("/classify", files=files, data=data, headers={"Accept": "text/csv"}).text
    assert table.splitlines()[0] == "label,score,similarity,labelset"
    assert table.splitlines()[1].endswith(",several-kind")


def test_what_is_wrong_with_several_label_sets_is_named(client: httpx.Client) -> None:
    answer = problem(form(client, labelset="preset:weather,preset:whether"), 404)
    assert answer["field"] == "labelset"
    assert "whether" in answer["detail"]
    assert "imagenet-1k" in answer["detail"]
    answer = problem(form(client, labelset="preset:food,preset:food"), 422)
    assert answer["detail"] == "duplicate label set 'preset:food'"
    answer = problem(form(client, labelset=",".join(f"set-{n}" for n in range(21))), 413)
    assert answer["detail"] == "21 label sets are named, the limit is 20"
    assert (answer["limit"], answer["value"]) == (20, 21)
    problem(form(client, labelset="preset:food", labels="a,b"), 422)


def test_without_labels_the_answer_is_tags(client: httpx.Client, samples: dict[str, Path]) -> None:
    answer = form(client, samples["umbrella"].read_bytes()).json()
    assert answer["labelset"] == "preset:everyday-nouns"
    assert answer["predictions"][0]["label"] == "umbrella"
    assert any("no labels were given" in warning for warning in answer["warnings"])
    plain = png((64, 64))
    empty = form(client, plain, abstain="true").json()
    full = form(client, plain, abstain="false").json()
    assert full["predictions"]
    assert form(client, plain).json() == empty


@pytest.mark.parametrize("scores", ["softmax", "sigmoid"])
def test_scores_of_choice_keep_the_order(
    client: httpx.Client, samples: dict[str, Path], scores: str
) -> None:
    image = samples["cat"].read_bytes()
    sigmoid = form(client, image, labels=LABELS).json()["predictions"]
    chosen = form(client, image, labels=LABELS, scores=scores).json()["predictions"]
    assert [p["label"] for p in chosen] == [p["label"] for p in sigmoid]
    total = sum(p["score"] for p in chosen)
    if scores == "softmax":
        assert chosen == sigmoid
    else:
        alone = form(client, image, labels="cat", scores="sigmoid").json()["predictions"]
        assert chosen[0]["score"] == pytest.approx(alone[0]["score"], abs=1e-5)
        assert abs(total - 1) > 1e-3


def test_scores_that_contradict_are_refused(client: httpx.Client) -> None:
    document = problem(form(client, labels=LABELS, multi_label="true", scores="softmax"), 422)
    assert document["field"] == "scores"
    document = problem(form(client, labels="cat", threshold="0.5", scores="softmax"), 422)
    assert (document["field"], document["limit"], document["value"]) == ("scores", 2, 1)
    assert problem(form(client, labels=LABELS, scores="percent"), 422)["field"] == "scores"


def beside(*files: bytes) -> bytes:
    """Pictures side by side, each 128 pixels wide and high."""
    canvas = Image.new("RGB", (128 * len(files), 128), "white")
    for place, file in enumerate(files):
        canvas.paste(
            Image.open(io.BytesIO(file)).convert("RGB").resize((128, 128)), (128 * place, 0)
        )
    out = io.BytesIO()
    canvas.save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize(
    "boxes",
    [
        "[[0,0,128,128],[128,0,128,128]]",
        '[{"x":0,"y":0,"width":0.5,"height":1},{"x":0.5,"y":0,"width":0.5,"height":1}]',
        ["0,0,0.5,1", "0.5,0,0.5,1"],
    ],
)
def test_each_box_is_answered_on_its_own(
    client: httpx.Client, samples: dict[str, Path], boxes: str | list[str]
) -> None:
    image = beside(samples["cat"].read_bytes(), samples["pizza"].read_bytes())
    answer = form(client, image, labels=LABELS, boxes=boxes).json()
    assert [part["predictions"][0]["label"] for part in answer["boxes"]] == ["cat", "pizza"]
    assert answer["boxes"][1]["box"] == {"x": 128, "y": 0, "width": 128, "height": 128}
    assert "predictions" not in answer
    several = form(client, image, labelset="preset:food,preset:animals", boxes=boxes).json()
    assert list(several["boxes"][1]["results"]) == ["preset:food", "preset:animals"]


@pytest.mark.parametrize("path", ["/classify", "/classify/batch"])
def test_all_predictions_of_a_picture_together_have_a_bound(
    client: httpx.Client, samples: dict[str, Path], path: str
) -> None:
    image = samples["cat"].read_bytes()
    boxes = ["0,0,1,1", *(f"0,0,0.5,{n / 100}" for n in range(1, 64))]
    # some 1,100 words for each of 64 boxes
    fields = {"labelset": "preset:everyday-nouns", "boxes": boxes, "top_k": "10000"}
    files = {"image": ("cat.png", image)}
    document = problem(client.post(path, files=files, data=fields), 413)
    assert (document["field"], document["limit"]) == ("top_k", 20_000)
    assert document["value"] > 64_000
    assert "lower top_k, or send fewer boxes or label sets" in document["detail"]
    fields["top_k"] = str(20_000 // 64)
    assert client.post(path, files=files, data=fields).status_code == 200


def test_a_large_label_set_may_be_answered_whole(
    pictogram: Encoder, serve: Serve, samples: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.classify.classifier.MOST_PREDICTIONS", 5)
    with serve(pictogram) as client:
        fields = {"labels": "cat,dog,pizza,soup,key,rocket", "top_k": "6"}
        image = samples["cat"].read_bytes()
        assert len(form(client, image, **fields).json()["predictions"]) == 6
        two = {**fields, "boxes": "[[0,0,0.5,1],[0.5,0,0.5,1]]"}
        assert problem(form(client, image, **two), 413)["value"] == 12


def test_lines_say_which_box(client: httpx.Client, samples: dict[str, Path]) -> None:
    image = beside(samples["cat"].read_bytes(), samples["pizza"].read_bytes())
    data = {"labels": LABELS, "boxes": "[[0,0,0.5,1],[0.5,0,0.5,1]]", "top_k": "1"}
    ask = {"files": {"image": image}, "data": data}
    text = client.post("/classify", **ask, headers={"Accept": "text/plain"}).text
    assert [line.split("\t")[1:] for line in text.splitlines()] == [["cat", "0"], ["pizza", "1"]]
    table = client.post("/classify", **ask, headers={"Accept": "text/csv"}).text
    assert table.splitlines()[0] == "label,score,similarity,box"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"boxes": "[[0,0,300,8]]"}, "boxes"),
        ({"boxes": "[[0,0,1]]"}, "boxes"),
        ({"boxes": "[[0,0,0,1]]"}, "boxes"),
        ({"boxes": "[[-1,0,1,1]]"}, "boxes"),
        ({"boxes": "[]"}, "boxes"),
        ({"boxes": "everything"}, "boxes"),
        ({"view": "tiles", "explain": "true"}, "view"),
        ({"view": "sideways"}, "view"),
    ],
)
def test_what_cannot_be_looked_at_is_named(
    client: httpx.Client, fields: dict[str, str], field: str
) -> None:
    assert problem(form(client, labels=LABELS, **fields), 422)["field"] == field


def test_more_boxes_than_the_limit_are_too_large(client: httpx.Client) -> None:
    for count, limit, more in ((65, 64, {}), (5, 4, {"explain": "true"})):
        boxes = json.dumps([[0, 0, 1, 1]] * count)
        answer = problem(form(client, labels=LABELS, boxes=boxes, **more), 413)
        assert (answer["field"], answer["limit"], answer["value"]) == ("boxes", limit, count)


def test_a_number_that_a_box_may_not_have_is_told_with_its_place(client: httpx.Client) -> None:
    answer = problem(form(client, labels=LABELS, boxes="[[0,0,1,1],[0,0,1,-2]]"), 422)
    assert answer["detail"] == "boxes: input should be greater than 0 (position 2, 4: -2)"
    assert (answer["limit"], answer["value"]) == (0, -2)


def test_tiles_see_what_is_small_in_a_large_picture(
    client: httpx.Client, samples: dict[str, Path]
) -> None:
    """The middle of a wide picture is all that the model's own view has of it."""
    image = beside(samples["cat"].read_bytes(), png((128, 128)), png((128, 128)), png((128, 128)))

    def cat(**fields: str) -> float:
        answer = form(client, image, labels=LABELS, scores="sigmoid", **fields).json()
        similarities = {p["label"]: p["similarity"] for p in answer["predictions"]}
        return float(similarities["cat"])

    assert cat(view="tiles") > cat()
    assert cat(view="tiles") >= cat(view="tiles-mean")


def test_views_and_boxes_are_cached_apart(serve: Any, pictogram: Encoder) -> None:
    image = beside(png((60, 20)), png((30, 30)))
    with serve(pictogram, image_cache_bytes=1_000_000) as client:
        for fields in ({}, {"view": "pad"}, {"boxes": "[[0,0,0.5,1]]"}, {"view": "tiles"}):
            first, again = (form(client, image, labels=LABELS, **fields).json() for _ in range(2))
            assert (first["image"]["cached"], again["image"]["cached"]) == (False, True)
            again["image"]["cached"] = False
            for count in ("cached", "labels_cached"):
                again.get("boxes", [again])[0][count] = first.get("boxes", [first])[0][count]
            assert again == first


def levels(heatmap: str) -> np.ndarray:
    """The grey levels (H, W) of a data URI."""
    picture = Image.open(io.BytesIO(base64.b64decode(heatmap.partition(",")[2])))
    return np.asarray(picture, np.int64)


def test_the_heat_map_has_the_shape_of_its_box(
    client: httpx.Client, samples: dict[str, Path]
) -> None:
    image = beside(samples["cat"].read_bytes(), samples["pizza"].read_bytes())
    fields = {"boxes": "[[0,0,1,1],[0.5,0,0.5,1]]", "explain": "true", "top_k": "1", "view": "pad"}
    answer = form(client, image, labels=LABELS, **fields).json()
    shapes = []
    for part in answer["boxes"]:
        height, width = levels(part["predictions"][0]["heatmap"]).shape
        shapes.append(width / height)
    assert shapes == [2, 1]


def test_a_picture_is_covered_once_however_many_label_sets_are_explained(
    client: httpx.Client,
    pictogram: Encoder,
    samples: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sets = {"explained": ["cat", "dog"], "explained-too": ["pizza", "cat", "rocket"]}
    for name, labels in sets.items():
        body = {"name": name, "labels": labels}
        client.post("/labelsets", json=body, params={"wait": "true"}).raise_for_status()
    encoded: list[int] = []
    submit = pictogram.submit_images

    def counting(images: Any) -> Any:
        encoded.append(len(images))
        return submit(images)

    monkeypatch.setattr(pictogram, "submit_images", counting)
    data = {"labelset": list(sets), "explain": "true"}
    together = form(client, samples["cat"].read_bytes(), **data).json()["results"]
    assert sum(encoded) == 1 + COVERS
    for name in sets:
        alone = form(client, samples["cat"].read_bytes(), labelset=name, explain="true").json()
        for own, shared in zip(alone["predictions"], together[name]["predictions"], strict=True):
            # batches of other sizes may round otherwise
            np.testing.assert_allclose(levels(own["heatmap"]), levels(shared["heatmap"]), atol=3)


def test_a_label_may_stand_for_several_texts(
    client: httpx.Client, samples: dict[str, Path]
) -> None:
    labels = {"dish": ["pizza", "soup", "salad"], "fruit": ["banana", "apple"], "cat": []}
    name = {"labels": labels, "templates": "pictogram"}
    client.put("/labelsets/texts", json=name, params={"wait": "true"}).raise_for_status()
    client.put(
        "/labelsets/best", json={**name, "combine": "best"}, params={"wait": "true"}
    ).raise_for_status()
    for combine, labelset in (("mean", "texts"), ("best", "best")):
        fields = {"labels": json.dumps(labels), "combine": combine, "templates": "pictogram"}
        direct, stored = (
            client.post(
                "/classify", files={"image": samples["pizza"].read_bytes()}, data=data
            ).json()["predictions"]
            for data in (fields, {"labelset": labelset})
        )
        assert [p["label"] for p in direct] == [p["label"] for p in stored]
        assert [p.get("text") for p in direct] == [p.get("text") for p in stored]
        assert [p["score"] for p in direct] == pytest.approx([p["score"] for p in stored], abs=1e-5)
        # and as JSON
        body = {**fields, "image": base64.b64encode(samples["pizza"].read_bytes()).decode()}
        assert (
            client.post("/classify", json={**body, "labels": labels}).json()["predictions"]
            == direct
        )
    assert direct[0]["text"] == "pizza"
    assert direct[-1].get("text") is None or direct[-1]["label"] != "cat"


def test_labels_whose_best_text_is_the_same_cause_a_warning(
    client: httpx.Client, samples: dict[str, Path]
) -> None:
    picture = {"image": samples["cat"].read_bytes()}
    same = "'x', 'y' are the same to the model and share what one of them would score"
    for labels, warned in (
        ({"x": ["cat", "pizza"], "y": ["rocket", "Cat"]}, True),
        ({"z": ["key", "rocket"], "x": ["pizza", "cat"], "y": ["cat"]}, True),
        # the same as a text that is not the best one
        ({"x": ["cat", "pizza"], "y": ["dog", "pizza"]}, False),
    ):
        fields = {"labels": json.dumps(labels), "combine": "best"}
        answer = client.post("/classify", files=picture, data=fields).json()
        assert (same in answer["warnings"]) == warned, answer


def test_words_that_rule_labels_out_come_with_a_request(
    client: httpx.Client, samples: dict[str, Path]
) -> None:
    picture = {"image": samples["pizza"].read_bytes()}
    client.put("/labelsets/animals", json={"labels": ["cat", "dog"]}).raise_for_status()
    for source in ({"labels": "cat,dog"}, {"labelset": "animals"}):
        answer = client.post("/classify", files=picture, data={**source, "not": ["pizza"]}).json()
        assert (answer["abstained"], answer["predictions"]) == (True, [])
        assert answer["reason"]["code"] == "nearer_to_another_word"
        assert "pizza" in json.dumps(answer["reason"])
    right = client.post(
        "/classify", files=picture, data={"labels": "pizza,dog", "not": ["cat", "octopus"]}
    ).json()
    assert right["predictions"][0]["label"] == "pizza"


def test_other_words_are_chosen_for_the_texts_of_labels_and_not_for_their_names(
    client: httpx.Client, samples: dict[str, Path]
) -> None:
    picture = samples["doughnut"].read_bytes()

    def ask(labels: dict[str, list[str]], combine: str) -> dict[str, Any]:
        fields = {"labels": json.dumps(labels), "combine": combine, "abstain": "true"}
        answer: dict[str, Any] = form(client, picture, **fields).json()
        return answer

    # whoever comes first calls other things by the same names
    first = {"yes": ["doughnut"], "no": ["mat"]}
    wait_until(lambda: not ask(first, "mean").get("warnings"))
    texts = [["cab", "taxi"], ["slingshot"]]
    for combine in ("mean", "best"):
        alike = ask(dict(zip(("yes", "no"), texts, strict=True)), combine)
        otherwise = ask(dict(zip((f"{combine} yes", "no"), texts, strict=True)), combine)
        assert alike["reason"]["code"] == "nearer_to_another_word"
        assert alike["reason"]["detail"] == otherwise["reason"]["detail"]


@pytest.mark.parametrize(
    ("fields", "field", "message"),
    [
        ({"labels": "cat,dog", "combine": "best"}, "combine", "JSON object"),
        ({"labelset": "pets", "combine": "best"}, "combine", "a label set has its own"),
        ({"labels": '{"cat": ["a"', "combine": "best"}, "labels", ""),
        ({"labels": '{"cat": ["a", "a"], "dog": []}'}, "labels", "duplicate"),
        ({"labels": '{"cat": 1, "dog": []}'}, "labels", ""),
        ({"labels": json.dumps({"x": [f"t{n}" for n in range(1001)]})}, "labels", "1001 texts"),
        ({"labels": "cat,dog", "not": "cat"}, "not", "is a label"),
        ({"labels": "cat,dog", "not": "bird", "abstain": "false"}, "not", "abstain"),
    ],
)
def test_texts_and_words_that_cannot_be_are_named(
    client: httpx.Client, samples: dict[str, Path], fields: dict[str, str], field: str, message: str
) -> None:
    refused = client.post(
        "/classify", files={"image": samples["cat"].read_bytes()}, data=fields
    ).json()
    assert refused["status"] in (400, 413, 422)
    assert refused.get("field", field) == field
    assert message in refused["detail"]
