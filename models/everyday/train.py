"""Stage two: the image tower's head, on drawings, with photographs kept where the classifier puts
them; and the bridge, through which texts give way.

The tower begins as the classifier itself (ConSE, Norouzi et al. 2013, arXiv 1312.5650): the head's
hidden layer holds the 1,000 classes, and the second layer adds up their texts. The backbone stays
as it is, so a step needs its features only. Knows the loop and the command line.
"""

import argparse
import json
import os
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from backbone import classifier
from bridge import Bridge, likeness_loss
from drawer import Drawer
from network import build
from numpy.typing import NDArray
from pupil import contrastive_loss, meaning_loss
from schedule import Progress, learning_rate
from sources import fetch, one
from torch import Tensor, nn
from torch.nn import functional
from views import OTHERS
from words import WordLesson

WARM_UP = 60  # steps
EVERY = 50  # steps between lines of the log
GATE = 2.0  # a class counts from this logit on: GELU is the gate of the compiled head
SHARPNESS = 0.6  # of the classifier's probabilities, as targets
CLASS_SCALE = 25.0  # of the likeness to the classes' texts, against the same targets
SCALE = 40.0  # of the contrastive loss at first
MAX_SCALE = float(np.log(100))  # the paper's clip on the learned temperature
HORIZON = 150  # steps that the averaged weights look back
UNSEEN = 256  # texts of no drawing in a step
DROPOUT = 0.1  # of the backbone's features
MIXED = 0.3  # share of the drawings that are mixed with another drawing of the same thing
KINDS = {"name": 1.0, "synonym": 0.5, "above 1": 0.3}  # weights of a class's texts


def class_texts(work: Path, words: WordLesson) -> Tensor:
    """(1000, D) unit rows: where the teacher puts ImageNet's classes, their mean taken off."""
    rows = []
    for texts in json.loads((work / "imagenet.json").read_text()):
        weighted = [(text, KINDS[kind]) for text, kind in texts if kind in KINDS]
        target = words.of([text for text, _ in weighted])
        rows.append((torch.tensor([w for _, w in weighted])[:, None] * target).sum(0))
    unit = functional.normalize(torch.stack(rows), dim=1)
    return functional.normalize(unit - unit.mean(0), dim=1)


@torch.no_grad()
def compile_into(head: Any, net: Any, classes: Tensor) -> None:
    """The classifier becomes the head: logits in the hidden layer, texts in the second."""
    head.fc1.weight[:1000] = net.classifier.weight
    head.fc1.bias[:1000] = net.classifier.bias - GATE
    head.fc1.bias[1000:] = 0
    head.fc2.weight.mul_(0.1)
    head.fc2.weight[:, :1000] = classes.T
    head.fc2.bias.zero_()


class Pool:
    """The views written so far; looks for new ones now and then."""

    def __init__(self, folder: Path, drawer: Drawer, seed: int) -> None:
        self.folder, self.drawer, self.rng = folder, drawer, np.random.default_rng(seed)
        self.known: set[Path] = set()
        self.features = np.zeros((0, 1280), np.float16)
        self.concepts = np.zeros(0, np.int64)
        self.scenes = np.zeros((0, 1280), np.float16)
        self.logits = np.zeros((0, 1000), np.float16)
        self.look()

    def look(self) -> None:
        fresh = sorted(set(self.folder.glob("*.features.npy")) - self.known)
        self.known.update(fresh)
        for path in fresh:
            rows = np.load(path)
            if path.name.startswith("drawings"):
                pictures = np.load(str(path).replace(".features.", ".pictures."))
                self.features = np.concatenate([self.features, rows])
                self.concepts = np.concatenate([self.concepts, self.drawer.concept[pictures]])
            else:
                self.scenes = np.concatenate([self.scenes, rows])
                logits = np.load(str(path).replace(".features.", ".logits."))
                self.logits = np.concatenate([self.logits, logits])
        if fresh:
            order = np.argsort(self.concepts, kind="stable")
            self.ordered = order
            self.bounds = np.searchsorted(
                self.concepts[order], np.arange(len(self.drawer.records) + 1)
            )

    def draw(self, size: int) -> tuple[Tensor, NDArray[np.int64]]:
        """Features (size, 1280) of different concepts, and the concepts."""
        some = self.rng.permutation(len(self.concepts))[: 3 * size]
        _, first = np.unique(self.concepts[some], return_index=True)
        rows = some[self.rng.permutation(first)[:size]]
        concepts = self.concepts[rows]
        features = self.features[rows].astype(np.float32)
        low, high = self.bounds[concepts], self.bounds[concepts + 1]
        other = self.ordered[low + (self.rng.random(len(rows)) * (high - low)).astype(np.int64)]
        share = self.rng.random(len(rows)) * 0.5 * (self.rng.random(len(rows)) < MIXED)
        weight = share[:, None].astype(np.float32)
        mixed = features * (1 - weight) + self.features[other].astype(np.float32) * weight
        return torch.from_numpy(mixed), concepts

    def draw_scenes(self, size: int) -> tuple[Tensor, Tensor]:
        """Features of photographs and the classifier's logits."""
        some = self.rng.integers(len(self.scenes), size=size)
        features, logits = self.scenes[some], self.logits[some]
        return torch.from_numpy(features).float(), torch.from_numpy(logits).float()


