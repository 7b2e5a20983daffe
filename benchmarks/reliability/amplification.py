"""Short archives and JSON that become far more than they are: memory and loop time of a server.

    python -m benchmarks.reliability.amplification --seed 1 --cases 40

The first cases are made by hand, the rest at random by --seed. Each is sent to a server of
pictogram, whose resident memory is read meanwhile and whose `/healthz` is asked again and again. A
case of N bytes that takes over 50 N + 64 MB, or stops `/healthz` for over 0.3 s, is named, and the
exit status is 1; on a busy machine the times say nothing. --write keeps the result.
"""

import argparse
import bz2
import gzip
import io
import lzma
import random
import sys
import tarfile
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import httpx

from benchmarks.record import Cell, Result
from benchmarks.reliability import page
from benchmarks.servers import Server, openvocab

TIMES: int = 50
LEAST: int = 64_000_000
LONGEST_STOP: float = 0.3

# cases that the page shows
SHOWN: int = 10

BATCH: str = "/classify/batch?labels=a,b"
JSON: str = "application/json"
TAR: str = "application/x-tar"


@dataclass(frozen=True, slots=True)
class Case:
    """One request to send."""

    name: str
    path: str
    content_type: str
    body: bytes
    method: str = "POST"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a case did: bytes of memory more than before, and seconds of the slowest `/healthz`."""

    status: int
    memory: int
    stop: float

    def within(self, size: int) -> bool:
        """Whether a body of `size` bytes kept what is promised."""
        return self.memory <= promised(size) and self.stop <= LONGEST_STOP


def promised(size: int) -> int:
    """Bytes of memory that a body of `size` bytes may take."""
    return TIMES * size + LEAST


def zeros(megabytes: int, members: int = 1) -> bytes:
    """A TAR archive of files of zeros."""
    info = tarfile.TarInfo("a/z.png")
    info.size = megabytes * 1_000_000
    padding = -info.size % 512
    return (info.tobuf() + bytes(info.size + padding)) * members + bytes(1024)


def zipped(content: bytes, method: int, members: int) -> bytes:
    """A ZIP archive of one content many times."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for number in range(members):
            archive.writestr(f"{number}.png", content)
    return out.getvalue()


def fast_xz(raw: bytes) -> bytes:
    """The format is what matters here, not how well it packs."""
    return lzma.compress(raw, preset=0)


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress, "bz2": bz2.compress, "xz": fast_xz,
}  # fmt: skip


def by_hand() -> Iterator[Case]:
    """The cases that once did harm, and their brothers."""
    for name, compress in COMPRESSIONS.items():
        yield Case(f"300 MB of zeros, {name}", BATCH, TAR, compress(zeros(300)))
        yield Case(f"20 files of 19 MB of zeros, {name}", BATCH, TAR, compress(zeros(19, 20)))
        nested = compress(compress(zeros(50)))
        yield Case(f"twice compressed, {name}", BATCH, TAR, nested)
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        packed = zipped(bytes(19_000_000), method, 10)
        yield Case(f"10 files of 19 MB, ZIP method {method}", BATCH, "application/zip", packed)
    for path in ("/classify", "/embeddings/text", "/v1/embeddings", BATCH):
        yield Case("empty lists", path, JSON, b'{"x":[' + b"[]," * 8_000_000 + b"[]]}")
        yield Case("names", path, JSON, b'{"x":{' + b'"a":{},' * 3_000_000 + b'"b":0}}')
    text = b'{"image":"aGk=","labels":"'
    yield Case("commas in a text", "/classify", JSON, text + b"," * 20_000_000 + b'"}')
    yield Case("a list in a text", "/classify", JSON, text + b"[" + b"[]," * 6_000_000 + b'[]]"}')
    for name, body in (("lines", b"ab\n" * 5_000_000), ("empty lines", b"a" + b"\n" * 15_000_000)):
        yield Case(f"{name} of a label set", "/labelsets/x", "text/plain", body, "PUT")


