"""immich's server and its machine-learning routes: requests as its own source sends them."""

import base64
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from models.encoder import Encoder
from tests.conftest import alike

NAME = "ViT-B-32__openai"
FACES = json.dumps(
    {
        "facial-recognition": {
            "detection": {"modelName": "buffalo_l", "options": {"minScore": 0.7}},
            "recognition": {"modelName": "buffalo_l"},
        }
    }
)
OCR = json.dumps({"ocr": {"detection": {"modelName": "PP-OCRv5_mobile"}}})

# as machine-learning.repository.ts puts a request together, with Node's own FormData and fetch
NODE = """
import { readFile } from "node:fs/promises";
const [url, entries, kind, content] = process.argv.slice(2);
const ping = await fetch(new URL("/ping", url));
const form = new FormData();
form.append("entries", entries);
if (kind === "image") form.append("image", new Blob([new Uint8Array(await readFile(content))]));
else form.append("text", content);
const answer = await fetch(new URL("/predict", url), { method: "POST", body: form });
console.log(JSON.stringify({ ping: ping.ok, status: answer.status, body: await answer.json() }));
"""


@pytest.fixture(scope="module")
def immich(pictogram: Encoder, serve: Callable[..., Any]) -> Iterator[httpx.Client]:
    """A server that answers to the name that immich knows the model by."""
    with serve(pictogram, model_aliases=f"{NAME}=pictogram") as client:
        yield client


def entries(kind: str, name: str = NAME, **options: Any) -> str:
    return json.dumps({"clip": {kind: {"modelName": name, **options}}})


def predict(client: httpx.Client, task: str, **fields: Any) -> httpx.Response:
    image = fields.pop("image", None)
    # as Node names a blob without a name
    files = image and {"image": ("blob", image, "application/octet-stream")}
    return client.post("/predict", data={"entries": task, **fields}, files=files or {"x": b""})


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_requests_of_immichs_server_are_answered_as_it_reads_them(
    immich: httpx.Client, samples: dict[str, Path], tmp_path: Path
) -> None:
    program = tmp_path / "immich.mjs"
    program.write_text(NODE)

    def ask(task: str, kind: str, content: str) -> dict[str, Any]:
        command = ["node", str(program), str(immich.base_url), task, kind, content]
        completed = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
        answer: dict[str, Any] = json.loads(completed.stdout)
        assert (answer["ping"], answer["status"]) == (True, 200), answer
        return answer["body"]  # type: ignore[no-any-return]

    image_row = ask(entries("visual"), "image", str(samples["cat"]))
    assert (image_row["imageHeight"], image_row["imageWidth"]) == (256, 256)
    text_row = ask(entries("textual", options={"language": "de"}), "text", "a cat")
    assert set(text_row) == {"clip"}
    for answer, path, body in (
        (image_row, "image", {"images": [coded(samples["cat"])]}),
        (text_row, "text", {"texts": ["a cat"]}),
    ):
        rows = immich.post(f"/embeddings/{path}", json=body).json()["embeddings"]
        # pgvector takes the text as it is
        assert json.loads(answer["clip"]) == alike(rows[0], 1e-6)


def coded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def test_a_long_search_is_read_as_far_as_the_model_reads(immich: httpx.Client) -> None:
    answer = immich.post(
        "/predict", files={"entries": (None, entries("textual")), "text": (None, "a cat " * 900)}
    )
    assert answer.status_code == 200, answer.text
    row = np.array(json.loads(answer.json()["clip"]))
    assert np.linalg.norm(row) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("task", "status", "field", "message"),
    [
        (FACES, 422, "entries", "'facial-recognition' is not served here"),
        (OCR, 422, "entries", "'ocr' is not served here"),
        (entries("visual", "ViT-L-14__openai"), 404, "modelName", "OPENVOCAB_MODEL_ALIASES"),
        (entries("sideways"), 422, "entries", "visual or textual"),
        ('{"clip": {"visual": {}}}', 422, "entries", "names no modelName"),
        ("[]", 422, "entries", "not a JSON object"),
        ("[" * 9_999, 422, "entries", "not a JSON object"),
        ("{}", 422, "entries", "visual or textual"),
    ],
)  # fmt: skip
def test_other_tasks_and_models_are_refused_by_name(
    immich: httpx.Client, samples: dict[str, Path], task: str, status: int, field: str, message: str
) -> None:
    answer = predict(immich, task, image=samples["cat"].read_bytes())
    assert answer.status_code == status, answer.text
    assert answer.json()["field"] == field
    assert message in answer.json()["detail"]


def test_what_is_missing_is_named(immich: httpx.Client) -> None:
    for form, field in (
        ({"text": "a cat"}, "entries"),
        ({"entries": entries("visual"), "text": "a cat"}, "image"),
        ({"entries": entries("textual")}, "text"),
        ({"entries": entries("textual"), "text": " "}, "text"),
    ):
        parts = {name: (None, value) for name, value in form.items()}
        answer = immich.post("/predict", files=parts)
        assert (answer.status_code, answer.json()["field"]) == (422, field), answer.text
    assert immich.post("/predict", json={}).status_code == 400