class Imagined:
    """Features as photographs of any class would have them. A linear classifier's weights are those
    of discriminant analysis, covariance^-1 (mean of the class - mean), so the covariance times the
    weights leads from a photograph's features towards a class (Fisher 1936). That way the head
    meets all 1,000 classes, of which the photographs at hand show few."""

    def __init__(self, net: Any, scenes: NDArray[np.float16], seed: int) -> None:
        self.weight, self.bias = net.classifier.weight, net.classifier.bias
        rows = torch.from_numpy(scenes.astype(np.float32))
        covariance = torch.cov(rows.T)
        towards = (self.weight - self.weight.mean(0)) @ covariance
        # of a length that raises the class's own logit by one
        self.towards = towards / (towards * self.weight).sum(1, keepdim=True)
        self.generator = torch.Generator().manual_seed(seed)

    @torch.no_grad()
    def draw(self, scenes: Tensor) -> tuple[Tensor, Tensor]:
        """Photographs' features (B, 1280) turned into others', and the classifier's logits."""
        n, g = len(scenes), self.generator
        first = torch.randint(1000, (n,), generator=g)
        second = torch.randint(1000, (n,), generator=g)
        strength = torch.rand(n, 1, generator=g) * 8 + 6
        less = strength * torch.rand(n, 1, generator=g) * (torch.rand(n, 1, generator=g) < 0.4)
        rows = 0.6 * scenes + strength * self.towards[first] + less * self.towards[second]
        rows = rows.clamp(min=0)  # they come out of a rectifier
        return rows, rows @ self.weight.T + self.bias


class Pupil:
    """What is trained: the head, the bridge and the temperature."""

    def __init__(self, net: Any, classes: Tensor) -> None:
        self.head, self.bridge = build().visual.head.mlp, Bridge()
        compile_into(self.head, net, classes)
        self.scale = nn.Parameter(torch.tensor(float(np.log(SCALE))))
        self.named = {f"head.{n}": p for n, p in self.head.named_parameters()}
        self.named |= {f"bridge.{n}": p for n, p in self.bridge.named_parameters()}
        self.named["scale"] = self.scale
        self.average = {n: p.detach().clone() for n, p in self.named.items()}

    def images(self, features: Tensor) -> Tensor:
        """The backbone's features (B, 1280) to unit rows (B, D)."""
        return functional.normalize(self.head(functional.dropout(features, DROPOUT)), dim=1)

    @torch.no_grad()
    def settle(self, step: int) -> None:
        """After each step: the temperature's clip, and the moving average of the weights."""
        self.scale.clamp_(max=MAX_SCALE)
        fresh = max(1 / HORIZON, 1 / (1 + step / 5))
        for name, p in self.named.items():
            self.average[name].lerp_(p, fresh)


