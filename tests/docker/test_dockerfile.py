"""What the Dockerfile promises, as far as it can be read from it without building an image."""

import fnmatch
import json
import re
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app import VERSION
from app.__main__ import app
from app.server.settings import DEFAULT_MODEL, Settings

ROOT = Path(__file__).parents[2]
TARGETS = ("cpu", "gpu", "light")
KNOWN = {f"OPENVOCAB_{name.upper()}" for name in Settings.model_fields}


def parsed(path: Path) -> list[tuple[str, str]]:
    """The instructions in order: ("COPY", "app app")."""
    lines = [
        line
        for line in path.read_text(encoding="utf-8").splitlines()
        if not line.lstrip().startswith("#")
    ]
    whole = "\n".join(lines).replace("\\\n", " ")
    return [
        (word.upper(), " ".join(rest.split()))
        for word, _, rest in (line.partition(" ") for line in whole.splitlines() if line.strip())
    ]


INSTRUCTIONS = parsed(ROOT / "Dockerfile")
DEFAULTS = {
    name: value.strip('"')
    for word, rest in INSTRUCTIONS
    if word == "ARG"
    for name, _, value in [rest.partition("=")]
}


def filled(text: str) -> str:
    """Build arguments replaced by their defaults, in the plain form ${NAME}."""
    return re.sub(r"\$\{(\w+)\}", lambda match: DEFAULTS.get(match[1], match[0]), text)


def stages() -> dict[str, tuple[str, list[tuple[str, str]]]]:
    """By name: what the stage starts from, and its instructions."""
    stages_by_name: dict[str, tuple[str, list[tuple[str, str]]]] = {}
    for word, rest in INSTRUCTIONS:
        if word == "FROM":
            base, keyword, name = rest.split()
            assert keyword.upper() == "AS"
            stages_by_name[name] = (filled(base), [])
        elif stages_by_name:
            stages_by_name[list(stages_by_name)[-1]][1].append((word, rest))
    return stages_by_name


def whole(target: str) -> list[tuple[str, str]]:
    """The instructions of a stage and of all the stages that it stands on."""
    base, instructions = stages()[target]
    return [*whole(base), *instructions] if base in stages() else instructions


def last(target: str, word: str) -> str:
    return [rest for instruction, rest in whole(target) if instruction == word][-1]


def environment(target: str) -> dict[str, str]:
    pairs = [rest for word, rest in whole(target) if word == "ENV"]
    return dict(re.findall(r"(\w+)=(\S+)", " ".join(pairs)))


def copied() -> list[str]:
    return [
        source
        for word, rest in INSTRUCTIONS
        if word == "COPY" and "--from=" not in rest
        for source in filled(rest).split()[:-1]
    ]


def is_sent(path: str) -> bool:
    """Whether .dockerignore lets a path into the build: the last rule that matches decides."""
    copied = True
    for rule in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        if rule and not rule.startswith("#"):
            pattern = rule.removeprefix("!").removeprefix("**/")
            parts = [path, Path(path).name, *map(str, Path(path).parents)]
            if any(fnmatch.fnmatch(part, pattern) for part in parts if part != "."):
                copied = rule.startswith("!")
    return copied


def test_both_targets_exist_and_the_cpu_is_the_default() -> None:
    assert set(TARGETS) < set(stages())
    assert list(stages())[-1] == "cpu"


def test_every_copied_file_exists_and_is_sent_to_the_build() -> None:
    assert copied()
    for source in copied():
        assert (ROOT / source).exists(), source
        assert is_sent(source), source


def test_nothing_else_is_sent_to_the_build() -> None:
    for path in (".git/config", ".venv/bin/python", "tests/conftest.py", "docs/api.md", ".env"):
        assert not is_sent(path), path
    assert not is_sent("app/__pycache__/main.cpython-311.pyc")
    for model in ("everyday", "pictogram"):
        assert is_sent(f"models/{model}/open_clip_model.safetensors")
    assert is_sent("prompts/vocabularies/animals.txt")


