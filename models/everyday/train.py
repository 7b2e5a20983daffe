"""Stage two: the image tower's head, on drawings, with photographs kept where the classifier puts
them; and the bridge, through which texts give way. The texts are the sentence encoder's own.

Knows the command line; the lesson and the loop are head.py's.
"""

import numpy as np
import torch
from bridge import Bridge
from head import Lesson, arguments, class_rows, compile_into, losses, resume, train
from pupil import meaning_loss
from torch import Tensor, nn
from towers import build
from words import WordLesson

SCALE = 40.0  # of the contrastive loss at first
UNSEEN = 256  # texts of no drawing in a step


def main() -> None:
    args = arguments(__doc__, steps=1500, rate=6e-4, seed=8)
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    lesson, words = Lesson(args.work, args.batch, args.seed), WordLesson(args.work, args.seed)
    classes = class_rows(args.work, words.of)
    head, bridge = build().visual.head.mlp, Bridge()
    compile_into(head, lesson.net, classes)
    scale = nn.Parameter(torch.tensor(float(np.log(SCALE))))
    parameters = {f"head.{n}": p for n, p in head.named_parameters()}
    parameters |= {f"bridge.{n}": p for n, p in bridge.named_parameters()}

    def step() -> dict[str, Tensor]:
        views = lesson.see(head)
        target, wrong = (
            words.of([lesson.drawer.texts[i] for i in numbers])
            for numbers in (views.captions, views.wrong)
        )
        with torch.no_grad():
            moved = bridge(classes)
        result = losses(views, bridge(target), bridge(wrong), target, moved, scale)
        # texts that no drawing shows stay where they are
        unseen = words.targets[torch.randint(len(words.targets), (UNSEEN,))]
        result["told"] = result["told"] + 2 * meaning_loss(bridge(unseen), unseen)
        return result

    file, parameters = args.work / "head.pt", parameters | {"scale": scale}
    resume(args, file, parameters)
    train(args, file, parameters, lesson.pool, step)


if __name__ == "__main__":
    main()
