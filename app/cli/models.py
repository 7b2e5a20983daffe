"""`openvocab models`: the models that can be served."""

import json
import sys
import textwrap
from pathlib import Path
from typing import Annotated, Final

import typer

from app.cli.help import add, group
from app.cli.terminal import end, or_exit, settings_or_exit
from app.telemetry import logs
from models import catalog
from models.catalog import CatalogEntry

app = group("List, download and export models.")

NOTES: Final = (
    "ImageNet %: published zero-shot accuracy. GFLOPs: image tower, for one picture.\n"
    "not free: the licence allows research or other non-commercial use alone."
)


def list_models(
    free: Annotated[
        bool, typer.Option("--free", help="Only models whose licence allows commercial use.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the models of the catalogue.

    Every other name that open_clip knows works, too.
    """
    entries = [entry for entry in catalog().values() if entry.free or not free]
    if as_json:
        typer.echo(json.dumps([_as_json(entry) for entry in entries], indent=2))
        return
    rows = [("name", "ImageNet %", "GFLOPs", "MB"), *map(_row, entries)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    about = ["licence, languages, good for", *map(_about, entries)]
    # two lines a model for people, in 80 columns; one for programs
    for_people = sys.stdout.isatty()
    for (name, *numbers), text in zip(rows, about, strict=True):
        cells = [number.rjust(width) for number, width in zip(numbers, widths[1:], strict=True)]
        line = "  ".join((name.ljust(widths[0]), *cells))
        typer.echo(f"{line}\n{textwrap.indent(textwrap.fill(text, 76), '    ')}" if for_people
                   else f"{line}  {text}")  # fmt: skip
    if for_people:
        typer.echo(f"\n{NOTES}")


def _row(entry: CatalogEntry) -> tuple[str, ...]:
    top1 = entry.provenance.imagenet_top1
    shown = "-" if top1 is None else f"{top1:.1f}"
    return entry.name, shown, f"{entry.gflops:,.1f}", f"{entry.size_mb:,}"


def _about(entry: CatalogEntry) -> str:
    origin = entry.provenance
    licence = origin.licence if entry.free else f"{origin.licence} (not free)"
    languages = "many" if "mul" in origin.languages else ", ".join(origin.languages)
    pick = f"First choice ({entry.pick}). " if entry.pick else ""
    return f"{licence}, {languages}. {pick}{origin.description}"


def _as_json(entry: CatalogEntry) -> dict[str, object]:
    origin = entry.provenance
    return {
        "name": entry.name,
        "description": origin.description,
        "pick": entry.pick or None,
        "licence": origin.licence,
        "free": entry.free,
        "languages": list(origin.languages),
        "imagenet_top1": origin.imagenet_top1,
        "figures": origin.figures,
        "gflops": entry.gflops,
        "size_mb": entry.size_mb,
        "source": origin.source,
    }


def pull(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Model name, as `serve --model` takes it.")
    ],
) -> None:
    """Download a model, so that `serve` needs no network."""
    from models.loader import fetch

    or_exit(lambda: fetch(name))
    typer.echo(f"{name} is ready to serve", err=True)


def export(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Model name, as `serve --model` takes it.")
    ],
    to: Annotated[Path, typer.Option(metavar="DIR", help="New folder for the exported model.")],
    precision: Annotated[
        str | None,
        typer.Option(metavar="PRECISION", help="fp32 or bf16 (default: OPENVOCAB_PRECISION)."),
    ] = None,
) -> None:
    """Export a model, so that a CPU can serve it without PyTorch."""
    from models.loader import export_to

    settings = settings_or_exit(model=name, precision=precision)
    logs.set_up(settings.log_level, settings.log_format)
    to = to.expanduser().absolute()
    if to.exists():
        end(f"{to} exists already; --to names a new folder")
    or_exit(lambda: export_to(name, settings.precision, to))
    typer.echo(f"exported {name}; serve it with: openvocab serve --model exported:{to}", err=True)


add(app, list_models, "list", "openvocab models list --free\nopenvocab models list --json")
add(
    app,
    pull,
    examples="openvocab models pull ViT-B-32-256/datacomp_s34b_b86k",
    exit_status="0 the model is ready to serve, 3 it cannot be downloaded or loaded.",
)
add(
    app,
    export,
    examples="openvocab models export ViT-B-32/openai --to /srv/vit-b-32\n"
    "openvocab serve --model exported:/srv/vit-b-32",
    exit_status="0 exported, 2 the folder exists or a setting is invalid, 3 it cannot be exported.",
)
