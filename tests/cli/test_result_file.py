"""`openvocab classify -o FILE`: whole at the end, and gone on with where it was interrupted."""

import asyncio
import csv
import errno
import fcntl
import importlib.util
import json
import os
import shutil
from functools import partial
from pathlib import Path
from typing import IO, Any

import httpx
import pyarrow.parquet
import pytest

from app.cli.file_queue import Once

LABELS = "cat,dog,rocket"
ANSWER = {
    "model": "m", "templates": "t", "cached": 0, "warnings": [], "abstained": False,
    "image": {"width": 2, "height": 1, "sha256": "ab", "cached": False},
    "predictions": [{"label": "cat", "score": 0.9, "similarity": 0.3}],
}  # fmt: skip
NOWHERE = "http://127.0.0.1:9"
REFUSED = 401, {}, {"title": "Unauthenticated", "status": 401, "detail": "the key is not known"}


@pytest.fixture
def album(tmp_path: Path, samples: dict[str, Path]) -> Path:
    folder = tmp_path / "album"
    folder.mkdir()
    for name in ("cat", "dog", "rocket"):
        shutil.copy(samples[name], folder / f"{name}.png")
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


def numbered(folder: Path, count: int) -> Path:
    """A folder of so many files, each of its own content."""
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:02}.png").write_bytes(b"picture %d" % number)
    return folder


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_ending_tells_the_same(
    run: Any, album: Path, tmp_path: Path, client: httpx.Client
) -> None:
    best: dict[str, list[tuple[str, str | None]]] = {}
    for ending in ("csv", "tsv", "json", "ndjson", "jsonl", "parquet"):
        out = tmp_path / f"answers.{ending}"
        result = run("classify", album, "--labels", LABELS, "--top-k", 1, "--url", client.base_url,
                    "-o", out)  # fmt: skip
        assert (result.exit_code, result.stdout) == (1, ""), result.output
        assert "broken.png" in result.stderr
        if ending == "parquet":
            rows = pyarrow.parquet.read_table(out).to_pylist()
            assert {row["model"] for row in rows if row["label"]} == {"pictogram"}
            assert [row["rank"] for row in rows] == [None, 1, 1, 1]
            assert all(len(row["sha256"]) == 64 for row in rows if row["label"])
            assert [row["error"] is None for row in rows] == [False, True, True, True]
        elif ending in ("csv", "tsv"):
            text = out.read_text().splitlines()
            rows = list(csv.DictReader(text, delimiter="\t" if ending == "tsv" else ","))
        else:
            rows = json.loads(out.read_text()) if ending == "json" else lines(out)
            rows = [row | row.get("predictions", [{}])[0] for row in rows]
        best[ending] = [(Path(row["file"]).name, row.get("label") or None) for row in rows]
        # nothing of the journal is left
        assert sorted(path.name for path in tmp_path.iterdir() if "answers" in path.name) == (
            sorted(f"answers.{suffix}" for suffix in best)
        )
    expected = [("broken.png", None), ("cat.png", "cat"), ("dog.png", "dog"),
                ("rocket.png", "rocket")]  # fmt: skip
    assert all(result == expected for result in best.values()), best


def test_several_label_sets_are_rows_of_their_own_in_parquet(
    run: Any, album: Path, tmp_path: Path, client: httpx.Client
) -> None:
    out = tmp_path / "answers.parquet"
    run("classify", album / "cat.png", "--labelset", "preset:animals,preset:vehicles",
        "--top-k", 2, "--url", client.base_url, "-o", out)  # fmt: skip
    rows = pyarrow.parquet.read_table(out).to_pylist()
    assert [(row["labelset"], row["rank"]) for row in rows] == [
        (f"preset:{name}", rank) for name in ("animals", "vehicles") for rank in (1, 2)
    ]


def test_boxes_are_rows_of_their_own_in_parquet(
    run: Any, album: Path, tmp_path: Path, client: httpx.Client
) -> None:
    out = tmp_path / "answers.parquet"
    run("classify", album / "cat.png", "--labels", LABELS, "--boxes", "0,0,0.5,1", "--boxes",
        "0.5,0,0.5,1", "--top-k", 1, "--url", client.base_url, "-o", out)  # fmt: skip
    rows = pyarrow.parquet.read_table(out).to_pylist()
    assert [(row["box"], row["rank"], row["set"]) for row in rows] == [(0, 1, None), (1, 1, None)]
    assert all(row["label"] in LABELS.split(",") for row in rows)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_an_interrupted_run_goes_on_where_it_was(
    run: Any, answers: Any, tmp_path: Path, ending: str
) -> None:
    folder, out = numbered(tmp_path / "many", 12), tmp_path / f"answers.{ending}"
    journal = out.with_name(f"{out.name}.part")
    arguments = ("classify", folder, "--labels", LABELS, "-o", out, "--jobs", 1)
    requests: list[int] = []

    def answer(number: int) -> tuple[int, dict[str, str], Any]:
        requests.append(number)
        # the third cannot be read today, and after the sixth the key is withdrawn
        bad = {
            "title": "Damaged",
            "status": 422,
            "detail": "damaged",
            "error_type": "damaged_image",
        }
        return (422, {}, bad) if number == 3 else REFUSED if number > 6 else (200, {}, ANSWER)

    with answers(answer) as url:
        result = run(*arguments, "--url", url)
    assert result.exit_code == 4, result.output
    assert not out.exists()
    assert f"{journal}; run the same command with --resume to continue" in result.stderr
    # a kill in the middle of a line
    with journal.open("ab") as file:
        file.write(b'["half')

    def well(number: int) -> tuple[int, dict[str, str], Any]:
        requests.append(number)
        return 200, {}, ANSWER

    # one of those that were answered has changed since
    (folder / "01.png").write_bytes(b"another picture")
    requests.clear()
    with answers(well) as url:
        refused = run(*arguments, "--url", url)
        assert (refused.exit_code, requests) == (2, [])
        assert "continue with --resume, or delete it" in refused.stderr
        other = run("classify", folder, "--labels", "a,b", "-o", out, "--resume", "--url", url)
        assert (other.exit_code, requests) == (2, [])
        assert "other labels, options or model" in other.stderr
        result = run(*arguments, "--url", url, "--resume")
    assert result.exit_code == 0, result.output
    assert len(requests) == 6 + 2
    assert not journal.exists()
    if ending == "csv":
        files = [Path(row["file"]).name for row in csv.DictReader(out.read_text().splitlines())]
    else:
        files = [Path(row["file"]).name for row in pyarrow.parquet.read_table(out).to_pylist()]
    assert files == [f"{number:02}.png" for number in range(12)]
    assert "cat 12" in result.stderr


