"""Exported models: made once, whole or not at all, checked, and served without torch."""

import contextlib
import errno
import fcntl
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from app.__main__ import app
from models import (
    BadDevice,
    BadExport,
    ModelError,
    ModelUnavailable,
    UnknownModel,
    bundle,
    catalog,
    export_cache,
    export_folder,
    export_process,
)
from models import export as making
from models.choice import CHOICE, Candidates
from models.device import openvino_core
from models.export_cache import ERROR, ExportCache, export, export_key
from models.export_folder import MANIFEST, PROMPTS, SUMS, TEXTS, checked, examples
from models.graphs import write
from models.loader import export_to, load
from models.measure import SIZES
from models.openvino_towers import CompiledImages

FP32 = Candidates(("fp32",))
BUNDLED = catalog()["pictogram"].loader
FOLDER = Path(BUNDLED.removeprefix("local-dir:"))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The bundled model in a folder of its own, without its bundle."""
    to = tmp_path / "model"
    to.mkdir()
    for name in ("open_clip_config.json", "open_clip_model.safetensors"):
        shutil.copy(FOLDER / name, to)
    return to


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of the bundled model, in a folder of exports of its own."""
    folder = tmp_path_factory.mktemp("exports")
    load("pictogram", exports=folder).close()
    [folder_made] = [path for path in folder.iterdir() if path.is_dir()]
    return folder_made


@pytest.fixture
def made(first: Path, tmp_path: Path) -> Path:
    """A copy of it that may be damaged."""
    return Path(shutil.copytree(first, tmp_path / "exports" / first.name))


def break_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, error: str
) -> None:
    """In processes that are started later its import raises this error."""
    broken = tmp_path / "broken" / package
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text(f"raise {error}")
    paths = (str(broken.parent), os.environ.get("PYTHONPATH", ""))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))


def test_a_pytorch_that_an_export_cannot_load_is_told_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "made"
    folder.mkdir()
    theirs = tmp_path / "theirs" / "models"
    theirs.mkdir(parents=True)
    (theirs / "__init__.py").write_text("raise ImportError('a package of another project')")
    monkeypatch.chdir(theirs.parent)  # what is here is none of ours
    break_package(tmp_path, monkeypatch, "torch", "OSError('libcudart.so: no such file')")
    with pytest.raises(ModelUnavailable) as told:
        export("pictogram", FP32, folder)
    assert str(told.value) == (
        "exporting model 'pictogram' needs PyTorch, which cannot be loaded: "
        "libcudart.so: no such file"
    )


