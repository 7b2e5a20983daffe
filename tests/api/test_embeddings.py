"""POST /embeddings/text and /embeddings/image: which rows, in which forms, and what is refused."""

import base64
import io
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from app.api.embeddings import ImageEmbeddingsAnswer, TextEmbeddingsAnswer
from models.encoder import Encoder

LABELS = ["cat", "dog", "rocket"]


def rows(answer: httpx.Response) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    return np.array(answer.json()["embeddings"], np.float32)


def test_a_text_is_embedded_as_it_is(client: httpx.Client, pictogram: Encoder) -> None:
    texts = ["a cat in the rain", "two\nlines", "a {} with braces", "a cat in the rain"]
    answer = client.post("/embeddings/text", json={"texts": texts})
    np.testing.assert_allclose(rows(answer), pictogram.submit_texts(texts).result(), atol=1e-6)
    document = TextEmbeddingsAnswer.model_validate(answer.json())
    assert (document.model, document.width, document.templates) == (
        "pictogram",
        rows(answer).shape[1],
        None,
    )
    assert document.fingerprint == pictogram.info.fingerprint
    assert "text;dur=" in answer.headers["Server-Timing"]


def test_a_text_that_is_known_is_not_encoded_again(client: httpx.Client) -> None:
    texts = {"texts": ["first seen here", "and this too"]}
    assert client.post("/embeddings/text", json=texts).json()["cached"] == 0
    assert client.post("/embeddings/text", json=texts).json()["cached"] == 2


def test_rows_of_labels_and_images_give_the_similarities_of_classify(
    client: httpx.Client, samples: dict[str, Path]
) -> None:
    picture = samples["cat"].read_bytes()
    text = client.post(
        "/embeddings/text", json={"texts": LABELS, "templates": ["an icon of a {}", "a {}"]}
    )
    image = client.post("/embeddings/image", content=picture)
    classified = client.post(
        "/classify",
        files={"image": picture},
        data={"labels": LABELS, "templates": ["an icon of a {}", "a {}"]},
    ).json()
    cosines = dict(zip(LABELS, rows(text) @ rows(image)[0], strict=True))
    for prediction in classified["predictions"]:
        assert cosines[prediction["label"]] == pytest.approx(prediction["similarity"], abs=1e-5)
    assert text.json()["templates"] == "custom"
    response = client.post("/embeddings/text", json={"texts": LABELS, "templates": "imagenet"})
    assert response.json()["templates"] == "imagenet"


def test_images_come_in_a_form_raw_or_as_json_with_the_same_rows(
    client: httpx.Client, samples: dict[str, Path]
) -> None:
    files = [samples["cat"].read_bytes(), samples["key"].read_bytes()]
    coded = [base64.b64encode(file).decode() for file in files]
    form = client.post("/embeddings/image", files=[("image", file) for file in files])
    document = ImageEmbeddingsAnswer.model_validate(form.json())
    assert [image.sha256 for image in document.images] == [
        client.post("/classify", files={"image": file}, data={"labels": "a,b"}).json()["image"][
            "sha256"
        ]
        for file in files
    ]
    for request in (
        client.post("/embeddings/image", json={"images": coded}),
        client.post("/embeddings/image", json={"image": coded}),
    ):
        np.testing.assert_allclose(rows(request), rows(form), atol=1e-6)
    for row, file, text in zip(rows(form), files, coded, strict=True):
        for alone in (
            client.post("/embeddings/image", content=file),
            client.post("/embeddings/image", json={"image": f"data:;base64,{text}"}),
        ):
            np.testing.assert_allclose(rows(alone)[0], row, atol=1e-6)


@pytest.mark.parametrize("place", ["address", "form"])
def test_base64_is_the_little_endian_float32_of_the_numbers(
    client: httpx.Client, samples: dict[str, Path], place: str
) -> None:
    files = {"image": samples["cat"].read_bytes()}
    numbers = rows(client.post("/embeddings/image", files=files))
    coding = {"encoding_format": "base64"}
    where: dict[str, Any] = {"params": coding} if place == "address" else {"data": coding}
    coded = client.post("/embeddings/image", files=files, **where).json()["embeddings"]
    row = np.frombuffer(base64.b64decode(coded[0]), "<f4")
    np.testing.assert_allclose(row, numbers[0], atol=1e-6)


def test_an_image_seen_before_is_not_encoded_again(
    pictogram: Encoder, serve: Any, samples: dict[str, Path]
) -> None:
    with serve(pictogram, image_cache_bytes=1_000_000) as client:
        files = [("image", samples["cat"].read_bytes()), ("image", samples["dog"].read_bytes())]
        first = client.post("/embeddings/image", files=files[:1])
        response = client.post("/embeddings/image", files=files)
    assert first.json()["cached"] == 0
    assert response.json()["cached"] == 1
    assert [image["cached"] for image in response.json()["images"]] == [True, False]
    np.testing.assert_array_equal(rows(response)[0], rows(first)[0])


