"""`openvocab classify` as people use it: on folders, lists and pipes, here and against a server."""

import csv
import hashlib
import io
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from app.__main__ import app
from models.encoder import Encoder
from prompts import load_vocabularies
from tests.api.test_calibration import calibrate, register, variants

LABELS = "cat,dog,pizza,rocket,key"
OK = {
    "model": "m", "templates": "t", "cached": 0, "warnings": [], "abstained": False,
    "predictions": [{"label": "cat", "score": 0.9, "similarity": 0.3}],
}  # fmt: skip


@pytest.fixture
def url(client: httpx.Client) -> str:
    """A running server with the bundled model."""
    return str(client.base_url)


@pytest.fixture
def album(tmp_path: Path, samples: dict[str, Path]) -> Path:
    """A folder with a cat, a key, a rocket, what is no picture, and other things."""
    folder = tmp_path / "album"
    (folder / "deep").mkdir(parents=True)
    shutil.copy(samples["cat"], folder / "a.png")
    shutil.copy(samples["key"], folder / "key.jpg")
    shutil.copy(samples["rocket"], folder / "deep/a.png")
    (folder / "broken.png").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("notes")
    return folder


def best(records: list[dict[str, Any]]) -> dict[str, str]:
    return {
        Path(answer["file"]).name: answer["predictions"][0]["label"]
        for answer in records
        if "error" not in answer
    }


def test_a_folder_is_classified_in_this_process_without_any_server(
    spawn: Any, album: Path, client: httpx.Client
) -> None:
    arguments = ("--labels", LABELS, "--model", "pictogram", "--format", "ndjson")
    # what guards a server is not in the way, nor is a folder that cannot be written to
    env = {"OPENVOCAB_API_KEYS": f"me:admin:{'0' * 64}", "OPENVOCAB_DATA_DIR": "/proc/nothing"}
    completed = spawn("classify", album, *arguments, **env)
    assert completed.returncode == 1, completed.stderr
    records = [json.loads(line) for line in completed.stdout.splitlines()]
    inside = [str(Path(record["file"]).relative_to(album)) for record in records]
    assert inside == ["a.png", "broken.png", "key.jpg", "deep/a.png"]
    assert [next(iter(r.get("predictions", [{}]))).get("label") for r in records] == [
        "cat", None, "key", "rocket",
    ]  # fmt: skip
    assert records[1]["error"]["error_type"] == "unsupported_image"
    lines = completed.stderr.decode().splitlines()
    assert len(lines) == 2
    assert "broken.png: " in lines[0]
    assert "skipped 1 file without an image extension" in lines[1]
    # and it is what a server answers
    served = client.post(
        "/classify", files={"image": (album / "a.png").read_bytes()}, data={"labels": LABELS}
    ).json()
    assert [p["label"] for p in records[0]["predictions"]] == [
        p["label"] for p in served["predictions"]
    ]
    for local, remote in zip(records[0]["predictions"], served["predictions"], strict=True):
        # a picture in a batch of another size is rounded otherwise
        assert local["score"] == pytest.approx(remote["score"], abs=1e-4)


def test_a_model_that_cannot_be_loaded_is_exit_status_3(run: Any, album: Path) -> None:
    result = run("classify", album, "--labels", LABELS, "--model", "nothing")
    assert result.exit_code == 3
    assert result.stderr.startswith("openvocab: model ")


def test_every_form_tells_the_same(run: Any, album: Path, url: str) -> None:
    def output(form: str) -> str:
        result = run("classify", album, "--labels", LABELS, "--url", url, "--format", form,
                    "--top-k", 1)  # fmt: skip
        assert result.exit_code == 1
        assert "broken.png: " in result.stderr
        return str(result.stdout)

    right = {"a.png": "rocket", "key.jpg": "key"}  # the second a.png is the rocket
    records = json.loads(output("json"))
    assert best(records) == right
    assert "error" in records[1]
    assert best([json.loads(line) for line in output("ndjson").splitlines()]) == right
    rows = [*csv.DictReader(io.StringIO(output("csv")))]
    assert [row["label"] for row in rows] == ["cat", "", "key", "rocket"]
    assert rows[1]["error"]
    tabs = [line.split("\t") for line in output("tsv").splitlines()]
    assert tabs[0] == ["file", "label", "score", "similarity", "target", "error", "reason"]
    assert [row[1:3] for row in tabs[1:]] == [[row["label"], row["score"]] for row in rows]
    assert re.findall(r"\.(?:png|jpg)  +(\w+) +0\.\d{4}$", output("table"), re.MULTILINE) == [
        "cat", "key", "rocket",
    ]  # fmt: skip


