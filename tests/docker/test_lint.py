"""What the tools of the trade say of the Dockerfile and the compose files; no engine is needed."""

import importlib.util
import subprocess
import sysconfig
from pathlib import Path
from types import ModuleType

import pytest

from tests.docker.test_dockerfile import INSTRUCTIONS, stages

ROOT = Path(__file__).parents[2]
SCRIPTS = Path(sysconfig.get_path("scripts"))
COMPOSED = {
    "cpu": ["compose.yaml"],
    "gpu": ["compose.yaml", "compose.gpu.yaml"],
    "cluster": ["compose.cluster.yaml"],
}


def run(tool: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(SCRIPTS / tool), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


def composed(name: str) -> str:
    files = [part for file in COMPOSED[name] for part in ("-f", f"docker/{file}")]
    completed = run("docker-compose", *files, "config")
    assert completed.returncode == 0, completed.stderr
    assert not completed.stderr
    return completed.stdout


def test_hadolint_has_nothing_to_say(tmp_path: Path) -> None:
    completed = run("hadolint", "Dockerfile")
    assert (completed.returncode, completed.stdout) == (0, "")
    broken = tmp_path / "Dockerfile"
    broken.write_text("FROM debian\nRUN cd /tmp && sudo make\n")
    assert run("hadolint", str(broken)).returncode == 1


@pytest.mark.parametrize("name", COMPOSED)
def test_compose_can_put_its_files_together(name: str) -> None:
    assert "openvocab:" in composed(name)


def test_no_compose_file_is_left_out() -> None:
    files = {path.name for path in (ROOT / "docker").glob("compose*.yaml")}
    assert files == {file for group in COMPOSED.values() for file in group}


def installer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("image_steps", ROOT / "docker/image_steps.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_steps_that_are_tried_without_an_engine_are_those_of_the_dockerfile() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    steps = installer().steps(text)
    for name in ("installed", "build"):
        assert [step for step in steps if step in stages()[name][1]] == stages()[name][1]
    assert steps[-1][0] == "RUN"
    commands = [rest for word, rest in INSTRUCTIONS if word == "RUN"]
    assert any(rest.startswith(f"{steps[-1][1]} &&") for rest in commands)
    # each touches what lies in the folder, and nothing beside it
    moved = [installer().moved(rest, Path("/folder")) for _, rest in steps]
    assert not any(" /opt" in line or "=/opt" in line for line in moved)
    assert "python -m venv /folder/opt/venv" in moved


def test_a_step_that_fails_is_told_of(tmp_path: Path) -> None:
    module = installer()
    builder = module.Builder(tmp_path / "image")
    builder.carry_out("ARG", 'LOCK="LICENSE"')
    builder.carry_out("WORKDIR", "/src")
    builder.carry_out("COPY", "${LOCK} licence")
    builder.carry_out("ENV", "PATH=/opt/bin:${PATH} GREETING=hello")
    builder.carry_out("RUN", "echo $GREETING > greeting && test -s licence && mkdir -p /opt/bin")
    assert (tmp_path / "image/src/greeting").read_text() == "hello\n"
    assert (tmp_path / "image/opt/bin").is_dir()
    with pytest.raises(subprocess.CalledProcessError):
        builder.carry_out("RUN", "false && true")
    with pytest.raises(ValueError, match="SHELL"):
        builder.carry_out("SHELL", "[]")