class Lesson:
    """One step's pictures, texts and losses."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.words = WordLesson(args.work, args.seed)
        self.drawer = Drawer(args.work, args.seed, OTHERS)
        self.classes = class_texts(args.work, self.words)
        self.net = classifier(fetch(one("backbone"), args.work / "downloads"))
        self.pool = Pool(args.work / "views", self.drawer, args.seed)
        self.imagined = Imagined(self.net, self.pool.scenes, args.seed)

    def losses(self, pupil: Pupil) -> dict[str, Tensor]:
        """Contrastive on drawings ("loss"), against the encoder ("told") and against the
        classifier on photographs ("kept"); and the share of drawings that find their text."""
        args, words, drawer = self.args, self.words, self.drawer
        features, concepts = self.pool.draw(args.batch)
        scenes, logits = self.pool.draw_scenes(args.scenes)
        more, more_logits = self.imagined.draw(self.pool.draw_scenes(args.imagined)[0])
        rows = pupil.images(torch.cat([features, scenes, more]))
        images, photographs = rows[: len(features)], rows[len(features) :]
        captions = np.array([drawer.caption(c) for c in concepts])
        target = words.of([drawer.texts[i] for i in captions])
        also_true = torch.from_numpy(drawer.true_of[np.ix_(captions, concepts)].T.copy())
        also_true.fill_diagonal_(False)
        said = pupil.bridge(target)
        loss, right = contrastive_loss(images, said, pupil.scale.exp(), said[:0], also_true)
        # texts that no drawing shows stay where they are, and pictures near the encoder's word
        unseen = words.targets[torch.randint(len(words.targets), (UNSEEN,))]
        told = meaning_loss(images, target) + 2 * meaning_loss(pupil.bridge(unseen), unseen)
        with torch.no_grad():
            classes = pupil.bridge(self.classes)
        wanted = (SHARPNESS * torch.cat([logits, more_logits])).softmax(1)
        place = functional.normalize(wanted @ classes, dim=1)
        kept = likeness_loss(CLASS_SCALE * photographs @ classes.T, wanted)
        kept = kept + 2 * (1 - (photographs * place).sum(1).mean())
        return {"loss": loss, "right": right, "told": told, "kept": kept}


def save(path: Path, what: object) -> None:
    """Whoever reads meanwhile sees the old file or the new one, whole."""
    torch.save(what, path.with_suffix(".partial"))
    path.with_suffix(".partial").replace(path)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    home = os.environ.get("WORK", str(Path.home() / ".cache" / "openvocab-everyday"))
    parser.add_argument("--work", type=Path, default=Path(home))
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--scenes", type=int, default=96, help="photographs in a batch")
    parser.add_argument("--imagined", type=int, default=128, help="photographs made up, besides")
    parser.add_argument("--lr", type=float, default=6e-4)
    parser.add_argument("--decay", type=float, default=0.05)
    parser.add_argument("--told", type=float, default=0.3, help="weight of the encoder's word")
    parser.add_argument("--kept", type=float, default=1.0, help="weight of the classifier's word")
    parser.add_argument("--seed", type=int, default=8)
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument("--checkpoint-minutes", type=float, default=2.0)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    lesson = Lesson(args)
    pupil = Pupil(lesson.net, lesson.classes)
    save(args.work / "compiled.pt", pupil.average)
    matrices = [p for p in pupil.named.values() if p.ndim > 1]
    others = [p for p in pupil.named.values() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": args.decay}, {"params": others, "weight_decay": 0.0}],
        betas=(0.9, 0.98),
        fused=True,
    )
    progress = Progress(args.work / "head-steps.txt", args.steps)
    checkpoint = args.work / "head-state.pt"
    if args.resume and checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        with torch.no_grad():
            for name, p in pupil.named.items():
                p.copy_(state["now"][name])
        pupil.average = state["average"]
        optimizer.load_state_dict(state["optimizer"])
        progress.done, progress.value = state["done"], state["value"]
    started = saved = time.monotonic()
    running: defaultdict[str, float] = defaultdict(float)
    while progress.value < 1:
        now = progress.advance()
        losses = lesson.losses(pupil)
        total = losses["loss"] + args.told * losses["told"] + args.kept * losses["kept"]
        total.backward()
        torch.nn.utils.clip_grad_norm_(list(pupil.named.values()), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(args.lr, progress.done, now, WARM_UP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        pupil.settle(progress.done)
        for name, loss in losses.items():
            running[name] += float(loss.detach()) / EVERY
        if progress.done % EVERY == 0:
            shown = " ".join(f"{name} {running.pop(name):.3f}" for name in losses)
            print(
                f"step {progress.done} of {progress.steps} {shown} "
                f"scale {float(pupil.scale.detach().exp()):.1f} views {len(lesson.pool.concepts)} "
                f"seconds {time.monotonic() - started:.0f}",
                flush=True,
            )
            lesson.pool.look()
        if progress.value >= 1 or time.monotonic() - saved > 60 * args.checkpoint_minutes:
            save(args.work / "head.pt", pupil.average)
            state = {"now": {n: p.detach() for n, p in pupil.named.items()}}
            state |= {"average": pupil.average, "optimizer": optimizer.state_dict()}
            save(checkpoint, state | {"done": progress.done, "value": progress.value})
            saved = time.monotonic()


if __name__ == "__main__":
    main()
