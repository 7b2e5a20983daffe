"""Stage three: the text tower, until its words lie where the sentence encoder and the bridge put
them.

Knows the loop and the command line; the lessons are in words.py, the losses in pupil.py.
"""

import argparse
import time

import numpy as np
import torch
from bridge import SOFTENED, Bridge, begin
from pupil import meaning_loss
from schedule import Progress, learning_rate
from text_tower import decays, text_parameters, unit_rows
from torch import Tensor
from towers import build
from words import WordLesson
from workfolder import work_parser

EVERY = 50  # steps between lines of the log
WARM_UP = 25  # steps
AVERAGED = 5  # steps between two updates of the averaged weights
HORIZON = 200  # steps that the averaged weights look back


class Pupil:
    """The text tower, its optimizer, and the bridge as it stands."""

    def __init__(self, args: argparse.Namespace, words: WordLesson) -> None:
        self.args, self.model, self.bridge = args, build(), Bridge()
        rows = torch.load(args.work / "head.pt", weights_only=True)
        self.bridge.load_state_dict(
            {n.removeprefix("bridge."): w for n, w in rows.items() if n.startswith("bridge.")}
        )
        self.bridge.soften(args.bridge)
        if args.resume:
            earlier = torch.load(args.work / "text.pt", weights_only=True)
            self.model.load_state_dict(earlier, strict=False)
        else:
            tokens = torch.from_numpy(np.load(args.work / "teacher_tokens.npy")).float()
            begin(self.model, tokens - words.mean)
        self.named = text_parameters(self.model)
        groups = [
            {
                "params": [p for n, p in self.named.items() if decays(n, p) == kind],
                "weight_decay": 0.05 if kind else 0.0,
            }
            for kind in (True, False)
        ]
        self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True)
        self.average = {n: p.detach().clone() for n, p in self.named.items()}

    @torch.no_grad()
    def settle(self, step: int) -> None:
        """The moving average of the weights, which is what is saved."""
        if step % AVERAGED == 0:
            fresh = max(AVERAGED / HORIZON, 1 / (1 + step / 20))
            for name, p in self.named.items():
                self.average[name].lerp_(p, fresh)

    def step(self, tokens: Tensor, ends: Tensor, target: Tensor, rate: float) -> tuple[float, ...]:
        """One batch: the loss, and the mean cosine to where the text should lie."""
        rows = unit_rows(self.model, tokens, ends)
        with torch.no_grad():
            target = self.bridge(target)  # where pictures look for the text
        loss = meaning_loss(rows, target)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(list(self.named.values()), 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return float(loss.detach()), float((rows * target).sum(1).mean().detach())

    def save(self) -> None:
        file = self.args.work / "text.pt"
        partial = file.with_suffix(".partial")
        torch.save(self.average, partial)
        partial.replace(file)


def arguments() -> argparse.Namespace:
    parser = work_parser(__doc__, "everyday")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=320)
    parser.add_argument("--lr", type=float, default=1.2e-3)
    parser.add_argument("--bridge", type=float, default=SOFTENED, help="share of what it learned")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--resume", action="store_true", help="go on from text.pt")
    parser.add_argument("--checkpoint-minutes", type=float, default=2.0)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    words = WordLesson(args.work, args.seed)
    pupil = Pupil(args, words)
    progress = Progress(args.work / "text-steps.txt", args.steps)
    started = saved = time.monotonic()
    running = np.zeros(2)
    while progress.value < 1:
        now = progress.advance()
        rate = learning_rate(args.lr, progress.done, now, WARM_UP)
        tokens, ends, rows = words.draw(args.batch)
        running += pupil.step(tokens, ends, words.targets[rows], rate)
        pupil.settle(progress.done)
        if progress.done % EVERY == 0:
            loss, cosine = running / EVERY
            running[:] = 0
            print(
                f"step {progress.done} of {progress.steps} loss {loss:.3f} cosine {cosine:.3f} "
                f"seconds {time.monotonic() - started:.0f}",
                flush=True,
            )
        minutes = (time.monotonic() - saved) / 60
        if progress.value >= 1 or minutes > args.checkpoint_minutes:
            pupil.save()
            saved = time.monotonic()


if __name__ == "__main__":
    main()