def test_a_first_run_may_say_resume_and_a_second_replaces_the_file(
    run: Any, answers: Any, tmp_path: Path
) -> None:
    folder, out = numbered(tmp_path / "many", 3), tmp_path / "answers.ndjson"
    with answers(lambda _: (200, {}, ANSWER)) as url:
        for count in (3, 4):
            arguments = ("--labels", LABELS, "-o", out, "--resume", "--url", url)
            assert run("classify", folder, *arguments).exit_code == 0
            assert len(lines(out)) == count
            (folder / "new.png").write_bytes(b"new")


def test_answers_of_another_model_are_not_put_beside_those_of_the_first(
    run: Any, answers: Any, tmp_path: Path
) -> None:
    folder, out = numbered(tmp_path / "many", 3), tmp_path / "answers.csv"
    with answers(lambda n: (200, {}, ANSWER | {"model": "n" if n > 1 else "m"})) as url:
        result = run("classify", folder, "--labels", LABELS, "-o", out, "--jobs", 1, "--url", url)
    assert result.exit_code == 4
    assert "the model is now n, but earlier results are from m" in result.stderr
    assert not out.exists()


def test_exact_duplicates_are_classified_once(run: Any, answers: Any, tmp_path: Path) -> None:
    folder = numbered(tmp_path / "many", 3)
    for number in range(3):
        shutil.copy(folder / f"{number:02}.png", folder / f"copy {number}.png")
    requests: list[int] = []

    def answer(number: int) -> tuple[int, dict[str, str], Any]:
        requests.append(number)
        return 200, {}, ANSWER | {"cached": number}

    arguments = ("--labels", LABELS, "--format", "ndjson")
    with answers(answer) as url:
        completed = run("classify", folder, *arguments, "--url", url)
        records = [json.loads(line) for line in completed.stdout.splitlines()]
        assert len(requests) == 3
        cached = {Path(record["file"]).name: record["cached"] for record in records}
        assert all(cached[f"copy {n}.png"] == cached[f"{n:02}.png"] for n in range(3))


def test_answers_are_remembered_up_to_a_bound() -> None:
    async def test() -> None:
        bodies: list[bytes] = []

        async def classify(digest: bytes) -> dict[str, Any]:
            bodies.append(digest)
            return ANSWER

        once = Once(most=5)  # two answers with a prediction each
        for digest in (b"a", b"b", b"b", b"a", b"c", b"c", b"a"):
            assert await once.of(digest, partial(classify, digest)) == ANSWER
        assert bodies == [b"a", b"b", b"c", b"a"]

    asyncio.run(test())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-o", "answers.xlsx"), "must end in one of .csv, .tsv"),
        (("-o", "answers"), "must end in one of .csv, .tsv"),
        (("-o", "answers.csv", "--format", "json"), "leave out --format"),
        (("-o", "nowhere/answers.csv"), "no such file"),
        (("--resume",), "--resume needs --output"),
    ],
)
def test_what_is_wrong_with_the_file_is_said_before_anything_is_asked(
    run: Any, album: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    before = Path.cwd()
    os.chdir(tmp_path)
    try:
        result = run(
            "classify", album, "--labels", LABELS, "--url", "http://127.0.0.1:9", *arguments
        )
    finally:
        os.chdir(before)
    assert result.exit_code == 2, result.output
    assert message in result.stderr


def test_a_file_system_without_locks_takes_answers_too(
    run: Any, answers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(handle: IO[bytes], how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    folder, out = numbered(tmp_path / "many", 2), tmp_path / "answers.ndjson"
    with answers(lambda _: (200, {}, ANSWER)) as url:
        result = run("classify", folder, "--labels", LABELS, "-o", out, "--url", url)
    assert result.exit_code == 0, result.stderr
    assert len(lines(out)) == 2


def test_parquet_names_the_package_that_it_needs(
    run: Any, album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "pyarrow" else find(name)
    )
    result = run("classify", album, "--labels", LABELS, "-o", tmp_path / "a.parquet")
    assert result.exit_code == 2
    assert "pip install 'openvocab[parquet]'" in result.stderr


def test_nothing_is_left_where_there_was_nothing_to_classify(
    run: Any, tmp_path: Path, client: httpx.Client
) -> None:
    (tmp_path / "empty").mkdir()
    out = tmp_path / "answers.csv"
    result = run("classify", tmp_path / "empty", "--labels", LABELS, "--url", client.base_url,
                "-o", out)  # fmt: skip
    assert result.exit_code == 1
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]