def test_every_stage_that_is_named_stands_above() -> None:
    above: list[str] = []
    for word, rest in INSTRUCTIONS:
        if word == "FROM":
            above.append(rest.split()[-1])
        for name in re.findall(r"--from=(\S+)", rest):
            assert name in above[:-1], name


def test_no_registry_or_other_host_is_named() -> None:
    for base, _ in stages().values():
        if base not in stages():
            first, slash, _ = base.partition("/")
            assert not (slash and re.search(r"[.:]|^localhost$", first)), base
            assert ":" in base, f"{base} has no tag"
            assert not base.endswith(":latest")
    for path in (ROOT / "Dockerfile", *(ROOT / "docker").iterdir()):
        if path.is_file():
            hosts = re.findall(r"\w+://([\w.-]+)", path.read_text(encoding="utf-8"))
            assert set(hosts) <= {"127.0.0.1", "localhost", "redis"}, path


@pytest.mark.parametrize("target", TARGETS)
def test_the_user_is_a_fixed_number_and_not_root(target: str) -> None:
    user, group = last(target, "USER").split(":")
    assert int(user) >= 1000
    assert int(group) >= 1000
    assert any(f"--uid {user} --gid {group} " in rest for _, rest in whole(target))
    # what comes after it in the chain must not become root again
    words = [word for word, _ in whole(target)]
    assert "RUN" not in words[len(words) - words[::-1].index("USER") :]


def test_packages_are_installed_by_hash_and_the_project_without_any() -> None:
    runs = [rest for word, rest in INSTRUCTIONS if word == "RUN"]
    installs = [line for run in runs for line in run.split("&&") if "pip install" in line]
    assert len(installs) == 6  # three with PyTorch, and three without
    for line, lock in ((installs[0], "requirements"), (installs[2], "requirements-build")):
        assert "--require-hashes --only-binary :all:" in line
        assert f"-r {lock}.lock" in line
    assert "--no-deps" in installs[1]
    assert "--no-build-isolation" in installs[1]


@pytest.mark.parametrize("target", TARGETS)
def test_the_image_has_a_bill_of_materials_and_not_the_tool_that_made_it(target: str) -> None:
    (sbom_options,) = re.findall(
        r"cyclonedx-py environment .* -o (\S+) (\S+)", str(stages()["build"])
    )
    file, python = sbom_options[0], sbom_options[1].rstrip("',)]}")
    assert python == "/opt/venv/bin/python"
    copies = [rest for word, rest in whole(target) if word == "COPY"]
    stage = "build-light" if target == "light" else "build"
    assert f"--from={stage} {file} /opt/openvocab/sbom.cdx.json" in copies
    assert not any("/opt/tools" in rest for rest in copies)


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_a_release_of_the_service_leaves_the_layer_of_its_dependencies(target: str) -> None:
    copies = [rest for word, rest in whole(target) if word == "COPY" and rest.endswith("/opt/venv")]
    assert copies == [
        "--from=dependencies /opt/venv /opt/venv",
        "--from=build /opt/service /opt/venv",
    ]
    ours = {"app", "models", "prompts", "pyproject.toml"}
    sources = {
        source for word, rest in whole("dependencies") if word == "COPY" for source in rest.split()
    }
    assert not sources & ours


@pytest.mark.parametrize("target", TARGETS)
def test_no_compiler_or_package_manager_runs_in_a_final_stage(target: str) -> None:
    for word, rest in whole(target):
        if word == "RUN":
            assert not re.search(r"\b(apt|apt-get|apk|gcc|g\+\+|make|build-essential)\b", rest)
            assert "pip install" not in rest


def test_the_python_is_one_that_the_project_takes() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lowest, highest = re.findall(r"3\.(\d+)", project["requires-python"])
    assert int(lowest) <= int(DEFAULTS["PYTHON"].split(".")[1]) < int(highest)


@pytest.mark.parametrize("target", TARGETS)
def test_the_health_check_runs_a_script_that_is_in_the_image(target: str) -> None:
    options, _, command = last(target, "HEALTHCHECK").partition(" CMD ")
    python, script = json.loads(command)
    assert python == "python"
    assert f"docker/healthcheck.py {script}" in [
        rest for word, rest in whole(target) if word == "COPY"
    ]
    seconds = re.search(r"SECONDS = ([\d.]+)", (ROOT / "docker/healthcheck.py").read_text())
    timeout = re.search(r"--timeout=(\d+)s", options)
    # the script gives up by itself and says why, instead of being killed
    assert seconds
    assert timeout
    assert float(seconds[1]) < int(timeout[1])


