"""What `abstain` refuses without a calibration: pictures of other things among 3, 10 and 50 labels.

    make -C models/everyday validation             once: WORK/validation
    python -m benchmarks.quality.strangers FOLDER  benchmarks/results/strangers.json, and the card

Labels are drawn from those of a set, strangers are the pictures of all others. What is answered is
decided by the service's own function; beside it other scores, each at the same loss.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.special import logsumexp

from app.arrays import Doubles, Truth
from app.classify.concept import Concept
from app.classify.ensemble import BACKGROUND
from app.classify.other_words import Competition, OtherWords, Rivals, ahead
from app.classify.scoring import LEAST_ODDS, Criteria, Scale, decide
from benchmarks.quality.validation import SEED, TEMPLATES, Pictures, Validation, folder, write
from benchmarks.record import Cell, Result
from models.info import Floats
from prompts import load_vocabularies

SETS: Final = {
    "photographs": "145 photographs",
    "kinds": "199 photographs of 14 kinds",
    "drawings": "400 of Twemoji's drawings",
}
LABELS: Final = {"photographs": (3, 10, 50), "kinds": (3, 7), "drawings": (3, 10, 50)}
DRAWS: Final = 40
RESAMPLES: Final = 1_000

# right answers that each score may lose
LOSS: Final = 0.05

# leads are over the first; the last decides
SCORES: Final = (
    "floor alone",
    "similarity",
    "rank among other words",
    "NegLabel: the labels' share",
    "best label against the best word",
)
RULES: Final = ("floor and lead, no words", "as answered")


@dataclass(frozen=True, slots=True)
class Draws:
    """Of D draws of labels and N pictures: which are `right` and whose label was drawn (`known`),
    both (D, N), the `scores` of each way and what each rule `refused`. The others are strangers.
    """

    right: Truth
    known: Truth
    scores: dict[str, Doubles]
    refused: dict[str, Truth]


class Words:
    """A set's pictures against the other words and the background."""

    def __init__(self, view: Validation, pictures: Pictures) -> None:
        names = load_vocabularies()["other-words"].labels
        self.others = OtherWords(
            tuple(names), view.vectors([Concept((x,), ("{}",)) for x in names])
        )
        self.pictures = pictures
        self.labels = view.name_rows(pictures.labels)
        self.cosines = pictures.rows @ self.others.rows.T
        (background,) = view.vectors([Concept(BACKGROUND, TEMPLATES)])
        self.background = pictures.rows @ background
        self.scale = Scale(view.scale, None)

    def draw(self, labels: int) -> Draws:
        """DRAWS draws of so many labels."""
        shape = (DRAWS, len(self.pictures.targets))
        right, known = np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)
        scores = {name: np.zeros(shape) for name in SCORES}
        refused = {name: np.zeros(shape, np.bool_) for name in RULES}
        for draw in range(DRAWS):
            chance = np.random.default_rng((SEED, labels, draw))
            chosen = chance.choice(len(self.labels), labels, replace=False)
            cosines = self.pictures.rows @ self.labels[chosen].T
            known[draw] = np.isin(self.pictures.targets, chosen)
            right[draw] = known[draw] & (chosen[cosines.argmax(axis=1)] == self.pictures.targets)
            places = self.others.rivals(self.labels[chosen])
            if places is None:
                raise ValueError("so many labels have no rivals; draw fewer")
            self._fill_draw(cosines, Rivals(self.others, places), draw, scores, refused)
        return Draws(right, known, scores, refused)

    def _fill_draw(
        self,
        cosines: Floats,
        rivals: Rivals,
        draw: int,
        scores: dict[str, Doubles],
        refused: dict[str, Truth],
    ) -> None:
        words = self.cosines[:, rivals.places]
        ordered = np.sort(cosines, axis=1)
        best, lead = ordered[:, -1], ordered[:, -1] - ordered[:, -2]
        scores["floor alone"][draw] = best - self.background
        scores["similarity"][draw] = best
        scores["rank among other words"][draw] = -(words > best[:, None]).sum(axis=1)
        scores["NegLabel: the labels' share"][draw] = logsumexp(
            self.scale.scale * cosines, axis=1
        ) - logsumexp(self.scale.scale * words, axis=1)
        criteria = Criteria(1, abstain=True)
        for place, row in enumerate(cosines):
            floor, of_words = float(self.background[place]), words[place]
            score = ahead(of_words, float(best[place]), float(lead[place]))
            scores["best label against the best word"][draw, place] = -score
            competition = Competition(rivals=rivals, cosines=of_words)
            for rule, rivalry in zip(RULES, (None, competition), strict=True):
                decision = decide(row, floor, self.scale, None, criteria, rivalry)
                refused[rule][draw, place] = decision.reason is not None


