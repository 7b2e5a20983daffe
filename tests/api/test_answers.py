"""The three forms of an answer, and the choice between them."""

import csv
import io
import json

import pytest

from app.api.answers import CSV, JSON, TEXT, preferred
from app.api.batch import NDJSON
from app.api.results import ClassifyAnswer, ImageAnswer, PredictionAnswer, render
from app.classify.score_text import score_text

ANSWER = ClassifyAnswer(
    model="m",
    templates="t",
    cached=0,
    image=ImageAnswer(width=1, height=2, sha256="s", cached=False),
    predictions=[
        PredictionAnswer(label='a "quoted", one', score=0.75, similarity=0.5),
        PredictionAnswer(label="고양이", score=1e-9, similarity=-0.25),
    ],
    abstained=False,
    warnings=[],
)


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", JSON),
        ("*/*", JSON),
        ("application/json", JSON),
        ("text/plain", TEXT),
        ("TEXT/CSV", CSV),
        ("text/*", TEXT),
        ("text/html,application/xhtml+xml,*/*;q=0.8", JSON),
        ("text/csv;q=0.5, text/plain;q=0.9", TEXT),
        ("text/plain;q=0, */*", JSON),
        ("application/json;q=0.1, text/csv", CSV),
        ("image/png", JSON),
        ("text/plain;q=nonsense", JSON),
    ],
)
def test_the_form_is_what_the_client_likes_best(accept: str, kind: str) -> None:
    assert preferred(accept) == kind


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (NDJSON, NDJSON),
        ("APPLICATION/X-NDJSON", NDJSON),
        ("application/x-ndjson;q=0", JSON),
        ("application/x-ndjson;q=0.1, text/csv;q=0.9", CSV),
        ("application/x-ndjson;q=0.9, text/csv;q=0.1", NDJSON),
        ("application/json, application/x-ndjson", NDJSON),
        ("application/x-ndjson, */*", NDJSON),
        ("application/x-ndjson;q=0.5, */*", JSON),
        ("*/*", JSON),
        ("application/*", JSON),
        ("application/x-ndjsonish", JSON),
    ],
)
def test_lines_come_where_they_are_named_and_liked_best(accept: str, kind: str) -> None:
    assert preferred(accept, (NDJSON,)) == kind


def test_plain_text_is_score_tab_label() -> None:
    response = render(ANSWER, "text/plain")
    assert response.body.decode() == '0.750000\ta "quoted", one\n0.00000000100\t고양이\n'
    assert response.headers["content-type"] == "text/plain; charset=utf-8"


def test_csv_can_be_read_back() -> None:
    response = render(ANSWER, "text/csv")
    rows = list(csv.DictReader(io.StringIO(response.body.decode())))
    assert rows[0] == {"label": 'a "quoted", one', "score": "0.75", "similarity": "0.5"}
    assert float(rows[1]["score"]) == 1e-9


def test_json_is_the_default_and_caches_may_keep_forms_apart() -> None:
    response = render(ANSWER, "*/*")
    assert json.loads(response.body)["predictions"][1]["label"] == "고양이"
    assert response.headers["vary"] == "Accept"


@pytest.mark.parametrize(
    ("score", "text"),
    [
        (0.0, "0.000000"),
        (1.0, "1.000000"),
        (0.25, "0.250000"),
        (0.001, "0.001000"),
        (0.00012345, "0.000123"),
        (9.996e-5, "0.000100"),
        (1.2345e-7, "0.000000123"),
    ],
)
def test_a_small_score_never_reads_zero_in_text(score: float, text: str) -> None:
    assert score_text(score, 6) == text
