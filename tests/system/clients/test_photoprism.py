"""PhotoPrism and its vision service: requests as its own source sends them."""

import base64
import json
from pathlib import Path
from typing import Any

import httpx


def labels(client: httpx.Client, *pictures: Path, where: str = "", **fields: Any) -> httpx.Response:
    """As api_request.go writes a request: no spaces, and fields that are always there."""
    coded = [base64.b64encode(picture.read_bytes()).decode() for picture in pictures]
    body = {
        "id": "b3b7a5ab-9c2a-4d6a-8a3e-0c3c1f6c2d11",
        "model": "nasnet:latest",
        "suffix": "",
        "stream": False,
        "images": [f"data:image/png;base64,{picture}" for picture in coded],
        **fields,
    }
    return client.post(
        f"/api/v1/vision/labels{where}",
        content=json.dumps(body, separators=(",", ":")),
        headers={"Content-Type": "application/json"},
    )


def test_a_photo_is_labelled_from_a_label_set_of_the_address(
    client: httpx.Client, samples: dict[str, Path]
) -> None:
    client.put("/labelsets/album", json={"labels": {"pets": ["cat", "dog"], "rocket": ["rocket"]}})
    answer = labels(client, samples["cat"], where="?labelset=album&top_k=1")
    assert answer.status_code == 200, answer.text
    document = answer.json()
    assert (document["id"], document["code"]) == ("b3b7a5ab-9c2a-4d6a-8a3e-0c3c1f6c2d11", 200)
    assert document["model"]["type"] == "labels"
    assert document["model"]["name"] == "pictogram"
    (label,) = document["result"]["labels"]
    assert (label["name"], label["source"]) == ("pets", "image")
    assert 0.5 < label["confidence"] <= 1
    client.delete("/labelsets/album")


def test_of_several_photos_the_best_counts(client: httpx.Client, samples: dict[str, Path]) -> None:
    where = "?labels=cat,rocket,pizza&threshold=0.5"
    answer = labels(client, samples["cat"], samples["rocket"], where=where)
    result = answer.json()["result"]["labels"]
    assert sorted(label["name"] for label in result) == ["cat", "rocket"]
    assert [label["confidence"] for label in result] == sorted(
        (label["confidence"] for label in result), reverse=True
    )


def test_of_several_photos_no_more_labels_are_told_than_asked_for(
    client: httpx.Client, samples: dict[str, Path]
) -> None:
    where = "?labels=cat,rocket,pizza"
    pictures = samples["cat"], samples["rocket"]
    best, *_ = labels(client, *pictures, where=where).json()["result"]["labels"]
    answer = labels(client, *pictures, where=f"{where}&top_k=1")
    assert answer.json()["result"]["labels"] == [best]


def test_without_labels_everyday_things_are_named(
    client: httpx.Client, samples: dict[str, Path]
) -> None:
    result = labels(client, samples["cat"]).json()["result"]["labels"]
    assert "cat" in [label["name"] for label in result]


def test_problems_are_told_as_it_reads_them(client: httpx.Client, samples: dict[str, Path]) -> None:
    for answer, status in (
        (labels(client), 422),
        (labels(client, samples["cat"], where="?labelset=nowhere"), 404),
        (labels(client, samples["cat"], where="?explain=true&labels=a,b"), 422),
        (labels(client, samples["cat"], where="?labels=a,b&boxes=[[NaN,0,1,1]]"), 422),
        (labels(client, samples["cat"], where="?labels=a,b&boxes=[[1e999,0,1,1]]"), 422),
        (labels(client, images=["data:image/png;base64,AAAA"]), 415),
        (labels(client, images=[7]), 422),
        (client.post("/api/v1/vision/caption", json={}), 404),
    ):
        document = answer.json()
        assert (answer.status_code, document["code"]) == (status, status), answer.text
        assert document["error"]
        assert document["id"]
