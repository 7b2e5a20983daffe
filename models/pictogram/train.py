"""Train pictogram, in two stages: the text tower on a teacher's words, then both on pictures.

Knows the loop, the stages and the command line; the arithmetic is in pupil.py and shared.py.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
import torch.multiprocessing as mp
from batches import Loader, draw_batch
from drawer import Drawer
from pupil import Pupil, Queue, contrastive_loss, meaning_loss
from safetensors.torch import load_file, save_file
from schedule import Progress, between, learning_rate
from shared import Memory, Statistics, Trainee, allocate
from texts import Tokens
from torch import Tensor
from torch.nn import functional
from towers import export
from workfolder import work_parser

RANKS = 2
GROUPS = {"captions": 0.5, "nouns": 0.4, "glosses": 0.1}  # shares of the distillation's texts
BARE_WORDS = 0.5  # share of the distillation's batches without templates
QUEUE_FROM = 400  # steps; before, old texts mislead
STRENGTH = (0.55, 0.35)  # of the augmentation, at first and at last
ONE_COLOUR = (0.28, 0.20)  # share of the one-colour sets in a batch
DISTIL_EVERY, DISTIL_WEIGHT, DISTIL_BATCH = 4, 0.5, 128
MAX_SCALE = float(np.log(100))  # the paper's clip on the learned temperature


class WordLesson:
    """Texts and where the teacher puts them, its mean taken off."""

    def __init__(self, work: Path, seed: int) -> None:
        groups = json.loads((work / "texts.json").read_text())
        self.texts = [text for group in groups.values() for text in group]
        weight = [np.full(len(texts), GROUPS[g] / len(texts)) for g, texts in groups.items()]
        self.bounds = np.cumsum(np.concatenate(weight))
        rows = torch.from_numpy(np.load(work / "teacher.npy")).float()
        self.targets = functional.normalize(rows - rows.mean(0), dim=1)
        self.row = {text: i for i, text in enumerate(self.texts)}
        self.tokens = Tokens(seed)

    def draw(self, size: int) -> tuple[Tensor, Tensor, Tensor]:
        rng = self.tokens.rng
        rows = np.searchsorted(self.bounds, rng.random(size) * self.bounds[-1])
        bare = bool(rng.random() < BARE_WORDS)
        return *self.tokens.batch([self.texts[i] for i in rows], bare), self.targets[rows]

    def of(self, captions: list[str]) -> tuple[list[int], Tensor]:
        """Which of the captions the teacher was asked about, and where it puts those."""
        indices = [i for i, text in enumerate(captions) if text in self.row]
        return indices, self.targets[[self.row[captions[i]] for i in indices]]


def log(step: int, progress: float, begin: float, **figures: float) -> None:
    line = " ".join(f"{name} {value:.4g}" for name, value in figures.items())
    seconds = time.monotonic() - begin
    print(f"step {step} progress {progress:.3f} {line} seconds {seconds:.0f}", flush=True)


def text_stage(rank: int, args: argparse.Namespace, memory: Memory) -> None:
    """The text tower alone, until its words lie as the teacher's do."""
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    trainee = Trainee(pupil := Pupil(), is_text, memory, rank, args.decay)
    words = WordLesson(args.work, args.seed + rank)
    progress, begin, running = Progress(args.out / "steps.txt", args.steps), time.monotonic(), 0.0
    while progress.value < 1:
        now = progress.advance()
        tokens, ends, target = words.draw(args.batch // RANKS)
        loss = meaning_loss(pupil.meaning(pupil.texts(tokens, ends)), target)
        (loss / RANKS).backward()  # type: ignore[no-untyped-call]
        trainee.step(learning_rate(args.lr, progress.done, now))
        running += float(loss.detach())
        if rank == 0 and progress.done % 50 == 0:
            log(progress.done, now, begin, loss=running / 50)
            running = 0.0
    if rank == 0:
        save_file(trainee.state(), args.out / "text.safetensors")


def is_text(name: str) -> bool:
    return ".visual." not in name and not name.endswith("logit_scale")


def everything(name: str) -> bool:
    return bool(name)


class PictureLesson:
    """One process's share of the contrastive batches, and the queue of earlier texts."""

    def __init__(
        self, args: argparse.Namespace, trainee: Trainee, pupil: Pupil, words: WordLesson
    ) -> None:
        rank = trainee.rank
        self.trainee, self.pupil, self.batch = trainee, pupil, args.batch
        self.words, self.meaning = words, args.meaning
        self.drawer = Drawer(args.work, args.seed, args.others)
        self.loader = Loader(args.work, self.drawer, args.seed + rank)
        self.part = slice(rank * args.batch // RANKS, (rank + 1) * args.batch // RANKS)
        self.queue = Queue(args.queue)

    def loss(self, step: int, progress: float) -> tuple[Tensor, Tensor, Tensor]:
        """Contrastive loss and share right of the whole batch, whose gradients reach this process's
        part; and the loss of that part's pictures against the teacher, who read their captions."""
        draw = draw_batch(self.drawer, self.batch, between(*ONE_COLOUR, 0.65, progress))
        strength = between(*STRENGTH, 0.8, progress)
        pictures, tokens, ends = self.loader.load(draw, self.part, strength)
        images, texts = self.trainee.exchange(
            self.pupil.images(pictures), self.pupil.texts(tokens, ends), self.part
        )
        captions = torch.from_numpy(draw.captions)
        against = torch.cat([captions, *self.queue.captions]).numpy()
        also_true = torch.from_numpy(self.drawer.true_of[np.ix_(against, draw.concepts)].T.copy())
        also_true.fill_diagonal_(False)
        wrong = torch.cat([texts[:0].detach(), *self.queue.rows])
        # every process computes the whole loss; the temperature's gradient would be summed
        scale = self.pupil.clip.logit_scale
        scale = (scale / RANKS + scale.detach() * (1 - 1 / RANKS)).exp()
        loss, right = contrastive_loss(images, texts, scale, wrong, also_true)
        if step >= QUEUE_FROM:
            self.queue.push(texts, captions)
        indices, target = self.words.of([self.drawer.texts[i] for i in draw.captions[self.part]])
        meaning = meaning_loss(self.pupil.meaning(images[self.part][indices]), target)
        return loss, right, self.meaning / RANKS * meaning


def picture_stage(rank: int, args: argparse.Namespace, memory: Memory) -> None:
    """Both towers, contrastive; now and then a batch of words keeps the unseen ones in place."""
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    pupil = Pupil().train()
    pupil.load_state_dict(load_file(args.out / "text.safetensors"), strict=False)
    if args.start:
        pupil.clip.load_state_dict(load_file(args.start / "open_clip_model.safetensors"))
    trainee = Trainee(pupil, everything, memory, rank, args.decay)
    torch.manual_seed(args.seed + 1 + rank)
    words = WordLesson(args.work, args.seed + rank)
    pictures = PictureLesson(args, trainee, pupil, words)
    statistics = Statistics(pupil)
    progress, begin = Progress(args.out / "steps.txt", args.steps), time.monotonic()
    saved, running = begin, np.zeros(3)
    while progress.value < 1 and progress.done != args.stop:
        now = progress.advance()
        loss, right, meaning = pictures.loss(progress.done, now)
        running += (float(loss.detach()), float(meaning.detach()), float(right))
        loss = loss + meaning
        if progress.done % DISTIL_EVERY == 0:
            tokens, ends, target = words.draw(DISTIL_BATCH)
            rows = pupil.meaning(pupil.texts(tokens, ends))
            loss = loss + DISTIL_WEIGHT / RANKS * meaning_loss(rows, target)
        loss.backward()  # type: ignore[no-untyped-call]
        trainee.step(learning_rate(args.lr, progress.done, now))
        if rank > 0:
            continue
        with torch.no_grad():
            pupil.clip.logit_scale.clamp_(max=MAX_SCALE)
        statistics.update(progress.done)
        if progress.done % 50 == 0:
            temperature = float(pupil.clip.logit_scale.detach().exp())
            figures = dict(zip(("loss", "meaning", "right"), running / 50, strict=True))
            log(progress.done, now, begin, **figures, scale=temperature)
            running[:] = 0
        last = progress.value >= 1 or progress.done == args.stop
        if last or time.monotonic() - saved > 60 * args.checkpoint_minutes:
            state = {**trainee.state(), **statistics.mean}
            export({n.removeprefix("clip."): v for n, v in state.items() if "clip." in n}, args.out)
            saved = time.monotonic()


def main() -> None:
    parser = work_parser(__doc__, "pictogram")
    parser.add_argument("stage", choices=["text", "pictures"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--stop", type=int, help="end here, short of the schedule")
    parser.add_argument("--start", type=Path, help="folder with exported weights to go on from")
    parser.add_argument("--meaning", type=float, default=0.5, help="weight of the teacher's word")
    parser.add_argument("--queue", type=int, default=3072, help="texts kept as wrong answers")
    parser.add_argument("--others", type=float, default=0.15, help="draws of what is no emoji")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--decay", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--checkpoint-minutes", type=float, default=4.0)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    stage, use = (text_stage, is_text) if args.stage == "text" else (picture_stage, everything)
    n = sum(p.numel() for name, p in Pupil().named_parameters() if use(name))
    barrier = mp.get_context("spawn").Barrier(RANKS)
    memory = allocate(n, RANKS, args.batch, 192, barrier)
    mp.spawn(stage, args=(args, memory), nprocs=RANKS)  # type: ignore[attr-defined,no-untyped-call]


if __name__ == "__main__":
    main()
