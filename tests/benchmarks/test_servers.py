"""What measurements and tests start servers with."""

import subprocess
import sys

from benchmarks.servers import BLOCK, PORTS, free_port


def test_no_two_processes_get_a_port_twice_and_none_of_the_kernels() -> None:
    own = [free_port() for _ in range(BLOCK // 2)]
    program = "from benchmarks.servers import free_port; print(*[free_port() for _ in range(100)])"
    output = subprocess.check_output([sys.executable, "-c", program], text=True)
    others = [int(port) for port in output.split()]
    assert len({*own, *others}) == len(own) + len(others)
    assert {*own, *others} <= set(PORTS)
