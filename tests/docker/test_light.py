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
    """A folder with OpenVINO and numpy as the Dockerfile leaves them."""
    for name in ("openvino", "numpy", "numpy.libs"):
        installed = Path(numpy.__file__).parents[1] / name
        shutil.copytree(installed, folder / name, copy_function=_linked)
    (removing,) = re.findall(
        r"^RUN cd /opt/venv/lib/python\*/site-packages (.+?[^\\])$",
        (ROOT / "Dockerfile").read_text(encoding="utf-8"),
        re.MULTILINE | re.DOTALL,
    )
    subprocess.run(["sh", "-euc", f"true {removing}"], cwd=folder, check=True)
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
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=240, check=True,
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(site)},
    )  # fmt: skip
    assert set(completed.stdout.split()) & {*HEAVY, "open_clip"} == set()
