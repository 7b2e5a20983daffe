"""What people really send: texts in every coding, base64 in every dress, labels from files."""

import base64
import hashlib
import io
import json
import subprocess
import sys
import time
import tracemalloc
import urllib.parse
import zipfile
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from pydantic import BaseModel
from starlette.requests import Request

from app.api import bodies
from app.api.embeddings import ImagesBody, TextsFields
from app.api.fields import ClassifyBody, ClassifyFields
from app.api.labelset_body import LabelSetBody
from app.api.openai import OpenAiBody
from app.errors import Invalid, Unparsable

LABELS = ["cat", "dog", "pizza", "rocket"]
TEXT = "\n".join(LABELS) + "\n"


@pytest.fixture(scope="module")
def cat(samples: dict[str, Path]) -> bytes:
    return samples["cat"].read_bytes()


def labels_of(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    predictions = answer.json()["predictions"]
    assert predictions[0]["label"] == "cat"
    return sorted(prediction["label"] for prediction in predictions)


def curl(client: httpx.Client, path: str, *options: str, folder: Path) -> dict[str, Any]:
    url = str(client.base_url.join(path))
    run = subprocess.run(
        ["curl", "-sS", *options, url], cwd=folder, capture_output=True, check=True, timeout=300
    )
    document: dict[str, Any] = json.loads(run.stdout)
    return document


CODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"]


def marked(text: str, coding: str) -> bytes:
    """A text with its byte-order mark, but for plain UTF-8."""
    mark = "" if coding in ("utf-8", "utf-8-sig", "utf-16", "utf-32") else "\ufeff"
    return (mark + text).encode(coding)


@pytest.mark.parametrize("coding", CODINGS)
def test_a_byte_order_mark_is_passed_over_and_says_the_coding(
    client: httpx.Client, cat: bytes, coding: str
) -> None:
    lines = TEXT.replace("\n", "\r\n")
    fields = {"image": base64.b64encode(cat).decode(), "labels": LABELS}
    as_json = marked(json.dumps(fields), coding)
    ways = [
        client.post("/classify", content=as_json, headers={"Content-Type": "application/json"}),
        client.post("/classify", files={"image": cat, "labels": marked(lines, coding)}),
        client.post("/classify", files={"image": cat, "labels": (None, marked(lines, coding))}),
    ]
    for way in ways:
        assert labels_of(way) == sorted(LABELS)
    response = client.put(
        f"/labelsets/coded-{coding}",
        content=marked(lines, coding),
        headers={"Content-Type": "text/plain"},
    )
    assert response.json()["labels"] == LABELS, response.text
    for path, body in {
        "/embeddings/text": {"texts": ["a cat"]},
        "/v1/embeddings": {"input": "a cat"},
        f"/labelsets/json-{coding}": {"labels": LABELS},
    }.items():
        response = client.request(
            "PUT" if "labelsets" in path else "POST",
            path,
            content=marked(json.dumps(body), coding),
            headers={"Content-Type": "application/json"},
        )
        assert response.status_code < 300, response.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("café".encode("latin-1"), "not UTF-8 text"),
        ("cat\ndog".encode("utf-16-le"), "looks like UTF-16 without its byte-order mark"),
        ("cat\ndog".encode("utf-16-be"), "looks like UTF-16 without its byte-order mark"),
        (b"\xff\xfec", "not UTF-16 text"),
    ],
)
def test_a_text_in_another_coding_is_told_to_be_saved_as_utf_8(
    content: bytes, message: str
) -> None:
    with pytest.raises(Unparsable, match=message) as caught:
        bodies.text_of(content)
    assert "save it as UTF-8" in caught.value.detail


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("iVBORw0KGgo!AAAA", "its character 12 is '!'"),
        ("iVBORw0KG", "no base64 has 9 characters; it may be cut short"),
    ],
)
def test_what_is_wrong_with_base64_is_told(client: httpx.Client, text: str, told: str) -> None:
    answer = client.post("/classify", json={"image": text, "labels": ["a", "b"]})
    assert (answer.status_code, answer.json()["field"]) == (422, "image")
    assert answer.json()["detail"] == f"image is not base64: it begins {text!r}, " + (
        f"and {told}" if "!" in text else f"but {told}"
    )


