"""A bundled model's export without its weights: small enough to ship beside them. Imports no torch.

Each file of an export is kept as a recipe: which tensors of the model's own file lie where in it,
and the few bytes between them. So a machine without torch makes the export in a second, and the
weights are shipped once.
"""

import base64
import gzip
import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from safetensors import safe_open

from models.checkpoint import digests
from models.errors import BadExport
from models.export_folder import (
    EMBEDDINGS,
    IMAGES,
    MANIFEST,
    POSITIONS,
    REFERENCE,
    TEXTS,
    TOKENIZER,
    seal,
)
from models.info import Precision
from models.tokens import BytePairRules, BytePairTokens, clip_pairs

FOLDER: Final = "exported"
WEIGHTS: Final = "open_clip_model.safetensors"
RECIPES: Final = "recipes.json"
TOPOLOGIES: Final = (IMAGES, TEXTS)
TABLES: Final = (EMBEDDINGS, POSITIONS)

# constants of fewer bytes are kept as they are
LEAST_BYTES: Final = 256
# where an array begins in a file of numpy's
HEADER: Final = 128

TYPES: Final = ("stored", "float16", "float32")
CONSTANT: Final = re.compile(rb'offset="(\d+)" size="(\d+)"')

Array = npt.NDArray[Any]


def exists(folder: Path) -> bool:
    """Whether a model's folder holds a bundle that was made of these weights."""
    recipes = folder / FOLDER / RECIPES
    if not recipes.is_file():
        return False
    digest: str = json.loads(recipes.read_text(encoding="utf-8"))["weights"]
    return digests([folder / WEIGHTS]) == [digest]


def pack(export: Path, folder: Path, fingerprints: Mapping[Precision, str]) -> None:
    """Write the bundle of an export into the model's folder; a fingerprint for each precision.

    Raises:
        ValueError: the export holds much that is not in the weights.
    """
    bundle = folder / FOLDER
    shutil.rmtree(bundle, ignore_errors=True)
    bundle.mkdir()
    sources: dict[bytes, tuple[str, str, bool]] = {}
    for name, tensor in _tensors(folder):
        for kind in TYPES:
            for turned in (False, True):
                sources.setdefault(_bytes(tensor, kind, turned), (name, kind, turned))
    files: dict[str, Any] = {}
    for name in TOPOLOGIES:
        text = (export / name).read_bytes()
        with gzip.GzipFile(bundle / f"{name}.gz", "wb", mtime=0) as out:
            out.write(text)
        weights = Path(name).with_suffix(".bin")
        places = [(int(offset), int(size)) for offset, size in CONSTANT.findall(text)]
        files[str(weights)] = _recipe((export / weights).read_bytes(), places, sources)
    for name in filter(lambda name: (export / name).exists(), TABLES):
        data = (export / name).read_bytes()
        files[name] = _recipe(data, [(HEADER, len(data) - HEADER)], sources)
    [digest] = digests([folder / WEIGHTS])
    recipes = {"weights": digest, "fingerprints": {**fingerprints}, "files": files}
    (bundle / RECIPES).write_text(json.dumps(recipes, indent=1) + "\n", encoding="utf-8")
    manifest = json.loads((export / MANIFEST).read_text(encoding="utf-8"))
    (bundle / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    shutil.copy(export / REFERENCE, bundle)


def unpack(folder: Path, precision: Precision, to: Path) -> None:
    """Make an export of a model's bundle in an empty folder. Raises BadExport."""
    bundle = folder / FOLDER
    recipes = json.loads((bundle / RECIPES).read_text(encoding="utf-8"))
    if precision not in recipes["fingerprints"]:
        raise BadExport(f"{bundle}: it is not for {precision}")
    tensors = dict(_tensors(folder))
    for name, recipe in recipes["files"].items():
        data = bytearray(recipe["size"])
        for offset, encoded in recipe["kept"]:
            part = base64.b64decode(encoded)
            data[offset : offset + len(part)] = part
        for offset, tensor, kind, turned in recipe["tensors"]:
            part = _bytes(tensors[tensor], kind, turned)
            data[offset : offset + len(part)] = part
        (to / name).write_bytes(data)
    for name in TOPOLOGIES:
        _simplify(gzip.decompress((bundle / f"{name}.gz").read_bytes()), to / name)
    shutil.copy(bundle / REFERENCE, to)
    manifest = json.loads((bundle / MANIFEST).read_text(encoding="utf-8"))
    info = {**manifest["info"], "precision": precision}
    info["fingerprint"] = recipes["fingerprints"][precision]
    rules = manifest["tokens"]
    tokens = BytePairTokens(clip_pairs(), BytePairRules.of(rules))
    tokens.write(to / TOKENIZER)
    seal(to, {**manifest, "info": info})


def _simplify(topology: bytes, path: Path) -> None:
    """Write a graph as it is served in the place of its weights as they were traced."""
    from models.graphs import simplify  # imports OpenVINO

    with tempfile.TemporaryDirectory(dir=path.parent) as name:
        traced = Path(name) / path.name
        traced.write_bytes(topology)
        path.with_suffix(".bin").rename(traced.with_suffix(".bin"))
        simplify(traced, path)


def _recipe(
    data: bytes, places: list[tuple[int, int]], sources: Mapping[bytes, tuple[str, str, bool]]
) -> dict[str, Any]:
    tensors, literals, end = [], [], 0
    for offset, size in sorted(set(places)):
        source = sources.get(data[offset : offset + size]) if size >= LEAST_BYTES else None
        if source is None or offset < end:
            continue
        if end < offset:
            literals.append((end, base64.b64encode(data[end:offset]).decode()))
        tensors.append((offset, *source))
        end = offset + size
    if end < len(data):
        literals.append((end, base64.b64encode(data[end:]).decode()))
    return {"size": len(data), "tensors": tensors, "kept": literals}


def _tensors(folder: Path) -> Iterator[tuple[str, Array]]:
    with safe_open(folder / WEIGHTS, framework="np") as file:
        for name in file.keys():  # noqa: SIM118 (it is no mapping)
            yield name, file.get_tensor(name)


def _bytes(tensor: Array, kind: str, turned: bool) -> bytes:
    values = tensor if kind == "stored" else tensor.astype(kind)
    if turned and values.ndim == 2:
        values = values.T
    return np.ascontiguousarray(values).tobytes()
