"""Run the measurements, one after the other, and write each result as it is there.

    python -m benchmarks.run                            all of them, then the page
    python -m benchmarks.run --only peers,limit.cpu     some
    python -m benchmarks.run --seconds 1 --rounds 1     a look whether they work
    python -m benchmarks.run --processor amx            what depends on the processor, into a folder

A measurement that fails is reported and the others go on; the exit status says so at the end.
"""

import argparse
import importlib
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from shutil import which
from typing import Final

try:
    from benchmarks import record, report
    from benchmarks.folders import RESULTS
    from benchmarks.record import Result
    from benchmarks.rounds import Effort
except ModuleNotFoundError as error:
    sys.exit(f"the measurements need {error.name}: run `make .venv/dev` (or `make bench`)")

PARTS: Final = ("peers", "limit", "growth", "levers")
# what another processor is measured by
OF_A_PROCESSOR: Final = "peers.small,peers.variants,limit.cpu,levers.backends,levers.kernels"

Piece = Callable[[Effort], Result]


def pieces(chosen: str) -> list[tuple[str, str, Piece]]:
    """Part, name and function of each piece that `part` or `part.piece` between commas names.

    Raises ValueError for a name that is none.
    """
    selected: list[tuple[str, str, Piece]] = []
    for name in chosen.split(",") if chosen else PARTS:
        part, _, piece = name.strip().partition(".")
        if part not in PARTS:
            raise ValueError(f"no part is called {part!r}; there are {', '.join(PARTS)}")
        by_name: dict[str, Piece] = importlib.import_module(f"benchmarks.{part}").PIECES
        if piece and piece not in by_name:
            raise ValueError(f"{part} has no piece {piece!r}, only {', '.join(by_name)}")
        selected += [(part, name, by_name[name]) for name in by_name if piece in ("", name)]
    return selected


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="parts or pieces, comma-separated")
    parser.add_argument("--seconds", type=float, default=Effort().seconds, help="of one turn")
    parser.add_argument("--rounds", type=int, default=Effort().rounds, help="turns of each side")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument(
        "--processor", default="", metavar="NAME",
        help="measure what depends on the processor, into the folder NAME of the results",
    )  # fmt: skip
    options = parser.parse_args()
    if options.processor:
        if not re.fullmatch(r"[a-z0-9-]+", options.processor):
            parser.error(f"--processor {options.processor!r}: letters a-z, digits and - only")
        options.only = options.only or OF_A_PROCESSOR
        options.results = RESULTS / options.processor
    try:
        chosen = pieces(options.only)
    except ValueError as error:
        parser.error(str(error))
    options.results.mkdir(parents=True, exist_ok=True)  # not after minutes of measuring
    if any(part in ("peers", "limit", "growth") for part, _, _ in chosen) and not which("wrk"):
        parser.error("this needs wrk, which loads servers: `make wrk`")
    # whoever is ended ends its servers too
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    failed = []
    for part, name, piece in chosen:
        start = time.monotonic()
        print(f"{part}.{name}: ", end="", flush=True)
        try:
            result = piece(Effort(options.seconds, options.rounds))
        except Exception:
            traceback.print_exc()
            failed.append(f"{part}.{name}")
            continue
        took = time.monotonic() - start
        path = record.write(part, name, result, took, options.results)
        print(f"{took:.0f} s -> {path.name}", flush=True)
    if options.results in (RESULTS, RESULTS / options.processor):
        report.write()
        report.write(report.OPERATIONS)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
