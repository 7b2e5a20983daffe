"""What pictures of one folder would gain by helping each other (TransCLIP), and where they lose.

    make -C models/everyday validation             once: WORK/validation
    python -m benchmarks.quality.together FOLDER   benchmarks/results/together.json, and the card

After Zanella et al. 2024 (arXiv 2406.01837), zero-shot, three neighbours; it is in no release, and
docs/decisions.md has the reason. Folders are drawn from photographs of 14 kinds.
"""

import time
from collections.abc import Callable
from typing import Final

import numpy as np

from app.arrays import Doubles, Places
from app.classify.scoring import softmax
from app.evaluation.statistics import crossed
from benchmarks.quality.validation import SEED, Pictures, Validation, folder, write
from benchmarks.record import Cell, Result
from models.info import Floats

NEIGHBOURS: Final = 3
SURE: Final = 8  # pictures that a label's mean begins with
ROUNDS, STEPS = 10, 5
DRAWS: Final = 30


def together(rows: Floats, shares: Floats) -> Floats:
    """Shares (N, C) of pictures with `rows` (N, D) that help each other, from `shares` (N, C).

    A Gaussian for each label, with one diagonal covariance for all, a graph of neighbours, and the
    text's shares as the paper weighs them where no picture has a label.
    """
    affinity = rows @ rows.T
    np.fill_diagonal(affinity, -1)
    near = np.sort(affinity, axis=1)[:, -NEIGHBOURS][:, None]
    graph = np.where(affinity >= near, np.maximum(affinity, 0), 0)
    means = np.stack([rows[np.argsort(-column)[:SURE]].mean(axis=0) for column in shares.T])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    spread = np.full(rows.shape[1], 1 / rows.shape[1])
    text, posterior = np.log(np.maximum(shares, 1e-12)), shares
    for _ in range(ROUNDS):
        squares = ((rows**2) @ (1 / spread))[:, None] - 2 * (rows / spread) @ means.T
        fits = -0.5 * (squares + ((means**2) @ (1 / spread))[None])
        for _ in range(STEPS):
            posterior = softmax(np.asarray(text + fits + graph @ posterior, np.float32), 1.0)
        weights = np.maximum(posterior.sum(axis=0), 1e-12)
        means = (posterior.T @ rows) / weights[:, None]
        means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
        spread = np.maximum(
            ((rows**2).sum(axis=0) - 2 * (rows * (posterior @ means)).sum(axis=0)
             + (posterior @ means**2).sum(axis=0)) / len(rows),
            1e-6,
        )  # fmt: skip
    return posterior


Choice = Callable[[np.random.Generator, Places], Places]


def every(_: np.random.Generator, truth: Places) -> Places:
    """All pictures: kinds have 5 to 50 of them."""
    return np.arange(len(truth))


def even(chance: np.random.Generator, truth: Places) -> Places:
    """As many of each kind as the smallest has."""
    fewest = int(np.bincount(truth).min())
    parts = [
        chance.choice(np.flatnonzero(truth == k), fewest, replace=False) for k in np.unique(truth)
    ]
    return np.concatenate(parts)


def classes(count: int) -> Choice:
    """All pictures of so many kinds."""

    def choose(chance: np.random.Generator, truth: Places) -> Places:
        return np.flatnonzero(np.isin(truth, chance.choice(np.unique(truth), count, replace=False)))

    return choose


def uneven(chance: np.random.Generator, truth: Places) -> Places:
    """All of one kind, and one picture of each other."""
    most = chance.choice(np.unique(truth))
    rest = [chance.choice(np.flatnonzero(truth == k)) for k in np.unique(truth) if k != most]
    return np.asarray([*np.flatnonzero(truth == most), *rest], np.int64)


FOLDERS: Final[dict[str, Choice]] = {
    "equal numbers of each kind": even,
    "all of them": every,
    "three of the kinds": classes(3),
    "one of the kinds": classes(1),
    "one kind, plus one picture of each other": uneven,
}


def row(name: str, choose: Choice, pictures: Pictures, shares: Floats) -> list[Cell]:
    """Right alone and together in DRAWS folders, and the difference with its interval."""
    alone, joint, gains = [], [], []
    for draw in range(DRAWS):
        chosen = choose(np.random.default_rng((SEED, draw)), pictures.targets)
        truth = pictures.targets[chosen]
        helped = together(pictures.rows[chosen], shares[chosen]).argmax(axis=1) == truth
        before = shares[chosen].argmax(axis=1) == truth
        alone.append(before.mean())
        joint.append(helped.mean())
        # a folder's gain counts once, however many pictures it has
        gains.append(float(helped.mean() - before.mean()))
    means: Doubles = crossed(np.array(gains)[:, None], 10_000, SEED)
    low, high = np.quantile(means, (0.025, 0.975))
    gain = f"{100 * np.mean(gains):+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
    return [name, f"{np.mean(alone):.1%}", f"{np.mean(joint):.1%}", gain]


def main() -> None:
    """The command line."""
    start, view = time.monotonic(), Validation(folder(__doc__))
    pictures = view.pictures("kinds")
    shares = softmax(pictures.rows @ view.name_rows(pictures.labels).T, view.scale)
    rows = [row(name, choose, pictures, shares) for name, choose in FOLDERS.items()]
    table = Result(
        f"TransCLIP on photographs of {len(pictures.labels)} kinds, {DRAWS} folders each",
        ["the folder", "right alone", "right together", "points (95 %)"],
        rows,
        ["All kinds are labels in every folder. Intervals by resampling folders."],
    )
    subject = "what pictures gain by helping each other"
    write("together", subject, [table], time.monotonic() - start)


if __name__ == "__main__":
    main()