def test_names_of_any_bytes_come_out_as_they_are(
    run: Any, samples: dict[str, Path], tmp_path: Path, url: str
) -> None:
    name = b"two\nlines\t \xff\xc2\xa0.png"
    path = os.fsencode(tmp_path) + b"/in/" + name
    (tmp_path / "in").mkdir()
    shutil.copy(samples["cat"], path)
    (tmp_path / "list").write_bytes(path + b"\0")

    def output(form: str, *more: object) -> bytes:
        result = run("classify", "--labels", LABELS, "--url", url, "--format", form, *more)
        assert result.exit_code == 0, result.stderr
        return bytes(result.stdout_bytes)

    listed = output("ndjson", "--files-from", tmp_path / "list")
    assert os.fsencode(json.loads(listed)["file"]) == path
    assert b'"' + path + b'"' in output("csv", tmp_path / "in")
    shown_name = os.fsdecode(path)
    assert b"/two\\nlines\\t \xff\xc2\xa0.png\tcat\t" in output("tsv", shown_name)
    assert b"/two\\nlines\\t \\udcff\xc2\xa0.png  cat" in output("table", tmp_path / "in")


def test_a_picture_and_a_list_come_through_pipes(
    spawn: Any, run: Any, album: Path, samples: dict[str, Path], url: str
) -> None:
    common = ("classify", "--labels", LABELS, "--url", url, "--format", "json", "--top-k", 1)
    completed = spawn(*common, "-", data=samples["cat"].read_bytes())
    assert [record["file"] for record in json.loads(completed.stdout)] == ["-"]
    assert json.loads(completed.stdout)[0]["predictions"][0]["label"] == "cat"
    completed = spawn(
        *common, "--files-from", "-", data=f"{album}/key.jpg\n{album}/deep\n".encode()
    )
    assert best(json.loads(completed.stdout)) == {"key.jpg": "key", "a.png": "rocket"}


def test_a_folder_without_images_is_exit_status_1(run: Any, tmp_path: Path, url: str) -> None:
    result = run("classify", tmp_path, "--labels", LABELS, "--url", url, "--format", "json")
    assert (result.exit_code, json.loads(result.stdout)) == (1, [])
    assert f"no images found in {tmp_path}" in result.stderr


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("cat.jgp", "cat.jgp: no such file or directory"),
        ("*.png", "*.png: no file matches this pattern"),
        (".", "no images found in ."),
    ],
)
def test_names_that_lead_to_nothing_are_told_without_a_model(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, complaint: str
) -> None:
    monkeypatch.chdir(tmp_path)
    # a model that cannot be loaded would be status 3
    result = run("classify", name, "--labels", LABELS, "--model", "local-dir:/nowhere")
    assert result.exit_code == 1
    assert complaint in result.stderr


def test_results_come_while_a_list_is_still_being_written(
    command: list[str], samples: dict[str, Path], url: str
) -> None:
    more = ["classify", "--labels", LABELS, "--url", url, "--format", "ndjson", "--files-from", "-"]
    with subprocess.Popen(
        [*command, *more], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        for label in ("cat", "key"):
            process.stdin.write(f"{samples[label]}\n".encode())
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["predictions"][0]["label"] == label
        # and Ctrl-C ends it, though nobody closes the list
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=240) == 130
        assert process.stderr.read() == b"openvocab: interrupted\n"