def test_base64_is_taken_in_every_dress_that_people_send() -> None:
    data = bytes(range(256)) + b"\xfb\xff\xbf"
    for cut in (data, data[:-1], data[:-2]):
        plain, url = base64.b64encode(cut).decode(), base64.urlsafe_b64encode(cut).decode()
        wrapped = "\r\n".join(plain[i : i + 76] for i in range(0, len(plain), 76))
        for text in (plain, plain.rstrip("="), url, url.rstrip("="), wrapped, f" {plain}\n"):
            assert bodies.from_base64(text) == cut
            for head in (
                "data:image/png;base64,",
                "data:;base64,",
                "data:image/png;name=my cat.png;base64,",
                "data:image/png;name=my%20cat.png;base64,",
                'data:image/png;name="a,b;c.png";base64,',
                "data:image/png; charset=utf-8; base64 ,",
                "DATA:image/svg+xml;charset=utf-8;BASE64,",
            ):
                assert bodies.from_base64(head + text) == cut
                assert bodies.is_image_uri(head + text)
        assert bodies.from_base64("data:image/png;base64," + urllib.parse.quote(plain)) == cut
        assert bodies.from_base64("data:image/png," + urllib.parse.quote(cut)) == cut


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("https://example.org/cat.png", "as image_url"),
        (" HTTP://example.org/cat.png", "as image_url"),
        ("file:///home/me/cat.png", "file: URLs are not fetched; send the picture itself"),
        ("s3://bucket/cat.png", "s3: URLs are not fetched"),
    ],
)
def test_an_address_in_place_of_the_picture_points_to_image_url(
    client: httpx.Client, url: str, advice: str
) -> None:
    answers = [
        client.post("/classify", json={"image": url, "labels": LABELS}),
        client.post("/classify", data={"image": url, "labels": "cat,dog"}),
        client.post("/classify", files={"image": (None, url), "labels": (None, "cat,dog")}),
        client.post("/embeddings/image", json={"image": url}),
    ]
    for answer in answers:
        document = answer.json()
        assert (answer.status_code, document["field"]) == (422, "image"), document
        assert "is a URL, not base64" in document["detail"]
        assert advice in document["detail"]
    batch = client.post("/classify/batch", json={"images": [url], "labels": LABELS}).json()
    assert advice in batch["results"][0]["error"]["detail"]


def test_a_form_with_a_name_registers_a_label_set(client: httpx.Client) -> None:
    fields = {"name": "by-form", "labels": "cat,dog"}
    lines = {"name": (None, "by-form"), "labels": ("labels.txt", TEXT.encode())}
    for form, labels in (({"data": fields}, ["cat", "dog"]), ({"files": lines}, LABELS)):
        answer = client.post("/labelsets", params={"wait": True}, **form)
        assert (answer.status_code, answer.json()["labels"]) == (201, labels), answer.text
        assert client.delete("/labelsets/by-form").status_code == 204


@pytest.mark.parametrize("text", ["a", "abcde", "!!", "ab=c", "data:image/png;base64", "data:,%"])
def test_what_is_no_base64_is_refused_or_percent_encoded(text: str) -> None:
    if text.startswith("data:,"):
        assert bodies.from_base64(text) == b"%"
    else:
        with pytest.raises(Invalid):
            bodies.from_base64(text)


@pytest.mark.parametrize("text", ["data: more, or less", "data:text/plain,a cat", "data science"])
def test_a_text_that_begins_like_a_data_uri_is_a_text(text: str) -> None:
    assert not bodies.is_image_uri(text)


