"""How long loading and encoding take on two threads: through stock open_clip and in the service.

Knows the clock; figures mean something only on a machine that does nothing else.
"""

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import open_clip
import torch
from network import IMAGE_SIZE

from models.loader import load

THREADS = 2


def _milliseconds(work: Callable[[], object], rounds: int) -> float:
    """Median of `rounds`, after three that warm up."""
    times = []
    for _ in range(rounds + 3):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return round(1000 * median(times[3:]), 2)


def _stock(name: str) -> dict[str, float]:
    loading = _milliseconds(lambda: open_clip.create_model_and_transforms(name), 3)
    model, _, _ = open_clip.create_model_and_transforms(name)
    tokenizer = open_clip.get_tokenizer(name)
    model.eval()
    pixels = torch.rand(1, 3, IMAGE_SIZE, IMAGE_SIZE)
    prompts = [form("fire engine") for form in open_clip.OPENAI_IMAGENET_TEMPLATES]
    with torch.inference_mode():
        image = _milliseconds(lambda: model.encode_image(pixels), 50)
        label = _milliseconds(lambda: model.encode_text(tokenizer(prompts)), 20)
    return {"load_ms": loading, "image_ms": image, "cold_label_ms": label}


def _service(name: str) -> dict[str, float]:
    """The encoder that the server runs: folded normalisations, prompts as a tree of tokens."""
    encoder = load(name, device="cpu", precision="fp32")
    picture = np.full((3, IMAGE_SIZE, IMAGE_SIZE), 90, np.uint8)
    prompts = [form("fire engine") for form in open_clip.OPENAI_IMAGENET_TEMPLATES]
    image = _milliseconds(lambda: encoder.submit_images([picture]).result(), 50)
    label = _milliseconds(lambda: encoder.submit_texts(prompts).result(), 20)
    encoder.close()
    return {"image_ms": image, "cold_label_ms": label}


def speed(folder: Path) -> dict[str, dict[str, float]]:
    """Loading, one picture, and one label in the 80 templates of `imagenet`, tokens included."""
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    name = f"local-dir:{folder}"
    result = {"service": _service(name), "stock_open_clip": _stock(name)}
    torch.set_num_threads(threads)
    return result
