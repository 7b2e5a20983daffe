"""The image tower's head: how it begins, what it sees in a step, and the loop that trains it.

It begins as the classifier itself (ConSE, Norouzi et al. 2013, arXiv 1312.5650): the hidden layer
holds ImageNet's 1,000 classes, and the second layer adds up their texts. The backbone stays as it
is, so a step needs its features only, until at the end its last stages are trained, too. Whose
texts they are is for the caller to say.
"""

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from backbone import classifier
from bridge import likeness_loss
from drawer import Drawer
from labelled import Album
from numpy.typing import NDArray
from pool import Imagined, Photographic, Pool
from precision import autocast
from pupil import contrastive_loss, meaning_loss
from schedule import Progress, learning_rate
from sources import fetch, single_source
from text_tower import decays
from torch import Tensor, nn
from torch.nn import functional
from views import OTHERS
from workfolder import work_parser

EVERY = 50  # steps between lines of the log, looks for new views and saves
GATE = 2.0  # a class counts from this logit on: GELU is the gate of the compiled head
SHARPNESS = 0.6  # of the classifier's probabilities, as targets
CLASS_SCALE = 25.0  # of the likeness to the classes' texts, against the same targets
MAX_SCALE = float(np.log(100))  # the paper's clip on the learned temperature
DROPOUT = 0.1  # of the backbone's features
LABELLED = 96  # photographs with labels in a step
PART = 112  # maps at once: of larger arrays the memory goes back to the system every time
SCENES = 96  # photographs without labels in a step, and as many made up ones
WRONG = 2048  # texts of no drawing in a step
DECAY = 0.05
STAGE_SHARE = 0.5  # of the rate, for the backbone's last stages
TRAINED = 0.95  # share of the trained weights in the finished head and stages
WEIGHTS = {"loss": 1.0, "told": 0.3, "kept": 1.0, "moved": 3.0, "even": 1.0}
KINDS = {"name": 1.0, "synonym": 0.5, "above 1": 0.3}  # weights of a class's texts


def centred(rows: Tensor) -> Tensor:
    """Unit rows without their mean: a shift of all texts at once changes no ranking."""
    return functional.normalize(rows - rows.mean(0), dim=1)


def class_rows(work: Path, rows_of: Callable[[list[str]], Tensor]) -> Tensor:
    """(1000, D) unit rows: where ImageNet's classes lie by their words, their mean taken off."""
    rows = []
    for texts in json.loads((work / "imagenet.json").read_text()):
        weighted = [(text, KINDS[kind]) for text, kind in texts if kind in KINDS]
        places = rows_of([text for text, _ in weighted])
        rows.append((torch.tensor([w for _, w in weighted])[:, None] * places).sum(0))
    return centred(functional.normalize(torch.stack(rows), dim=1))


def pooled(stage: nn.Module, maps: Tensor) -> Tensor:
    """Maps (B, 208, 9, 9) through the last stages: features (B, 1280)."""
    with autocast():
        parts = [
            stage(part.contiguous(memory_format=torch.channels_last))
            for part in torch.split(maps, PART)
        ]
    return torch.cat(parts).float()


@torch.no_grad()
def compile_into(head: Any, net: Any, classes: Tensor) -> None:
    """The classifier becomes the head: logits in the hidden layer, texts in the second."""
    head.fc1.weight[:1000] = net.classifier.weight
    head.fc1.bias[:1000] = net.classifier.bias - GATE
    head.fc1.bias[1000:] = 0
    head.fc2.weight.mul_(0.1)
    head.fc2.weight[:, :1000] = classes.T
    head.fc2.bias.zero_()


@dataclass(frozen=True, slots=True)
class Seen:
    """A step's pictures as the head places them. `named` are drawings, then photographs with
    labels; `captions` are numbers of the drawer's texts, `wrong` those of texts that are nobody's
    caption; `also_true` (B, B + W) marks texts that are true of a picture without being its
    caption; `wanted` (P, 1000) is what the classifier says of the photographs without labels;
    `moved` is how far training has turned their features (1 - cosine)."""

    named: Tensor
    captions: NDArray[np.int64]
    wrong: NDArray[np.int64]
    also_true: Tensor
    photographs: Tensor
    wanted: Tensor
    moved: Tensor


class Lesson:
    """Pictures for the head, for the backbone's last stages where `kind` is "maps", or for the text
    tower where it is "rows"."""

    def __init__(self, work: Path, batch: int, seed: int, kind: str = "features") -> None:
        self.batch = batch
        self.drawer = Drawer(work, seed, OTHERS)
        self.net: Any = classifier(fetch(single_source("backbone"), work / "downloads"))
        self.album = Album(work, self.drawer, seed)
        self.pool = Pool(work / "views", self.drawer, self.album, seed, kind)
        self.rng = np.random.default_rng(seed)
        sample = self.pool.features[np.arange(0, len(self.pool.features), 3)]
        self.imagined = Imagined(self.net, sample, seed)
        self.photographic = Photographic(torch.cat([sample, self.imagined.draw(sample)[0]]), seed)

    def see(self, head: nn.Module, stage: nn.Module | None = None) -> Seen:
        """`stage` leads from maps to features; without one, views are features already."""
        drawings, drawn = self.pool.draw(self.batch)
        labelled, labels = self.pool.draw_labelled(LABELLED)
        scenes, before, logits = self.pool.draw_scenes(SCENES)
        features = torch.cat([drawings, labelled, scenes])
        if stage is not None:
            features = pooled(stage, features)
        parts = [len(drawings), len(labelled), len(scenes)]
        drawings, labelled, scenes = torch.split(features, parts)
        drawings = self.photographic(drawings, scenes.detach())
        more, more_logits = self.imagined.draw(before)
        rows = head(functional.dropout(torch.cat([drawings, labelled, scenes, more]), DROPOUT))
        rows = functional.normalize(rows, dim=1)
        named = len(drawings) + len(labelled)
        odds = (SHARPNESS * torch.cat([logits, more_logits])).softmax(1)
        moved = 1 - functional.cosine_similarity(scenes, before).mean()
        return Seen(rows[:named], *self.names(drawn, labels), rows[named:], odds, moved)

    def names(
        self, drawn: NDArray[np.int64], labels: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], Tensor]:
        """A caption of each drawing and photograph, wrong texts, and what is also true."""
        concepts = np.concatenate([drawn, self.album.concept[labels]])
        captions = np.array(
            [*map(self.drawer.caption, drawn), *map(self.album.caption, labels)], np.int64
        )
        wrong = self.rng.choice(len(self.drawer.texts), WRONG, replace=False)
        numbers = np.concatenate([captions, wrong])
        also_true = torch.from_numpy(self.drawer.true_of[np.ix_(numbers, concepts)].T.copy())
        also_true.fill_diagonal_(False)
        return captions, wrong, also_true


