"""Labels and texts that are longer than the model reads: named, alone, or cut where asked."""

import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.classify.truncation import shortened
from app.labelsets.definition import Definition, Entry, from_body, new
from models.encoder import Encoder

LONG = "a grey cat that sleeps " + "on a very warm red sofa " * 5  # over the 32 tokens of pictogram
WORD = "x" * 190  # one word that is over them
LABELS = ["cat", "dog", LONG]


@pytest.fixture
def cat(samples: dict[str, Path]) -> bytes:
    return samples["cat"].read_bytes()


def classified(client: httpx.Client, image: bytes, **fields: Any) -> httpx.Response:
    fields_sent = {k: json.dumps(v) if isinstance(v, list) else v for k, v in fields.items()}
    return client.post("/classify", files={"image": image}, data=fields_sent)


def scores(answer: httpx.Response) -> dict[str, float]:
    assert answer.status_code == 200, answer.text
    return {prediction["label"]: prediction["score"] for prediction in answer.json()["predictions"]}


def test_a_label_too_long_for_the_model_is_refused_by_name(
    client: httpx.Client, cat: bytes, pictogram: Encoder
) -> None:
    answer = classified(client, cat, labels=LABELS)
    document = answer.json()
    assert (answer.status_code, document["field"]) == (413, "labels")
    assert document["limit"] == pictogram.info.context_length < document["value"]
    assert "a grey cat that sleeps" in document["detail"]
    assert "set truncate" in document["detail"]


def test_truncate_takes_the_beginning_and_says_so_each_time(
    client: httpx.Client, cat: bytes
) -> None:
    for _ in range(2):  # the second time it is known
        answer = classified(client, cat, labels=[*LABELS, WORD], truncate="true")
        assert set(scores(answer)) == {"cat", "dog", LONG.strip(), WORD}
        long, word = answer.json()["warnings"]
        assert "a grey cat that sleeps" in long
        assert "only its beginning counts" in long
        assert "xxxx" in word
    assert classified(client, cat, labels=["cat", "dog"], truncate=True).json()["warnings"] == []


def test_each_text_of_a_label_is_told_with_its_own_length(client: httpx.Client, cat: bytes) -> None:
    cats, dogs = " ".join(["cat"] * 35), " ".join(["dog"] * 49)
    labels = json.dumps({"pets": [cats, dogs], "rocket": []})
    for _ in range(2):  # the second time it is known
        answer = classified(client, cat, labels=labels, truncate="true", templates=["{}"])
        of_cats, of_dogs = answer.json()["warnings"]
        # with the marks of start and end
        assert "(37 tokens of 32)" in of_cats
        assert "(51 tokens of 32)" in of_dogs


def test_what_is_cut_scores_as_its_beginning_does(client: httpx.Client, cat: bytes) -> None:
    answer = classified(client, cat, labels=LABELS, truncate="true", templates=["{}"])
    (warning,) = answer.json()["warnings"]
    tail = warning.rpartition("as far as '...")[2].rstrip("'")
    beginning = LONG[: LONG.rindex(tail) + len(tail)]
    # the longest beginning of whole words that still fits
    fits = [
        beginning
        for beginning in _beginnings(LONG)
        if classified(client, cat, labels=["dog", beginning], templates=["{}"]).status_code == 200
    ]
    assert len(beginning.split()) >= len(fits[-1].split()) - 2
    shortened_scores = classified(client, cat, labels=["cat", "dog", beginning], templates=["{}"])
    assert scores(shortened_scores)[beginning] == pytest.approx(
        scores(answer)[LONG.strip()], abs=1e-6
    )


def _beginnings(text: str) -> list[str]:
    words = text.split()
    return [" ".join(words[:count]) for count in range(1, len(words) + 1)]


def test_the_rest_of_a_template_stays_behind_what_is_cut(client: httpx.Client, cat: bytes) -> None:
    fields = {"labels": LABELS, "truncate": "true"}
    answer = classified(client, cat, templates=["a {}, a drawing in ink"], **fields)
    assert len(scores(answer)) == 3
    whole = "y " * 95  # a template that is too long without any label
    answer = classified(client, cat, templates=["{} " + whole], **fields)
    assert (answer.status_code, answer.json()["error_type"]) == (413, "too_large")


def test_the_other_labels_of_a_set_answer_without_one_that_is_too_long(
    client: httpx.Client, cat: bytes
) -> None:
    body = {"name": "one-long", "labels": {"cat": ["cat", "kitten"], LONG: [], "dog": []}}
    answer = client.post("/labelsets", json=body, params={"wait": True})
    document = answer.json()
    assert (answer.status_code, document["status"]) == (201, "ready"), answer.text
    assert document["left_out"] == [LONG.strip()]
    assert document["labels"] == ["cat", LONG.strip(), "dog"]  # as it was written
    (warning,) = document["warnings"]
    assert "a grey cat" in warning
    assert "left out" in warning
    assert client.get("/labelsets/one-long").json()["left_out"] == [LONG.strip()]
    answer = classified(client, cat, labelset="one-long")
    assert set(scores(answer)) == {"cat", "dog"}
    assert warning in answer.json()["warnings"]
    plain = classified(client, cat, labels=["cat", "dog"])
    assert scores(plain).keys() == scores(answer).keys()
    client.delete("/labelsets/one-long")


