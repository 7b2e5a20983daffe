"""What a search for templates tries to raise: top-1, or the mean average precision of labels.

Knows neither how the search goes nor what templates say.
"""

from collections.abc import Sequence
from typing import Final, Protocol

import numpy as np

from app import figures
from app.evaluation.data import ClassRows, Encoded, Floats, Places, TemplateRows
from app.evaluation.judging import scores_of

# numbers held at once: cosines of pictures with the rows of several candidates
BLOCK: Final = 8_000_000

# the figure, and what decides between equal ones
Worth = tuple[float, float]


class Goal(Protocol):
    """A figure of ensembles on certain pictures; `work` multiplications for one of them."""

    @property
    def work(self) -> int: ...

    def with_each(self, path: Sequence[int], candidates: Sequence[int]) -> list[Worth]:
        """What each candidate, added to the templates of `path`, is worth. All are places."""
        ...


class Top1:
    """Share of pictures whose class wins; of equal shares the larger mean log-probability."""

    def __init__(self, encoded: Encoded, templates: TemplateRows) -> None:
        self._pictures, self._scale = encoded.rows, np.float32(encoded.info.scale)
        self._targets, self._templates = encoded.dataset.targets, templates.rows

    @property
    def work(self) -> int:
        return int(self._pictures.size * self._templates.shape[1])

    def with_each(self, path: Sequence[int], candidates: Sequence[int]) -> list[Worth]:
        sums = _sums(self._templates, path)
        classes, width = sums.shape
        step = max(1, BLOCK // (classes * max(width, min(len(self._pictures), 1_024))))
        hits = np.concatenate(
            [
                self._hits(unit(sums + self._templates[candidates[start : start + step]]))
                for start in range(0, len(candidates), step)
            ]
        )
        tied = hits == hits.max()
        return [
            (
                hit / len(self._pictures),
                self._certainty(unit(sums + self._templates[place])) if equal else -np.inf,
            )
            for place, hit, equal in zip(candidates, hits.tolist(), tied, strict=True)
        ]

    def _hits(self, rows: Floats) -> Places:
        """(K, C, D) -> (K,)."""
        sets, classes, width = rows.shape
        flat = rows.reshape(-1, width).T
        hits = np.zeros(sets, np.int64)
        step = max(1, BLOCK // (sets * classes))
        for start in range(0, len(self._pictures), step):
            cosines = (self._pictures[start : start + step] @ flat).reshape(-1, sets, classes)
            best = cosines.argmax(axis=2)
            hits += (best == self._targets[start : start + step, None]).sum(axis=0)
        return hits

    def _certainty(self, rows: Floats) -> float:
        """(C, D) -> the mean log-probability of the right class."""
        total, step = 0.0, max(1, BLOCK // len(rows))
        for start in range(0, len(self._pictures), step):
            logits = self._scale * (self._pictures[start : start + step] @ rows.T)
            logits -= logits.max(axis=1, keepdims=True)
            own = logits[np.arange(len(logits)), self._targets[start : start + step]]
            total += float((own - np.log(np.exp(logits).sum(axis=1))).sum(dtype=np.float64))
        return total / len(self._pictures)


class MeanAveragePrecision:
    """Mean over classes of the average precision, of the scores that /classify gives."""

    def __init__(
        self, encoded: Encoded, templates: TemplateRows, background: TemplateRows | None
    ) -> None:
        self._encoded, self._templates = encoded, templates.rows
        self._background = None if background is None else background.rows[:, 0]

    @property
    def work(self) -> int:
        return int(self._encoded.rows.size * self._templates.shape[1])

    def with_each(self, path: Sequence[int], candidates: Sequence[int]) -> list[Worth]:
        sums = _sums(self._templates, path)
        behind = None if self._background is None else _sums(self._background, path)
        return [(self._figure(sums, behind, place), 0.0) for place in candidates]

    def _figure(self, sums: Floats, behind: Floats | None, place: int) -> float:
        background = None
        if self._background is not None and behind is not None:
            background = unit(behind + self._background[place])
        classes = ClassRows(unit(sums + self._templates[place]), background)
        found = scores_of(self._encoded.rows, classes, self._encoded.info, multi_label=True)
        truth = self._encoded.dataset.truth
        each = [
            figures.average_precision(truth[:, place], found.probabilities[:, place])
            for place in range(truth.shape[1])
        ]
        # without any label there is nothing to rank
        return float(np.nan_to_num(figures.mean(np.array(each))))


def unit(rows: Floats) -> Floats:
    """Rows (..., D) of unit length."""
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True), np.float32)


def _sums(rows: Floats, path: Sequence[int]) -> Floats:
    """(T, ...) -> the sum over the places of `path`; a mean and a sum have one direction."""
    return np.asarray(rows[list(path)].sum(axis=0, dtype=np.float32), np.float32)
