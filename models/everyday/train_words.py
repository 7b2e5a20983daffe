"""Stage six: the text tower once more, for words without pictures.

Every word goes some of the way to where words of like meaning have their pictures; one with
pictures, which stage five has moved already, half as far. Knows the command line and the finished
image tower's rows; the regression is expected.py's, the loop head.py's.
"""

import copy

import numpy as np
import torch
from drawer import Drawer
from expected import Expected, text_places
from head import arguments, resume, train
from labelled import Album
from pool import Pool
from text_tower import named_texts, text_parameters, unit_rows
from torch import Tensor
from torch.nn import functional
from towers import build
from views import OTHERS
from words import WordLesson

# how far a word goes, against its own unit row
WITHOUT_PICTURES, WITH_PICTURES = 0.4, 0.2


def expectation(pool: Pool, words: WordLesson) -> Expected:
    """Learnt from all drawings' rows."""
    drawings = pool.drawings[np.arange(len(pool.drawings))]
    places, numbers = text_places(drawings, pool.concepts, pool.drawer.true_of)
    return Expected(words.of([pool.drawer.texts[i] for i in numbers]), places)


def main() -> None:
    args = arguments(__doc__, steps=1500, rate=4e-4, seed=11)
    torch.manual_seed(args.seed)
    model = build().eval()
    model.load_state_dict(named_texts(args.work), strict=False)
    first = copy.deepcopy(model).requires_grad_(False)
    drawer, words = Drawer(args.work, args.seed, OTHERS), WordLesson(args.work, args.seed)
    pool = Pool(args.work / "views", drawer, Album(args.work, drawer, args.seed), args.seed, "rows")
    expected, pictured = expectation(pool, words), set(drawer.texts)
    far = [WITH_PICTURES if text in pictured else WITHOUT_PICTURES for text in words.texts]
    distance = torch.tensor(far)[:, None]

    def step() -> dict[str, Tensor]:
        tokens, ends, drawn = words.draw(args.batch)
        with torch.no_grad():
            moved = distance[drawn] * expected(words.targets[drawn])
            target = functional.normalize(unit_rows(first, tokens, ends) + moved, dim=1)
        return {"loss": 1 - (unit_rows(model, tokens, ends) * target).sum(1).mean()}

    file = args.work / "words.pt"
    parameters = {f"text.{n}": p for n, p in text_parameters(model).items()}
    resume(args, file, parameters)
    train(args, file, parameters, pool, step)


if __name__ == "__main__":
    main()