def auroc(draws: Draws, name: str) -> float:
    """How often a picture of the labels scores higher than a stranger, mean of the draws."""
    areas = []
    for of_labels, scores in zip(draws.known, draws.scores[name], strict=True):
        ranks = np.searchsorted(np.sort(scores[~of_labels]), scores[of_labels])
        ties = np.searchsorted(np.sort(scores[~of_labels]), scores[of_labels], side="right")
        areas.append(float((ranks + ties).mean() / 2 / max(1, (~of_labels).sum())))
    return float(np.mean(areas))


def resampled(sample: Draws, refused: Sequence[Truth]) -> Doubles:
    """Share of strangers that each is `refused`, and of right answers lost: (R, K, 2); draws and
    pictures are resampled, the first of R are the observed ones.
    """
    draws, pictures = sample.right.shape
    chance = np.random.default_rng(SEED)
    rows = chance.multinomial(draws, np.full(draws, 1 / draws), RESAMPLES)
    columns = chance.multinomial(pictures, np.full(pictures, 1 / pictures), RESAMPLES)
    rows[0], columns[0] = 1, 1
    shares = np.empty((RESAMPLES, len(refused), 2))
    for place, of in enumerate((~sample.known, sample.right)):
        among = ((rows @ of) * columns).sum(axis=1)
        for way, rejected in enumerate(refused):
            shares[:, way, place] = ((rows @ (rejected & of)) * columns).sum(axis=1) / np.maximum(
                among, 1
            )
    return shares


def _share(values: Doubles) -> str:
    low, high = np.quantile(values, (0.025, 0.975))
    return f"{values[0]:.1%} ({100 * low:.0f} to {100 * high:.0f})"


def _lead(values: Doubles) -> str:
    low, high = np.quantile(values, (0.025, 0.975))
    return f"{100 * values[0]:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def tables(words: Words, about: str, counts: Sequence[int]) -> list[Result]:
    """What is refused of a set's pictures, by the rules and at equal loss."""
    losses: list[list[Cell]] = []
    equal: list[list[Cell]] = []
    for count in counts:
        draws = words.draw(count)
        shares_by_rule = resampled(draws, list(draws.refused.values()))
        for place, rule in enumerate(RULES):
            lead = _lead(shares_by_rule[:, place, 0] - shares_by_rule[:, 0, 0]) if place else ""
            shares = [_share(shares_by_rule[:, place, 1]), _share(shares_by_rule[:, place, 0])]
            losses.append([count, rule, *shares, lead])
        bounds = [np.quantile(draws.scores[name][draws.right], LOSS) for name in SCORES]
        shares_by_rule = resampled(
            draws, [draws.scores[name] < at for name, at in zip(SCORES, bounds, strict=True)]
        )
        for place, name in enumerate(SCORES):
            lead = _lead(shares_by_rule[:, place, 0] - shares_by_rule[:, 0, 0]) if place else ""
            area = f"{auroc(draws, name):.3f}"
            equal.append([count, name, area, _share(shares_by_rule[:, place, 0]), lead])
    notes = [f"{DRAWS} draws of labels; 95 % intervals by resampling draws and pictures."]
    return [
        Result(
            f"`abstain` without a calibration: {about}",
            ["labels", "", "right answers lost", "strangers refused", "points more"],
            losses,
            [*notes, f"Floor and lead: the rule without words, odds of {LEAST_ODDS:g}."],
        ),
        Result(
            f"Scores at {LOSS:.0%} of right answers lost: {about}",
            ["labels", "", "AUROC", "strangers refused", "points more"],
            equal,
            notes,
        ),
    ]  # fmt: skip


def main() -> None:
    """The command line."""
    start, view = time.monotonic(), Validation(folder(__doc__))
    results = []
    for name, about in SETS.items():
        results += tables(Words(view, view.pictures(name)), about, LABELS[name])
    subject = "what abstain refuses without a calibration"
    write("strangers", subject, results, time.monotonic() - start)


if __name__ == "__main__":
    main()
