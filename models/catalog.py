"""The catalogue of named models, read from catalog.toml. Knows nothing of torch or hubs."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from models.info import Precision, Provenance

HERE: Final = Path(__file__).parent
OFFLINE_MODEL: Final = "everyday"
LOCAL_DIR: Final = "local-dir:"
HF_HUB: Final = "hf-hub:"

# families of weights whose licence allows no commercial use, by how their names begin
RESTRICTED: Final = {"dfn": "apple-amlr", "mobileclip2": "apple-amlr", "metaclip": "CC-BY-NC-4.0"}


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """One named model: how it is loaded, what it costs, and what it is.

    `size_mb` of the checkpoint in megabytes, `gflops` of the image tower for one picture. `pick` is
    what it is the first choice for, "" for most. `free` is false where the licence allows no
    commercial use.
    """

    name: str
    loader: str
    size_mb: int
    gflops: float
    pick: str
    free: bool
    precision: Precision | None
    provenance: Provenance


@cache
def catalog() -> Mapping[str, CatalogEntry]:
    """Every entry of catalog.toml by name, in the file's order."""
    raw = tomllib.loads((HERE / "catalog.toml").read_text(encoding="utf-8"))
    return MappingProxyType({name: _entry(name, fields) for name, fields in raw.items()})


def provenance_of(spec: str) -> Provenance:
    """The catalogue's word on a model, or for one that it does not list a line that says so."""
    entry = catalog().get(spec)
    if entry is not None:
        return entry.provenance
    return Provenance(
        description="Not in the catalogue: see where it comes from for what it is good for.",
        licence=restricted_licence(spec) or "unknown",
        source=spec,
        languages=(),
    )


def restricted_licence(spec: str) -> str | None:
    """The licence of weights to download that are known to allow no commercial use."""
    names = [] if spec.startswith(LOCAL_DIR) else re.findall(r"[a-z][a-z0-9]*", spec.lower())
    return next(
        (RESTRICTED[family] for family in RESTRICTED for name in names if name.startswith(family)),
        None,
    )


def _entry(name: str, fields: dict[str, Any]) -> CatalogEntry:
    loader = fields["loader"]
    if loader.startswith(LOCAL_DIR):
        # bundled models lie beside this file, wherever the package was installed
        loader = LOCAL_DIR + str(HERE / loader.removeprefix(LOCAL_DIR))
    return CatalogEntry(
        name=name,
        loader=loader,
        size_mb=fields["size_mb"],
        gflops=fields["gflops"],
        pick=fields.get("pick", ""),
        free=fields.get("free", True),
        precision=fields.get("precision"),
        provenance=Provenance(
            description=fields["description"],
            licence=fields["licence"],
            source=fields["source"],
            imagenet_top1=fields.get("imagenet_top1"),
            languages=tuple(fields["languages"]),
            templates=fields.get("templates", "imagenet"),
            figures=fields.get("figures"),
        ),
    )