def test_a_reader_that_leaves_ends_it_quietly(
    command: list[str], album: Path, samples: dict[str, Path], url: str
) -> None:
    names = "".join(f"{samples['cat']}\n" for _ in range(50)).encode()
    more = ["classify", "--labels", LABELS, "--url", url, "--format", "csv", "--files-from", "-"]
    with subprocess.Popen(
        [*command, *more], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        process.stdin.write(names)
        process.stdin.close()
        assert process.wait(timeout=240) == 141
        assert process.stderr.read() == b""


def test_there_is_a_bar_on_a_terminal_and_none_in_a_pipe(
    command: list[str], album: Path, url: str, tmp_path: Path
) -> None:
    controller, terminal = pty.openpty()
    with (tmp_path / "out").open("wb") as out:
        process = subprocess.Popen(
            [*command, "classify", str(album), "--labels", LABELS, "--url", url],
            stdout=out, stderr=terminal, env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
        )  # fmt: skip
        os.close(terminal)
        output = b""
        try:
            while piece := os.read(controller, 65_536):
                output += piece
        except OSError:  # how Linux says that the other side is closed
            pass
        assert process.wait(timeout=240) == 1
    os.close(controller)
    assert b"4/4" in output
    assert b"broken.png: " in output
    assert b"\x1b" not in (tmp_path / "out").read_bytes()


def test_files_are_sorted_by_label_and_come_back(run: Any, album: Path, url: str) -> None:
    before = sorted(album.rglob("*"))
    common = ("classify", album, "--labels", LABELS, "--url", url, "--threshold", 0.5,
              "--move-to", album / "sorted", "--format", "json")  # fmt: skip
    planned = run(*common, "--dry-run")
    assert sorted(album.rglob("*")) == before
    assert "to undo" not in planned.stderr
    process = run(*common)
    assert [r.get("target") for r in json.loads(process.stdout)] == [
        r.get("target") for r in json.loads(planned.stdout)
    ]
    assert process.exit_code == 1
    assert (album / "broken.png").exists()  # it has no label
    assert (album / "sorted/cat/a.png").exists()
    assert (album / "sorted/rocket/a.png").exists()
    again = run(*common)
    assert [Path(r["file"]).name for r in json.loads(again.stdout)] == ["broken.png"]
    log = re.search(r"openvocab undo (\S+)", process.stderr)
    assert log is not None
    moves = [
        f"{record['target']} -> {record['file']}"
        for record in reversed(json.loads(process.stdout))
        if "target" in record
    ]
    assert len(moves) == 3
    assert run("undo", log[1], "--dry-run").stdout.splitlines() == moves
    back = run("undo", log[1])
    assert back.stdout.splitlines() == moves
    assert back.exit_code == 0
    assert "restored 3 files, 0 failed" in back.stderr
    Path(log[1]).unlink()
    (album / "sorted").rmdir()
    assert sorted(album.rglob("*")) == before


def test_what_reaches_no_threshold_goes_to_a_folder_of_its_own(
    run: Any, album: Path, url: str, tmp_path: Path
) -> None:
    result = run("classify", album / "a.png", "--labels", "bus,tractor", "--multi-label",
                "--threshold", 0.99, "--copy-to", tmp_path / "out", "--url", url,
                "--undo-file", tmp_path / "undo")  # fmt: skip
    assert result.exit_code == 0
    assert (tmp_path / "out/_none/a.png").exists()
    assert (album / "a.png").exists()
    assert run("undo", tmp_path / "undo").exit_code == 0
    assert not (tmp_path / "out/_none").exists()
    assert run("undo", album / "a.png").exit_code == 2


def test_an_interrupted_sorting_is_consistent_and_can_be_undone(
    command: list[str], run: Any, samples: dict[str, Path], tmp_path: Path, url: str
) -> None:
    album = tmp_path / "album"
    album.mkdir()
    for number in range(300):
        shutil.copy(samples["cat"], album / f"{number}.png")
    before = sorted(path.name for path in album.iterdir())
    more = ["classify", str(album), "--labels", LABELS, "--url", url, "--format", "ndjson"]
    with subprocess.Popen(
        [*command, *more, "--move-to", str(tmp_path / "out")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        for _ in range(5):
            process.stdout.readline()
        process.kill()  # no handler runs
        process.wait()
    (log,) = (tmp_path / "out").glob("openvocab-undo-*.jsonl")
    names = {path.name for path in album.iterdir()}
    moved = {path.name for path in (tmp_path / "out/cat").iterdir() if path.stat().st_size}
    assert moved
    assert len(moved) < len(before)
    assert names | moved == set(before)
    assert not names & moved
    assert run("undo", log).exit_code == 0
    assert sorted(path.name for path in album.iterdir()) == before
    assert {path.stat().st_size for path in album.iterdir()} == {samples["cat"].stat().st_size}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["x.png", "--labels", "a,b", "--labelset", "c"], "either --labels or --labelset"),
        (["x.png", "--labelset", "a,b", "--move-to", "x"], "by one label set only"),
        (["--labels", "a,b"], "give files or folders"),
        (["-", "--files-from", "-", "--labels", "a,b"], "stdin can hold"),
        (["-", "--labels", "a,b", "--move-to", "x"], "cannot be moved or copied"),
        (["x.png", "--labels", "a,b", "--move-to", "x", "--copy-to", "y"], "not both"),
        (["x.png", "--labels", "a,b", "--dry-run"], "need --move-to"),
        (["--files-from", "/nowhere", "--labels", "a,b"], "/nowhere: no such file"),
        (["x.png", "--labels", "a,b", "--url", "localhost:1"], "http://HOST:PORT"),
        (["SAMPLE", "--labels", "a,b", "--model", "nobody"], "this server has"),
        (["x.png", "--labels", "a,b", "--format", "xml"], "xml"),
        (["SAMPLE", "--labels", "a"], "one label alone"),
        (["SAMPLE", "--labels", "a,a"], "a"),
        (["SAMPLE", "--labels", "a,b", "--templates", "unknown"], "unknown"),
        (["SAMPLE", "--labelset", "unknown"], "unknown"),
    ],
)
def test_what_is_wrong_for_every_file_ends_it_with_one_line(
    run: Any, url: str, samples: dict[str, Path], arguments: list[str], complaint: str
) -> None:
    expanded = [str(samples["cat"]) if argument == "SAMPLE" else argument for argument in arguments]
    result = run("classify", "--url", url, *expanded)
    assert result.exit_code == 2, result.output
    assert complaint in result.stderr


