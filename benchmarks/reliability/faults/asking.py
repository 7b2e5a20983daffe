"""What a server is asked while its store is broken. Knows no store."""

import itertools
import json
from pathlib import Path
from typing import Any

import httpx

NUMBERS = itertools.count()


def status(client: httpx.Client) -> str:
    answer = client.get("/readyz")
    assert answer.status_code == 200, answer.text
    health: str = answer.json()["status"]
    return health


def put(client: httpx.Client, name: str, labels: list[str], **params: Any) -> httpx.Response:
    return client.put(f"/labelsets/{name}", json={"labels": labels}, params=params)


def names(client: httpx.Client) -> list[str]:
    listed: list[dict[str, Any]] = client.get("/labelsets").json()["labelsets"]
    return [entry["name"] for entry in listed]


def classify(client: httpx.Client, picture: Path, **fields: Any) -> dict[str, Any]:
    files = {"image": picture.read_bytes()}
    answer = client.post("/classify", files=files, data=fields)
    assert answer.status_code == 200, answer.text
    prediction: dict[str, Any] = answer.json()
    return prediction


def look(client: httpx.Client, picture: Path) -> list[dict[str, Any]]:
    """Classify with a label set that is known, and with labels that nobody has seen."""
    answer = classify(client, picture, labelset="pets")
    assert answer["predictions"][0]["label"] == "cat"
    new = json.dumps([f"thing {next(NUMBERS)}", f"animal {next(NUMBERS)}"])
    assert classify(client, picture, labels=new)["cached"] == 0
    return answer["predictions"]  # type: ignore[no-any-return]
