"""How fast the parts of the service are on this machine, each alone. Knows nothing of HTTP."""

import asyncio
import functools
import io
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Final

import numpy as np
import typer
from PIL import Image
from rich.table import Table

from app.classify import scoring
from app.classify.concept import Concept
from app.classify.ensemble import Ensemble
from app.classify.templates import template_sets
from app.cli import help as help_
from app.cli.imports import uncollected
from app.cli.output import TableConsole, figures_table
from app.cli.terminal import or_exit, settings_or_exit
from app.images.decode import Decoded, decode
from app.images.limits import ImageLimits
from app.stores.lru import ByteLru
from app.stores.memory import MemoryStore
from app.stores.vectors import TwoLevels
from app.telemetry import logs
from models.catalog import catalog
from models.info import Timing

if TYPE_CHECKING:
    from models.encoder import Encoder


SIZES: Final = ((640, 480), (4000, 3000))
LABELS: Final = 50
SCORED: Final = 1_000
PLENTY: Final = 10**9


EXAMPLES: Final = """
openvocab bench
openvocab bench --model ViT-B-32-256/datacomp_s34b_b86k --json
openvocab bench --model everyday --model pictogram
"""

EXIT_STATUS: Final = "0 done, 2 a setting is invalid, 3 the model cannot be loaded."


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing that was timed: the median and the 10th and 90th percentile, in milliseconds.

    `rate` is how many a second that is, of what `per` names.
    """

    name: str
    median: float
    low: float
    high: float
    rate: float
    per: str


def measured(
    encoder: "Encoder",
    templates: tuple[str, ...],
    max_batch: int,
    threads: int,
    seconds: float,
    exact_jpeg: bool,
) -> Iterator[Figure]:
    """Every figure, as soon as it is there; each takes about `seconds`."""
    yield from _encoding(encoder, max_batch, seconds)
    for width, height in SIZES:
        yield from _decoding(encoder, width, height, threads, seconds, exact_jpeg)
    yield from _labels(encoder, templates, seconds)
    dice = np.random.default_rng(0)
    rows = dice.normal(size=(SCORED, encoder.info.embedding_width)).astype(np.float32)
    scale = encoder.info.scale
    yield _timed(
        f"score {SCORED:,} labels",
        lambda: scoring.rank(scoring.softmax(scoring.similarities(rows[0], rows), scale), 5),
        seconds / 4, 1, "images",
    )  # fmt: skip


@functools.cache  # the same for every model, and the large one takes a second
def photograph(width: int, height: int) -> bytes:
    """A JPEG with the detail of a photograph, always the same."""
    dice = np.random.default_rng(0)
    coarse = dice.integers(0, 256, (height // 16, width // 16, 3), np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height)), np.int16)
    noisy = smooth + dice.normal(0, 4, (height, width, 1)).astype(np.int16)
    out = io.BytesIO()
    Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(out, "JPEG", quality=85)
    return out.getvalue()


def _encoding(encoder: "Encoder", max_batch: int, seconds: float) -> Iterator[Figure]:
    spec = encoder.info.image
    dice = np.random.default_rng(0)
    for batch in sorted({1, min(8, max_batch), min(32, max_batch), max_batch}):
        images = [
            dice.integers(0, 256, (3, spec.height, spec.width), np.uint8) for _ in range(batch)
        ]
        yield _timed(
            f"encode {batch} image{'s' * (batch > 1)} at once",
            lambda images=images: encoder.submit_images(images).result(),  # type: ignore[misc]
            seconds, batch, "images",
        )  # fmt: skip


def _decoding(
    encoder: "Encoder", width: int, height: int, threads: int, seconds: float, exact: bool
) -> Iterator[Figure]:
    data, spec, limits = photograph(width, height), encoder.info.image, ImageLimits()

    def decode_one(_: int) -> Decoded:
        return decode(data, spec, limits, exact=exact)

    with ThreadPoolExecutor(threads) as pool:
        yield _timed(
            f"decode {threads} JPEGs of {width} x {height} in {threads} threads",
            lambda: list(pool.map(decode_one, range(threads))),
            seconds, threads, "images",
        )  # fmt: skip


def _labels(encoder: "Encoder", templates: tuple[str, ...], seconds: float) -> Iterator[Figure]:
    count = 0

    def embed(labels: int) -> None:
        nonlocal count
        vectors = TwoLevels(ByteLru(PLENTY), MemoryStore().vectors, encoder.info.embedding_width)
        # words that no cache knows, of the length of usual labels
        fresh = [Concept((f"small {count + n} thing",), templates) for n in range(labels)]
        count += labels
        asyncio.run(Ensemble(encoder, vectors, PLENTY).vectors(fresh))

    for labels in (1, LABELS):
        name = f"embed {labels} new label{'s' * (labels > 1)} in {len(templates)} templates"
        yield _timed(name, lambda n=labels: embed(n), seconds, labels, "labels")  # type: ignore[misc]


def _timed(name: str, action: Callable[[], object], seconds: float, count: int, per: str) -> Figure:
    action()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        begun = time.perf_counter()
        action()
        times.append(time.perf_counter() - begun)
    low, high = np.percentile(times, [10, 90])
    median = statistics.median(times)
    return Figure(name, 1000 * median, 1000 * float(low), 1000 * float(high), count / median, per)


def machine() -> dict[str, object]:
    """What the figures depend on besides the model."""
    return {
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
    }


def bench(
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            autocompletion=lambda: list(catalog()),
            help="Model to time (default: OPENVOCAB_MODEL); repeat the option to compare several.",
        ),
    ] = None,
    seconds: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.01, help="Time to spend on each figure.")
    ] = 2.0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON instead of a table, a model a line.")
    ] = False,
) -> None:
    """Time each part of the service on this machine.

    Decoding and encoding share a CPU's cores: there a request costs their sum, on a GPU the
    slower of both.
    """
    names: list[str | None] = [*dict.fromkeys(model or ())] or [None]
    for name in names:
        about, timings, figures = _timed_model(name, seconds)
        if as_json:
            document = {**about, "measured": [asdict(t) for t in timings]}
            document["figures"] = [asdict(f) for f in figures]
            typer.echo(json.dumps(document, indent=None if model and model[1:] else 2))
        else:
            TableConsole().print(_table(about, figures))
            if timings:
                TableConsole().print(_choice(timings))


def _timed_model(
    name: str | None, seconds: float
) -> tuple[dict[str, object], Sequence[Timing], list[Figure]]:
    """What a model is and runs on, what that was chosen by, and its figures."""
    with uncollected():
        from app.server.build import load_encoder  # the whole service: only who times it pays

    settings = settings_or_exit(model=name)
    logs.set_up(settings.log_level)
    encoder = or_exit(lambda: load_encoder(settings))
    info = encoder.info
    templates = template_sets()[info.provenance.templates].templates
    threads = settings.cores_for_decoding()
    figures = list(
        measured(encoder, templates, settings.max_batch, threads, seconds, settings.exact_jpeg)
    )
    encoder.close()
    about: dict[str, object] = {"model": info.name, "device": info.device}
    about |= {"precision": info.precision, "backend": info.backend}
    about |= {"images_at_once": info.images_at_once, "threads": info.threads or None, **machine()}
    return about, info.measured, figures


def _choice(measured_once: Sequence[Timing]) -> Table:
    """What backend, precision and threads were chosen by."""
    batches = sorted({batch for timing in measured_once for batch in timing.cpu_ms})
    headings = (f"{batch} at once" for batch in batches)
    table = figures_table("", *headings, title="CPU ms per image, timed at export")
    for timing in measured_once:
        threads = f", {timing.threads} thread{'s' * (timing.threads > 1)}" if timing.threads else ""
        figures = (f"{timing.cpu_ms[b]:.2f}" if b in timing.cpu_ms else "" for b in batches)
        table.add_row(f"{timing.backend} in {timing.precision}{threads}", *figures)
    return table


def _table(about: dict[str, object], figures: list[Figure]) -> Table:
    title = ", ".join(f"{key} {value}" for key, value in about.items())
    table = figures_table("", "ms", "10 % to 90 %", "a second", title=title)
    for f in figures:
        spread = f"{f.low:.2f} to {f.high:.2f}"
        table.add_row(f.name, f"{f.median:.2f}", spread, f"{f.rate:,.1f} {f.per}")
    return table


app = help_.alone(bench, EXAMPLES, EXIT_STATUS)
