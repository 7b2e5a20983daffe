"""What was learned of a label set from labelled pictures, as a value and as JSON.

Knows neither how it is fitted nor how it is used.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from app.classify.concept import Concept, keys_of
from app.errors import shown
from app.labelsets.calibration.conformal import PERCENTS

# raised when JSON written so far can no longer be read as it is
FORMAT: Final = 1

# what a count may be, and characters of a value that an error looks at
MOST: Final = 10**12
LONGEST: Final = 100


@dataclass(frozen=True, slots=True)
class HeldOutFigures:
    """Of the pictures that show a label: mean negative log likelihood of it, or of the most similar
    one; expected calibration error in 15 bins; and the share where one that it shows is the best.
    """

    nll: float
    ece: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Answered:
    """What abstaining does to pictures: `risk` is the share of wrong ones among the answered.

    With 95 % confidence, or that asked for, it is `risk_at_most`. `coverage` counts pictures of the
    labels alone, `refused` is the share of the others that were not answered; None where there were
    none.
    """

    coverage: float
    risk: float
    risk_at_most: float
    refused: float | None


@dataclass(frozen=True, slots=True)
class F1:
    """F1 of labels scored alone, over all pairs and as a mean over labels: where 0.5 is the
    threshold of each, and where each has its own.
    """

    micro_before: float
    macro_before: float
    micro_after: float
    macro_after: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """`scale` (and `bias`) take the place of the model's own.

    An answer whose similarity is below `floor`, or whose lead over the second best is below
    `margin` (both cosines), is held back. Scored alone, a label begins to count where its cosine is
    `threshold` above the background's (for sigmoid-trained models: above 0), or what `thresholds`
    has for it; None: not fitted.

    `fingerprint` is the encoder's, `fitted_for` as `fitted_for` tells. `pictures` show labels,
    `others` none of them. `before` is measured, `after`, `held_out` and `f1` on pictures that were
    not used for what is measured. `conformal` are the bounds of conformal.py; (): not known.
    """

    model: str
    fingerprint: str
    fitted_for: str
    model_scale: float
    scale: float
    bias: float | None
    floor: float
    margin: float
    threshold: float | None
    thresholds: Mapping[str, float]
    pictures: int
    others: int
    risk: float
    confidence: float | None
    before: HeldOutFigures
    after: HeldOutFigures
    held_out: Answered
    f1: F1 | None = None
    conformal: tuple[float, ...] = ()

    @property
    def temperature(self) -> float:
        """What the model's own logits are divided by (Guo et al. 2017, arXiv 1706.04599)."""
        return self.model_scale / self.scale

    def json(self) -> dict[str, Any]:
        """Plain values; `from_json` is the reverse."""
        content = {"format": FORMAT, "temperature": self.temperature, **asdict(self)}
        if not self.conformal:  # the same bytes as before there were any
            del content["conformal"]
        return content

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Calibration":
        """The calibration of `json`, every number checked.

        Raises:
            ValueError: what is wrong, naming the field.
        """
        if content.get("format") != FORMAT:
            sent = shown(str(content.get("format"))[:LONGEST])
            raise ValueError(f"format is {sent}, this release reads {FORMAT}")
        read = _Reader(content)
        fields: dict[str, Any] = {}
        for name in ("model", "fingerprint", "fitted_for"):
            fields[name] = read.text(name)
        for name, (low, high) in _RANGES.items():
            fields[name] = read.number(name, low, high)
        for name in ("bias", "threshold", "confidence"):
            absent = content.get(name) is None
            fields[name] = None if absent else read.number(name, -1e6, 1e6)
        for name in ("pictures", "others"):
            fields[name] = read.count(name)
        own = content.get("thresholds")
        if not isinstance(own, Mapping):
            raise ValueError("thresholds is not an object")  # noqa: TRY004
        fields["thresholds"] = {
            str(k): _number(f"thresholds.{k}", v, -2, 2) for k, v in own.items()
        }
        for name, kind in (
            ("before", HeldOutFigures),
            ("after", HeldOutFigures),
            ("held_out", Answered),
        ):
            fields[name] = _nested(kind, name, content.get(name))
        f1, bounds = content.get("f1"), content.get("conformal", ())
        if not isinstance(bounds, list | tuple) or len(bounds) not in (0, len(PERCENTS)):
            raise ValueError(f"conformal is not a list of {len(PERCENTS)} numbers")
        return cls(
            **fields,
            f1=None if f1 is None else _nested(F1, "f1", f1),
            conformal=tuple(_number("conformal", bound, 0, 1) for bound in bounds),
        )


_RANGES: Final[Mapping[str, tuple[float, float]]] = {
    "model_scale": (1e-6, 1e6), "scale": (1e-6, 1e6), "floor": (-1, 1), "margin": (0, 2),
    "risk": (0, 1),
}  # fmt: skip


class _Reader:
    def __init__(self, content: Mapping[str, Any]) -> None:
        self._content = content

    def text(self, name: str) -> str:
        value = self._content.get(name)
        if not isinstance(value, str) or len(value) > 1_000:
            raise ValueError(f"{name} is not a text of up to 1000 characters")
        return value

    def number(self, name: str, low: float, high: float) -> float:
        return _number(name, self._content.get(name), low, high)

    def count(self, name: str) -> int:
        value = self._content.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MOST:
            raise ValueError(f"{name} is not a whole number from 0 to {MOST}")
        return value


def fitted_for(
    labels: Sequence[str], concepts: Sequence[Concept], examples: Sequence[str] = ()
) -> str:
    """A digest of what a label set's vectors are made of, the model apart.

    `concepts` are those of `labels`, in order; `examples` name the pictures that are part of them.
    """
    content = (list(labels), keys_of(concepts, ""), sorted(examples))
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _number(name: str, value: Any, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} is not a number")  # noqa: TRY004
    if not low <= value <= high:
        raise ValueError(f"{name} is {shown(str(value))}, it is from {low:g} to {high:g}")
    return float(value)


def _nested(kind: Any, name: str, content: Any) -> Any:
    if not isinstance(content, Mapping):
        raise ValueError(f"{name} is not an object")  # noqa: TRY004
    found = {}
    for field in kind.__dataclass_fields__:
        value = content.get(field)
        missing = value is None and field == "refused"
        found[field] = None if missing else _number(f"{name}.{field}", value, 0, 1e6)
    return kind(**found)
