"""What the measurements are held against, by the names that results use. Knows no measurement."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Bar:
    """A bound on a ratio: at least `bound`, or under it."""

    name: str
    bound: float
    under: bool = False
    unit: str = "x"

    def met(self, value: float) -> bool:
        """Whether the value keeps to the bound."""
        return value < self.bound if self.under else value >= self.bound

    @property
    def target(self) -> str:
        """The bound in words."""
        return f"{'under' if self.under else 'at least'} {self.bound:,g}{self.unit}"


def _peer(name: str, bounds: tuple[float, float, float]) -> dict[str, Bar]:
    return {
        f"{name}.{count}": Bar(f"{name}, {count} connection{'s' * (count > 1)}", bound)
        for count, bound in zip((1, 8, 32), bounds, strict=True)
    }


BARS: Final[dict[str, Bar]] = {
    "eighty.1": Bar("tutorial server, 80 templates, 1 connection", 1000),
    **_peer("tutorial, 1 template", (8, 18, 24)),
    **_peer("transformers pipeline", (5, 8, 8)),
    **_peer("infinity_emb", (3, 3, 3)),
    "limit.cpu": Bar(
        "CPU time per request, compared with encoder + decode + echo", 1.15, under=True
    ),
    "limit.cpu.matrix": Bar(
        "CPU time of a ViT-B-32 at batch 32, compared with its operations at the rate of a matrix "
        "product",
        1.3,
        under=True,
    ),
    "limit.pictogram": Bar(
        "pictogram, compared with the same server and a no-op encoder", 60, unit=" %"
    ),
    "limit.labels": Bar("1,000 labels, compared with 2, warm, p50", 1.05, under=True),
    "limit.cold.bf16": Bar("cold build of 80 templates, compared with open_clip, bf16", 25),
    "limit.cold.fp32": Bar("cold build of 80 templates, compared with open_clip, fp32", 7),
    "limit.light.start": Bar("ready on a CPU, pictogram", 2, under=True, unit=" s"),
    "limit.light.memory": Bar("memory of a CPU server, pictogram", 250, under=True, unit=" MB"),
    "limit.light.workers": Bar("memory of four workers, pictogram", 350, under=True, unit=" MB"),
    "limit.light.vit": Bar("memory of a CPU server, ViT-B-32", 450, under=True, unit=" MB"),
    "limit.memory": Bar("memory after 10,000 requests, compared with after 500", 1.05, under=True),
    "limit.models.beside": Bar(
        "memory of two models in a process beyond what each adds alone", 60, under=True, unit=" MB"
    ),
    "limit.models.rate": Bar("requests for the same CPU time while a second model idles", 0.98),
    "limit.cycles": Bar(
        "memory after loading and unloading a model 100 times, compared with once", 1.05, under=True
    ),
}

# measured by benchmarks.gpu, which writes name, value, unit, bar and whether it is met
GPU_BARS: Final = {
    "ViT-L-14 encoder, batch 256, share of the measured bf16 matrix rate": "at least 45 %",
    "ViT-B-32 over HTTP at the best worker count, share of what decoding allows": "at least 90 %",
    "p50 of one request in process, 1 caller": "under 6 ms",
    "encoding within it": "under 1.5 ms",
    "cold build of 1,000 labels x 80 templates, ViT-B-32": "under 3 s",
    "memory of the device after 100 loads of a model, compared with once": "under 1.05x",
    "memory of the device for two models in a process beyond what each adds alone": "under 60 MB",
    "resident memory after 100 loads of a model, compared with once": "under 1.05x",
    "resident memory of two models in a process beyond what each adds alone": "under 60 MB",
}