def test_own_templates_and_labels_with_commas_arrive_as_they_are(
    run: Any, url: str, samples: dict[str, Path]
) -> None:
    common = ("classify", samples["cat"], "--url", url, "--format", "json")
    completed = run(*common, "--labels", "a cat, sitting", "--labels", "dog", "--templates",
                "a {}, small", "--templates", "the {}")  # fmt: skip
    record = json.loads(completed.stdout)[0]
    assert {p["label"] for p in record["predictions"]} == {"a cat, sitting", "dog"}
    assert record["templates"] == "custom"
    completed = run(*common, "--labels", "{} mug,{x}")  # as the server reads it: no JSON
    assert {p["label"] for p in json.loads(completed.stdout)[0]["predictions"]} == {
        "{} mug", "{x}",
    }  # fmt: skip
    completed = run(*common, "--labels", '["a cat, sitting", "dog"]')
    assert {p["label"] for p in json.loads(completed.stdout)[0]["predictions"]} == {
        "a cat, sitting", "dog",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("option", "value", "complaint"),
    [
        ("--labels", '["cat","dog"', "looks like JSON but is not valid: Expecting ',' delimiter"),
        ("--labels", ' {"cat": ["kitten"]', "looks like JSON but is not valid"),
        ("--labels", '{"cat": ["kitten"], "cat": []}', "'cat' is there twice in one JSON object"),
        ("--labels", '["cat", 3]', "neither a list of texts nor an object of such lists"),
        ("--labels", '{"cat": "kitten"}', "neither a list of texts nor an object of such lists"),
        ("--labelset", '["pets"', "looks like JSON but is not valid"),
        ("--not", "[food", "looks like JSON but is not valid"),
    ],
)
def test_an_option_that_is_meant_as_json_and_is_none_is_refused(
    run: Any, option: str, value: str, complaint: str
) -> None:
    labels = ("--labels", "a,b") if option == "--not" else ()
    result = run("classify", "x.png", option, value, *labels)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"openvocab: {option}: ")
    assert complaint in result.stderr


def test_an_argument_in_another_encoding_is_refused(spawn: Any) -> None:
    for option in (b"--labels", b"--labelset", b"--templates"):
        process = spawn("classify", "x.png", option, "Käfer{}".encode("latin-1"), PYTHONUTF8="1")
        assert process.returncode == 2
        assert process.stderr.startswith(b"openvocab: %b is not UTF-8 text: " % option)
        assert b"K\\udce4fer{}" in process.stderr


def test_a_busy_server_is_asked_again(run: Any, answers: Any, samples: dict[str, Path]) -> None:
    def first_two_refused(number: int) -> tuple[int, dict[str, str], Any]:
        return (
            (503 if number == 1 else 429, {"Retry-After": "1"}, {}) if number < 3 else (200, {}, OK)
        )

    start = time.monotonic()
    with answers(first_two_refused) as url:
        result = run("classify", samples["cat"], "--labels", LABELS, "--url", url)
    assert result.exit_code == 0, result.output
    assert time.monotonic() - start >= 2


