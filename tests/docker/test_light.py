"""What is installed without PyTorch: the lock, and that what serves imports nothing else."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "torchvision", "timm", "triton"}


def locked(name: str) -> dict[str, str]:
    text = (ROOT / name).read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9-]+)==([^ ;]+)", text, re.MULTILINE))


def test_the_light_lock_is_the_whole_one_without_what_pytorch_brings() -> None:
    light, whole = locked("requirements-light.lock"), locked("requirements.lock")
    assert light.keys() & HEAVY == set()
    assert not [name for name in light if name.startswith("nvidia")]
    assert {"openvino", "open-clip-torch", "ftfy", "regex"} <= light.keys()
    assert light.items() <= whole.items()


def reduced(folder: Path) -> Path:
    """A folder with OpenVINO and numpy as the image `light` has them."""
    for name in ("openvino", "numpy", "numpy.libs"):
        installed = Path(numpy.__file__).parents[1] / name
        shutil.copytree(installed, folder / name, copy_function=_linked)
    subprocess.run([ROOT / "docker/trim.sh", folder], check=True)
    return folder


def _linked(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


def test_a_server_with_the_bundled_model_needs_no_more_than_the_image_has(tmp_path: Path) -> None:
    site = reduced(tmp_path / "site")
    assert not (site / "openvino" / "libs" / "libopenvino_intel_gpu_plugin.so").exists()
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "import app.__main__, app.server.run\n"
        "from app.classify.templates import presets, template_sets\n"
        "from models.loader import load\n"
        f"encoder = load('pictogram', exports=Path({str(tmp_path)!r}))\n"
        "encoder.submit_texts(['caf\u00e9']).result(); encoder.close()\n"
        "template_sets(); presets()\n"
        "import numpy, openvino\n"
        f"assert {str(site)!r} in numpy.__file__ and {str(site)!r} in openvino.__file__\n"
        "print(*{name.partition('.')[0] for name in sys.modules})\n"
    )
    completed = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=600, check=True,
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(site)},
    )  # fmt: skip
    assert set(completed.stdout.split()) & {*HEAVY, "open_clip"} == set()


def test_with_pytorch_its_models_stay_readable_and_cuda_loses_no_library(tmp_path: Path) -> None:
    kept = (
        "openvino/libs/libopenvino_pytorch_frontend.so.1",
        "openvino/libs/libopenvino_ir_frontend.so.1",
        "torch/lib/libtorch_cuda.so",
        "nvidia/cu13/lib/libcusolver.so.12",
        "nvidia/LICENSE.txt",
        "sympy/core/add.py",
    )
    removed = (
        "openvino/include/a.hpp",
        "openvino/cmake/a.cmake",
        "openvino/libs/cache.json",
        "openvino/libs/libopenvino_intel_gpu_plugin.so",
        "openvino/libs/libopenvino_intel_npu_plugin.so",
        "openvino/libs/libopenvino_onnx_frontend.so.1",
        "torch/include/torch/script.h",
        "nvidia/cu13/include/cuda.h",
        "nvidia/cu13/lib/libcudart_static.a",
        "nvidia/cu13/lib/libcusolverMg.so.12",
        "nvidia/nvshmem/lib/libnvshmem_device_sm_90.bc",
        "sympy/core/tests/test_add.py",
    )
    for name in (*kept, *removed):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    subprocess.run([ROOT / "docker/trim.sh", tmp_path], check=True)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == set(kept)
    # a release of OpenVINO that names its files otherwise ends the build
    again = subprocess.run([ROOT / "docker/trim.sh", tmp_path], capture_output=True, check=False)
    assert again.returncode != 0
