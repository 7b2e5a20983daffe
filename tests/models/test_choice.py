"""What runs a model is measured once, with stand-ins for the times, and kept with its export."""

import contextlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from models import BadExport, catalog, export_cache, processor, timing
from models.choice import CHOICE, Candidates
from models.export import export
from models.export_cache import ExportCache
from models.export_folder import MANIFEST, checked
from models.loader import load
from models.measure import Cost, Costs
from models.openvino_towers import CompiledPrompts

FOLDER = Path(catalog()["pictogram"].loader.removeprefix("local-dir:"))
AUTO = Candidates(("bf16", "fp32"))

Made = Callable[..., list[Candidates]]


@pytest.fixture
def model(random_checkpoint: Callable[[str], Path]) -> str:
    """A small one with random weights."""
    return f"local-dir:{random_checkpoint('siglip-like')}"


@pytest.fixture
def takes(monkeypatch: pytest.MonkeyPatch) -> Made:
    """Say what each candidate takes (a precision, a backend, a number of threads), in seconds for
    each image, on two cores with instructions for bf16.

    Exports are made in this process; for which candidates is in the list that comes back.
    """

    def stand_in(**seconds: float) -> list[Candidates]:
        made: list[Candidates] = []

        def costs(
            runs: Mapping[Any, Any], _shape: tuple[int, int], sizes: Sequence[int]
        ) -> Mapping[Any, Costs]:
            each = {key: seconds.get(str(key), 1.0) for key in runs}
            return {key: {n: Cost(each[key], each[key]) for n in sizes} for key in runs}

        def here(spec: str, candidates: Candidates, folder: Path) -> None:
            made.append(candidates)
            with torch.no_grad():
                export(spec, candidates, folder)

        monkeypatch.setattr(timing, "costs", costs)
        monkeypatch.setattr(export_cache, "export", here)
        return made

    monkeypatch.setattr(processor, "has_fast_bf16", lambda: True)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)  # from four on, threads are timed as well
    return stand_in


@pytest.mark.parametrize(("bf16", "precision"), [(1.0, "bf16"), (1.9, "fp32")])
def test_the_precision_is_measured_once_and_kept(
    model: str, takes: Made, tmp_path: Path, bf16: float, precision: str
) -> None:
    made = takes(bf16=bf16, fp32=2.0, openvino=1.0, torch=2.0)
    first = load(model, exports=tmp_path / "exports")
    assert (first.info.precision, first.info.backend) == (precision, "openvino")
    assert [(t.backend, t.precision) for t in first.info.measured] == [
        ("openvino", "bf16"), ("openvino", "fp32"), ("torch", precision),
    ]  # fmt: skip
    assert first.info.measured[0].cpu_ms == {1: 1000 * bf16, 8: 1000 * bf16, 32: 1000 * bf16}
    # other times now: nobody asks for them
    takes(bf16=2.0, fp32=bf16, openvino=9.0, torch=1.0)
    again = load(model, exports=tmp_path / "exports")
    assert again.info == first.info
    assert made == [AUTO]
    # vectors are those of the same precision by name
    by_name = load(model, precision=precision, backend="torch")
    assert by_name.info.fingerprint == first.info.fingerprint
    for encoder in (first, again, by_name):
        encoder.close()


def test_a_damaged_record_is_measured_anew(model: str, takes: Made, tmp_path: Path) -> None:
    takes(bf16=1.0, fp32=2.0, openvino=1.0, torch=2.0)
    load(model, exports=tmp_path / "exports").close()
    [manifest] = (tmp_path / "exports").glob(f"*/{MANIFEST}")
    manifest.write_text(manifest.read_text().replace("bf16", "fp32"))
    takes(bf16=2.0, fp32=1.0, openvino=1.0, torch=2.0)
    encoder = load(model, exports=tmp_path / "exports")
    assert encoder.info.precision == json.loads(manifest.read_text())[CHOICE]["precision"] == "fp32"
    encoder.close()


