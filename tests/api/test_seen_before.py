"""POST /classify with `image_sha256`: other labels for a picture that is not sent again."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from models.encoder import Encoder


@pytest.fixture(scope="module")
def remembering(pictogram: Encoder, serve: Callable[..., Any]) -> Iterator[httpx.Client]:
    with serve(pictogram, image_cache_bytes=1_000_000, explain=True) as client:
        yield client


@pytest.fixture
def cat(samples: dict[str, Path]) -> bytes:
    return samples["cat"].read_bytes()


def classified(client: httpx.Client, image: bytes, **fields: Any) -> Any:
    data = {"labels": "cat,dog", **fields}
    answer = client.post("/classify", files={"image": image}, data=data)
    assert answer.status_code == 200, answer.text
    return answer.json()


def refused(answer: httpx.Response, status: int, error_type: str, field: str) -> str:
    document = answer.json()
    assert (answer.status_code, document["error_type"], document["field"]) == (
        status,
        error_type,
        field,
    )
    return str(document["detail"])


def test_other_labels_of_the_same_picture_need_no_upload(
    remembering: httpx.Client, cat: bytes
) -> None:
    sha256 = classified(remembering, cat)["image"]["sha256"]
    fields = {"labels": "rocket,cat,pizza", "image_sha256": sha256}
    whole = classified(remembering, cat, labels=fields["labels"])
    for answer in (
        remembering.post("/classify", json=fields),
        remembering.post("/classify", data=fields),
        remembering.post("/classify", files={name: (None, fields[name]) for name in fields}),
        remembering.post("/classify", params=fields),
        remembering.post("/classify", json=fields | {"image_sha256": sha256.upper()}),
        remembering.post("/classify", json=fields | {"image": None, "image_url": None}),
    ):
        assert answer.status_code == 200, answer.text
        assert answer.json()["image"] == whole["image"] | {"cached": True}
        assert answer.json()["predictions"] == whole["predictions"]
        assert answer.json()["warnings"] == whole["warnings"]


def test_a_picture_that_was_never_sent_is_unknown(remembering: httpx.Client) -> None:
    fields = {"labels": "cat,dog", "image_sha256": "0" * 64}
    answer = remembering.post("/classify", json=fields)
    assert "send the picture" in refused(answer, 404, "image_unknown", "image_sha256")
    assert answer.json()["value"] == "0" * 64


def test_it_is_known_in_the_view_that_it_was_sent_with(
    remembering: httpx.Client, samples: dict[str, Path]
) -> None:
    look = {"view": "tiles", "background": "red", "boxes": "[[0,0,0.5,1],[0.5,0,0.5,1]]"}
    whole = classified(remembering, samples["dog"].read_bytes(), **look)
    fields = {"labels": "cat,dog", "image_sha256": whole["image"]["sha256"]}
    again = remembering.post("/classify", data=fields | look).json()
    assert again["boxes"] == whole["boxes"]
    # not as a whole, and not in another view
    for other in ({}, look | {"view": "center"}):
        answer = remembering.post("/classify", data=fields | other)
        refused(answer, 404, "image_unknown", "image_sha256")
    classified(remembering, samples["dog"].read_bytes())
    answer = remembering.post("/classify", data=fields | {"view": "squash"})
    assert "not with this view" in refused(answer, 404, "image_unknown", "image_sha256")


def test_what_needs_the_pixels_and_what_is_no_digest_are_refused(
    remembering: httpx.Client, cat: bytes
) -> None:
    sha256 = classified(remembering, cat)["image"]["sha256"]
    fields = {"labels": "cat,dog", "image_sha256": sha256}
    post = remembering.post
    assert "pixels" in refused(post("/classify", json=fields | {"explain": True}), 422, "invalid",
                               "explain")  # fmt: skip
    for answer in (
        post("/classify", data=fields, files={"image": cat}),
        post("/classify", json=fields | {"image": "aGk="}),
        post("/classify", json=fields | {"image_url": "http://example.org/cat.png"}),
        post("/classify", content=cat, params=fields),
        post("/classify", json=fields | {"image_sha256": sha256[:-1]}),
        post("/classify", json=fields | {"image_sha256": "é" * 64}),
        post("/classify", json=fields | {"image_sha256": 7}),
        post("/classify", json=fields | {"image_sha256": ""}),
    ):
        refused(answer, 422, "invalid", "image_sha256")
    batch = post("/classify/batch", json=fields | {"images": ["aGk="]})
    refused(batch, 422, "invalid", "image_sha256")


def test_without_a_cache_the_setting_is_named(client: httpx.Client, cat: bytes) -> None:
    fields = {"labels": "cat,dog", "image_sha256": classified(client, cat)["image"]["sha256"]}
    detail = refused(client.post("/classify", json=fields), 404, "image_unknown", "image_sha256")
    assert "OPENVOCAB_IMAGE_CACHE_BYTES" in detail
