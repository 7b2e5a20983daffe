"""A calibration as a section of a report: words, tables, plots, and the file that stores it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from rich.console import Group, RenderableType
from rich.text import Text

from app.cli.output import figures_table
from app.evaluation.data import ClassRows, Encoded
from app.evaluation.report.html import Column, figure, legend, paragraph, percent, table
from app.evaluation.report.plots import Plot, reliability, shares
from app.labelsets.calibration.abstention import Curve
from app.labelsets.calibration.fit import Aim, Fitted, Labelled, Model, fit
from app.labelsets.calibration.value import Calibration

# pictures from which a calibration can be told from chance
MANY: Final = 200

# rise of the calibration error that is more than noise
NOTICEABLE: Final = 0.005

# points of the curve that report.json has
POINTS: Final = 200


@dataclass(frozen=True, slots=True)
class CalibrationSection:
    """What was fitted, for whom it is and what it was to reach."""

    fitted: Fitted
    aim: Aim
    model_scale: float

    key = "calibration"
    title = "Calibration and abstention"

    @property
    def worse(self) -> str:
        """Why the calibration should not be used; empty if it should, or if there is none."""
        outcome, fitted = self.fitted, self.fitted.calibration
        before, after = outcome.before.error, outcome.after.error
        count = int(outcome.before.count.sum()) if fitted is None else fitted.pictures
        reasons = []
        if after > before + NOTICEABLE:
            reasons.append(
                f"the calibration error of held-out pictures rises from {percent(before)} to "
                f"{percent(after)}"
            )
        # with many pictures it is the sample that is a little over, not the choice
        if fitted is not None and count < MANY and fitted.held_out.risk > self.aim.risk:
            wrong, wanted_risk = percent(fitted.held_out.risk), percent(self.aim.risk)
            reasons.append(
                f"{wrong} of the held-out answers are wrong where {wanted_risk} were wanted"
            )
        if not reasons:
            return ""
        need = max(MANY, 2 * count)
        return f"{' and '.join(reasons)}: {count} pictures are too few, about {need} are needed"

    def words(self) -> list[str]:
        """What came out, in sentences."""
        fitted, before, after = self.fitted, self.fitted.before, self.fitted.after
        sentences = [
            f"Temperature {self.model_scale / fitted.scale:.3g}: expected calibration error "
            f"{percent(before.error)} before, {percent(after.error)} after, on pictures that it "
            f"was not fitted to; negative log likelihood {fitted.nll[0]:.3f} and "
            f"{fitted.nll[1]:.3f}."
        ]
        if fitted.calibration is None:
            return [*sentences, f"Abstention: {fitted.why}."]
        return [*sentences, *_abstention(fitted.calibration), *_thresholds(fitted.calibration)]

    def json(self) -> Mapping[str, Any]:
        """The calibration as it is stored, the curve, reliability before and after."""
        fitted = self.fitted
        return {
            "calibration": fitted.calibration and fitted.calibration.json(),
            "why_not": fitted.why,
            "worse": self.worse,
            "aim": asdict(self.aim),
            "temperature": self.model_scale / fitted.scale,
            "nll": {"before": fitted.nll[0], "after": fitted.nll[1]},
            "ece": {"before": fitted.before.error, "after": fitted.after.error},
            "risk_coverage": {"area": fitted.curve.area, "points": _points(fitted.curve)},
            "words": self.words(),
        }

    def file_text(self) -> str | None:
        """What PUT /labelsets/{name}/calibration takes; None where there is nothing to store."""
        calibration = self.fitted.calibration
        return (
            None
            if calibration is None
            else json.dumps(calibration.json(), indent=1, ensure_ascii=False)
        )

    def html(self) -> str:
        """Words, the table of figures, reliability before and after, the curve."""
        fitted = self.fitted
        words = "".join(paragraph(line) for line in self.words())
        rows = table(
            "Before and after",
            [Column("figure"), Column("before", number=True), Column("after", number=True)],
            self._rows(),
        )
        return (
            words + rows
            + '<div class="pair">'
            + figure(reliability(fitted.before), "Reliability before, at the model's temperature.")
            + figure(reliability(fitted.after), "Reliability after, on pictures held out.")
            + "</div>"
            + (
                figure(self._curve(), "What answering only the surest pictures would risk.")
                if float(fitted.curve.risk.max())
                else paragraph("No answer was wrong, so abstaining would save nothing.")
            )
        )  # fmt: skip

    def table(self) -> RenderableType:
        """The same figures, and the words below."""
        grid = figures_table("", "before", "after")
        for row in self._rows():
            grid.add_row(*row)
        return Group(grid, *(Text(line) for line in self.words()))

    def _rows(self) -> list[Sequence[str]]:
        outcome = self.fitted
        rows: list[Sequence[str]] = [
            ("temperature", "1", f"{self.model_scale / outcome.scale:.3g}"),
            ("calibration error", percent(outcome.before.error), percent(outcome.after.error)),
            ("negative log likelihood", *(f"{loss:.3f}" for loss in outcome.nll)),
        ]
        fitted = outcome.calibration
        if fitted is None:
            return rows
        held = fitted.held_out
        rows += [
            ("pictures answered", percent(1.0), percent(held.coverage)),
            ("wrong among the answers", percent(_all(outcome.curve)), percent(held.risk)),
        ]
        if held.refused is not None:
            rows.append(("pictures of others refused", percent(0.0), percent(held.refused)))
        if fitted.f1 is not None:
            f1 = fitted.f1
            rows.append(("F1 alone, micro", percent(f1.micro_before), percent(f1.micro_after)))
            rows.append(("F1 alone, macro", percent(f1.macro_before), percent(f1.macro_after)))
        return rows

    def _curve(self) -> str:
        curve, fitted = self.fitted.curve, self.fitted.calibration
        high = max(0.05, self.aim.risk, float(curve.risk.max()))
        plot = Plot(shares("answered, % of all pictures"), shares("wrong, %", 0, high), 560, 330)
        plot.line([(point["coverage"], point["risk"]) for point in _points(curve)], "s1")
        plot.level(self.aim.risk, "ideal", f"wanted: {percent(self.aim.risk)}")
        keys = [("s1", "risk of the surest"), ("ideal", "wanted")]
        if fitted is not None:
            plot.dots([_chosen(fitted)], "s2", lambda _: "chosen; measured on held-out pictures")
            keys.append(("s2", "chosen, held out"))
        return plot.svg(f"Risk and coverage; area {curve.area:.4f}") + legend(keys)


def calibrate(
    encoded: Encoded, classes: ClassRows, fitted_for: str, *, aim: Aim, seed: int = 0
) -> CalibrationSection:
    """Fit to an evaluation's pictures. Raises NotEnough."""
    info = encoded.info
    background = None if classes.background is None else encoded.rows @ classes.background
    dataset = encoded.dataset
    data = Labelled(dataset.classes, classes.cosines(encoded.rows), dataset.truth, background)
    model = Model(info.name, info.fingerprint, info.scale, info.bias)
    return CalibrationSection(fit(data, model, fitted_for, aim, seed), aim, info.scale)


