"""Export a model into a folder; what runs it here is chosen by timing its image tower for some
seconds. Imports torch and open_clip, and OpenVINO if that may run it.
"""

import logging
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models import torch_loader
from models.catalog import catalog
from models.choice import CHOICE, Candidates, Choice
from models.device import SHORTAGE
from models.errors import first_line
from models.export_cache import REASON
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
from models.info import Precision
from models.text_tower import TextTower
from models.timing import against_torch, choose_in_openvino, choose_in_torch
from models.tokens import BytePairTokens

log = logging.getLogger("openvocab.models")

Save = Callable[[Any, Path], None]


def export(spec: str, candidates: Candidates, folder: Path, *, traced: bool = False) -> None:
    """Write the files of an exported model. Raises ModelError, OSError.

    `traced`: with graphs as they were traced, whose constants are the model's own: for a bundle,
    which serves on other machines, so that nothing but the images of a pass is chosen.
    """
    entry = catalog().get(spec)
    loader = entry.loader if entry else spec
    _say("loading it with PyTorch")
    parts = torch_loader.read(spec, loader, "cpu", candidates.precisions[0], "openvino")
    manifest: dict[str, Any] = {}
    choice: Choice | None = None
    try:
        if candidates.backend == "torch":
            raise ValueError("PyTorch was chosen to run it")
        save = _traced if traced else _kept
        _write_images(parts, folder, save)
        _say("measuring what is fastest on this machine")
        choice = choose_in_openvino(folder / IMAGES, parts.shape, candidates)
        manifest = _write_texts(parts, folder, save, choice)
    except (OSError, MemoryError):  # a disk that is full says nothing of the model
        raise
    except Exception as error:  # a compiler of strangers' graphs fails in many ways
        if SHORTAGE.search(str(error)):
            raise
        log.debug("exporting %s", spec, exc_info=True)
        manifest = {REASON: first_line(error)}
    if choice is None:
        _say("measuring what is fastest in PyTorch")
        choice = choose_in_torch(parts, candidates)
    elif not traced and choice.measured:
        _say("measuring whether PyTorch is faster")
        choice = against_torch(choice, folder / IMAGES, parts, candidates.cores)
    if not traced:
        _tell(choice)
        manifest[CHOICE] = choice.as_json()
    _say("writing checksums")
    seal(folder, {**manifest, "source_files": torch_loader.weight_files(loader)})


def _write_images(parts: torch_loader.Parts, folder: Path, save: Save) -> None:
    from models.tracing import image_graph  # imports OpenVINO, which may not be installed

    _say("converting the image tower")
    save(image_graph(parts.vision(), parts.shape), folder / IMAGES)


def _write_texts(
    parts: torch_loader.Parts, folder: Path, save: Save, choice: Choice
) -> dict[str, Any]:
    """Everything else; the manifest."""
    from models.tracing import prompt_graph, tree_graph

    if not isinstance(parts.tokens, BytePairTokens):
        raise TypeError("its tokenizer is not CLIP's byte-pair encoding")
    _say("computing rows to compare with")
    pictures, ids = examples(parts.shape), torch.from_numpy(parts.tokens(PROMPTS))
    images = parts.vision().rows(torch.from_numpy(pictures)).numpy()
    texts = parts.model.encode_text(ids, normalize=True).numpy()
    np.savez(folder / REFERENCE, images=images, texts=texts)
    _say("converting the text tower")
    if parts.tower is None:
        save(prompt_graph(parts.model, parts.info.context_length), folder / TEXTS)
    else:
        save(tree_graph(parts.tower), folder / TEXTS)
        _tables(parts.tower, choice.precision, folder)
    rules = parts.tokens.write(folder / TOKENIZER)
    info = replace(
        parts.info,
        precision=choice.precision,
        fingerprint=parts.fingerprint_in(choice.precision),
        images_at_once=choice.images_at_once,
    )
    eos_id = parts.tower and parts.tower.eos_id
    return {"info": described(info), "tokens": rules, "eos_id": eos_id}


def _tell(choice: Choice) -> None:
    """A line for each that was timed, and one for the choice."""
    for timing in choice.measured:
        figures = ", ".join(f"{ms:.1f} ms with {n}" for n, ms in timing.cpu_ms.items())
        threads = f", {timing.threads} thread{'s' * (timing.threads > 1)}" if timing.threads else ""
        _say(f"{timing.backend} in {timing.precision}{threads}: {figures} images at once (CPU)")
    _say(f"{choice.backend} runs it in {choice.precision}")


def _kept(graph: Any, path: Path) -> None:
    from models.graphs import keep

    keep(graph, path)


def _traced(graph: Any, path: Path) -> None:
    from models.graphs import halve, write

    halve(graph)
    write(graph, path)


def _tables(tower: TextTower, precision: Precision, folder: Path) -> None:
    embeddings = tower.module.token_embedding.weight.detach().numpy()
    half = embeddings.astype(np.float16)
    lossless = np.array_equal(half.astype(np.float32), embeddings)
    np.save(folder / EMBEDDINGS, half if lossless or precision != "fp32" else embeddings)
    np.save(folder / POSITIONS, tower.module.positional_embedding.detach().numpy())


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