def test_one_bad_image_of_many_is_named(client: httpx.Client, samples: dict[str, Path]) -> None:
    good = samples["cat"].read_bytes()
    answer = client.post(
        "/embeddings/image", files=[("image", good), ("image", good[:5000]), ("image", good)]
    )
    assert answer.status_code == 422
    assert answer.json()["error_type"] == "damaged_image"
    assert answer.json()["detail"].startswith("image 2 of 3: ")


def test_of_several_bad_images_the_first_is_named_however_long_it_takes(
    client: httpx.Client,
) -> None:
    file = io.BytesIO()
    Image.effect_noise((2000, 2000), 60).save(file, "PNG", compress_level=0)
    bad = [file.getvalue()[:-50_000], b"no image", b"no image"]  # found last, and at once
    answer = client.post("/embeddings/image", files=[("image", data) for data in bad])
    assert answer.json()["detail"].startswith("image 1 of 3: ")
    coded = [base64.b64encode(bad[0]).decode() + "!", "!", "!"]
    answer = client.post("/v1/embeddings", json={"input": coded, "modality": "image"})
    assert answer.json()["error"]["message"].startswith("input[0]: ")


@pytest.mark.parametrize(
    ("body", "status", "field", "message"),
    [
        ({}, 422, "texts", "texts is missing"),
        ({"texts": []}, 422, "texts", "at least one text"),
        ({"texts": "a cat"}, 422, "texts", "valid list"),
        ({"texts": ["a", ""]}, 422, "texts", "text number 2 of texts is empty"),
        ({"texts": ["a\0b"]}, 422, "texts", "control character"),
        ({"texts": ["a"] * 1001}, 413, "texts", "the limit is 1000"),
        ({"texts": ["x" * 2001]}, 413, "texts", "the limit is 2000"),
        ({"texts": ["cat " * 200]}, 413, "texts", "the model reads"),
        ({"texts": ["a"], "templates": "none such"}, 404, "templates", "'none such'"),
        ({"texts": ["a"], "templates": ["{} {}"]}, 422, "templates", "placeholder"),
        ({"texts": ["a"], "encoding_format": "hex"}, 422, "encoding_format", "'base64'"),
        ({"texts": ["a"], "text": "b"}, 422, "text", "unknown field 'text'"),
    ],
)
def test_texts_that_cannot_be_embedded_are_refused_with_their_field(
    client: httpx.Client, body: dict[str, Any], status: int, field: str, message: str
) -> None:
    answer = client.post("/embeddings/text", json=body)
    assert answer.status_code == status, answer.text
    assert answer.json()["field"] == field
    assert message in answer.json()["detail"]


@pytest.mark.parametrize(
    ("body", "status", "field", "message"),
    [
        ({"content": b""}, 422, "image", "no image was sent"),
        ({"content": b"no image"}, 415, "image", "this is text"),
        ({"json": {}}, 422, "image", "no image was sent"),
        ({"json": {"images": []}}, 422, "image", "no image was sent"),
        ({"json": {"image": "a", "images": ["b"]}}, 422, "image", "give either"),
        ({"json": {"images": [1]}}, 422, "image", "number 1 is not a text"),
        ({"json": {"images": ["aGk=", "!"]}}, 422, "image", "image 2 of 2: image is not base64"),
        ({"json": {"images": ["aGk="] * 65}}, 413, "image", "the limit is 64"),
        ({"files": [("image", b"x")] * 65}, 413, "image", "the limit is 64"),
        ({"files": [("image", b"")]}, 422, "image", "the image is empty (0 bytes)"),
        ({"content": b"", "headers": {"Content-Type": "image/png"}}, 422, "image", "0 bytes"),
        ({"json": {"image": ""}}, 422, "image", "the image is empty (0 bytes)"),
        (
            {"files": [("image", (None, text)) for text in (b"aGk=", b"!!")]},
            422,
            "image",
            "image 2 of 2: image is not base64",
        ),
        ({"files": [("image", b"")] * 2}, 422, "image", "image 1 of 2: the image is empty"),
        ({"files": [("photo", b"x")]}, 422, "photo", "send the picture as 'image'"),
        ({"files": [("image", b"x")], "data": {"labels": "a"}}, 422, "labels", "unknown field"),
        ({"files": [("image", b"x")], "params": {"labels": "a"}}, 422, "labels", "unknown field"),
    ],
)
def test_images_that_cannot_be_embedded_are_refused_with_their_field(
    client: httpx.Client, body: dict[str, Any], status: int, field: str, message: str
) -> None:
    answer = client.post("/embeddings/image", **body)
    assert answer.status_code == status, answer.text
    assert answer.json()["field"] == field
    assert message in answer.json()["detail"]
