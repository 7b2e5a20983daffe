"""What the unit for systemd promises: settings that exist, and an end in order."""

import shlex
from pathlib import Path

from app.server.exit_status import MODEL_ERROR, START_ERROR, STORE_ERROR, USAGE_ERROR
from app.server.settings import Settings, unknown_variables
from app.server.workers import time_to_end

UNIT = Path(__file__).parents[2] / "docker" / "systemd" / "openvocab.service"


def value(key: str) -> str:
    """Of the one line with this key."""
    lines = [line.partition("=") for line in UNIT.read_text(encoding="utf-8").splitlines()]
    (found,) = [text for name, _, text in lines if name == key]
    return found


def test_the_unit_sets_variables_that_are_settings() -> None:
    names = [pair.partition("=")[0] for pair in shlex.split(value("Environment"))]
    assert [name for name in names if name.startswith("OPENVOCAB_")]
    assert unknown_variables(names) == []


def test_a_server_that_stops_has_time_for_what_it_accepted() -> None:
    assert int(value("TimeoutStopSec")) >= time_to_end(Settings())


def test_only_what_another_start_cannot_mend_ends_the_service() -> None:
    final = set(map(int, value("RestartPreventExitStatus").split()))
    assert value("Restart") == "always"
    assert final == {USAGE_ERROR, STORE_ERROR}
    assert not final & {START_ERROR, MODEL_ERROR}


def test_the_lines_that_install_it_name_files_that_are_there() -> None:
    text = UNIT.read_text(encoding="utf-8")
    copied = shlex.split(text[text.index("cp ") :].splitlines()[0])[1]
    assert (UNIT.parents[2] / copied).resolve() == UNIT
    assert value("ExecStart").split()[0] == "/opt/openvocab/bin/openvocab"
    assert "/opt/openvocab/bin/pip install" in text
