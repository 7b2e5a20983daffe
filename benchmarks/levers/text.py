"""Text: kept vectors against encoding, and each way to encode fewer positions. Knows no HTTP."""

import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import numpy as np
import torch

from benchmarks.inside import (
    class_vectors,
    encoder,
    fresh_ensemble,
    imagenet_sample,
    imagenet_templates,
)
from benchmarks.levers.tables import COLUMNS, beside_the_first
from benchmarks.limit.cold import by_open_clip, reference_model
from benchmarks.record import Result
from benchmarks.rounds import Effort, in_turns, seconds_of
from models.encoder import Encoder
from models.info import Floats

LABELS: Final = 10
TEXT_LABELS: Final = 2
BATCH: Final = 32


def cached(effort: Effort) -> Result:
    """Class vectors of 10 labels in 80 templates: encoded each time, and kept."""
    labels, templates = imagenet_sample()[:LABELS], imagenet_templates()
    model, tokenizer = reference_model()
    with encoder() as openvocab:
        warm = fresh_ensemble(openvocab)
        class_vectors(warm, labels, templates)
        sides = {
            "open_clip, fp32, uncached": lambda: (
                seconds_of(lambda: by_open_clip(model, tokenizer, labels[:1])) * LABELS
            ),
            "openvocab, uncached": lambda: seconds_of(
                lambda: class_vectors(fresh_ensemble(openvocab), labels, templates)
            ),
            "openvocab, cached": lambda: statistics.median(
                seconds_of(lambda: class_vectors(warm, labels, templates)) for _ in range(50)
            ),
        }
        times = in_turns(sides, effort.rounds)
    notes = ["open_clip did one of the 10 labels; its time is scaled."]
    return Result("Vectors of 10 labels x 80 templates", COLUMNS, beside_the_first(times), notes)


def text(effort: Effort) -> Result:
    """The same prompts in full context, trimmed, sorted, and as the service encodes them."""
    labels = imagenet_sample()[: 10 * TEXT_LABELS : 10]
    prompts = [t.replace("{}", label) for label in labels for t in imagenet_templates()]
    vectors: dict[str, Floats] = {}
    times: dict[str, list[float]] = {}
    for precision in ("fp32", "bf16"):
        with encoder(precision) as openvocab:
            sides = _ways(
                openvocab, prompts, torch.bfloat16 if precision == "bf16" else torch.float32
            )
            turns = {
                f"{precision}, {way}": partial(_timed, vectors, f"{precision}, {way}", work)
                for way, work in sides.items()
            }
            times |= in_turns(turns, effort.rounds)
    rows = beside_the_first(times)
    expected = vectors["fp32, full context"].astype(np.float64)
    for row, name in zip(rows, times, strict=True):
        off = float((1 - (expected * vectors[name]).sum(1)).max())
        row.append(f"{max(off, 0):.0e}")
    notes = [f"{len(prompts)} prompts: {TEXT_LABELS} ImageNet labels x 80; batches of {BATCH}."]
    return Result("Encoding prompts, ViT-B-32", [*COLUMNS, "largest 1-cos"], rows, notes)


def _timed(vectors: dict[str, Floats], name: str, work: Callable[[], Floats]) -> float:
    def run() -> None:
        vectors[name] = work()

    return seconds_of(run)


def _ways(
    openvocab: Encoder, prompts: Sequence[str], dtype: torch.dtype
) -> dict[str, Callable[[], Floats]]:
    reference, tokenizer = reference_model()
    model = reference.to(dtype)
    return {
        "full context": lambda: _padded(model, tokenizer(prompts), full=True),
        "trimmed": lambda: _padded(model, tokenizer(prompts), full=False),
        "trimmed and sorted": lambda: _sorted(model, tokenizer(prompts)),
        "the service's encoder": lambda: openvocab.submit_texts(prompts).result(),
    }


@torch.inference_mode()
def _padded(model: Any, ids: torch.Tensor, *, full: bool) -> Floats:
    """Unit rows; batches in the order given, of the whole context or to their longest prompt."""
    lengths = ids.argmax(1) + 1
    rows = []
    for start in range(0, len(ids), BATCH):
        batch = ids[start : start + BATCH]
        longest = ids.shape[1] if full else int(lengths[start : start + BATCH].max())
        rows.append(_encoded(model, batch[:, :longest]))
    unit_rows: Floats = torch.nn.functional.normalize(torch.cat(rows).float(), dim=-1).numpy()
    return unit_rows


def _encoded(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """open_clip's `CLIP.encode_text` for a context of any length."""
    dtype, length = model.transformer.get_cast_dtype(), ids.shape[1]
    x = model.token_embedding(ids).to(dtype) + model.positional_embedding[:length].to(dtype)
    x = model.transformer(x, attn_mask=model.attn_mask[:length, :length].to(dtype))
    x = model.ln_final(x)
    return torch.as_tensor(x[torch.arange(len(ids)), ids.argmax(1)] @ model.text_projection)


def _sorted(model: Any, ids: torch.Tensor) -> Floats:
    """Trimmed, with neighbours of like length."""
    order = torch.argsort(ids.argmax(1), stable=True)
    rows = _padded(model, ids[order], full=False)
    restored = np.empty_like(rows)
    restored[order.numpy()] = rows
    return restored
