"""What an evaluation found, and its JSON. Knows nothing of pages and terminals.

docs/evaluation.md has the fields; `FORMAT` is raised when one changes its meaning.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import numpy as np

from app.evaluation.data import Encoded, Scores, Section
from app.evaluation.figures import Figures, Mistake, Share, number

FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class Picture:
    """A mistake with what a page shows of it: its file's name, and a data URI if there is one."""

    mistake: Mistake
    name: str
    thumbnail: str | None


@dataclass(frozen=True, slots=True)
class Result:
    """Everything that was found, and what it was found with.

    `source` is the data as it was named, `command` what was typed, `names` (N,) of the files below
    the data's folder, `conflicts` groups of places of pictures with equal bytes and different
    labels, `copies` the names of files that were left out, by the place of a picture with the same
    bytes and labels; `data` a digest of pictures and labels. `template_set` and `templates` are
    those of the figures. `missing` are sections that this data does not allow, and why; `files`
    belong beside the report. `previews` are thumbnails (data URIs) of pictures that are labelled in
    two ways, by place.
    """

    version: str
    when: datetime
    command: str
    source: str
    data: str
    encoded: Encoded
    names: Sequence[str]
    template_set: str
    templates: tuple[str, ...]
    scores: Scores
    figures: Figures
    mistakes: Sequence[Picture]
    conflicts: Sequence[tuple[int, ...]]
    notes: Sequence[str]
    sections: Sequence[Section]
    copies: Mapping[int, Sequence[str]] = field(default_factory=dict)
    missing: Sequence[str] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    previews: Mapping[int, str] = field(default_factory=dict)

    def recall(self, place: int) -> Share:
        """The share of a class's pictures that were given its label."""
        table = self.figures.classes
        return Share(int(table.right[place]), int(table.count[place]))

    def equals(self, places: Sequence[int]) -> list[str]:
        """The names of these pictures, with those of their copies."""
        return [
            name for place in places for name in (self.names[place], *self.copies.get(place, ()))
        ]

    def copied(self) -> list[tuple[int, ...]]:
        """Pictures with copies, each a group; those that are labelled differently are elsewhere."""
        different = {place for group in self.conflicts for place in group}
        return [(place,) for place in self.copies if place not in different]

    def json(self) -> dict[str, Any]:
        """The whole report as plain values."""
        info, data = self.encoded.info, self.encoded.dataset
        return {
            "format": FORMAT,
            "openvocab": self.version,
            "created": self.when.isoformat(timespec="seconds"),
            "command": self.command,
            "model": {
                "name": info.name,
                "fingerprint": info.fingerprint,
                "precision": info.precision,
                "device": info.device,
                "backend": info.backend,
                "logit_scale": info.scale,
                "logit_bias": info.bias,
            },
            "templates": {"name": self.template_set, "templates": list(self.templates)},
            "data": {
                "source": self.source,
                "digest": self.data,
                "pictures": len(data.files),
                "classes": len(data.classes),
                "multi_label": data.multi_label,
                "unread": [
                    {"file": str(one.file), "reason": one.reason} for one in self.encoded.unread
                ],
                "duplicates": [
                    self.equals(group) for group in sorted((*self.conflicts, *self.copied()))
                ],
                "notes": list(self.notes),
            },
            "figures": self.figures.json(),
            "classes": [self._class(place) for place in range(len(data.classes))],
            "confused": self._confused(),
            "confusion": self._confusion(),
            "calibration": self._calibration(),
            "mistakes": [self._mistake(one) for one in self.mistakes],
            "missing": list(self.missing),
            "sections": {section.key: dict(section.json()) for section in self.sections},
        }

    def _class(self, place: int) -> dict[str, Any]:
        table, share = self.figures.classes, self.recall(place)
        low, high = share.interval
        counted = bool(share.count)
        return {
            "label": self.encoded.dataset.classes[place],
            "count": int(table.count[place]),
            "predicted": int(table.predicted[place]),
            "right": int(table.right[place]),
            "recall": number(share.value) if counted else None,
            "interval95": [number(low), number(high)] if counted else None,
            "precision": number(table.precision[place]),
            "f1": number(table.f1[place]),
            "average_precision": number(table.average_precision[place]),
        }

    def _confused(self) -> list[dict[str, Any]]:
        labels = self.encoded.dataset.classes
        return [
            {
                "truth": labels[pair.truth],
                "predicted": labels[pair.predicted],
                "count": pair.count,
                "share": number(pair.share),
            }
            for pair in self.figures.confused
        ]

    def _confusion(self) -> list[list[int]] | None:
        """[row, column, count] of each cell that is not 0; places of `classes`."""
        matrix = self.figures.matrix
        if matrix is None:
            return None
        rows, columns = np.nonzero(matrix)
        return [
            [int(row), int(column), int(matrix[row, column])]
            for row, column in zip(rows, columns, strict=True)
        ]

    def _calibration(self) -> dict[str, Any]:
        reliability = self.figures.calibration
        edges = np.linspace(0, 1, len(reliability.count) + 1)
        return {
            "ece": number(reliability.error),
            "largest_gap": number(reliability.largest),
            "mean_confidence": number(reliability.mean_confidence),
            "bins": [
                {
                    "low": number(edges[place]),
                    "high": number(edges[place + 1]),
                    "count": int(reliability.count[place]),
                    "confidence": number(reliability.confidence[place]),
                    "right": number(reliability.accuracy[place]),
                }
                for place in range(len(reliability.count))
            ],
        }

    def _mistake(self, picture: Picture) -> dict[str, Any]:
        labels, mistake = self.encoded.dataset.classes, picture.mistake
        return {
            "file": picture.name,
            "truth": None if mistake.truth is None else labels[mistake.truth],
            "predicted": None if mistake.predicted is None else labels[mistake.predicted],
            "score": number(mistake.score),
            "score_of_truth": number(mistake.own),
        }


def data_digest(encoded: Encoded, digests: Sequence[str]) -> str:
    """A digest of the pictures and their labels, independent of names and order."""
    data = encoded.dataset
    lines = sorted(
        "\0".join((digest, *sorted(data.classes[place] for place in np.flatnonzero(row))))
        for digest, row in zip(digests, data.truth, strict=True)
    )
    whole = "\n".join((*sorted(data.classes), "", *lines))
    return hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()
