"""Train pictogram: symmetric contrastive loss over pictures and captions (CLIP, 2103.00020).

Knows the loop, the precision and the schedule; the data are drawn in batches.py.
"""

import argparse
import math
import os
import time
from pathlib import Path

import torch
from batches import Batch, Sampler
from network import build, encode_text, export
from open_clip.model import CLIP
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

MAX_SCALE = math.log(100)  # the paper's clip on the learned temperature
EMA_EVERY = 5


class MixedPrecision:
    """bfloat16 weights for the passes, float32 master copies for the optimizer.

    Batch normalisation, token embeddings and the temperature stay float32: their updates are
    smaller than bfloat16 can hold.
    """

    def __init__(self, model: CLIP, dtype: torch.dtype) -> None:
        self.model = model
        self.masters: dict[str, Tensor] = {
            n: p.detach().clone().float() for n, p in model.named_parameters()
        }
        model.to(dtype).to(memory_format=torch.channels_last)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d | nn.Embedding):
                module.float()
        model.logit_scale.data = model.logit_scale.data.float()
        self.params = dict(model.named_parameters())
        for name, param in self.params.items():
            if param.dtype == torch.float32:
                self.masters[name] = param.detach()  # its own master

    def gradients_to_masters(self) -> None:
        for name, param in self.params.items():
            self.masters[name].grad = None if param.grad is None else param.grad.float()
            param.grad = None

    def masters_to_model(self) -> None:
        with torch.no_grad():
            for name, param in self.params.items():
                if param.dtype != torch.float32:
                    param.copy_(self.masters[name])

    def state(self) -> dict[str, Tensor]:
        """Full-precision parameters and batch-norm statistics, by state-dict name."""
        own = self.model.state_dict()
        return {n: self.masters.get(n, v) for n, v in own.items()}


def contrastive_loss(model: CLIP, batch: Batch, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Mean of both directions' cross-entropy; also the share of pictures that find their text."""
    pixels = batch.images.to(dtype).contiguous(memory_format=torch.channels_last)
    images = functional.normalize(model.visual(pixels).float(), dim=-1)
    texts = functional.normalize(encode_text(model, batch.tokens, batch.ends).float(), dim=-1)
    logits = model.logit_scale.exp() * images @ texts.T
    logits = logits.masked_fill(batch.false_negative, -1e4)
    target = torch.arange(len(logits))
    right = (logits.argmax(1) == target).float().mean()
    return (
        functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)
    ) / 2, right


def groups(masters: dict[str, Tensor], decay: float) -> list[dict[str, object]]:
    """No weight decay on norms, biases, embeddings and temperature, as in the paper."""
    plain: list[Tensor] = []
    decayed: list[Tensor] = []
    for name, value in masters.items():
        small = value.ndim < 2 or "embedding" in name
        (plain if small else decayed).append(value)
    return [
        {"params": plain, "weight_decay": 0.0},
        {"params": decayed, "weight_decay": decay},
    ]


def arguments() -> argparse.Namespace:
    """The command line; the defaults are the first stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    home = os.environ.get("WORK", str(Path.home() / ".cache" / "openvocab-pictogram"))
    parser.add_argument("--work", type=Path, default=Path(home))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--start", type=Path, help="folder with exported weights to go on from")
    parser.add_argument("--strength", type=float, default=1.0, help="of the augmentation")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--stop", type=int, help="end here, short of the schedule")
    parser.add_argument("--minutes", type=float, default=math.inf, help="end no later than this")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--decay", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--precision", choices=["bf16", "fp32"], default="bf16")
    parser.add_argument("--checkpoint-minutes", type=float, default=4.0)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    torch.manual_seed(args.seed)
    dtype = torch.bfloat16 if args.precision == "bf16" else torch.float32
    sampler = Sampler(args.work, args.seed, args.strength)
    model = build().train()
    if args.start:
        model.load_state_dict(load_file(args.start / "open_clip_model.safetensors"))
    mixed = MixedPrecision(model, dtype)
    optimizer = torch.optim.AdamW(
        groups(mixed.masters, args.decay), lr=args.lr, betas=(0.9, 0.98), fused=True
    )
    average = {n: v.detach().clone().float() for n, v in mixed.state().items()}
    begin = saved = time.monotonic()
    step, progress, running, hits = 0, 0.0, 0.0, 0.0
    while progress < 1 and step != args.stop:
        elapsed = time.monotonic() - begin
        progress = min(1.0, max((step + 1) / args.steps, elapsed / 60 / args.minutes))
        rate = args.lr * min(1.0, (step + 1) / 150) * 0.5 * (1 + math.cos(math.pi * progress))
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss, right = contrastive_loss(mixed.model, sampler.draw(args.batch), dtype)
        loss.backward()  # type: ignore[no-untyped-call]
        mixed.gradients_to_masters()
        torch.nn.utils.clip_grad_norm_(list(mixed.masters.values()), 1.0)
        optimizer.step()
        mixed.masters["logit_scale"].clamp_(max=MAX_SCALE)
        mixed.masters_to_model()
        step += 1
        running, hits = running + float(loss.detach()), hits + float(right)
        if step % EMA_EVERY == 0:
            keep = min(0.99, step / (step + 20 * EMA_EVERY))
            for name, value in mixed.state().items():
                average[name].lerp_(value.detach().float(), 1 - keep)
        if step % 50 == 0:
            scale = float(mixed.masters["logit_scale"].exp())
            print(
                f"step {step} progress {progress:.3f} loss {running / 50:.3f} "
                f"right {hits / 50:.3f} scale {scale:.1f} lr {rate:.2e} "
                f"seconds {(time.monotonic() - begin):.0f}",
                flush=True,
            )
            running = hits = 0.0
        if time.monotonic() - saved > 60 * args.checkpoint_minutes:
            export(average, args.out)
            saved = time.monotonic()
    export(average, args.out)


if __name__ == "__main__":
    main()