def losses(
    views: Seen, texts: Tensor, wrong: Tensor, target: Tensor, classes: Tensor, scale: Tensor
) -> dict[str, Tensor]:
    """Contrastive on pictures with names against `texts` and `wrong` ones ("loss"), their distance
    from `target` ("told"), that of other photographs from the classifier's word ("kept") and of
    their features from what they were ("moved"); and the share of pictures that find their text
    ("right")."""
    loss, right = contrastive_loss(views.named, texts, scale.exp(), wrong, views.also_true)
    place = functional.normalize(views.wanted @ classes, dim=1)
    distance = likeness_loss(CLASS_SCALE * views.photographs @ classes.T, views.wanted)
    distance = distance + 2 * (1 - (views.photographs * place).sum(1).mean())
    meaning = meaning_loss(views.named, target)
    return {"loss": loss, "right": right, "told": meaning, "kept": distance, "moved": views.moved}


@torch.no_grad()
def finish(work: Path, head: nn.Module, stage: nn.Module) -> None:
    """Head and last stages as they are shipped: a mean of the compiled and the trained weights
    (WiSE-FT, Wortsman et al. 2022, arXiv 2109.01903)."""
    compiled = torch.load(work / "compiled.pt", weights_only=True)
    trained = torch.load(work / "aligned.pt", weights_only=True)
    for kind, part in (("head", head), ("stage", stage)):
        for n, p in part.named_parameters():
            name = f"{kind}.{n}"
            p.copy_(torch.lerp(compiled[name], trained[name], TRAINED))


def save(path: Path, state: object) -> None:
    """Whoever reads meanwhile sees the old file or the new one, whole."""
    torch.save(state, path.with_suffix(".partial"))
    path.with_suffix(".partial").replace(path)


def arguments(
    about: str | None, steps: int, rate: float, seed: int, batch: int = 512
) -> argparse.Namespace:
    parser = work_parser(about, "everyday")
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--lr", type=float, default=rate)
    parser.add_argument("--seed", type=int, default=seed)
    parser.add_argument("--resume", action="store_true", help="go on from this stage's own file")
    return parser.parse_args()


def resume(args: argparse.Namespace, file: Path, parameters: dict[str, nn.Parameter]) -> None:
    """Where the run goes on: the parameters as the stage's own file has them."""
    if args.resume:
        earlier = torch.load(file, weights_only=True)
        with torch.no_grad():
            for name, p in parameters.items():
                p.copy_(earlier[name])


def train(
    args: argparse.Namespace,
    file: Path,
    parameters: dict[str, nn.Parameter],
    pool: Pool,
    step: Callable[[], dict[str, Tensor]],
) -> None:
    """AdamW to the end of the plan; `file` gets the moving average of the parameters, one of which
    is the temperature "scale" where a loss has one."""
    average = {n: p.detach().clone() for n, p in parameters.items()}
    groups = [
        {
            "params": [p],
            "weight_decay": DECAY if decays(name, p) else 0.0,
            "share": STAGE_SHARE if name.startswith("stage.") else 1.0,
        }
        for name, p in parameters.items()
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True)
    progress = Progress(file.with_suffix(".steps.txt"), args.steps)
    warm_up, horizon = max(1, args.steps // 20), max(1, args.steps // 8)
    started, running = time.monotonic(), defaultdict[str, float](float)
    scale = parameters.get("scale")
    while progress.value < 1:
        now = progress.advance()
        parts = step()
        total: Tensor = torch.stack(
            [w * parts[name] for name, w in WEIGHTS.items() if name in parts]
        ).sum()
        total.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(list(parameters.values()), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = group["share"] * learning_rate(args.lr, progress.done, now, warm_up)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            if scale is not None:
                scale.clamp_(max=MAX_SCALE)
            for name, p in parameters.items():
                average[name].lerp_(p, max(1 / horizon, 1 / (1 + progress.done / 5)))
        for name, loss in parts.items():
            running[name] += float(loss.detach()) / EVERY
        if progress.done % EVERY == 0:
            figures = " ".join(f"{name} {running.pop(name):.3f}" for name in parts)
            if scale is not None:
                figures += f" scale {float(scale.detach().exp()):.1f}"
            print(
                f"step {progress.done} of {progress.steps} {figures} "
                f"views {len(pool.concepts)} seconds {time.monotonic() - started:.0f}",
                flush=True,
            )
            pool.look()
            save(file, average)
    save(file, average)
