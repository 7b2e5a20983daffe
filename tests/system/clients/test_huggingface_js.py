"""The JavaScript client @huggingface/inference, in a process of its own, against a live server."""

import json
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

LABELS = ["dog", "cat", "pizza", "rocket"]
PATH = "/hf/zero-shot-image-classification"

Call = Callable[..., dict[str, Any]]


@pytest.fixture
def call(
    url: str, node_modules: Path, samples: dict[str, Path], environment: Mapping[str, str]
) -> Call:
    def calling(**changed: Any) -> dict[str, Any]:
        asked = {
            "url": f"{url}{PATH}",
            "image": str(samples["cat"]),
            "parameters": {"candidate_labels": LABELS},
            **changed,
        }
        ran = subprocess.run(
            ["node", str(node_modules.parent / "classify.mjs"), json.dumps(asked)],
            capture_output=True, text=True, timeout=60, check=False, env=dict(environment),
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        answer: dict[str, Any] = json.loads(ran.stdout)
        return answer

    return calling


@pytest.mark.parametrize("legacy", [False, True], ids=["blob", "array buffer"])
def test_an_image_is_classified(call: Call, legacy: bool) -> None:
    found = call(legacy=legacy)["found"]
    assert found[0]["label"] == "cat"
    assert sorted(one["label"] for one in found) == sorted(LABELS)
    assert [one["score"] for one in found] == sorted((one["score"] for one in found), reverse=True)


def test_an_own_template_is_used(
    call: Call, client: httpx.Client, samples: dict[str, Path]
) -> None:
    template = "an icon of {}, isolated"
    found = call(parameters={"candidate_labels": LABELS, "hypothesis_template": template})["found"]
    same = client.post(
        "/classify",
        files={"image": samples["cat"].read_bytes()},
        data={"labels": LABELS, "templates": template},
    ).json()["predictions"]
    assert found == [{"label": one["label"], "score": one["score"]} for one in same]


def test_an_error_tells_what_was_wrong(call: Call) -> None:
    failed = call(image=__file__)
    assert failed["status"] == 415
    assert "this is text, not JPEG, PNG" in failed["error"]
    failed = call(parameters={"candidate_labels": LABELS, "hypothesis_template": "no place"})
    assert failed["status"] == 422
    assert "hypothesis_template has no {}" in failed["error"]


def test_the_access_token_is_the_api_key(call: Call, guarded: str) -> None:
    address = f"{guarded}{PATH}"
    assert call(url=address, accessToken="a key of this test")["found"][0]["label"] == "cat"
    failed = call(url=address)
    assert failed["status"] == 401
    assert "no API key was sent" in failed["error"]
