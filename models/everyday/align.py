"""Stage four: the head and the backbone's last stages, against what the text tower says.

The tower does not put every word where the encoder has it; pictures learn where it really lies.
The tower stays, so every text is read once. Once names have moved (stage five), it goes on from
there. Knows the command line; the lesson and the loop are head.py's.
"""

import numpy as np
import torch
from backbone import trainable
from head import Lesson, arguments, class_rows, compile_into, losses, resume, save, train
from measured import read
from network import CONTEXT
from open_clip.tokenizer import SimpleTokenizer
from text_tower import finished_texts
from torch import Tensor, nn
from towers import build

FORMS = ("{}", "a photo of a {}.", "a picture of a {}.")  # a step draws one of them
SCALE = 42.0  # of the contrastive loss: where stage two ended


def main() -> None:
    args = arguments(__doc__, steps=2000, rate=4e-4, seed=9, batch=256)
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    model, tokenizer = build().eval(), SimpleTokenizer(context_length=CONTEXT)
    model.load_state_dict(finished_texts(args.work), strict=False)
    head = model.visual.head.mlp

    def rows(texts: list[str], form: str) -> Tensor:
        return torch.from_numpy(read(model, tokenizer, [form.replace("{}", t) for t in texts]))

    lesson = Lesson(args.work, args.batch, args.seed, kind="maps")
    captions = [rows(lesson.drawer.texts, form) for form in FORMS]
    classes = class_rows(
        args.work, lambda texts: torch.stack([rows(texts, f) for f in FORMS]).mean(0)
    )
    compile_into(head, lesson.net, classes)
    stage = trainable(lesson.net)  # normalised by what the classifier was trained with
    parameters = {f"head.{n}": p for n, p in head.named_parameters()}
    parameters |= {f"stage.{n}": p for n, p in stage.named_parameters()}
    save(args.work / "compiled.pt", {n: p.detach().clone() for n, p in parameters.items()})
    before = torch.load(args.work / "head.pt", weights_only=True)
    head.load_state_dict({n: before[f"head.{n}"] for n in head.state_dict()})
    scale = nn.Parameter(torch.tensor(float(np.log(SCALE))))

    def step() -> dict[str, Tensor]:
        views = lesson.see(head, stage)
        rows = captions[rng.integers(len(FORMS))]
        target = rows[views.captions]
        return losses(views, target, rows[views.wrong], target, classes, scale)

    file, parameters = args.work / "aligned.pt", parameters | {"scale": scale}
    resume(args, file, parameters)
    train(args, file, parameters, lesson.pool, step)


if __name__ == "__main__":
    main()
