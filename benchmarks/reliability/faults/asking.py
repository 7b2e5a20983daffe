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
    found: str = answer.json()["status"]
    return found


def put(client: httpx.Client, name: str, labels: list[str], **params: Any) -> httpx.Response:
    return client.put(f"/labelsets/{name}", json={"labels": labels}, params=params)


def names(client: httpx.Client) -> list[str]:
    listed: list[dict[str, Any]] = client.get("/labelsets").json()["labelsets"]
    return [one["name"] for one in listed]


def classify(client: httpx.Client, picture: Path, **fields: Any) -> dict[str, Any]:
    files = {"image": picture.read_bytes()}
    answer = client.post("/classify", files=files, data=fields)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def look(client: httpx.Client, picture: Path) -> list[dict[str, Any]]:
    """Classify with a label set that is known, and with labels that nobody has seen."""
    known = classify(client, picture, labelset="pets")
    assert known["predictions"][0]["label"] == "cat"
    new = json.dumps([f"thing {next(NUMBERS)}", f"animal {next(NUMBERS)}"])
    assert classify(client, picture, labels=new)["cached"] == 0
    return known["predictions"]  # type: ignore[no-any-return]
