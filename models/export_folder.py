"""A model exported to a folder: its layout, its check, and the encoder that maps it. No torch.

The folder holds both towers as OpenVINO's IR (topology `.xml`, weights `.bin`), the table of token
embeddings, the tokenizer, what the model is, and rows that torch computed with it.
"""

import dataclasses
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from models.checkpoint import digests
from models.choice import choice_in
from models.device import CPU
from models.encoder import Encoder, FullTower, TreeTower
from models.errors import BadExport, first_line
from models.info import EncoderInfo, ImageSpec, Provenance
from models.openvino_towers import (
    IMAGES_AT_ONCE,
    MOST_IMAGES,
    TOLERANCE,
    CompiledImages,
    CompiledPrompts,
    CompiledTrees,
    Rows,
)
from models.tokens import BytePairTokens

# raised when folders of before can no longer be read
FORMAT: Final = 2

MANIFEST: Final = "manifest.json"
# as sha256sum writes and checks it
SUMS: Final = "SHA256SUMS"
IMAGES: Final = "image.xml"
TEXTS: Final = "text.xml"
EMBEDDINGS: Final = "embeddings.npy"
POSITIONS: Final = "positions.npy"
TOKENIZER: Final = "tokenizer.npz"
REFERENCE: Final = "reference.npz"

# pictures and prompts whose rows by torch are kept
EXAMPLES: Final = 3
PROMPTS: Final = (
    "a photo of a cat.",
    "a photo of two dogs on a rainy day, 1999!",
    "warm up",
)

log = logging.getLogger("openvocab.models")


def examples(shape: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """(EXAMPLES, 3, H, W) of noise, the same wherever and whenever it is made."""
    places = np.arange(EXAMPLES * 3 * shape[0] * shape[1], dtype=np.uint64)
    noise = (places * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(56)
    return noise.astype(np.uint8).reshape(EXAMPLES, 3, *shape)


def seal(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write the manifest and the checksums of all files."""
    text = json.dumps({**manifest, "format": FORMAT}, indent=1)
    (folder / MANIFEST).write_text(text, encoding="utf-8")
    files = sorted(path for path in folder.iterdir() if path.name != SUMS)
    lines = (f"{sum_}  {file.name}\n" for file, sum_ in zip(files, digests(files), strict=True))
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def checked(folder: Path) -> Mapping[str, Any]:
    """The manifest of a folder that is complete and undamaged. Raises BadExport."""
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
        sums = {name: sum_ for sum_, name in (line.split("  ", 1) for line in lines)}
        files = [folder / name for name in sums]
        pairs = zip(files, digests(files), strict=True)
        wrong = [file for file, digest in pairs if sums[file.name] != digest]
        if wrong or MANIFEST not in sums:
            raise BadExport(f"{folder}: {wrong[0].name if wrong else MANIFEST} is damaged")
        manifest: Mapping[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadExport(f"{folder}: it is no exported model, or damaged ({error})") from error
    if manifest["format"] != FORMAT:
        raise BadExport(f"{folder}: format {manifest['format']}, this release reads {FORMAT}")
    try:
        choice_in(manifest, "fp32")
        if "info" in manifest:
            _info(manifest["info"])
    except (KeyError, TypeError) as error:
        raise BadExport(
            f"{folder}: another release exported it, and this one does not read its {MANIFEST} "
            f"({error}); export it again"
        ) from error
    return manifest


def described(info: EncoderInfo) -> Mapping[str, Any]:
    """What an encoder is, as JSON has it, without what is another thing on each machine."""
    fields = dataclasses.asdict(info)
    for here in ("weights_bytes", "threads", "measured"):
        del fields[here]
    return fields


def open_export(
    folder: Path,
    manifest: Mapping[str, Any],
    threads: int,
    device: str,
    *,
    cores: int,
) -> Encoder:
    """The encoder of a checked folder, warmed up.

    `threads` 0: as many as were measured to be best for a process with so many `cores`.

    Raises:
        BadExport: it does not compute what torch computed.
    """
    size = sum(file.stat().st_size for file in folder.iterdir())
    info = _info(manifest["info"])
    choice = choice_in(manifest, info.precision)
    threads = (threads or choice.threads_of(cores)) if device == CPU else 0
    info = dataclasses.replace(
        info, device=device, weights_bytes=size, threads=threads, measured=choice.measured
    )
    tokens = BytePairTokens.read(folder / TOKENIZER, manifest["tokens"])
    try:
        measured = info.images_at_once or IMAGES_AT_ONCE
        at_once = measured if device == CPU else MOST_IMAGES
        images = CompiledImages(str(folder / IMAGES), info.precision, threads, device, at_once)
        texts = _texts(folder, manifest, info, threads)
        encoder = Encoder(info, tokens, images, texts)
    except RuntimeError as error:
        line = f"{folder}: OpenVINO cannot compile it ({first_line(error)})"
        raise BadExport(line) from error
    try:
        _compare(folder, encoder)
    except BaseException:
        encoder.close()
        raise
    return encoder


def _texts(
    folder: Path, manifest: Mapping[str, Any], info: EncoderInfo, threads: int
) -> TreeTower | FullTower:
    graph = str(folder / TEXTS)
    if not info.trims_text:
        return CompiledPrompts(graph, info.precision, threads, info.device)
    tables = Rows(folder / EMBEDDINGS), np.load(folder / POSITIONS, allow_pickle=False)
    eos_id = manifest["eos_id"]
    return CompiledTrees(graph, *tables, eos_id, info.precision, threads, info.device)


def _compare(folder: Path, encoder: Encoder) -> None:
    """Raise BadExport where the rows are not those that torch computed. It warms up as well."""
    info = encoder.info
    with np.load(folder / REFERENCE, allow_pickle=False) as reference:
        images, texts = reference["images"], reference["texts"]
    pictures = list(examples((info.image.height, info.image.width)))
    # in two sizes: a graph can hold on to the one that it was made with
    parts = slice(0, -1), slice(-1, None)
    futures = [encoder.submit_images(pictures[part]) for part in parts]
    pairs = [(rows.result(), images[part]) for rows, part in zip(futures, parts, strict=True)]
    pairs.append((encoder.submit_texts(PROMPTS).result(), texts))
    for rows, expected in pairs:
        apart = float(np.abs(1 - (rows * expected).sum(1)).max())
        if not apart < TOLERANCE[info.precision]:
            raise BadExport(f"{folder}: its rows are {apart:.1e} off those of torch")


def _info(fields: Mapping[str, Any]) -> EncoderInfo:
    origin = {**fields["provenance"], "languages": tuple(fields["provenance"]["languages"])}
    return EncoderInfo(
        **{**fields, "image": ImageSpec(**fields["image"]), "provenance": Provenance(**origin)}
    )
