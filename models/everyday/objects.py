"""Everyday things in three dimensions: the models of Sweet Home 3D's furniture library.

Knows the package's files and their catalogues; camera.py draws them.
"""

import re
import zipfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from camera import views
from captions import Concepts, clean
from pictures import Picture
from sources import Source, single_source, unpack_deb

LIBRARY = "usr/share/sweethome3d/furniture"
# people, and what is nothing without a wall or a road; names that say too little
SKIPPED_FILES = ("Reallusion",)
SKIPPED = re.compile(
    r"\b(plug|switch|socket|outlet|parking|pedestrian|tool|box|cube|cylinder|sphere|part|frame|"
    r"doorway|opening|pipe|wall|half|corner|module|upper|lower|cabinet for|beam|panes?|arched|hung|"
    r"zones|unit|arrow|extension|column|sidewalk|rails?|bill|mannequin|female|male|ford|peugeot|"
    r"renault|seat leon|chevrolet|concept|barnum|bz|mp3|02|island|oil servers|living room)\b"
)
FIELD = re.compile(r"(\w+)#(\d+)=(.*)")


@dataclass(frozen=True, slots=True)
class Object:
    """One model of a library: `model` is its member of the archive."""

    library: Path
    model: str
    name: str
    author: str


def listed(library: Path) -> Iterator[Object]:
    """What the library's catalogue names."""
    with zipfile.ZipFile(library) as archive:
        text = archive.read("PluginFurnitureCatalog.properties").decode("latin-1")
    entries: dict[int, dict[str, str]] = {}
    for line in text.splitlines():
        field = FIELD.match(line)
        if field:
            entries.setdefault(int(field[2]), {})[field[1]] = field[3].strip()
    for entry in entries.values():
        name = re.sub(r"\s*\d+$", "", clean(entry["name"]))
        if SKIPPED.search(name) is None:
            author = entry.get("creator", "eTeks")
            yield Object(library, entry["model"].lstrip("/"), name, author)


def _views(thing: Object, seed: int) -> list[bytes]:
    with TemporaryDirectory() as folder, zipfile.ZipFile(thing.library) as archive:
        beside = thing.model.rpartition("/")[0] + "/"
        archive.extractall(folder, [n for n in archive.namelist() if n.startswith(beside)])
        return views(Path(folder, thing.model), seed)


def objects(concepts: Concepts, work: Path, jobs: int) -> Iterator[Picture]:
    """Every model from several sides, under the concept of its name."""
    source: Source = single_source("objects")
    folder = unpack_deb(source, work) / LIBRARY
    libraries = [f for f in sorted(folder.glob("*.sh3f")) if f.stem not in SKIPPED_FILES]
    things = [thing for library in libraries for thing in listed(library)]
    with ProcessPoolExecutor(jobs) as pool:
        for thing, renderings in zip(
            things, pool.map(_views, things, range(len(things))), strict=True
        ):
            key = concepts.find([thing.name])
            *_, last = thing.name.split()
            if key == thing.name != last and last in concepts.by_name:
                concepts.keywords.setdefault(key, Counter())[last] += 1  # an oak chair is a chair
            for number, png in enumerate(renderings):
                name = f"{thing.library.stem}/{thing.model}#{number}"
                yield Picture(key, source, name, png, thing.author)
