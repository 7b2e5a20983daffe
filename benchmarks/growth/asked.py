"""Growth with what one request asks: labels, templates, the size of its picture."""

import json
import statistics
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks import bodies, pictures
from benchmarks.inside import imagenet_templates
from benchmarks.load import drive, drive_repeatedly
from benchmarks.peers.agreement import scores
from benchmarks.pictures import SIZES, SMALL
from benchmarks.record import Cell, Plot, Points, Result
from benchmarks.registering import TEMPLATE, names, register
from benchmarks.rounds import Effort, figure, in_turns, seconds_of
from benchmarks.servers import Server
from benchmarks.sides import FIELDS, WARM_SECONDS, ours

FILES: Final = 32
SENT: Final = (2, 10, 100, 1_000)
REGISTERED: Final = (2, 10, 100, 1_000, 5_000, 20_000, 100_000)
TEMPLATES: Final = (1, 5, 20, 80)
COLD_REQUESTS: Final = 3


def labels(effort: Effort) -> Result:
    """Warm, one connection: labels in the request, and label sets of the same size."""
    images = pictures.jpegs(SMALL, FILES)
    rows: list[list[Cell]] = []
    series: dict[str, Points] = {"sent along": [], "label set": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with ours(folder, max_labelset_labels=max(REGISTERED)) as server:
            for count in REGISTERED:
                words = names(count)
                built = register(server, f"set-{count}", words, TEMPLATE)
                requests = {"label set": {"labelset": f"set-{count}"}}
                if count in SENT:
                    requests["sent along"] = {"labels": ",".join(words), "templates": TEMPLATE}
                times = _p50(server, requests, images, folder / str(count), effort)
                for kind, p50 in times.items():
                    series[kind].append((count, p50))
                sent_time = (
                    figure(times["sent along"]) if "sent along" in times else "over the limit"
                )
                rows.append([count, sent_time, figure(times["label set"]), figure(built)])
    return Result(
        "Labels, warm (ViT-B-32, 640x480, one connection)",
        [
            "labels",
            "p50 ms, labels in the request",
            "p50 ms, label set",
            "seconds to build the set, 1 template",
        ],
        rows,
        plot=Plot("labels", "p50 ms", series),
    )


def templates(effort: Effort) -> Result:
    """10 labels in 1 to 80 templates: warm, and the first request with labels never seen."""
    images = pictures.jpegs(SMALL, FILES)
    chosen = imagenet_templates()
    fresh = iter(names(20_000)[1_000:])
    rows: list[list[Cell]] = []
    series: dict[str, Points] = {"warm": [], "labels never seen": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with ours(folder) as server:
            for count in TEMPLATES:
                # a JSON list: templates may hold commas
                listed = json.dumps(chosen[:count])
                requests = {"warm": {**FIELDS, "templates": listed}}
                warm = _p50(server, requests, images, folder / str(count), effort)["warm"]
                times = []
                for path in images[:COLD_REQUESTS]:
                    unseen = {"labels": ",".join(next(fresh) for _ in range(10))}
                    fields = {**unseen, "templates": listed}
                    times.append(seconds_of(partial(scores, server, path.read_bytes(), fields)))
                cold = 1000 * statistics.median(times)
                series["warm"].append((count, warm))
                series["labels never seen"].append((count, cold))
                rows.append([count, figure(warm), figure(cold)])
    return Result(
        "Templates (ViT-B-32, 10 labels, 640x480, one connection)",
        ["templates", "p50 ms, warm", "ms, 10 new labels"],
        rows,
        plot=Plot("templates", "ms", series, log_y=True),
    )


def sizes(effort: Effort) -> Result:
    """0.1 to 24 megapixels at one and at 8 connections."""
    rows: list[list[Cell]] = []
    series: dict[str, Points] = {"openvocab": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with ours(folder) as server:
            for size in SIZES:
                images = pictures.jpegs(size, FILES if size.megapixels < 1 else 8)
                forms = bodies.multipart(images, FIELDS, folder / size.name)
                drive(f"{server.url}/classify", forms, 8, WARM_SECONDS)
                turn = (_short(effort), effort.rounds)
                single = drive_repeatedly(f"{server.url}/classify", forms, 1, *turn)
                eight = drive_repeatedly(f"{server.url}/classify", forms, 8, *turn)
                kilobytes = statistics.mean(path.stat().st_size for path in images) / 1000
                row: list[Cell] = [size.name, figure(size.megapixels), round(kilobytes)]
                rows.append([*row, figure(single.p50), figure(eight.rate)])
                series["openvocab"].append((round(size.megapixels, 1), single.p50))
    return Result(
        "Size of the picture (ViT-B-32, 10 labels)",
        ["pixels", "megapixels", "kB", "p50 ms, 1 connection", "requests/s, 8 connections"],
        rows,
        plot=Plot("megapixels", "p50 ms", series),
    )


def _short(effort: Effort) -> float:
    return max(1.0, effort.seconds / 2)


def _p50(
    server: Server,
    requests: Mapping[str, Mapping[str, str]],
    images: list[Path],
    folder: Path,
    effort: Effort,
) -> dict[str, float]:
    """Milliseconds at one connection by what is asked, in turns."""
    forms = {
        kind: bodies.multipart(images, fields, folder / kind.replace(" ", "-"))
        for kind, fields in requests.items()
    }
    url = f"{server.url}/classify"
    for form in forms.values():
        drive(url, form, 1, WARM_SECONDS)
    turns = {kind: partial(drive, url, form, 1, _short(effort)) for kind, form in forms.items()}
    results = in_turns(turns, effort.rounds)
    return {kind: statistics.median(x.p50 for x in loads) for kind, loads in results.items()}
