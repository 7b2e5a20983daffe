"""What Windows lacks is taken away from our code, for nothing here runs on Windows itself."""

import json
import os
import subprocess
import sys
from pathlib import Path

STAND_IN = Path(__file__).with_name("like_windows.py")


def test_commands_and_a_server_work_without_what_windows_lacks_and_refuse_what_needs_it(
    tmp_path: Path, samples: dict[str, Path]
) -> None:
    ran = subprocess.run(
        [sys.executable, str(STAND_IN), str(tmp_path), str(samples["cat"])],
        env={**os.environ, "OPENVOCAB_DATA_DIR": str(tmp_path), "PYTHONPATH": os.getcwd()},  # noqa: PTH109
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert told["classify"].endswith("\n0"), told["classify"]
    assert (tmp_path / "sorted" / "cat" / "cat.png").exists()
    assert told["out"]["predictions"][0]["label"] == "cat"
    assert told["locks"] == ["refused", "had, 4 bytes on"]
    assert told["rows"] == 2
    for command, line in (
        ("workers", "OPENVOCAB_WORKERS: several processes need signals that this system lacks"),
        ("uds", "this system lacks Unix sockets"),
        ("redis", "a store at unix:// needs Unix sockets, which this system lacks"),
        ("svg", "OPENVOCAB_SVG: this system cannot bound the memory of its decoder"),
    ):
        assert line in told[command]
    assert told["put"] == 202
    assert (tmp_path / "openvocab.sqlite3").exists()
    assert told["picture"]["predictions"][0]["label"] == "cat"
    assert told["drawing"]["detail"].endswith("convert it to PNG or JPEG")
    assert told["serve"].endswith("\n0")
    assert '"level": "error"' not in told["serve"]
