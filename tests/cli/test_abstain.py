"""`openvocab classify --abstain`: none of these in every form of answer, and where files go."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import httpx

LABELS = ("--labels", "cat,dog,pizza", "--abstain")


def test_none_of_these_is_told_in_every_form(
    run: Any, samples: dict[str, Path], client: httpx.Client
) -> None:
    def output(form: str) -> str:
        names = (str(samples["umbrella"]), str(samples["cat"]))
        process = run("classify", *names, *LABELS, "--url", str(client.base_url), "--format", form)
        assert process.exit_code == 0, process.stderr
        return process.stdout

    first, second = output("table").splitlines()
    assert first.split("  ")[-1].strip() == "-"
    assert "none of these  " in first
    assert first.index("none of these") == second.index("cat  ")
    rows = [*csv.DictReader(io.StringIO(output("csv")))]
    assert (rows[0]["label"], rows[0]["reason"]) == ("", "similarity_below_floor")
    assert (rows[1]["label"], rows[1]["reason"]) == ("cat", "")
    lines = [json.loads(line) for line in output("ndjson").splitlines()]
    assert lines[0]["reason"]["withheld"][0]["label"] in ("cat", "dog", "pizza")
    assert [line["abstained"] for line in lines] == [True, False]


def test_what_is_none_of_these_is_put_aside(
    run: Any, samples: dict[str, Path], client: httpx.Client, tmp_path: Path
) -> None:
    names = [str(samples[name]) for name in ("umbrella", "cat")]
    aside = ("--copy-to", str(tmp_path / "sorted"))
    process = run("classify", *names, *LABELS, "--url", str(client.base_url), *aside)
    assert process.exit_code == 0, process.stderr
    assert (tmp_path / "sorted" / "_none" / "umbrella.png").is_file()
    assert (tmp_path / "sorted" / "cat" / "cat.png").is_file()