@pytest.mark.parametrize(
    ("answer", "status", "complaint"),
    [
        ((503, {}, {"status": 503, "detail": "too many"}), 4, "too many"),
        ((401, {}, {"status": 401, "detail": "no API key was sent"}), 4, "no API key"),
        ((200, {}, b"<html>"), 4, "not an openvocab server"),
        ((404, {}, b"<html>"), 4, "not an openvocab server"),
        ((308, {"Location": "https://other.example/"}, b""), 4, "to https://other.example/"),
        ((0, {}, b""), 4, "does not respond"),
        ((413, {}, b"<html>nginx"), 1, "status 413"),
        ((500, {}, {"status": 500, "detail": "the server failed"}), 1, "the server failed"),
    ],
)
def test_what_a_server_answers_becomes_a_line_and_an_exit_status(
    run: Any, answers: Any, samples: dict[str, Path],
    answer: tuple[int, dict[str, str], Any], status: int, complaint: str,
) -> None:  # fmt: skip
    with answers(lambda _: answer) as url:
        result = run("classify", samples["cat"], "--labels", LABELS, "--url", url,
                    "--retry-for", 0)  # fmt: skip
    assert result.exit_code == status, result.output
    assert complaint in result.stderr


def test_who_waits_for_a_server_that_is_away_is_told_once(
    run: Any, samples: dict[str, Path]
) -> None:
    url = "http://127.0.0.1:9"  # nobody listens there
    result = run("classify", samples["cat"], samples["dog"], "--labels", LABELS, "--url", url,
                 "--retry-for", 2)  # fmt: skip
    assert result.exit_code == 4
    told, ended = result.stderr.splitlines()
    assert told.startswith(f"openvocab: {url} does not respond: ")
    assert told.endswith("; trying again for 2 s")
    assert told.startswith(ended)


def test_a_picture_that_breaks_the_server_stops_no_other(
    run: Any, answers: Any, samples: dict[str, Path]
) -> None:
    def second_cut(number: int) -> tuple[int, dict[str, str], Any]:
        return (0, {}, b"") if number == 2 else (200, {}, OK)

    with answers(second_cut) as url:
        result = run("classify", *list(samples.values())[:3], "--labels", LABELS, "--url", url,
                    "--retry-for", 0, "--jobs", 1, "--format", "ndjson")  # fmt: skip
    assert result.exit_code == 1
    assert [("error" in json.loads(line)) for line in result.stdout.splitlines()] == [
        False, True, False,
    ]  # fmt: skip


def test_the_key_goes_to_the_server(
    run: Any, samples: dict[str, Path], pictogram: Encoder, serve: Any
) -> None:
    secret = "ov_x"
    digest = hashlib.sha256(secret.encode()).hexdigest()
    with serve(pictogram, api_keys=f"me:classify:{digest}") as client:
        common = ("classify", samples["cat"], "--labels", LABELS, "--url", str(client.base_url))
        assert run(*common).exit_code == 4
        assert run(*common, env={"OPENVOCAB_API_KEY": secret}).exit_code == 0
        assert run(*common, "--api-key", secret).exit_code == 0


def test_results_keep_the_order_and_memory_stays_bounded(
    run: Any, answers: Any, samples: dict[str, Path], tmp_path: Path
) -> None:
    active, most = 0, 0
    lock = threading.Lock()

    def slow_first(number: int) -> tuple[int, dict[str, str], Any]:
        nonlocal active, most
        with lock:
            active += 1
            most = max(most, active)
        time.sleep(0.3 if number == 1 else 0.001)
        with lock:
            active -= 1
        return 200, {}, OK

    names = [tmp_path / f"{number:03}.png" for number in range(100)]
    for name in names:
        name.write_bytes(b"x")
    with answers(slow_first) as url:
        completed = run("classify", tmp_path, "--labels", LABELS, "--url", url, "--jobs", 3,
                    "--format", "ndjson")  # fmt: skip
    assert [json.loads(line)["file"] for line in completed.stdout.splitlines()] == [
        *map(str, names)
    ]
    assert most <= 3


