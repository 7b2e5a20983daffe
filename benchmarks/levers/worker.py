"""A process that answers lines with JSON, for what needs a process of its own. Knows no lever."""

import contextlib
import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from typing import Any


class WorkerEnded(RuntimeError):
    """The process ended instead of answering."""


class Worker:
    """Ask it, and nothing else runs there meanwhile."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def ask(self, line: str) -> dict[str, Any]:
        """Its answer; raises WorkerEnded."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """Its next line of JSON, what libraries print being left out; raises WorkerEnded."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                return answer
        raise WorkerEnded(f"the worker ended with status {self._process.wait()}")


@contextlib.contextmanager
def working(command: Sequence[str], env: Mapping[str, str]) -> Iterator[Worker]:
    """The process, not ready yet: its first answer says so. Ended on leaving."""
    process = subprocess.Popen(
        list(command), env=dict(env), text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield Worker(process)
    finally:
        process.kill()
        process.wait()
