"""What is installed without PyTorch: the lock, and that what serves imports nothing else."""

import re
import subprocess
import sys
from pathlib import Path

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


def test_a_server_with_the_bundled_model_imports_nothing_heavy(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "import app.__main__, app.server.run\n"
        "from app.classify.templates import presets, template_sets\n"
        "from models.loader import load\n"
        f"encoder = load('pictogram', exports=Path({str(tmp_path)!r}))\n"
        "encoder.submit_texts(['caf\u00e9']).result(); encoder.close()\n"
        "template_sets(); presets()\n"
        "print(*{name.partition('.')[0] for name in sys.modules})\n"
    )
    completed = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=240, check=True,
        cwd=ROOT,
    )  # fmt: skip
    assert set(completed.stdout.split()) & {*HEAVY, "open_clip"} == set()
