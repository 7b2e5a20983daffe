"""Serve as `openvocab` does, with an encoder and a decoder that misbehave as a file says.

    MISBEHAVIOUR=FILE python -m benchmarks.reliability.misbehaving serve --model pictogram

FILE holds JSON with some of the fields of `Fault`, may change at any time, and need not exist. The
sizes of the batches that were encoded are appended to FILE.batches. Knows nothing of what is tried.
"""

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from app import __main__
from app.classify import canary
from app.images import decode
from app.server import build, workers
from app.server.build import load_encoder, load_shared_encoder
from benchmarks.servers import Server, free_port, serving
from models.info import Floats, Pixels

VARIABLE: Final = "MISBEHAVIOUR"


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong in every batch.

    `guilty` is what a batch with a picture that is red all over comes to: it raises, or its row is
    not a number. `most` is how many pictures a batch may have before it raises as if memory were
    gone. `drift` turns every vector into another. `blocked` waits until the file says otherwise.
    `hang` never ends; it befalls one process, which removes the file.
    """

    each_seconds: float = 0.0
    blocked: bool = False
    hang: str = ""  # "encoder" or "decoder"
    guilty: str = ""  # "raises" or "nan"
    raises: bool = False
    most: int = 4096
    drift: bool = False


class Faults:
    """The file, as the server reads it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def now(self) -> Fault:
        """What it says now."""
        with contextlib.suppress(FileNotFoundError):
            return Fault(**json.loads(self._path.read_text()))
        return Fault()

    def set(self, fault: Fault) -> None:
        """Write it, for servers that run; none of them reads half of it."""
        aside = self._path.with_suffix(".new")
        aside.write_text(json.dumps(asdict(fault)))
        aside.replace(self._path)

    def hang_if(self, caller: str) -> None:
        """Never return, if that is what it says."""
        if self.now().hang == caller:
            with contextlib.suppress(FileNotFoundError):
                self._path.unlink()
                while True:
                    time.sleep(3600)

    def count(self, size: int) -> None:
        """A batch was encoded."""
        with self._path.with_suffix(".batches").open("a") as out:
            out.write(f"{size}\n")

    def encoded(self) -> int:
        """Pictures that were encoded so far."""
        batches = self._path.with_suffix(".batches")
        return sum(map(int, batches.read_text().split())) if batches.exists() else 0


def is_guilty(pixels: Pixels) -> bool:
    """Whether a picture (3, H, W) is red all over."""
    return bool(pixels[0].min() > 250 and pixels[1:].max() < 5)


def encoding(
    faults: Faults, launch: Callable[[list[Pixels]], Callable[[], Floats]]
) -> Callable[[list[Pixels]], Callable[[], Floats]]:
    """The first half of a forward pass, misbehaving; it runs on the thread that owns the device."""

    def misbehaving(batch: list[Pixels]) -> Callable[[], Floats]:
        faults.hang_if("encoder")
        while faults.now().blocked:
            time.sleep(0.005)
        fault = faults.now()
        time.sleep(fault.each_seconds * len(batch))
        faults.count(len(batch))
        guilty = np.array([is_guilty(pixels) for pixels in batch])
        if fault.raises or (fault.guilty == "raises" and guilty.any()):
            raise RuntimeError("a forward pass that raises; its text is nobody's business")
        if len(batch) > fault.most:
            raise MemoryError
        fetch = launch(batch)

        def fetched() -> Floats:
            rows = np.array(fetch())
            if fault.drift:
                rows = np.roll(rows, 1, axis=1)
            if fault.guilty == "nan":
                rows[guilty] = np.nan
            return rows

        return fetched

    return misbehaving


def install(faults: Faults) -> None:
    """Let the command line, and each worker that it starts, load an encoder that misbehaves."""

    def with_faults(load: Callable[..., Any]) -> Callable[..., Any]:
        def loading(*arguments: Any) -> Any:
            encoder = load(*arguments)
            if encoder is not None:
                vars(encoder)["_launch_images"] = encoding(faults, encoder._launch_images)
            return encoder

        return loading

    plainly = decode.decode

    def decoding(*arguments: Any, **named: Any) -> decode.Decoded:
        faults.hang_if("decoder")
        return plainly(*arguments, **named)

    for module in (build, workers):
        vars(module)["load_encoder"] = with_faults(load_encoder)
    vars(workers)["load_shared_encoder"] = with_faults(load_shared_encoder)
    vars(decode)["decode"] = decoding
    vars(canary)["EVERY"] = 86_400.0  # what is looked at unasked would be counted too


@contextlib.contextmanager
def misbehaving(
    folder: Path, *arguments: str, **settings: object
) -> Iterator[tuple[Server, Faults]]:
    """Serve pictogram on a free port; settings as in OPENVOCAB_*, in lower case.

    Nothing is kept, and every picture is encoded, unless the settings say otherwise.
    """
    port, faults = free_port(), folder / "misbehaviour.json"
    chosen = {"store_url": "memory://", "data_dir": folder, "image_cache_bytes": 0,
              "log_level": "warning", **settings}  # fmt: skip
    model = str(settings.get("model", "pictogram"))
    env = {
        **os.environ,
        VARIABLE: str(faults),
        **{f"OPENVOCAB_{name.upper()}": str(value) for name, value in chosen.items()},
    }
    command = command_line("serve", "--model", model, "--port", str(port), *arguments)
    with serving(command, port, folder / "server.log", env) as server:
        yield server, Faults(faults)


def command_line(*arguments: str) -> Sequence[str]:
    """The command for a process of this module."""
    return [sys.executable, "-m", "benchmarks.reliability.misbehaving", *arguments]


# workers that are spawned import this too, under the second name
if __name__ in ("__main__", "__mp_main__"):
    install(Faults(Path(os.environ[VARIABLE])))
if __name__ == "__main__":
    __main__.app()
