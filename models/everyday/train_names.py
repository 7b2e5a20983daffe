"""Stage five: the text tower once more, against the finished image tower.

The names of drawings and photographs go where their pictures are; all texts keep their places among
each other as far as that allows. Knows the command line and the finished tower's rows; the lesson
and the loop are head.py's.
"""

import copy
from pathlib import Path

import numpy as np
import torch
from backbone import classifier, last_stages
from head import LABELLED, Lesson, arguments, centred, finish, pooled, resume, train
from measured import read
from network import CONTEXT
from open_clip.tokenizer import SimpleTokenizer
from pupil import contrastive_loss, meaning_loss
from sources import fetch, single_source
from text_tower import text_parameters, unit_rows
from torch import Tensor, nn
from torch.nn import functional
from towers import build
from words import BARE, WordLesson

SCALE = 38.0  # of the contrastive loss: where stage four ended
ANCHORS = 256  # further texts in a step
READ_AGAIN = 64  # captions in a step whose rows among the wrong ones are brought up to date


def uneven(texts: Tensor, pictures: Tensor, true: Tensor) -> Tensor:
    """How unlike each other texts (T, D) are in their cosines with pictures (P, D) at large: the
    variances of the cosines' means and of their variances, over the texts, on the cosines' own
    scale. `true` (T, P) marks what a text says of a picture, which does not count."""
    counted = (~true).float()
    cosines, count = texts @ pictures.T, counted.sum(1)
    mean = (cosines * counted).sum(1) / count
    variance = ((cosines - mean[:, None]).square() * counted).sum(1) / count
    usual = variance.mean()
    return mean.var() / usual + (variance / usual).var()


@torch.inference_mode()
def place(folder: Path, stage: nn.Module, head: nn.Module) -> None:
    """Where the finished tower puts every view, of which there are no more to come: unit rows
    (N, D) beside its maps."""
    for kind in ("drawings", "labelled", "scenes"):
        for path in sorted(folder.glob(f"{kind}-*.maps.npy")):
            features = pooled(stage, torch.from_numpy(np.load(path)).float())
            rows = functional.normalize(head(features), dim=1).half().numpy()
            np.save(str(path).replace(".maps.", ".rows."), rows)


def main() -> None:
    args = arguments(__doc__, steps=1000, rate=4e-4, seed=10, batch=320)
    (args.work / "words.pt").unlink(missing_ok=True)  # learnt from names that are no more
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    model, tokenizer = build().eval(), SimpleTokenizer(context_length=CONTEXT)
    model.load_state_dict(torch.load(args.work / "text.pt", weights_only=True), strict=False)
    first = copy.deepcopy(model).requires_grad_(False)
    net = classifier(fetch(single_source("backbone"), args.work / "downloads"))
    stage, head = last_stages(net).to(memory_format=torch.channels_last), model.visual.head.mlp
    finish(args.work, head, stage)
    place(args.work / "views", stage, head)
    lesson = Lesson(args.work, args.batch, args.seed, kind="rows")
    words = WordLesson(args.work, args.seed)
    before = torch.from_numpy(read(first, tokenizer, lesson.drawer.texts))
    scale = nn.Parameter(torch.tensor(float(np.log(SCALE))))
    parameters = {f"text.{n}": p for n, p in text_parameters(model).items()} | {"scale": scale}
    file = args.work / "names.pt"
    resume(args, file, parameters)
    now = torch.from_numpy(read(model, tokenizer, lesson.drawer.texts))  # as they were read last

    def texts(numbers: Tensor, bare: bool) -> Tensor:
        return unit_rows(
            model, *words.tokens.batch([lesson.drawer.texts[i] for i in numbers], bare)
        )

    def step() -> dict[str, Tensor]:
        drawings, drawn = lesson.pool.draw(args.batch)
        labelled, labels = lesson.pool.draw_labelled(LABELLED)
        pictures = functional.normalize(torch.cat([drawings, labelled]), dim=1)
        captions, wrong, also_true = lesson.names(drawn, labels)
        numbers, many = torch.from_numpy(captions), len(drawings)
        rows = texts(numbers, bool(rng.random() < BARE))
        tokens, ends, _ = words.draw(ANCHORS)
        with torch.no_grad():
            now[numbers] = rows
            again = torch.from_numpy(rng.choice(len(now), READ_AGAIN, replace=False))
            now[again] = texts(again, True)
            places = torch.cat([before[numbers], unit_rows(first, tokens, ends)])
        loss, right = contrastive_loss(pictures, rows, scale.exp(), now[wrong], also_true)
        anchored = torch.cat([rows, unit_rows(model, tokens, ends)])
        kept = meaning_loss(centred(anchored), centred(places))
        true = also_true[:, : len(numbers)].T | torch.eye(len(numbers), dtype=torch.bool)
        true = functional.pad(true, (0, 0, 0, len(tokens)))
        even = uneven(anchored, pictures[:many], true[:, :many])
        even = even + uneven(anchored, pictures[many:], true[:, many:])
        return {"loss": loss, "right": right, "kept": kept, "even": even}

    train(args, file, parameters, lesson.pool, step)


if __name__ == "__main__":
    main()
