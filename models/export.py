"""Export a model into a folder: `python -m models.export MODEL PRECISION FOLDER`.

Imports torch, open_clip and OpenVINO. Says on standard output what it does; where it fails, what
failed is in the folder as error.json.
"""

import json
import logging
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import openvino
import torch

from models import torch_loader
from models.catalog import catalog
from models.errors import ModelError
from models.export_cache import ERROR, REASON
from models.export_folder import (
    EMBEDDINGS,
    IMAGES,
    POSITIONS,
    PROMPTS,
    REFERENCE,
    TEXTS,
    TOKENIZER,
    described,
    examples,
    seal,
)
from models.graphs import halve, keep
from models.info import Precision
from models.measure import images_at_once, seconds_each
from models.openvino_towers import CompiledImages
from models.text_tower import TextTower
from models.tokens import BytePairTokens
from models.tracing import image_graph, prompt_graph, tree_graph

FAILED: Final = 1

log = logging.getLogger("openvocab.models")

Save = Callable[[Any, Path], None]


def export(spec: str, precision: Precision, folder: Path, *, traced: bool = False) -> None:
    """Write the files of an exported model. Raises ModelError.

    `traced`: with graphs as they were traced, whose constants are the model's own (for a bundle).
    """
    entry = catalog().get(spec)
    loader = entry.loader if entry else spec
    _say("loading it with PyTorch")
    parts = torch_loader.read(spec, loader, "cpu", precision, "openvino")
    try:
        manifest = _write(parts, folder, _traced if traced else keep)
    except Exception as error:  # a compiler of strangers' graphs fails in many ways
        log.debug("exporting %s", spec, exc_info=True)
        manifest = {REASON: (str(error).splitlines() or [type(error).__name__])[0]}
    _say("writing checksums")
    seal(folder, {**manifest, "source_files": torch_loader.weight_files(loader)})


def _write(parts: torch_loader.Parts, folder: Path, save: Save) -> dict[str, Any]:
    info, precision = parts.info, parts.info.precision
    if not isinstance(parts.tokens, BytePairTokens):
        raise TypeError("its tokenizer is not CLIP's byte-pair encoding")
    _say("computing rows to compare with")
    pictures, ids = examples(parts.shape), torch.from_numpy(parts.tokens(PROMPTS))
    images = parts.vision().rows(torch.from_numpy(pictures)).numpy()
    texts = parts.model.encode_text(ids, normalize=True).numpy()
    np.savez(folder / REFERENCE, images=images, texts=texts)
    _say("converting the image tower")
    save(image_graph(parts.vision(), parts.shape), folder / IMAGES)
    _say("converting the text tower")
    if parts.tower is None:
        save(prompt_graph(parts.model, info.context_length), folder / TEXTS)
    else:
        save(tree_graph(parts.tower), folder / TEXTS)
        _tables(parts.tower, precision, folder)
    rules = parts.tokens.write(folder / TOKENIZER)
    eos_id = parts.tower and parts.tower.ends.eos_id
    _say("measuring how many images at once are fastest")
    times = seconds_each(CompiledImages(str(folder / IMAGES), precision, 0).forward, parts.shape)
    info = replace(info, images_at_once=images_at_once(times))
    figures = {size: round(1000 * seconds, 3) for size, seconds in times.items()}
    return {
        "info": described(info), "tokens": rules, "eos_id": eos_id, "cpu_ms_per_image": figures,
    }  # fmt: skip


def _traced(graph: Any, path: Path) -> None:
    halve(graph)
    openvino.serialize(graph, path, path.with_suffix(".bin"))


def _tables(tower: TextTower, precision: Precision, folder: Path) -> None:
    embeddings = tower.module.token_embedding.weight.detach().numpy()
    half = embeddings.astype(np.float16)
    lossless = np.array_equal(half.astype(np.float32), embeddings)
    np.save(folder / EMBEDDINGS, half if lossless or precision != "fp32" else embeddings)
    np.save(folder / POSITIONS, tower.module.positional_embedding.detach().numpy())


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(spec: str, precision: str, folder: str) -> int:
    """The exit status."""
    torch.set_grad_enabled(False)
    try:
        export(spec, cast(Precision, precision), Path(folder))
    except ModelError as error:
        failed = {"kind": type(error).__name__, "line": str(error)}
        (Path(folder) / ERROR).write_text(json.dumps(failed), encoding="utf-8")
        return FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
