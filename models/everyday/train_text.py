"""Stage three: the text tower, until its words lie where the sentence encoder and the bridge put
them.

Knows the loop and the command line; the lessons are in words.py, the losses in pupil.py.
"""

import argparse
import fcntl
import os
import time
from pathlib import Path

import numpy as np
import torch
from bridge import SOFTENED, Bridge, begin
from network import build, encode_text
from pupil import meaning_loss
from schedule import Progress, learning_rate
from torch import Tensor, nn
from torch.nn import functional
from words import WordLesson

EVERY = 10  # steps between lines of the log
WARM_UP = 25  # steps
EXCHANGE = 5  # steps between exchanges with other processes
LOOK = 20  # steps between looks for a new bridge


class Centre:
    """The weights that several processes share, in a file. Each goes its own way for a few steps,
    adds its share of what it has learned, and goes on from the sum (local SGD); none ever waits
    for another, which on a busy machine would cost most of the time."""

    def __init__(self, path: Path, named: dict[str, nn.Parameter], ranks: int) -> None:
        self.path, self.named, self.share = path, named, ranks**-0.5
        self.lock = path.with_suffix(".lock").open("w")
        size = sum(p.numel() for p in named.values())
        with self:
            if not path.exists():
                np.memmap(path, np.float32, "w+", shape=(size,))[:] = self._flat().numpy()
            self.file = np.memmap(path, np.float32, "r+", shape=(size,))
            self.last = torch.from_numpy(np.array(self.file))
        self._take()

    def __enter__(self) -> None:
        fcntl.flock(self.lock, fcntl.LOCK_EX)

    def __exit__(self, *problem: object) -> None:
        fcntl.flock(self.lock, fcntl.LOCK_UN)

    @torch.no_grad()
    def _flat(self) -> Tensor:
        return torch.cat([p.detach().flatten() for p in self.named.values()])

    @torch.no_grad()
    def _take(self) -> None:
        at = 0
        for p in self.named.values():
            p.copy_(self.last[at : at + p.numel()].view(p.shape))
            at += p.numel()

    def close(self, rank: int) -> None:
        """The next training begins anew."""
        if rank == 0:
            self.path.unlink(missing_ok=True)

    def exchange(self) -> None:
        learned = (self._flat() - self.last) * self.share
        with self:
            self.file += learned.numpy()
            self.last = torch.from_numpy(np.array(self.file))
        self._take()


class Pupil:
    """The text tower, its optimizer, and the bridge as it stands."""

    def __init__(self, args: argparse.Namespace, words: WordLesson) -> None:
        self.args, self.model, self.bridge = args, build(), Bridge()
        if args.resume:
            earlier = torch.load(args.work / "text.pt", weights_only=True)
            self.model.load_state_dict(earlier, strict=False)
        else:
            tokens = torch.from_numpy(np.load(args.work / "teacher_tokens.npy")).float()
            begin(self.model, tokens - words.mean)
        self.named = {
            n: p
            for n, p in self.model.named_parameters()
            if "visual." not in n and n != "logit_scale"
        }
        decays = {n: p.ndim > 1 and "embedding" not in n for n, p in self.named.items()}
        groups = [
            {"params": [p for n, p in self.named.items() if decays[n]], "weight_decay": 0.05},
            {"params": [p for n, p in self.named.items() if not decays[n]], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True)

    def look(self) -> None:
        """Take the bridge that the other training wrote last."""
        file = self.args.work / "head.pt"
        if file.exists():
            rows = torch.load(file, weights_only=True)
            self.bridge.load_state_dict(
                {n.removeprefix("bridge."): w for n, w in rows.items() if n.startswith("bridge.")}
            )
            self.bridge.soften(self.args.bridge)

    def step(self, tokens: Tensor, ends: Tensor, target: Tensor, rate: float) -> tuple[float, ...]:
        """One batch: the loss, and the mean cosine to where the text should lie."""
        with torch.autocast("cpu", torch.bfloat16):
            said = encode_text(self.model, tokens, ends)
        said = functional.normalize(said.float(), dim=1)
        with torch.no_grad():
            target = self.bridge(target)  # where pictures look for the text
        loss = meaning_loss(said, target)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(list(self.named.values()), 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return float(loss.detach()), float((said * target).sum(1).mean().detach())

    def save(self) -> None:
        file = self.args.work / "text.pt"
        partial = file.with_suffix(".partial")
        torch.save({n: p.detach() for n, p in self.named.items()}, partial)
        partial.replace(file)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    home = os.environ.get("WORK", str(Path.home() / ".cache" / "openvocab-everyday"))
    parser.add_argument("--work", type=Path, default=Path(home))
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=320)
    parser.add_argument("--lr", type=float, default=1.2e-3)
    parser.add_argument("--bridge", type=float, default=SOFTENED, help="share of what it learned")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--resume", action="store_true", help="go on from text.pt")
    parser.add_argument("--rank", type=int, default=0, help="of this process; 0 writes the tower")
    parser.add_argument("--ranks", type=int, default=1, help="processes that train together")
    parser.add_argument("--checkpoint-minutes", type=float, default=2.0)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed + args.rank)
    words = WordLesson(args.work, args.seed + args.rank)
    pupil = Pupil(args, words)
    centre = Centre(args.work / "text-centre.f32", pupil.named, args.ranks)
    progress = Progress(args.work / f"text-steps-{args.rank}.txt", args.steps)
    started = saved = time.monotonic()
    running = np.zeros(2)
    while progress.value < 1:
        if progress.done % LOOK == 0:
            pupil.look()
        now = progress.advance()
        rate = learning_rate(args.lr, progress.done, now, WARM_UP)
        running += pupil.step(*words.draw(args.batch), rate)
        if progress.done % EXCHANGE == 0 or progress.value >= 1:
            centre.exchange()
        if progress.done % EVERY == 0:
            loss, cosine = running / EVERY
            running[:] = 0
            print(
                f"step {progress.done} of {progress.steps} loss {loss:.3f} cosine {cosine:.3f} "
                f"seconds {time.monotonic() - started:.0f}",
                flush=True,
            )
        minutes = (time.monotonic() - saved) / 60
        if args.rank == 0 and (progress.value >= 1 or minutes > args.checkpoint_minutes):
            pupil.save()
            saved = time.monotonic()
    centre.close(args.rank)


if __name__ == "__main__":
    main()