def test_a_shell_completes_commands_options_and_values(run: Any) -> None:
    def completed(words: str) -> set[str]:
        env = {"_OPENVOCAB_COMPLETE": "complete_bash", "COMP_WORDS": words,
               "COMP_CWORD": str(len(words.split(" ")) - 1)}  # fmt: skip
        return set(run(env=env, prog_name="openvocab").stdout.split())

    assert {"classify", "labelset", "undo"} <= completed("openvocab ")
    assert completed("openvocab classify --form") == {"--format"}
    assert completed("openvocab classify --format t") == {"table", "tsv"}
    assert completed("openvocab classify --model pic") == {"pictogram"}
    assert "export" in completed("openvocab labelset ")


def test_help_shows_how_each_command_is_used(run: Any) -> None:
    assert (
        "openvocab classify photos/ --labels @labels.txt --format csv"
        in run("classify", "--help", env={"COLUMNS": "200"}).stdout
    )
    assert "130 interrupted" in run("classify", "--help", env={"COLUMNS": "200"}).stdout
    assert "openvocab undo" in run("undo", "--help", env={"COLUMNS": "200"}).stdout


def test_several_label_sets_get_a_column_each(run: Any, url: str, samples: dict[str, Path]) -> None:
    arguments = ("classify", str(samples["cat"]), "--labelset", "preset:animals,preset:weather")
    table = run(*arguments, "--url", url, "--top-k", 2).stdout.splitlines()
    assert table[0].split() == ["preset:animals", "preset:weather"]
    assert len(table) == 3
    rows = list(
        csv.DictReader(run(*arguments, "--url", url, "--format", "csv").stdout.splitlines())
    )
    assert table[1].split()[0] == rows[0]["preset:animals"].split()[0]
    assert rows[0]["preset:animals"] in load_vocabularies()["animals"].labels
    assert 0 < float(rows[0]["preset:weather score"]) < 1
    assert len(rows) == 5


def test_without_labels_tags_are_answered(run: Any, url: str, samples: dict[str, Path]) -> None:
    completed = run("classify", str(samples["umbrella"]), "--url", url, "--format", "json")
    (answer,) = json.loads(completed.stdout)
    assert answer["labelset"] == "preset:everyday-nouns"
    assert answer["predictions"][0]["label"] == "umbrella"


def test_a_folder_is_a_line_a_file_and_a_summary(run: Any, album: Path, url: str) -> None:
    completed = run("classify", album, "--labels", LABELS, "--url", url)
    lines = completed.stdout.splitlines()
    assert [Path(line.split()[0]).name for line in lines] == ["a.png", "key.jpg", "a.png"]
    assert [line.split()[1] for line in lines] == ["cat", "key", "rocket"]
    assert len({line.rindex("  " + line.split()[1]) for line in lines}) == 1
    assert completed.stderr.splitlines()[-1] == "openvocab: cat 1 · key 1 · rocket 1 · failed 1"


def test_one_picture_is_its_best_labels(run: Any, samples: dict[str, Path], url: str) -> None:
    completed = run("classify", samples["cat"], "--labels", LABELS, "--url", url)
    assert completed.stdout.split()[0] == "cat"
    assert len(completed.stdout.splitlines()) == len(LABELS.split(","))
    assert completed.stderr == ""


@pytest.mark.parametrize("content", ["cat\n\ndog\r\n", "\ufeffcat\ndog", '["cat", "dog"]'])
def test_labels_come_from_a_file(
    run: Any, samples: dict[str, Path], tmp_path: Path, url: str, content: str
) -> None:
    file = tmp_path / "labels.txt"
    file.write_bytes(content.encode())
    for value in (f"@{file}", str(file)):
        completed = run("classify", samples["cat"], "--labels", value, "--url", url)
        assert sorted(line.split()[0] for line in completed.stdout.splitlines()) == ["cat", "dog"]
        # read without being told to: that is said
        assert ("reading labels from the file" in completed.stderr) == (value[0] != "@")