@contextlib.contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Files of this process, and of those that it starts, get no larger: as on a disk so full."""
    kind = resource.RLIMIT_FSIZE
    before = resource.getrlimit(kind)
    resource.setrlimit(kind, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(kind, before)


def test_a_graph_that_a_disk_has_no_room_for_is_an_error_of_the_disk(
    made: Path, tmp_path: Path
) -> None:
    graph = openvino_core().read_model(made / TEXTS)
    with (
        files_of_at_most(1_000_000),
        pytest.raises(OSError, match=r"text\.xml cannot be written, as where a disk is full"),
    ):
        write(graph, tmp_path / TEXTS)


def test_a_model_that_cannot_be_exported_where_it_is_wanted_is_told_in_a_line(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "mine"
    with files_of_at_most(1_000_000), pytest.raises(BadExport) as told:
        export_to("pictogram", "fp32", folder)
    assert str(told.value) == f"model 'pictogram' cannot be exported to {folder}: File too large"
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_room_is_no_reason_to_serve_a_model_by_torch_ever_after(
    tmp_path: Path,
) -> None:
    with (
        files_of_at_most(1_000_000),
        pytest.raises(OSError, match=r"image\.xml cannot be written, as where a disk is full"),
    ):
        export("pictogram", FP32, tmp_path)
    assert not (tmp_path / MANIFEST).exists()


@pytest.mark.parametrize(
    "shortage",
    [MemoryError(), RuntimeError("bad allocation: std::bad_alloc")],
    ids=["Python", "OpenVINO"],
)
def test_too_little_memory_for_an_export_says_nothing_of_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shortage: Exception
) -> None:
    def short(*_: object) -> None:
        raise shortage

    monkeypatch.setattr(making, "_write_images", short)
    with pytest.raises(type(shortage)):
        making.export("pictogram", FP32, tmp_path)
    assert not (tmp_path / MANIFEST).exists()


def test_the_bundle_is_of_the_weights_that_are_shipped() -> None:
    assert bundle.exists(FOLDER), "the weights have changed: run python -m models.bundle_export"


def test_the_bundle_gives_what_an_export_by_torch_gives(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    # open_clip does without transformers, which only an extra installs
    break_package(tmp_path, monkeypatch, "transformers", "ImportError")
    export("pictogram", FP32, other)
    names = [path.name for path in sorted(made.iterdir()) if path.name not in (SUMS, MANIFEST)]
    assert {"image.bin", "text.bin", "embeddings.npy", "tokenizer.npz"} <= set(names)
    # the constants of a graph lie in the order in which it was made
    graphs = {"image.xml", "image.bin", "text.xml", "text.bin"}
    for name in set(names) - graphs - {"reference.npz"}:
        assert (other / name).read_bytes() == (made / name).read_bytes(), name
    pair = [load(f"exported:{folder}") for folder in (made, other)]
    for rows in zip(
        *([*e.submit_images(list(examples((64, 64)))).result(), *e.submit_texts(PROMPTS).result()]
          for e in pair), strict=True,
    ):  # fmt: skip
        np.testing.assert_allclose(*rows, atol=1e-6)
    for encoder in pair:
        encoder.close()
    shipped, measured = (dict(checked(folder)["info"]) for folder in (made, other))
    # what was measured is another thing on each machine
    assert shipped.pop("images_at_once") in SIZES
    assert measured.pop("images_at_once") in SIZES
    assert shipped == measured
    timings = checked(other)[CHOICE]["measured"]
    assert [timing["backend"] for timing in timings][:: len(timings) - 1] == ["openvino", "torch"]
    assert all(ms > 0 for timing in timings for ms in timing["cpu_ms"].values())


def test_a_folder_that_is_there_is_not_made_again(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("made again")

    monkeypatch.setattr(ExportCache, "_make", never)
    encoder = load("pictogram", exports=made.parent)
    assert encoder.info.backend == "openvino"
    encoder.close()


@pytest.mark.usefixtures("exported_here")
def test_room_is_asked_for_once_and_when_the_export_is_made(
    random_checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    name, made = f"local-dir:{random_checkpoint('siglip-like')}", list[int]()

    def room() -> None:
        made.append(len(list(tmp_path.glob(f"exports/*/{MANIFEST}"))))

    for _ in range(2):
        load(name, precision="fp32", exports=tmp_path / "exports", room=room).close()
    folder = next(tmp_path.glob(f"exports/*/{MANIFEST}")).parent
    load(f"exported:{folder}", room=room).close()
    assert made == [1, 1, 1]


@pytest.mark.usefixtures("exported_here")
def test_no_room_is_asked_for_what_cannot_be_had(copy: Path, tmp_path: Path) -> None:
    def room() -> None:
        raise AssertionError("asked for")

    (copy / "open_clip_model.safetensors").write_bytes(b"no weights")
    for spec in (f"local-dir:{copy}", f"local-dir:{copy}-gone", "unheard-of", f"exported:{copy}"):
        with pytest.raises(ModelError):
            load(spec, precision="fp32", exports=tmp_path / "exports", room=room)


@pytest.mark.parametrize(
    ("name", "damage"),
    [("image.bin", "flip"), ("text.xml", "cut"), ("embeddings.npy", "gone"), (MANIFEST, "flip"),
     (SUMS, "cut"), (SUMS, "gone")],
)  # fmt: skip
def test_a_damaged_file_is_found(made: Path, name: str, damage: str) -> None:
    file = made / name
    data = bytearray(file.read_bytes())
    if damage == "gone":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(data[: len(data) // 2])
    else:
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    with pytest.raises(BadExport):
        load(f"exported:{made}")


def test_what_is_damaged_is_made_anew(made: Path) -> None:
    (made / MANIFEST).write_text("{")
    encoder = load("pictogram", exports=made.parent)
    assert encoder.info.backend == "openvino"
    encoder.close()
    checked(made)
    assert [path for path in made.parent.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("place", ["provenance", "choice"])
def test_an_export_that_another_release_described_in_its_own_way_is_made_anew(
    made: Path, place: str
) -> None:
    manifest = json.loads((made / MANIFEST).read_text())
    choice: dict[str, Any] = {"backend": "openvino", "precision": "fp32", "measured": []}
    described = choice if place == "choice" else manifest["info"]["provenance"]
    described["of_a_later_release"] = 1
    more = {"choice": choice} if place == "choice" else {}
    export_folder.seal(made, {**manifest, **more})
    with pytest.raises(BadExport, match=r"another release exported it.*export it again"):
        load(f"exported:{made}")
    load("pictogram", exports=made.parent).close()
    checked(made)


def test_an_export_that_ends_early_leaves_nothing(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(spec: str, candidates: Candidates, folder: Path) -> None:
        (folder / "image.bin").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(export_cache, "export", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load(f"local-dir:{copy}", precision="fp32", exports=tmp_path / "exports")
    assert [path for path in (tmp_path / "exports").iterdir() if path.is_dir()] == []


WRITING = """
import sys, time
from pathlib import Path
from models import export_cache
from models.choice import Candidates

