"""Limits of control groups, in trees like those of systemd, containers and both versions."""

import math
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.server.cgroups import cpu_quota, memory_limit

MEGABYTE = 1_000_000


class Tree:
    """A made-up /sys/fs/cgroup, and a /proc/self/cgroup that names a place in it."""

    def __init__(self, folder: Path) -> None:
        self.root, self.membership = folder / "cgroup", folder / "membership"
        self.root.mkdir()

    def write(self, file: str, text: str) -> None:
        path = self.root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")

    def enter(self, *lines: str) -> None:
        self.membership.write_text("".join(line + "\n" for line in lines))

    def quota(self) -> float:
        return cpu_quota(self.root, self.membership)

    def memory(self) -> int:
        return memory_limit(self.root, self.membership)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


@pytest.fixture
def machine() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_limits_of_a_systemd_service_are_found(tree: Tree, machine: int) -> None:
    # as on a host: the root has no limits
    service = "system.slice/openvocab.service"
    tree.write(f"{service}/cpu.max", "150000 100000")
    tree.write(f"{service}/memory.max", str(900 * MEGABYTE))
    tree.write(f"{service}/memory.high", "max")
    tree.write("system.slice/cpu.max", "max 100000")
    tree.write("system.slice/memory.max", "max")
    tree.enter(f"0::/{service}")
    assert (tree.quota(), tree.memory()) == (1.5, 900 * MEGABYTE)
    tree.enter("0::/user.slice/user-1000.slice/session-1.scope")
    assert (tree.quota(), tree.memory()) == (math.inf, machine)


def test_the_lowest_limit_on_the_way_to_the_root_counts(tree: Tree) -> None:
    for group, quota, memory in (
        ("", "800000 100000", 800),
        ("a.slice", "100000 50000", 300),
        ("a.slice/b.slice", "max 100000", 500),
        ("a.slice/b.slice/c.service", "700000 100000", 400),
        ("a.slice/b.slice/d.service", "1000 100000", 1),  # a sibling
    ):
        tree.write(f"{group}/cpu.max", quota)
        tree.write(f"{group}/memory.max", str(memory * MEGABYTE))
    tree.enter("0::/a.slice/b.slice/c.service")
    assert (tree.quota(), tree.memory()) == (2.0, 300 * MEGABYTE)


def test_a_limit_that_slows_down_counts_as_one_that_kills(tree: Tree) -> None:
    tree.write("x.service/memory.max", str(400 * MEGABYTE))
    tree.write("x.service/memory.high", str(200 * MEGABYTE))
    tree.enter("0::/x.service")
    assert tree.memory() == 200 * MEGABYTE


@pytest.mark.parametrize(
    "membership",
    [
        "0::/",  # a namespace of its own
        "0::/system.slice/docker-9f.scope",  # the host's namespace, and a mount of the container's
        "0::/../other.scope",  # moved outside of the namespace
        None,  # unreadable
    ],
)
def test_limits_of_a_container_are_those_of_the_root_that_it_sees(
    tree: Tree, membership: str | None
) -> None:
    tree.write("cpu.max", "250000 100000")
    tree.write("memory.max", str(700 * MEGABYTE))
    outside = tree.root.parent / "other.scope"
    outside.mkdir()
    (outside / "cpu.max").write_text("1000 100000\n")
    if membership:
        tree.enter(membership)
    assert (tree.quota(), tree.memory()) == (2.5, 700 * MEGABYTE)


def test_the_first_version_has_a_hierarchy_for_each_controller(tree: Tree, machine: int) -> None:
    tree.enter(
        "4:memory:/docker/9f",
        "3:cpu,cpuacct:/docker/9f",
        "2:cpuset:/elsewhere",
        "1:name=systemd:/docker/9f",
        "0::/",
    )
    assert (tree.quota(), tree.memory()) == (math.inf, machine)
    # of the host: the container's group lies deeper
    tree.write("cpu/cpu.cfs_quota_us", "-1")
    tree.write("cpu/cpu.cfs_period_us", "100000")
    tree.write("cpu/docker/9f/cpu.cfs_quota_us", "150000")
    tree.write("cpu/docker/9f/cpu.cfs_period_us", "100000")
    tree.write("memory/memory.limit_in_bytes", "9223372036854771712")
    tree.write("memory/docker/9f/memory.limit_in_bytes", str(600 * MEGABYTE))
    assert (tree.quota(), tree.memory()) == (1.5, 600 * MEGABYTE)
    # in the container: what it sees as the root
    tree.write("cpu/cpu.cfs_quota_us", "50000")
    tree.write("memory/memory.limit_in_bytes", str(500 * MEGABYTE))
    assert (tree.quota(), tree.memory()) == (0.5, 500 * MEGABYTE)


@pytest.mark.parametrize("text", ["?", "", "1 2 3", "100000 0", "-1"])
def test_a_file_that_makes_no_sense_limits_nothing(tree: Tree, machine: int, text: str) -> None:
    tree.write("x.service/cpu.max", text)
    tree.write("x.service/memory.max", text and f"{text} ?")
    tree.enter("0::/x.service")
    assert (tree.quota(), tree.memory()) == (math.inf, machine)


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group of this machine with a quota of half a core, in one of two cores."""
    base = Path("/sys/fs/cgroup")
    hierarchy = base if (base / "cgroup.controllers").exists() else base / "cpu"
    parent = hierarchy / f"openvocab-test-{uuid.uuid4().hex}"
    child = parent / "child.service"
    try:
        for folder, share in ((parent, 50_000), (child, 200_000)):
            folder.mkdir()
            if (folder / "cpu.max").exists():
                (folder / "cpu.max").write_text(f"{share} 100000")
            elif folder == parent:
                (folder / "cpu.cfs_quota_us").write_text(str(share))
            if folder == parent and hierarchy == base:
                (folder / "cgroup.subtree_control").write_text("+cpu")
        (child / "cgroup.procs").touch()
        yield child
    except OSError as error:
        pytest.skip(f"this machine permits no control group: {error}")
    finally:
        for folder in (child, parent):
            if folder.is_dir():
                folder.rmdir()


def test_the_quota_of_a_real_control_group_is_followed(group: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; "
        "Path(sys.argv[1], 'cgroup.procs').write_text(str(os.getpid())); "
        "from app.server.cgroups import cpu_quota; "
        "from app.server.cpus import available_cores; "
        "print(cpu_quota(), available_cores())"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, str(group)], check=False, capture_output=True, text=True
    )
    if "Error" in result.stderr and "cgroup.procs" in result.stderr:
        pytest.skip("this machine permits no move into a control group")
    assert (result.stdout, result.stderr) == ("0.5 1\n", "")