def _abstention(calibration: Calibration) -> list[str]:
    held = calibration.held_out
    sure = calibration.confidence or 0.95
    line = (
        f"Abstaining below similarity {calibration.floor:.4f} or lead {calibration.margin:.4f}: "
        f"{percent(held.coverage)} of the pictures of these labels are answered, "
        f"{percent(held.risk)} of the answers are wrong (with {percent(sure, 0)} confidence at "
        f"most {percent(held.risk_at_most)}); wanted were {percent(calibration.risk)}."
    )
    if held.refused is None:
        more = "No picture showed something else: the floor keeps 98 % of the right answers."
    else:
        refused = percent(held.refused)
        more = f"Of {calibration.others} pictures of something else {refused} are refused."
    return [line, more]


def _thresholds(calibration: Calibration) -> list[str]:
    if calibration.f1 is None:
        return []
    f1 = calibration.f1
    return [
        f"Labels scored alone, each with its own threshold: F1 {percent(f1.micro_after)} over all "
        f"(before {percent(f1.micro_before)}), {percent(f1.macro_after)} as a mean of the labels "
        f"(before {percent(f1.macro_before)}), on pictures held out."
    ]


def _points(curve: Curve) -> list[dict[str, float]]:
    places = np.unique(np.linspace(0, len(curve.risk) - 1, POINTS).astype(int))
    return [{"coverage": float(curve.coverage[at]), "risk": float(curve.risk[at])} for at in places]


def _all(curve: Curve) -> float:
    return float(curve.risk[-1])


def _chosen(calibration: Calibration) -> tuple[float, float]:
    """Coverage of all pictures and risk, as the curve has them."""
    held = calibration.held_out
    inside = held.coverage * calibration.pictures
    outside = 0.0 if held.refused is None else (1 - held.refused) * calibration.others
    return (inside + outside) / (calibration.pictures + calibration.others), held.risk