def export(spec, candidates, folder):
    (folder / "image.bin").write_bytes(b"half")
    print("writing", flush=True)
    time.sleep(3600)

export_cache.export = export
wanted = export_cache.Wanted("a", "a/b", Candidates(("fp32",)))
export_cache.ExportCache(Path(sys.argv[1])).encoder(wanted)
"""


def test_what_a_killed_process_left_is_removed_at_the_next_start_and_no_sooner(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-c", WRITING, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        try:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "writing\n"
            [partial] = tmp_path.glob(".*")
            exported_by_hand = tmp_path / ".mine-12345678.partial"
            exported_by_hand.mkdir()
            load("pictogram", exports=tmp_path).close()
            assert (partial / "made" / "image.bin").read_bytes() == b"half"
        finally:
            writer.kill()
    assert partial.exists()
    load("pictogram", exports=tmp_path).close()
    assert list(tmp_path.glob(".*")) == [exported_by_hand]


def test_a_lock_whose_file_was_removed_meanwhile_is_taken_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "model.lock"
    flock = fcntl.flock

    def overtaken(handle: TextIO, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        flock(handle, how)
        file.unlink()

    monkeypatch.setattr(fcntl, "flock", overtaken)
    with (
        export_cache._locked(file),
        pytest.raises(BlockingIOError),
        export_cache._locked(file, wait=False),
    ):
        raise AssertionError("two have it")


def test_where_a_file_system_has_no_locks_an_export_is_made_and_none_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(handle: TextIO, how: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with export_cache._locked(tmp_path / "model.lock"):
        partial = tmp_path / f".{'0' * export_cache.KEY_SIZE}-12345678{export_cache.PARTIAL}"
        partial.mkdir()
        ExportCache(tmp_path)._remove_partial()
    assert partial.exists(), "somebody may be writing it"


def test_rows_that_are_not_those_of_torch_are_not_served(
    made: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = json.loads((made / MANIFEST).read_text())
    table = np.load(made / "embeddings.npy")
    np.save(made / "embeddings.npy", table[::-1])  # whole files, of another model
    export_folder.seal(made, manifest)
    with pytest.raises(BadExport, match="off those of torch"):
        load(f"exported:{made}")
    monkeypatch.setattr(ExportCache, "_make", lambda *_: None)
    encoder = load("pictogram", exports=made.parent)
    assert encoder.info.backend == "openvino"
    assert "torch serves pictogram" in caplog.text
    encoder.close()


def test_model_precision_and_processor_are_keys_of_their_own(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = export_key(f"local-dir:{copy}", FP32)
    assert here == export_key(BUNDLED, FP32)  # the same files in another place
    others = {export_key(BUNDLED, Candidates(("bf16",))), export_key("ViT-B-32/openai", FP32)}
    config = copy / "open_clip_config.json"
    config.write_text(config.read_text().replace("0.5", "0.25"))
    others.add(export_key(f"local-dir:{copy}", FP32))
    monkeypatch.setattr("models.processor.features", lambda: ("of another machine",))
    others.add(export_key(BUNDLED, FP32))
    monkeypatch.setattr(export_cache, "_releases", lambda: iter(["9.9", "2030.0"]))
    others.add(export_key(BUNDLED, FP32))
    assert len({here, *others}) == 6


def test_downloaded_weights_that_changed_are_exported_anew(made: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.write_bytes(b"1")
    state = weights.stat()
    manifest = {"source_files": [[str(weights), state.st_size, state.st_mtime_ns]]}
    assert export_cache._is_current(manifest)
    weights.write_bytes(b"12")
    assert not export_cache._is_current(manifest)
    weights.unlink()  # cleaned away: nothing says that they are others now
    assert export_cache._is_current(manifest)


def test_exports_that_nobody_opened_for_a_month_are_removed(made: Path) -> None:
    old, new = (made.with_name(name) for name in ("old", "new"))
    for folder in (old, new):
        shutil.copytree(made, folder)
        folder.with_name(f"{folder.name}.lock").touch()
    past = time.time() - 31 * 86_400
    for folder in (old, made):
        os.utime(folder, (past, past))
    load("pictogram", exports=made.parent).close()  # opened, and so used
    assert old.exists(), "only a new export makes room"
    (made / "image.bin").unlink()
    load("pictogram", exports=made.parent).close()
    assert not old.exists()
    assert not old.with_name("old.lock").exists()
    assert made.exists()
    assert new.exists()


def test_what_fails_in_the_child_is_left_for_its_parent_to_raise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_process, "end_with_parent", lambda: None)
    with torch.enable_grad():  # as it is again at the end
        assert export_process.main("pictogam", json.dumps(asdict(FP32)), str(tmp_path)) == 1
    failed = json.loads((tmp_path / ERROR).read_text())
    assert failed["kind"] == UnknownModel.__name__
    assert "did you mean pictogram" in failed["line"]
    assert "\n" not in failed["line"]


def test_an_exported_model_says_what_it_cannot_do(made: Path) -> None:
    for options, message in (
        ({"precision": "bf16"}, "exported in fp32"),
        ({"device": "cuda"}, "runs on a CPU"),
        ({"backend": "torch"}, "runs on a CPU"),
    ):
        with pytest.raises(BadDevice, match=message):
            load(f"exported:{made}", **options)
    with pytest.raises(BadExport, match="no exported model"):
        load("exported:/nowhere")


def test_a_large_batch_runs_in_passes_of_at_least_the_measured_size(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = load(f"exported:{made}")
    assert isinstance(encoder.images, CompiledImages)
    assert encoder.images.at_once == encoder.info.images_at_once == 8
    spec, passes = encoder.info.image, []
    images = [np.full((3, spec.height, spec.width), 9 * n, np.uint8) for n in range(19)]
    alone = [encoder.submit_images([image]).result()[0] for image in images]
    whole = encoder.images.forward
    monkeypatch.setattr(encoder.images, "forward", lambda b: (passes.append(len(b)), whole(b))[1])
    together = encoder.submit_images(images).result()
    assert passes == [10, 9]
    np.testing.assert_allclose(together, alone, atol=1e-5)
    encoder.close()


def test_weights_that_only_the_start_needed_are_given_back(made: Path) -> None:
    """Of the mapped weights next to nothing is resident, and the rows are right all the same."""
    encoder = load(f"exported:{made}")
    smaps = Path("/proc/self/smaps").read_text().split("VmFlags")
    mapped = "".join(part for part in smaps if str(made / "image.bin") in part)
    size, resident = (
        sum(int(line.split()[1]) for line in mapped.splitlines() if line.startswith(f"{name}:"))
        for name in ("Size", "Rss")
    )
    assert size > 10_000
    assert resident < size / 2
    encoder.close()


WITHOUT_TORCH = """
import importlib.abc, sys
class No(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "timm", "transformers"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, No())
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name == "torch" else found(name, *a)
"""


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH + code],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip


def test_the_bundled_model_needs_no_torch(tmp_path: Path) -> None:
    completed = python(
        "from pathlib import Path\n"
        "from models.loader import load\n"
        f"encoder = load('pictogram', exports=Path({str(tmp_path)!r}))\n"
        "print(encoder.submit_texts(['café', 'cat']).result().shape)\n"
        "encoder.close()\n"
        "print(sorted({'torch', 'open_clip', 'huggingface_hub'} & set(sys.modules)))"
    )
    assert completed.stdout.splitlines()[1:] == ["[]"], completed.stderr
    assert completed.stderr == ""


def test_where_torch_is_needed_and_missing_one_line_says_so(copy: Path, tmp_path: Path) -> None:
    for name in (f"local-dir:{copy}", "ViT-B-32/openai"):
        completed = python(
            "from pathlib import Path\n"
            "from models import ModelError\n"
            "from models.loader import load\n"
            "try:\n"
            f"    load({name!r}, exports=Path({str(tmp_path)!r}))\n"
            "except ModelError as error:\n"
            "    print(error)\n"
        )
        assert len(completed.stdout.splitlines()) == 1, completed.stderr
        assert "pip install torch open_clip_torch" in completed.stdout
        assert "openvocab models export" in completed.stdout


@pytest.mark.usefixtures("exported_here")
def test_a_tower_at_full_length_is_exported_too(
    random_checkpoint: Callable[..., Path], exports: Path
) -> None:
    name = f"local-dir:{random_checkpoint('siglip-like')}"
    plain = load(name, precision="fp32", backend="torch")
    light = load(name, precision="fp32", exports=exports)
    assert (light.info.backend, light.info.trims_text) == ("openvino", False)
    assert light.info.bias == plain.info.bias is not None
    prompts = [f"{n} cats on a {'very ' * n} red mat" for n in range(9)]
    rows, expected = (e.submit_texts(prompts).result() for e in (light, plain))
    assert float(np.abs(1 - (rows * expected).sum(1)).max()) < 1e-5
    for encoder in (plain, light):
        encoder.close()


def test_a_model_is_exported_by_the_command_line_and_served_from_there(tmp_path: Path) -> None:
    def command(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["models", "export", *arguments])

    to = tmp_path / "exported"
    completed = command("pictogram", "--to", str(to))
    assert completed.exit_code == 0, completed.stderr
    assert f"--model exported:{to}" in completed.stderr
    encoder = load(f"exported:{to}")
    assert encoder.info.fingerprint == checked(to)["info"]["fingerprint"]
    encoder.close()
    for options, status, message in (
        (("pictogram", "--to", str(to)), 2, str(to)),  # never into a folder that is there
        (("pictogam", "--to", str(tmp_path / "other")), 3, "did you mean pictogram"),
    ):
        refused = command(*options)
        assert refused.exit_code == status, refused.stderr
        assert message in refused.stderr.splitlines()[-1]
        assert isinstance(refused.exception, SystemExit)
    assert not (tmp_path / "other").exists()