def at_random(seed: int, count: int) -> Iterator[Case]:
    """Archives of archives, and JSON of a few pieces many times."""
    chance = random.Random(seed)
    pieces = (b"[],", b"{},", b'"",', b"0,", b'{"a":[]},', b"[[[]]],", b'"\\u0000",', b"null,")
    paths = ("/classify", "/embeddings/image", "/hf/zero-shot-image-classification", BATCH)
    for number in range(count):
        if chance.random() < 0.5:
            packed = zeros(chance.randrange(1, 60), chance.randrange(1, 5))
            names = chance.choices(tuple(COMPRESSIONS), k=chance.randrange(1, 3))
            for name in names:
                packed = COMPRESSIONS[name](packed)
            yield Case(f"{number}: TAR in {', '.join(names)}", BATCH, TAR, packed)
        else:
            filler = b"".join(chance.choices(pieces, k=chance.randrange(1, 4)))
            body = b'{"x":[' + filler * chance.randrange(1, 20_000_000 // len(filler)) + b"0]}"
            yield Case(f"{number}: JSON of {filler!r}", chance.choice(paths), JSON, body)


class Watch:
    """Reads a server's memory and asks its `/healthz` while it is entered."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._done = threading.Event()
        self._threads = [threading.Thread(target=self._memory), threading.Thread(target=self._loop)]
        self._before = self.resident()
        self.memory = 0
        self.stop = 0.0

    def resident(self) -> int:
        """Bytes of resident memory."""
        status = Path(f"/proc/{self._server.process.pid}/status").read_text(encoding="ascii")
        line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) * 1024

    def __enter__(self) -> "Watch":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()

    def _memory(self) -> None:
        while not self._done.wait(0.01):
            self.memory = max(self.memory, self.resident() - self._before)

    def _loop(self) -> None:
        with httpx.Client(base_url=self._server.url, timeout=60) as client:
            client.get("/healthz")
            while not self._done.wait(0.02):
                start = time.perf_counter()
                client.get("/healthz")
                self.stop = max(self.stop, time.perf_counter() - start)


def tried(server: Server, case: Case) -> Outcome:
    """Send a case and tell what it did."""
    with Watch(server) as watch:
        answer = server.client.request(
            case.method, case.path, content=case.body, headers={"Content-Type": case.content_type}
        )
    return Outcome(answer.status_code, watch.memory, watch.stop)


def result(tries: list[tuple[Case, Outcome]], seed: int) -> Result:
    """The costliest cases by their share of what is promised, and all of them in a line."""

    def share(attempt: tuple[Case, Outcome]) -> float:
        case, outcome = attempt
        return outcome.memory / promised(len(case.body))

    rows: list[list[Cell]] = [
        [case.name, case.path.partition("?")[0], len(case.body), round(outcome.memory / 1e6),
         round(promised(len(case.body)) / 1e6), round(outcome.stop, 2), outcome.status]
        for case, outcome in sorted(tries, key=share, reverse=True)[:SHOWN]
    ]  # fmt: skip
    broken = sum(
        not outcome.within(len(case.body)) or outcome.status >= 500 for case, outcome in tries
    )
    slowest = max(outcome.stop for _, outcome in tries)
    return Result(
        "Small bodies made to expand",
        ["body", "route", "bytes", "MB", "MB allowed", "/healthz s", "status"],
        rows,
        [
            f"The {len(rows)} of {len(tries)} closest to the allowed memory (seed {seed}); "
            f"{broken} exceed it. The slowest `/healthz` response meanwhile took {slowest:.2f} s."
        ],
    )


def main() -> int:
    """Try all cases; 1 if one broke what is promised."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cases", type=int, default=40)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    broken = 0
    start = time.monotonic()
    tries: list[tuple[Case, Outcome]] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        openvocab("memory://", Path(folder)) as server,
    ):
        for cases in (by_hand(), at_random(options.seed, options.cases)):
            for case in cases:
                outcome = tried(server, case)
                tries.append((case, outcome))
                kept = outcome.within(len(case.body)) and outcome.status < 500
                broken += not kept
                sys.stdout.write(
                    f"{'ok    ' if kept else 'BROKEN'} {outcome.status} "
                    f"{len(case.body):>11,} bytes, +{outcome.memory // 1_000_000:,} MB, "
                    f"{outcome.stop:.2f} s: {case.name} "
                    f"({case.path})\n"
                )
                sys.stdout.flush()
    if options.write:
        subject = (
            "memory and loop time of a server, of bodies made to become far more than they are"
        )
        seconds = time.monotonic() - start
        page.write("amplification", subject, [result(tries, options.seed)], seconds)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