def test_a_file_of_labels_that_is_none_is_exit_status_2(run: Any, tmp_path: Path) -> None:
    file = tmp_path / "labels"
    for content, complaint in (
        (b"", "holds no labels"),
        (b"\xff\x00", "not UTF-8"),
        (b"{", "JSON"),
        (b'{"a": [], "b": ["x"], "a": ["y"]}', "not valid: 'a' is there twice in one JSON object"),
    ):
        file.write_bytes(content)
        result = run("classify", "x.png", "--labels", f"@{file}")
        assert (result.exit_code, complaint in result.stderr) == (2, True), result.stderr
    assert "no such file" in run("classify", "x.png", "--labels", "@nowhere").stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["x.png", "dog", "--labels", "cat"], "'dog' was read as a file, which does not exist; "),
        (
            ["https://example.org/a b.png", "--labels", "a,b"],
            "curl -s 'https://example.org/a b.png'",
        ),
        (["x.png", "--labels", "a,b", "--templates", "a photo of"], "has no {} for the label"),
    ],
)
def test_what_was_probably_meant_is_said(run: Any, arguments: list[str], complaint: str) -> None:
    result = run("classify", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert complaint in result.stderr


COMMANDS = (
    [], ["serve"], ["classify"], ["eval"], ["undo"], ["bench"], ["keys", "new"], ["models"],
    ["models", "list"], ["models", "export"], ["labelset"], ["labelset", "import"],
    ["labelset", "examples", "add"],
)  # fmt: skip


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_fits_eighty_columns_and_any_encoding(words: list[str]) -> None:
    result = CliRunner().invoke(app, [*words, "-h"], env={"COLUMNS": "80"}, prog_name="openvocab")
    assert result.exit_code == 0
    assert re.search(r"<[a-z]+(\[[a-z]+])?>", result.stdout) is None  # no types of Python
    assert "{" not in result.stdout.splitlines()[0]
    for line in result.stdout.splitlines():
        if not line.startswith("    openvocab") and "|" not in line:  # examples are to be pasted
            assert len(line) <= 80


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_that_knows_few_letters_is_no_traceback(encoding: str) -> None:
    env = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    for words, status in ((["undo", "--help"], 0), (["--help"], 0), (["undo", "ö…ß.jsonl"], 2)):
        process = subprocess.run(
            [sys.executable, "-m", "app", *words],
            env=env,
            capture_output=True,
            timeout=240,
            check=False,
        )
        assert (process.returncode, b"Traceback" in process.stderr) == (status, False)


def test_help_into_a_pipe_that_closes_is_exit_status_141() -> None:
    reader, writer = os.pipe()
    os.close(reader)  # before anything is written
    process = subprocess.run(
        [sys.executable, "-m", "app", "classify", "--help"],
        stdout=writer, stderr=subprocess.PIPE, text=True, timeout=240, check=False,
    )  # fmt: skip
    os.close(writer)
    assert process.stderr == ""
    assert process.returncode == 141


def test_a_label_too_long_for_the_model_is_cut_where_that_is_asked(
    run: Any, samples: dict[str, Path], url: str
) -> None:
    long = "a grey cat that sleeps " + "on a very warm red sofa " * 5
    labels = json.dumps(["cat", "dog", long])
    refused = run("classify", samples["cat"], "--labels", labels, "--url", url)
    assert refused.exit_code == 2
    assert "'a grey cat that sleeps" in refused.stderr
    assert "truncate" in refused.stderr
    # what an answer warns of is told once, however many files there are
    twice = (samples["cat"], samples["rocket"])
    result = run("classify", *twice, "--labels", labels, "--truncate", "--url", url)
    assert result.exit_code == 0, result.stderr
    assert result.stderr.count("warning: 'a grey cat that sleeps") == 1


def test_a_label_set_is_created_with_texts_cut(run: Any, url: str, client: httpx.Client) -> None:
    long = "a grey cat that sleeps " + "on a very warm red sofa " * 5
    options = ("--url", url)
    result = run("labelset", "create", "by-hand", *options, input=f"cat\ndog\n{long}\n")
    assert result.exit_code == 0, result.stderr
    assert "left out" in result.stderr
    replaced = run(
        "labelset", "replace", "by-hand", "--truncate", *options, input=f"cat\ndog\n{long}\n"
    )
    assert "only its beginning counts" in replaced.stderr
    document = json.loads(run("labelset", "export", "by-hand", *options).stdout)
    assert document["truncate"] is True
    client.delete("/labelsets/by-hand")


def rows(found: Any) -> list[dict[str, str]]:
    assert found.exit_code == 0, found.stderr
    return list(csv.DictReader(found.stdout.splitlines()))


def test_boxes_are_answered_each_on_its_own(run: Any, url: str, samples: dict[str, Path]) -> None:
    boxes = ("--boxes", "0,0,0.5,1", "--boxes", "0.5,0,0.5,1")
    arguments = ("classify", samples["cat"], "--labels", LABELS, *boxes, "--url", url)
    csv_rows = rows(run(*arguments, "--format", "csv"))
    assert [row["box"] for row in csv_rows] == ["0"] * 5 + ["1"] * 5
    (answer,) = json.loads(run(*arguments, "--format", "json").stdout)
    assert [row["label"] for row in csv_rows] == [
        prediction["label"] for box in answer["boxes"] for prediction in box["predictions"]
    ]
    single = run(*arguments, "--top-k", 1).stdout.splitlines()
    assert [line.split()[:2] for line in single] == [
        ["[0]", csv_rows[0]["label"]], ["[1]", csv_rows[5]["label"]],
    ]  # fmt: skip
    several = run("classify", samples["cat"], samples["key"], *arguments[2:]).stdout.splitlines()
    assert [line.split()[1] for line in several] == ["[0]", "[1]"] * 2
    sets = run(
        *arguments[:2],
        "--labelset",
        "preset:animals,preset:weather",
        *arguments[4:],
        "--format",
        "csv",
        "--top-k",
        1,
    )
    assert [row["box"] for row in rows(sets)] == ["0", "1"]
    wrong = run(*arguments[:4], "--boxes", "0,0,1", "--url", url)
    assert (wrong.exit_code, "x,y,width,height" in wrong.stderr) == (2, True)
    beyond = run(*arguments[:4], "--boxes", "0,0,5000,10", "--url", url)
    assert (beyond.exit_code, "beyond" in beyond.stderr) == (1, True), beyond.stderr


def test_labels_have_texts_and_words_that_rule_them_out(
    run: Any, url: str, samples: dict[str, Path], tmp_path: Path
) -> None:
    labels = {"dish": ["pizza", "soup"], "fruit": ["banana", "apple"], "cat": []}
    file = tmp_path / "labels.json"
    file.write_text(json.dumps(labels))
    for texts in (json.dumps(labels), f"@{file}"):
        completed = run("classify", samples["pizza"], "--labels", texts, "--combine", "best",
                    "--format", "json", "--url", url)  # fmt: skip
        (answer,) = json.loads(completed.stdout)
        assert answer["predictions"][0]["label"] == "dish"
        assert answer["predictions"][0]["text"] == "pizza"
    arguments = ("classify", samples["pizza"], "--labels", "cat,dog", "--url", url)
    ruled_out = run(*arguments, "--not", "pizza,a blank page")
    assert (ruled_out.exit_code, ruled_out.stdout.split("  ")[0]) == (0, "none of these")
    for options, message in (
        (("--combine", "best"), "combine=best needs labels with several texts"),
        (("--not", "cat"), "not: 'cat' is a label"),
    ):
        refused = run(*arguments, *options)
        assert (refused.exit_code, message in refused.stderr) == (2, True), refused.stderr


def test_a_prediction_set_has_a_column(
    run: Any, client: httpx.Client, url: str, samples: dict[str, Path]
) -> None:
    labels = ["airplane", "banana", "bicycle", "cat", "dog", "doughnut"]
    pictures = [(label, data) for label in labels for data in variants(samples[label])]
    register(client, "promised", labels)
    calibrate(client, "promised", pictures).raise_for_status()
    arguments = ("classify", samples["cat"], "--labelset", "promised", "--url", url)
    first = rows(run(*arguments, "--coverage", "0.9", "--format", "csv"))[0]
    document = json.loads(first["set"])
    assert "cat" in document
    table = run(*arguments, "--coverage", "0.9").stdout.splitlines()
    assert table[0].endswith("{" + ", ".join(document) + "}")
    assert "{" not in table[1]
    several = rows(
        run(
            *arguments[:3],
            "promised,preset:animals",
            *arguments[4:],
            "--format",
            "csv",
            "--top-k",
            1,
        )
    )
    assert set(several[0]) == {
        "file", "promised", "promised score", "preset:animals", "preset:animals score", "target",
        "error",
    }  # fmt: skip
    refused = run("classify", samples["cat"], "--labelset", "preset:animals", "--coverage", "0.9",
                  "--url", url)  # fmt: skip
    assert (refused.exit_code, "coverage" in refused.stderr) == (2, True)
    client.delete("/labelsets/promised").raise_for_status()