@pytest.mark.parametrize("target", TARGETS)
def test_the_command_is_one_that_the_command_line_takes(target: str) -> None:
    assert json.loads(last(target, "ENTRYPOINT")) == ["openvocab"]
    command = json.loads(last(target, "CMD"))
    assert command == ["serve", "--host", "0.0.0.0"]
    assert CliRunner().invoke(app, [*command, "--help"]).exit_code == 0
    assert last(target, "EXPOSE") == "8000"


@pytest.mark.parametrize("target", TARGETS)
def test_every_variable_of_ours_is_a_setting(target: str) -> None:
    variables = {name for name in environment(target) if name.startswith("OPENVOCAB_")}
    assert {"OPENVOCAB_DATA_DIR", "OPENVOCAB_MODEL", "OPENVOCAB_DEVICE"} <= variables
    assert variables <= KNOWN


def test_the_targets_differ_in_the_device() -> None:
    cpu, gpu = environment("cpu"), environment("gpu")
    assert cpu["OPENVOCAB_DEVICE"] == "cpu"
    assert gpu["OPENVOCAB_DEVICE"] == "cuda"
    assert gpu["NVIDIA_VISIBLE_DEVICES"] == "all"
    assert gpu["NVIDIA_DRIVER_CAPABILITIES"] == "compute,utility"
    assert not [name for name in cpu if name.startswith("NVIDIA_")]


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_kept_lies_in_the_volume(target: str) -> None:
    variables = environment(target)
    assert last(target, "VOLUME") == variables["OPENVOCAB_DATA_DIR"] == "/data"
    if target == "light":  # no weights are baked into it
        assert variables["HOME"] == "/data"
        return
    assert variables["HOME"] == "${BAKED:-/data}"
    assert variables["HF_HOME"].startswith("${BAKED:-/data}/")


def test_the_image_loads_the_model_that_the_command_line_loads() -> None:
    assert environment("cpu")["OPENVOCAB_MODEL"] == f"${{MODEL:-{DEFAULT_MODEL}}}"


def test_the_image_says_what_it_is() -> None:
    labels = dict(re.findall(r'org\.opencontainers\.image\.(\w+)="([^"]*)"', last("cpu", "LABEL")))
    assert set(labels) == {"title", "description", "licenses", "version", "revision"}
    assert labels["licenses"] == "Apache-2.0"
    assert DEFAULTS["VERSION"] == VERSION


def test_the_guide_names_only_files_targets_and_arguments_that_exist() -> None:
    guide = (ROOT / "docker" / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"--target (\w+)", guide)) <= set(stages())
    assert set(re.findall(r"--build-arg (\w+)=", guide)) <= set(DEFAULTS)
    for name in re.findall(r"-f (docker/\S+)", guide):
        assert (ROOT / name).is_file(), name
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", guide):
        assert (ROOT / "docker" / target).exists(), target
    assert set(re.findall(r"OPENVOCAB_[A-Z_]+", guide)) <= KNOWN


def test_the_image_with_an_exported_model_is_made_as_the_command_line_exports_it(
    tmp_path: Path,
) -> None:
    guide = (ROOT / "docker" / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```dockerfile\n(.*?)```", guide, re.DOTALL)
    (tmp_path / "Dockerfile").write_text(block)
    (_, base), (_, run), (_, target), (_, copy), (_, env) = parsed(tmp_path / "Dockerfile")
    assert {base.split()[0], target} == {f"openvocab:{name}" for name in ("cpu", "light")}
    command = run.removeprefix("openvocab ").split()
    assert CliRunner().invoke(app, [*command, "--help"]).exit_code == 0
    option, made, folder = copy.split()
    assert (option.partition("=")[2], made) == (base.split()[-1], command[-1])
    assert env == f"OPENVOCAB_MODEL=exported:{folder}"
