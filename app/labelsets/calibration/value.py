"""What was learned of a label set from labelled pictures, as a value and as JSON.

Knows neither how it is fitted nor how it is used.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Final

from pydantic import Field, TypeAdapter, ValidationError

from app.classify.concept import Concept, keys_of
from app.errors import shown
from app.labelsets.calibration.conformal import PERCENTS

# raised when JSON written so far can no longer be read as it is
FORMAT: Final = 1

# characters of a value that an error looks at
LONGEST: Final = 100


Number = Annotated[float, Field(strict=True, ge=-1e6, le=1e6)]
Figure = Annotated[float, Field(strict=True, ge=0, le=1e6)]
Share = Annotated[float, Field(strict=True, ge=0, le=1)]
Scale = Annotated[float, Field(strict=True, ge=1e-6, le=1e6)]
Count = Annotated[int, Field(strict=True, ge=0, le=10**12)]
Text = Annotated[str, Field(strict=True, max_length=1_000)]


@dataclass(frozen=True, slots=True)
class HeldOutFigures:
    """Of the pictures that show a label: mean negative log likelihood of it, or of the most similar
    one; expected calibration error in 15 bins; and the share where one that it shows is the best.
    """

    nll: Figure
    ece: Figure
    accuracy: Figure


@dataclass(frozen=True, slots=True)
class Answered:
    """What abstaining does to pictures: `risk` is the share of wrong ones among the answered.

    With 95 % confidence, or that asked for, it is `risk_at_most`. `coverage` counts pictures of the
    labels alone, `refused` is the share of the others that were not answered; None where there were
    none.
    """

    coverage: Figure
    risk: Figure
    risk_at_most: Figure
    refused: Figure | None


@dataclass(frozen=True, slots=True)
class F1:
    """F1 of labels scored alone, over all pairs and as a mean over labels: where 0.5 is the
    threshold of each, and where each has its own.
    """

    micro_before: Figure
    macro_before: Figure
    micro_after: Figure
    macro_after: Figure


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

    model: Text
    fingerprint: Text
    fitted_for: Text
    model_scale: Scale
    scale: Scale
    bias: Number | None
    floor: Annotated[float, Field(strict=True, ge=-1, le=1)]
    margin: Annotated[float, Field(strict=True, ge=0, le=2)]
    threshold: Number | None
    thresholds: Mapping[str, Annotated[float, Field(strict=True, ge=-2, le=2)]]
    pictures: Count
    others: Count
    risk: Share
    confidence: Number | None
    before: HeldOutFigures
    after: HeldOutFigures
    held_out: Answered
    f1: F1 | None = None
    conformal: tuple[Share, ...] = ()

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
            quoted = shown(str(content.get("format"))[:LONGEST])
            raise ValueError(f"format is {quoted}, this release reads {FORMAT}")
        # what an older release wrote may lack these
        optional = {name: content.get(name) for name in ("bias", "threshold", "confidence")}
        try:
            read = _ADAPTER.validate_python({**content, **optional})
        except ValidationError as errors:
            (error, *_) = errors.errors(include_url=False)
            place, why = ".".join(map(str, error["loc"])), error["msg"]
            raise ValueError(f"{place}: {why[0].lower()}{why[1:]}") from None
        if len(read.conformal) not in (0, len(PERCENTS)):
            raise ValueError(f"conformal: a list of {len(PERCENTS)} numbers is needed")
        return read


_ADAPTER: Final = TypeAdapter(Calibration)


def fitted_for(
    labels: Sequence[str], concepts: Sequence[Concept], examples: Sequence[str] = ()
) -> str:
    """A digest of what a label set's vectors are made of, the model apart.

    `concepts` are those of `labels`, in order; `examples` name the pictures that are part of them.
    """
    content = (list(labels), keys_of(concepts, ""), sorted(examples))
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