def test_a_set_may_take_the_beginning_of_its_texts(client: httpx.Client, cat: bytes) -> None:
    # of several texts, and of whole prompts
    labels = {"cat": ["cat", LONG], "dog": [], "rocket": []}
    body = {"name": "cut", "labels": labels, "truncate": True, "combine": {"cat": "best"}}
    body["prompts"] = {"dog": ["a photo of a dog " + WORD[:150]]}
    created = client.post("/labelsets", json=body, params={"wait": True}).json()
    assert (created["status"], created["left_out"], created["truncate"]) == ("ready", [], True)
    assert len(created["warnings"]) == 2
    answer = classified(client, cat, labelset="cut")
    assert set(scores(answer)) == {"cat", "dog", "rocket"}
    assert set(created["warnings"]) <= set(answer.json()["warnings"])
    # a set in other templates is cut for these
    answer = classified(client, cat, labelset="cut", templates=["a drawing of a {}, in ink"])
    assert len(scores(answer)) == 3
    client.delete("/labelsets/cut")


def test_a_set_without_a_long_label_can_be_calibrated_and_have_examples(
    client: httpx.Client, samples: dict[str, Path], cat: bytes
) -> None:
    names = ("cat", "dog", "rocket")
    client.put("/labelsets/left", json={"labels": [LONG, *names]}, params={"wait": True})
    files = [("image", (f"{n}/1.png", samples[n].read_bytes())) for n in names if n in samples]
    labels = [name for name in names if name in samples]
    added = client.post(
        "/labelsets/left/examples", files=files, data={"label": labels}, params={"wait": True}
    )
    assert added.json()["added"] == len(labels), added.text
    answer = classified(client, cat, labelset="left")
    assert LONG.strip() not in scores(answer)
    stored = client.get("/labelsets/left").json()
    assert (stored["left_out"], stored["status"]) == ([LONG.strip()], "ready")
    assert stored["blend"] is not None
    client.delete("/labelsets/left")


def test_a_stored_set_remembers_that_it_is_cut() -> None:
    cut = Definition((Entry("cat", ("cat",)),), truncate=True)
    stored = from_body("x", 1, new("x", 1, cut).body())
    assert stored.definition.truncate
    assert stored.digest != new("x", 1, Definition(cut.entries)).digest


def test_embeddings_name_a_text_that_is_too_long_and_cut_it_where_asked(
    client: httpx.Client,
) -> None:
    texts = ["a cat", LONG]
    refused = client.post("/embeddings/text", json={"texts": texts})
    assert (refused.status_code, refused.json()["field"]) == (413, "texts")
    assert "a grey cat" in refused.json()["detail"]
    cut = client.post("/embeddings/text", json={"texts": texts, "truncate": True})
    (warning,) = cut.json()["warnings"]
    assert "a grey cat" in warning
    plain = client.post("/embeddings/text", json={"texts": ["a cat"]}).json()
    assert (plain["warnings"], plain["cut"]) == ([], {})
    ((text, kept),) = cut.json()["cut"].items()
    assert text == LONG.strip()
    assert text.startswith(kept)
    again = client.post("/embeddings/text", json={"texts": [kept]}).json()
    np.testing.assert_allclose(cut.json()["embeddings"][1], again["embeddings"][0], atol=1e-6)
    np.testing.assert_allclose(cut.json()["embeddings"][0], plain["embeddings"][0], atol=1e-6)


def test_who_asked_for_beginnings_is_not_advised_to_ask_where_the_template_is_too_long(
    client: httpx.Client,
) -> None:
    body = {"texts": ["a cat"], "templates": [f"{LONG}{{}}"]}
    refused = client.post("/embeddings/text", json=body)
    assert (refused.status_code, "set truncate" in refused.json()["detail"]) == (413, True)
    refused = client.post("/embeddings/text", json=body | {"truncate": True})
    assert (refused.status_code, "set truncate" in refused.json()["detail"]) == (413, False)


@given(st.text(min_size=1), st.integers(2, 500), st.integers(1, 499))
def test_a_text_that_is_cut_is_a_shorter_beginning(text: str, tokens: int, limit: int) -> None:
    text_kept = shortened(text, max(tokens, limit + 1), limit)
    assert text.startswith(text_kept)
    assert len(text_kept) < len(text)


def test_the_pipelines_route_names_a_long_label_and_cuts_it_where_asked(
    client: httpx.Client, cat: bytes
) -> None:
    path = "/hf/zero-shot-image-classification"
    form = {"candidate_labels": json.dumps(LABELS)}
    refused = client.post(path, files={"image": cat}, data=form)
    assert (refused.status_code, refused.json()["field"]) == (413, "candidate_labels")
    assert "set truncate" in refused.json()["detail"]
    cut = client.post(path, files={"image": cat}, data=form | {"truncate": "true"})
    assert {prediction["label"] for prediction in cut.json()} == {"cat", "dog", LONG.strip()}


def test_a_client_of_openai_that_adds_nothing_to_the_body_may_ask_for_it_in_the_url(
    client: httpx.Client,
) -> None:
    body = {"input": [f"a cat {WORD}"]}
    assert client.post("/v1/embeddings", json=body).status_code == 413
    cut, same = (
        client.post("/v1/embeddings", params=params, json=body | more)
        for params, more in (({"truncate": "true"}, {}), ({}, {"truncate": True}))
    )
    assert (cut.status_code, cut.json()) == (200, same.json())
    assert cut.json()["warnings"]
    for params, more in (({"truncate": "true"}, {"truncate": False}), ({"dimensions": "192"}, {})):
        refused = client.post("/v1/embeddings", params=params, json=body | more)
        assert refused.status_code == 422, refused.text