def test_where_nothing_can_be_kept_the_precision_is_not_measured(
    model: str, takes: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each worker would measure by itself, and vectors of one server might differ."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ExportCache, "_make", full)
    made = takes(bf16=3.0, fp32=1.0, openvino=1.0, torch=2.0)
    encoder = load(model, exports=tmp_path / "exports")
    assert encoder.info.precision == "bf16"
    assert made == [Candidates(("bf16",))]
    encoder.close()


def test_where_nothing_can_be_written_at_all_torch_serves_or_the_error_is_one_line(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ExportCache, "_make", full)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    with contextlib.closing(load(model, exports=tmp_path / "exports")) as encoder:
        assert not isinstance(encoder.texts, CompiledPrompts)
    monkeypatch.setattr(export_cache, "has_torch", lambda: False)
    with pytest.raises(
        BadExport, match=r"to a temporary folder \(TMPDIR\): No such file or directory"
    ):
        load(model, exports=tmp_path / "exports")


def test_torch_serves_where_it_was_faster_unless_openvino_is_asked_for(
    model: str, takes: Made, tmp_path: Path
) -> None:
    made = takes(bf16=1.0, fp32=2.0, openvino=2.0, torch=1.0)
    for backend, serves in (("auto", "torch"), ("auto", "torch"), ("openvino", "openvino")):
        encoder = load(model, exports=tmp_path / "exports", backend=backend)
        assert (encoder.info.backend, encoder.info.precision) == (serves, "bf16")
        assert isinstance(encoder.texts, CompiledPrompts) == (serves == "openvino")
        assert encoder.info.measured[-1].backend == "torch"
        encoder.close()
    assert made == [AUTO]


def test_torch_on_request_is_measured_in_both_precisions(
    model: str, takes: Made, tmp_path: Path
) -> None:
    made = takes(bf16=2.0, fp32=1.0)
    for _ in range(2):
        encoder = load(model, exports=tmp_path / "exports", backend="torch")
        assert (encoder.info.backend, encoder.info.precision) == ("torch", "fp32")
        encoder.close()
    assert made == [Candidates(AUTO.precisions, "torch")]


def test_a_precision_by_name_is_not_measured_against_others(
    model: str, takes: Made, tmp_path: Path
) -> None:
    takes(bf16=9.0, openvino=9.0, torch=9.0)
    encoder = load(model, exports=tmp_path / "exports", precision="bf16")
    assert encoder.info.precision == "bf16"
    encoder.close()


def test_a_bundled_model_is_never_measured(takes: Made, tmp_path: Path) -> None:
    made = takes()
    for name in ("pictogram", f"local-dir:{FOLDER}"):
        encoder = load(name, exports=tmp_path / "exports")
        assert (encoder.info.precision, encoder.info.measured) == ("fp32", ())
        encoder.close()
    assert made == []


def test_threads_are_those_measured_for_as_many_cores(
    model: str, takes: Made, tmp_path: Path
) -> None:
    times = {"16": 2.0, "8": 2.1, "4": 9.0}
    takes(bf16=1.0, fp32=2.0, openvino=1.0, torch=2.0, **times)
    for options, threads in (
        ({"cores": 16}, 8),
        ({"cores": 6}, 6),
        ({"threads": 3, "cores": 16}, 3),
    ):
        encoder = load(model, exports=tmp_path / "exports", **options)
        assert encoder.info.threads == threads
        # those that decided about threads, beside the other precision and torch
        measured = [(t.backend, t.precision, t.threads, t.ms[8]) for t in encoder.info.measured]
        assert measured == [
            ("openvino", "fp32", 16, 2000), ("openvino", "bf16", 16, 2000),
            ("openvino", "bf16", 8, 2100), ("openvino", "bf16", 4, 9000),
            ("torch", "bf16", 16, 2000),
        ]  # fmt: skip
        encoder.close()


def test_an_exported_model_keeps_its_choice(model: str, takes: Made, tmp_path: Path) -> None:
    takes(bf16=2.0, fp32=1.0, openvino=2.0, torch=1.0)
    folder = tmp_path / "exported"
    export_cache.make_export(model, model, AUTO, folder)
    assert checked(folder)[CHOICE]["backend"] == "torch"
    encoder = load(f"exported:{folder}")
    assert (encoder.info.backend, encoder.info.precision) == ("openvino", "fp32")
    encoder.close()