def test_a_plus_that_a_form_did_not_encode_is_put_back(client: httpx.Client, cat: bytes) -> None:
    text = base64.b64encode(cat).decode()
    assert "+" in text
    response = client.post(
        "/classify?labels=cat,dog",
        content=f"image={text}",
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    assert response.json()["predictions"][0]["label"] == "cat"


@pytest.mark.parametrize("way", ["labels=<labels.txt", "labels=@labels.txt"])
@pytest.mark.parametrize("path", ["/classify", "/classify/batch"])
def test_labels_come_from_a_file_one_a_line(
    client: httpx.Client, cat: bytes, tmp_path: Path, way: str, path: str
) -> None:
    (tmp_path / "labels.txt").write_text("cat\r\n\r\na dog, asleep\r\npizza\r\n")
    (tmp_path / "cat.png").write_bytes(cat)
    answer = curl(client, path, "-F", way, "-F", "image=@cat.png", folder=tmp_path)
    result = answer if path == "/classify" else answer["results"][0]["result"]
    assert sorted(p["label"] for p in result["predictions"]) == ["a dog, asleep", "cat", "pizza"]


def test_a_file_of_one_line_or_of_json_is_what_a_text_would_be(
    client: httpx.Client, cat: bytes
) -> None:
    for text in ("cat,dog\n", '["cat",\n "dog"]\n', "cat\ndog"):
        for name in (None, "labels.txt"):
            response = client.post("/classify", files={"image": cat, "labels": (name, text)})
            assert labels_of(response) == ["cat", "dog"]
    response = client.post(
        "/classify",
        files={"image": cat, "labels": TEXT, "templates": ("t.txt", "a {}\nan icon of a {}")},
    )
    assert response.json()["templates"] == "custom"


def test_other_files_than_the_picture_and_lists_are_refused(
    client: httpx.Client, cat: bytes
) -> None:
    response = client.post("/classify", files={"file": cat, "labels": (None, "cat,dog")})
    assert response.status_code == 422
    assert response.json()["field"] == "file"
    assert response.json()["detail"].endswith("send the picture as 'image'")


DISPOSITIONS = [
    "form-data; name=\"image\"; filename*=UTF-8''caf%C3%A9.png",
    "form-data; name=\"image\"; filename*=utf-8'en'%e2%82%ac.png",
    "form-data; filename*=UTF-8''cat.png; name=image",
    "form-data; name=\"image\"; filename*=iso-8859-1''caf%E9.png",
    'form-data; name="image"; filename="cat.png"; filename*=UTF-8\'\'cat.png',
    'form-data; name="image"; filename*0="ca"; filename*1="t.png"',
]


@pytest.mark.parametrize("disposition", DISPOSITIONS)
@pytest.mark.parametrize("path", ["/classify", "/classify/batch", "/embeddings/image"])
def test_a_part_with_an_extended_file_name_is_a_file(
    client: httpx.Client, cat: bytes, disposition: str, path: str
) -> None:
    body = io.BytesIO()
    if "classify" in path:
        body.write(b'--B\r\nContent-Disposition: form-data; name="labels"\r\n\r\ncat,dog\r\n')
    body.write(f"--B\r\nContent-Disposition: {disposition}\r\n\r\n".encode() + cat)
    body.write(b"\r\n--B--\r\n")
    response = client.post(
        path,
        content=body.getvalue(),
        headers={"Content-Type": "multipart/form-data; boundary=B"},
    )
    assert response.status_code == 200, response.text
    assert '"failed":1' not in response.text


def test_the_name_in_an_extended_file_name_is_read(client: httpx.Client, cat: bytes) -> None:
    head = b'--B\r\nContent-Disposition: form-data; name="labels"\r\n\r\ncat,dog\r\n--B\r\n'
    extended = b"; filename*=UTF-8''caf%C3%A9.png"
    for names, name in (
        (extended, "café.png"),
        (b'; filename="=?utf-8?B?Y2Fmw6kucG5n?="' + extended, "café.png"),  # as .NET sends both
        ('; filename="é filename*.png"'.encode(), "é filename*.png"),
        (b'; filename="a.png"; filename*0="b"' + extended, "a.png"),  # no parser takes both
    ):
        file = b"Content-Disposition: form-data; name=image" + names
        response = client.post(
            "/classify/batch",
            content=head + file + b"\r\n\r\n" + cat + b"\r\n--B--\r\n",
            headers={"Content-Type": "multipart/form-data; boundary=B"},
        )
        assert response.json()["results"][0]["name"] == name


@pytest.mark.parametrize("charset", ["idna", "undefined", "a\0b", "unicode_escape", "utf-7", ""])
def test_no_charset_of_an_extended_file_name_fails_a_request(
    client: httpx.Client, cat: bytes, charset: str
) -> None:
    head = '--B\r\nContent-Disposition: form-data; name="labels"\r\n\r\ncat,dog\r\n--B\r\n'
    file = f"Content-Disposition: form-data; name=image; filename*={charset}''%5Cud800+2AA-.png"
    response = client.post(
        "/classify/batch",
        content=f"{head}{file}\r\n\r\n".encode() + cat + b"\r\n--B--\r\n",
        headers={"Content-Type": "multipart/form-data; boundary=B"},
    )
    assert response.status_code == 200, response.text
    assert response.json()["results"][0]["name"] == "\\ud800+2AA-.png"


@pytest.mark.parametrize("space", [" ", "\u2009"])
def test_base64_in_words_is_never_a_list_of_them(space: str) -> None:
    text = f"abcd{space}" * 200_000
    tracemalloc.start()
    assert len(bodies.from_base64(text)) == 600_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * sys.getsizeof(text)


@pytest.mark.parametrize("space", ["\n", "\r\n", "\t", "\xa0", "\u2009", "\u2028", "\u3000"])
def test_white_space_in_base64_is_passed_over(space: str) -> None:
    assert bodies.from_base64(f"aGVs{space}bG8={space}") == b"hello"
    with pytest.raises(Invalid, match="its character 6 is 'é'"):
        bodies.from_base64(f"aGVs{space}bébb{space}")


def test_of_a_part_with_masses_of_parameters_the_plain_name_is_read(
    client: httpx.Client, cat: bytes
) -> None:
    head = b'--B\r\nContent-Disposition: form-data; name="labels"\r\n\r\ncat,dog\r\n--B\r\n'
    file = b"Content-Disposition: form-data; name=image; filename=a.png; filename*=UTF-8''b.png"
    response = client.post(
        "/classify/batch",
        content=head + file + b";" * 4_000 + b"\r\n\r\n" + cat + b"\r\n--B--\r\n",
        headers={"Content-Type": "multipart/form-data; boundary=B"},
    )
    assert response.json()["results"][0]["name"] == "a.png"


def test_labels_that_lost_their_line_ends_in_curl_are_refused_with_the_reason(
    client: httpx.Client, tmp_path: Path
) -> None:
    (tmp_path / "labels.txt").write_text(TEXT)
    answer = curl(client, "/labelsets/glued", "-X", "PUT", "-d", "@labels.txt", folder=tmp_path)
    assert (answer["status"], answer["field"]) == (422, "labels")
    assert "curl's -d" in answer["detail"]
    assert "--data-binary" in answer["detail"]
    assert client.get("/labelsets/glued").status_code == 404
    labelset = curl(
        client, "/labelsets/kept", "-X", "PUT", "--data-binary", "@labels.txt", folder=tmp_path
    )
    assert labelset["labels"] == LABELS


@pytest.mark.parametrize(
    "options",
    [
        ("-d", "labels=cat,dog"),
        ("-d", '{"labels": ["cat", "dog"]}'),
        ("-F", "labels=@two.txt"),
        ("-F", "labels=cat,dog"),
        ("-F", "labels=cat", "-F", "labels=dog"),
        ("-H", "Content-Type: text/plain", "-d", "cat,dog"),
        ("-F", 'labels={"cat": ["cat", "kitten"], "dog": []}'),
        ("-F", "labels=@object.json"),
        ("-F", "labels=<object.json"),
        ("-H", "Content-Type: text/plain", "--data-binary", "@body.json"),
        ("-H", "Content-Type: application/octet-stream", "--data-binary", "@marked.json"),
        ("-H", "Content-Type;", "--data-binary", "@body.json"),
    ],
)
def test_a_label_set_is_taken_however_curl_sends_it(
    client: httpx.Client, tmp_path: Path, options: tuple[str, ...]
) -> None:
    (tmp_path / "two.txt").write_text("cat\ndog\n")
    labels = {"cat": ["cat", "kitten"], "dog": []}
    (tmp_path / "object.json").write_text(json.dumps(labels, indent=1))
    body = json.dumps({"labels": labels, "description": "pets"}, indent=1)
    (tmp_path / "body.json").write_text(body)
    (tmp_path / "marked.json").write_text(body, encoding="utf-8-sig")
    response = curl(client, "/labelsets/curled", "-X", "PUT", *options, folder=tmp_path)
    assert response.get("labels") == ["cat", "dog"], response


@pytest.mark.parametrize("kind", [None, "text/plain", "application/octet-stream"])
@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_a_label_set_in_json_is_no_list_of_lines_whatever_type_came_with_it(
    client: httpx.Client, kind: str | None, method: str
) -> None:
    path = "/labelsets" if method == "POST" else "/labelsets/untyped"
    name = {"name": "untyped"} if method == "POST" else {}
    headers = {} if kind is None else {"Content-Type": kind}
    body = json.dumps({**name, "labels": ["cat", "dog", "parrot"]})
    stored = client.request(method, path, content=body.encode(), headers=headers)
    assert stored.json()["labels"] == ["cat", "dog", "parrot"], stored.text
    cut = client.request(method, path, content=body[:-1].encode(), headers=headers)
    assert (cut.status_code, "not JSON" in cut.json()["detail"]) == (400, True)
    # braces alone make no object
    text = client.put("/labelsets/braces", content="{cat}\n{dog} or so", headers=headers)
    assert text.json()["labels"] == ["{cat}", "{dog} or so"]
    for one in ("untyped", "braces"):
        client.delete(f"/labelsets/{one}").raise_for_status()


@pytest.mark.parametrize("path", ["/classify", "/classify/batch"])
def test_an_object_of_labels_may_come_as_a_file_and_templates_may_begin_with_braces(
    client: httpx.Client, cat: bytes, path: str
) -> None:
    labels = json.dumps({"pet": ["cat", "hamster"], "rocket": []}, indent=2)
    texts = {
        "labels": ("labels.json", labels),
        "templates": ("templates.txt", "{} in a picture\n{}\n"),
    }
    answer = client.post(path, files={**texts, "image": ("cat.png", cat)}).json()
    result = answer if path == "/classify" else answer["results"][0]["result"]
    assert [prediction["label"] for prediction in result["predictions"]] == ["pet", "rocket"]
    assert result["templates"] == "custom"
    wrong = {**texts, "not": ("not.json", labels), "image": ("cat.png", cat)}
    refused = client.post(path, files=wrong)
    assert (refused.status_code, refused.json()["field"]) == (422, "not")
    assert "JSON object" in refused.json()["detail"]


FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.mark.parametrize(
    ("method", "path", "form"),
    [
        ("POST", "/classify?labels=K%E4fer,Hund", ""),
        ("POST", "/classify", "labels=K%E4fer,Hund&image_url=http://localhost/"),
        ("POST", "/classify/batch?labels=K%E4fer,Hund", ""),
        ("POST", "/hf/zero-shot-image-classification?candidate_labels=K%E4fer,Hund", ""),
        ("POST", "/api/v1/vision/labels?labels=K%E4fer,Hund", ""),
        ("PUT", "/labelsets/latin", "description=a&labels=K%E4se,Brot"),
        ("PUT", "/labelsets/latin", "labels=Brot,Wein&description=caf%E9"),
        ("POST", "/labelsets?name=latin&description=caf%E9", ""),
        ("DELETE", "/labelsets/latin/examples?label=caf%E9", ""),
        ("GET", "/labelsets?after=caf%E9", ""),
        ("GET", "/labelsets?%E4fter=a", ""),
    ],
)
def test_what_is_percent_encoded_in_another_coding_than_utf_8_is_refused(
    client: httpx.Client, cat: bytes, method: str, path: str, form: str
) -> None:
    content, headers = (form, FORM) if form else (cat if method == "POST" else None, {})
    refused = client.request(method, path, content=content, headers=headers)
    assert (refused.status_code, refused.json()["error_type"]) == (400, "unparsable_body")
    detail, field = refused.json()["detail"], refused.json()["field"]
    assert "percent-encode it as UTF-8" in detail
    assert field in ("labels", "candidate_labels", "description", "label", "after", "?fter")
    assert ("%E4" in detail) or ("%E9" in detail)
    assert client.get("/labelsets/latin").status_code == 404


@pytest.mark.parametrize("form", [{"files": {"labels": (None, '["cat",')}}, {"content": '["cat",'}])
def test_a_broken_list_of_labels_is_the_requests_fault(
    client: httpx.Client, form: dict[str, Any]
) -> None:
    refused = client.put("/labelsets/broken", **form)
    assert (refused.status_code, refused.json()["field"]) == (422, "labels")
    assert "not valid JSON" in refused.json()["detail"]


def test_a_picture_that_lost_its_line_ends_in_curl_is_named(
    client: httpx.Client, samples: dict[str, Path], tmp_path: Path
) -> None:
    for name in ("cat", "key"):
        (tmp_path / "picture").write_bytes(samples[name].read_bytes())
        for path in ("/classify?labels=cat,dog", "/embeddings/image"):
            answer = curl(client, path, "-d", "@picture", folder=tmp_path)
            assert answer["status"] == 400
            assert "curl's -d" in answer["detail"]


def test_a_picture_without_a_file_name_is_one(
    client: httpx.Client, samples: dict[str, Path], tmp_path: Path
) -> None:
    for name in ("cat", "key", "bicycle"):
        picture = samples[name].read_bytes()
        (tmp_path / "picture").write_bytes(picture)
        sent = hashlib.sha256(picture).hexdigest()
        answer = curl(client, "/classify?labels=cat,dog", "-F", "image=<picture", folder=tmp_path)
        assert answer["image"]["sha256"] == sent
        embedded = client.post("/embeddings/image", files={"image": (None, picture)}).json()
        assert [image["sha256"] for image in embedded["images"]] == [sent]
        batch = client.post("/classify/batch?labels=cat,dog", files={"image": (None, picture)})
        assert batch.json()["results"][0]["result"]["image"]["sha256"] == sent
        refused = client.post("/labelsets", files={"labels": (None, picture), "name": (None, "x")})
        assert (refused.status_code, refused.json()["field"]) == (400, "labels")
        assert "the field 'labels' is a picture" in refused.json()["detail"]


def test_a_form_or_a_list_that_the_sender_got_wrong_is_told_what_is_right(
    client: httpx.Client, cat: bytes, tmp_path: Path
) -> None:
    """As PHP and axios write lists, and what people write into headers of fetch and curl."""
    for name, advice in (
        ("labels[]", "called labels, without brackets (a list in a form: labels once for each"),
        ("labels[0]", "called labels, without brackets"),
        ("labels[cat]", "; the fields are "),
    ):
        for fields in ({"data": {name: "cat"}}, {"params": {name: "cat"}}):
            answer = client.post("/classify", files={"image": cat}, **fields).json()
            assert answer["field"] == name
            assert advice in answer["detail"]
    form = httpx.Request("POST", "http://x", files={"image": cat}, data={"labels": "a,b"}).read()
    for kind, advice in (
        ("application/json", "let your HTTP client set Content-Type"),
        ("multipart/form-data", "let your HTTP client set that header"),
    ):
        answer = client.post("/classify", content=form, headers={"Content-Type": kind})
        assert (answer.status_code, advice in answer.json()["detail"]) == (400, True), answer.text
    (tmp_path / "a.png").write_bytes(cat)
    answer = curl(client, "/classify?labels=a,b", "-F", "image=@a.png,a.png", folder=tmp_path)
    assert (answer["status"], answer["field"]) == (422, "image")
    assert "send each in a part of its own" in answer["detail"]
    answer = client.post("/classify?labels=a,b", content=b"[object FormData]").json()
    assert answer["detail"].startswith("this is what JavaScript calls an object")
    content = urllib.parse.urlencode({"image": cat, "labels": "a,b"})
    answer = client.post("/classify", content=content, headers=FORM).json()
    assert (answer["status"], answer["field"]) == (400, "image")
    assert answer["detail"].endswith("send the picture as a file, -F image=@FILE, or in base64")


def test_labels_may_begin_as_pictures_do(client: httpx.Client, cat: bytes) -> None:
    for labels in ("GIF,PNG,JPEG", "GIF89a,BMP", "BM,RIFF"):
        answer = client.post("/classify", files={"image": cat}, data={"labels": labels})
        found = {each["label"] for each in answer.json()["predictions"]}
        assert found == set(labels.split(",")), answer.text


def test_labels_that_are_one_to_the_model_earn_a_warning(client: httpx.Client, cat: bytes) -> None:
    answer = client.post("/classify?labels=cat,Cat,CAT,dog", content=cat).json()
    (warning,) = answer["warnings"]
    assert "'cat', 'Cat', 'CAT' are the same to the model" in warning
    answer = client.post("/classify?labels=cat,dog,cats,dogs", content=cat).json()
    assert answer["warnings"] == []
    client.put("/labelsets/same", json={"labels": ["dog", "cat", "Cat"]}, params={"wait": True})
    answer = client.post("/classify?labelset=same", content=cat).json()
    assert len(answer["warnings"]) == 1


def test_a_label_written_two_ways_counts_once(client: httpx.Client, cat: bytes) -> None:
    labels = ["hot dog", "hot  dog", "café", "cafe\u0301", "cat"]
    answer = client.post("/classify", files={"image": cat}, data={"labels": labels}).json()
    assert sorted(p["label"] for p in answer["predictions"]) == ["café", "cat", "hot dog"]
    assert len(answer["warnings"]) == 2
    set_of = client.put("/labelsets/ways", json={"labels": labels}).json()
    assert set_of["labels"] == ["hot dog", "café", "cat"]
    hf = client.post(
        "/hf/zero-shot-image-classification",
        json={"inputs": base64.b64encode(cat).decode(), "parameters": {"candidate_labels": labels}},
    )
    assert len(hf.json()) == 3


def test_a_negation_earns_a_warning(client: httpx.Client, cat: bytes) -> None:
    (warning,) = client.post("/classify?labels=a cat,no cat", content=cat).json()["warnings"]
    assert "'no cat'" in warning
    assert "abstain" in warning


def test_a_comma_at_the_end_is_taken_by_the_pipelines_route_and_explained_by_ours(
    client: httpx.Client, cat: bytes
) -> None:
    text = base64.b64encode(cat).decode()
    body = {"inputs": text, "parameters": {"candidate_labels": "cat,dog, ,"}}
    response = client.post("/hf/zero-shot-image-classification", json=body)
    assert [prediction["label"] for prediction in response.json()] == ["cat", "dog"]
    response = client.post(
        "/hf/zero-shot-image-classification?candidate_labels=cat,dog,", content=cat
    )
    assert len(response.json()) == 2
    for names in (
        {"image": cat, "labels": (None, "cat,dog,")},
        {"inputs": cat, "candidate_labels": (None, "cat,dog,")},
    ):
        response = client.post("/hf/zero-shot-image-classification", files=names)
        assert [prediction["label"] for prediction in response.json()] == ["cat", "dog"]
    refused = client.post("/classify?labels=cat,dog,", content=cat)
    assert refused.status_code == 422
    assert "is there a comma at the end?" in refused.json()["detail"]


@pytest.mark.parametrize("text", ["猫，犬，鱼", "猫、犬", "cat;dog;pizza", "cat | dog", "قطة، كلب"])
def test_a_list_with_other_commas_is_one_label_with_a_warning(
    client: httpx.Client, cat: bytes, text: str
) -> None:
    form = {"labels": text, "threshold": "0"}
    answer = client.post("/classify", data=form, files={"image": cat}).json()
    assert [prediction["label"] for prediction in answer["predictions"]] == [text]
    assert any("is one label, since" in warning for warning in answer["warnings"])
    several = client.post("/classify", data={"labels": f"{text},fish"}, files={"image": cat})
    assert not any("is one label" in warning for warning in several.json()["warnings"])


def test_a_label_set_of_one_label_behaves_as_one_label_does(
    client: httpx.Client, cat: bytes
) -> None:
    client.put("/labelsets/lone", json={"labels": ["cat"]}, params={"wait": True})
    for query in ("labels=cat", "labelset=lone"):
        for path in ("/classify", "/classify/batch"):
            response = client.post(f"{path}?{query}", files={"image": ("a.png", cat)})
            assert response.status_code == 422, response.text
            assert "one label alone, 'cat', scores 1" in response.json()["detail"]
        scored = client.post(f"/classify?{query}&multi_label=true", content=cat).json()
        assert scored["predictions"][0]["score"] < 1


def test_an_error_quotes_the_one_label_that_was_read(client: httpx.Client, cat: bytes) -> None:
    for labels in ("猫，犬，鱼", "cat;dog;pizza"):
        response = client.post("/classify", params={"labels": labels}, content=cat)
        assert f"one label alone, '{labels}', scores 1" in response.json()["detail"]
        hf = client.post(
            "/hf/zero-shot-image-classification", params={"candidate_labels": labels}, content=cat
        )
        assert f"one label alone, '{labels}', always scores 1" in hf.json()["detail"]


def test_null_is_the_default_of_every_field_in_json(client: httpx.Client, cat: bytes) -> None:
    image = base64.b64encode(cat).decode()

    def nulls(fields: type[BaseModel], sent: dict[str, Any]) -> dict[str, Any]:
        names = [field.alias or name for name, field in fields.model_fields.items()]
        return dict.fromkeys(names) | sent

    for path, fields, sent in (
        ("/classify", ClassifyBody, {"labels": ["cat", "dog"], "image": image}),
        ("/classify", ClassifyBody, {"labelset": "preset:animals", "image": image}),
        ("/classify/batch", ClassifyFields, {"labels": ["cat", "dog"], "images": [image]}),
        ("/embeddings/text", TextsFields, {"texts": ["cat"]}),
        ("/embeddings/image", ImagesBody, {"image": image}),
        ("/v1/embeddings", OpenAiBody, {"input": "cat"}),
    ):
        plain = client.post(path, json=sent)
        assert plain.status_code == 200, plain.text
        with_nulls = client.post(path, json=nulls(fields, sent))
        assert with_nulls.status_code == 200, with_nulls.text
        assert with_nulls.json().keys() == plain.json().keys()

    own = nulls(LabelSetBody, {"labels": ["cat", "dog"]})
    put = client.put("/labelsets/nulls?wait=true", json=own)
    assert put.status_code == 201, put.text
    assert client.put("/labelsets/nulls", json={"labels": ["cat", "dog"]}).json() == put.json()
    example = {"image": image, "images": None, "label": "cat"}
    assert client.post("/labelsets/nulls/examples", json=example).json()["added"] == 1


def test_null_contradicts_nothing_and_no_unknown_field(client: httpx.Client, cat: bytes) -> None:
    body = {"image": base64.b64encode(cat).decode(), "labels": ["cat", "dog"], "top_k": None}
    answer = client.post("/classify?top_k=1", json=body)
    assert len(answer.json()["predictions"]) == 1
    unknown = client.post("/classify", json=body | {"topk": None})
    assert (unknown.status_code, unknown.json()["field"]) == (422, "topk")


def test_a_bitmap_of_a_camera_is_a_picture_as_a_raw_body(
    client: httpx.Client, cat: bytes, tmp_path: Path
) -> None:
    out = io.BytesIO()
    Image.open(io.BytesIO(cat)).convert("RGB").save(out, "BMP")
    data = out.getvalue()
    (tmp_path / "flir.bmp").write_bytes(data[:6] + b"FLIR" + data[10:])
    path = "/classify?labels=cat,dog"
    answer = curl(client, path, "--data-binary", "@flir.bmp", folder=tmp_path)
    assert answer["predictions"][0]["label"] == "cat"


def test_token_ids_in_place_of_texts_name_the_setting_that_helps(client: httpx.Client) -> None:
    for tokens in ([[9906, 1917]], [9906, 1917]):
        answer = client.post("/v1/embeddings", json={"input": tokens, "model": "pictogram"})
        assert answer.status_code == 422
        assert "check_embedding_ctx_length=False" in answer.json()["error"]["message"]


def test_folders_of_an_archive_are_labels_in_any_form_and_with_backslashes(
    client: httpx.Client, cat: bytes, samples: dict[str, Path]
) -> None:
    client.put("/labelsets/folders", json={"labels": ["café", "dog"]}, params={"wait": True})
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("cafe\u0301/1.png", cat)
        archive.writestr("dog\\1.png", samples["dog"].read_bytes())
        archive.writestr("dog\\Thumbs.db", b"x")
    added = client.post("/labelsets/folders/examples", content=out.getvalue()).json()
    assert (added["added"], added["failed"]) == (2, 0), added
    assert added["examples"] == {"café": 1, "dog": 1}
    client.delete("/labelsets/folders")


def test_a_field_that_is_unknown_and_repeated_is_called_unknown(
    client: httpx.Client, cat: bytes
) -> None:
    for params, data in (({}, {"label": ["cat", "dog"]}), ({"label": ["cat", "dog"]}, {})):
        response = client.post("/classify", files={"image": cat}, params=params, data=data)
        assert response.status_code == 422
        assert "unknown field 'label'; the fields are image, labels" in response.json()["detail"]
        for way in ("image_url", "image_sha256"):
            assert way in response.json()["detail"]
    twice = client.post("/classify", files={"image": cat}, data={"top_k": ["1", "2"]})
    assert twice.json()["detail"] == "top_k was sent 2 times; send it once"


def test_a_file_without_bytes_is_called_empty(client: httpx.Client) -> None:
    response = client.post("/classify", files={"image": ("x.png", b"")}, data={"labels": "a,b"})
    assert response.status_code == 422
    assert response.json()["detail"] == "the image is empty (0 bytes)"
    headers = {"Content-Type": "application/octet-stream"}
    raw = client.post("/classify?labels=a,b", content=b"", headers=headers)
    assert raw.json()["detail"] == "the image is empty (0 bytes)"
    missing = client.post("/classify", files={"labels": (None, "a,b")})
    assert "no image was sent" in missing.json()["detail"]
    assert "no image was sent" in client.post("/classify?labels=a,b").json()["detail"]


def test_a_template_in_place_of_a_sets_name_is_explained(client: httpx.Client, cat: bytes) -> None:
    data = {"labels": "a,b", "templates": "a photo"}
    response = client.post("/classify", files={"image": cat}, data=data)
    assert response.status_code == 404
    assert "a template of your own contains {}" in response.json()["detail"]


def address(query: str) -> Request:
    return Request({"type": "http", "query_string": query.encode()})


def test_the_fields_of_an_address_cost_no_more_than_each_once() -> None:
    many = address("&".join(f"f{number}=1" for number in range(50_000)))
    begun = time.process_time()
    assert len(bodies.address_fields(many, ())) == 50_000
    assert time.process_time() - begun < 10  # looked through for each, they take minutes
    repeated = address("labels=a&top_k=1&labels=b")
    assert bodies.address_fields(repeated, ("labels",)) == {"labels": ["a", "b"], "top_k": "1"}
    # as it is typed, where a proxy lets that through
    assert bodies.address_fields(address("labels=Käfer"), ()) == {"labels": "Käfer"}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP"])
def test_a_picture_that_is_called_json_is_told_how_to_come(client: httpx.Client, kind: str) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (200, 300), "teal").save(buffer, kind)
    headers = {"Content-Type": "application/json"}
    response = client.post("/classify", content=buffer.getvalue(), headers=headers)
    assert response.status_code == 400
    assert "its own Content-Type" in response.json()["detail"]
    response = client.post("/classify", content=b"{'labels': 1}", headers=headers)
    assert "its own Content-Type" not in response.json()["detail"]
