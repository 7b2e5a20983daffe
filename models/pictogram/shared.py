"""One set of weights, trained by several single-threaded processes on one machine.

Two processes of one thread waste far less than one of two threads when other work takes turns on
the cores. Each computes the gradients of its part of a batch and updates its part of the weights;
everything they exchange lies in shared memory. Knows nothing of pictures, texts or losses.
"""

from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier

import torch
from torch import Tensor, nn

AVERAGE = 500  # steps that the exported moving average looks back
EVERY = 5  # steps between two updates of it


def fresh(step: int) -> float:
    """Share of the present in an average: much at first, later as AVERAGE says."""
    return max(EVERY / AVERAGE, 100 / (step + 100))


def _full_precision(model: nn.Module) -> set[str]:
    """Batch normalisation, embeddings and the temperature: their updates are smaller than
    bfloat16 can hold."""
    names = {n for n, p in model.named_parameters() if p.ndim == 0}
    for prefix, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d | nn.Embedding):
            names |= {f"{prefix}.{n}" for n, _ in module.named_parameters()}
    return names


@dataclass(frozen=True, slots=True)
class Memory:
    """What the processes share. Rows of `gradients` and `norms` belong to one process each."""

    weights: Tensor
    average: Tensor
    gradients: Tensor
    norms: Tensor
    images: Tensor
    texts: Tensor
    barrier: Barrier


def allocate(n: int, ranks: int, batch: int, dimensions: int, barrier: Barrier) -> Memory:
    def zeros(*size: int) -> Tensor:
        shared: Tensor = torch.zeros(size).share_memory_()  # type: ignore[no-untyped-call]
        return shared

    features = (zeros(batch, dimensions), zeros(batch, dimensions))
    return Memory(zeros(n), zeros(n), zeros(ranks, n), zeros(ranks), *features, barrier)


class Trainee:
    """A process's view: its copy of the model, and its slice of the flat weights."""

    def __init__(
        self, model: nn.Module, use: Callable[[str], bool], memory: Memory, rank: int, decay: float
    ) -> None:
        self.model, self.memory, self.rank = model, memory, rank
        self.ranks = len(memory.gradients)
        self.use = use
        parameters = [(n, p) for n, p in model.named_parameters() if use(n)]
        # no weight decay on norms, biases, embeddings and temperature, as in the CLIP paper
        decayed = [(n, p) for n, p in parameters if p.ndim >= 2 and "embedding" not in n]
        chosen = {n for n, _ in decayed}
        self.named = decayed + [(n, p) for n, p in parameters if n not in chosen]
        self.at: dict[str, slice] = {}
        begin = 0
        for name, p in self.named:
            self.at[name] = slice(begin, begin + p.numel())
            begin += p.numel()
        border = sum(p.numel() for _, p in decayed)
        if rank == 0:
            for name, p in self.named:
                memory.weights[self.at[name]] = p.detach().flatten()
            memory.average.copy_(memory.weights)
        full = _full_precision(model)
        for name, p in self.named:
            if name in full:  # no copy: the model reads the shared weights themselves
                p.data = memory.weights[self.at[name]].view(p.shape)
            else:
                p.data = p.data.bfloat16().contiguous(
                    memory_format=torch.channels_last if p.ndim == 4 else torch.contiguous_format
                )
        self.copied = [(n, p) for n, p in self.named if n not in full]
        share = -(-begin // self.ranks)
        low, high = rank * share, min(begin, (rank + 1) * share)
        self.mine = slice(low, high)
        middle = min(max(border, low), high)
        self.optimizer = torch.optim.AdamW(
            [
                {"params": [nn.Parameter(memory.weights[low:middle])], "weight_decay": decay},
                {"params": [nn.Parameter(memory.weights[middle:high])], "weight_decay": 0.0},
            ],
            betas=(0.9, 0.98),
            fused=True,
        )
        self.steps = 0
        memory.barrier.wait()
        self._refresh()

    def _refresh(self) -> None:
        for name, p in self.copied:
            p.data.copy_(self.memory.weights[self.at[name]].view(p.shape))

    def exchange(self, images: Tensor, texts: Tensor, part: slice) -> tuple[Tensor, Tensor]:
        """All processes' features; gradients flow into this one's part only."""
        self.memory.images[part] = images.detach()
        self.memory.texts[part] = texts.detach()
        self.memory.barrier.wait()
        every = []
        for local, shared in ((images, self.memory.images), (texts, self.memory.texts)):
            whole = shared.clone()
            every.append(torch.cat([whole[: part.start], local, whole[part.stop :]]))
        return every[0], every[1]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Sum the gradients of all processes, clip their norm at 1, move this process's slice."""
        memory, gradients = self.memory, self.memory.gradients[self.rank]
        for name, p in self.named:
            if p.grad is None:
                gradients[self.at[name]] = 0
            else:
                gradients[self.at[name]].view(p.shape).copy_(p.grad)
                p.grad = None
        memory.barrier.wait()
        total = memory.gradients[:, self.mine].sum(0)
        memory.norms[self.rank] = total.square().sum()
        memory.barrier.wait()
        total *= (1.0 / (memory.norms.sum().sqrt() + 1e-6)).clamp(max=1.0)
        at = 0
        for group in self.optimizer.param_groups:
            group["lr"] = rate
            (p,) = group["params"]
            p.grad = total[at : at + p.numel()]
            at += p.numel()
        self.optimizer.step()
        self.steps += 1
        if self.steps % EVERY == 0:
            memory.average[self.mine].lerp_(memory.weights[self.mine], fresh(self.steps))
        memory.barrier.wait()
        self._refresh()

    def state(self) -> dict[str, Tensor]:
        """The moving average of the weights, by parameter name."""
        return {n: self.memory.average[self.at[n]].view(p.shape).clone() for n, p in self.named}


class Statistics:
    """The moving average of batch normalisation's own averages. They must come from the pictures
    of training, and from as long a time as the averaged weights."""

    def __init__(self, model: nn.Module) -> None:
        self.now = {n: b for n, b in model.named_buffers() if "attn_mask" not in n}
        self.mean = {n: b.detach().clone().float() for n, b in self.now.items()}

    def update(self, step: int) -> None:
        if step % EVERY == 0:
            for name, mean in self.mean.items():
                mean.lerp_(self.now[name].float(), fresh(step))
