"""What a report advises, in sentences: good enough, what to mend, what to keep. Computes nothing.

Each piece of advice is a headline and a text, the most important first.
"""

from typing import Final

from app.evaluation.report.calibration import CalibrationSection
from app.evaluation.report.html import many, percent, span
from app.evaluation.report.result import Result
from app.evaluation.report.trials import TrialsSection
from app.evaluation.trials import Verdict

Advice = tuple[str, str]

# accuracies from which most would use the answers as they are, or with somebody who looks at them
GOOD: Final = 0.9
USABLE: Final = 0.7

# calibration errors and numbers of pictures from which calibrating is worth a try
MISCALIBRATED: Final = 0.05
ENOUGH: Final = 100

# labels and pictures that one sentence names
NAMED: Final = 3


def advice(result: Result) -> list[Advice]:
    """Recommendations that follow from the figures."""
    candidates = [_overall(result), _labels(result), _pairs(result), _pictures(result)]
    candidates += [_templates(result), _calibration(result)]
    return [candidate for candidate in candidates if candidate is not None]


def _overall(result: Result) -> Advice | None:
    top1 = result.figures.top1
    if top1 is None:
        return None
    low, high = top1.interval
    if high - low > 0.2:
        text = f"Accuracy lies somewhere within {span(low, high)}; more pictures narrow it."
        return f"{many(top1.count, 'picture')} are too few to judge.", text
    if low >= GOOD:
        return "Good enough to use as it is.", f"At worst, accuracy is about {percent(low, 0)}."
    if top1.value >= USABLE:
        text = "Let doubtful pictures be refused (--abstain), or have them checked."
        return "Usable with a second look.", text
    text = "Try a larger model, labels in other words, or a few examples of each class (--shots)."
    return "Not good enough yet.", text


def _labels(result: Result) -> Advice | None:
    """Classes that are seldom found, worst first."""
    table, labels = result.figures.classes, result.encoded.dataset.classes
    weak = [c for c in range(len(labels)) if table.count[c] >= 2 and table.recall[c] < USABLE]
    if not weak:
        return None
    weak.sort(key=lambda c: float(table.recall[c]))
    names = ", ".join(
        f"“{labels[c]}” ({int(table.right[c])} of {int(table.count[c])} found)"
        for c in weak[:NAMED]
    )
    more = f", and {len(weak) - NAMED} more" if len(weak) > NAMED else ""
    text = f"{names}{more}. Other words, synonyms or examples of these help most."
    return "Labels to improve:", text


def _pairs(result: Result) -> Advice | None:
    labels = result.encoded.dataset.classes
    often = [pair for pair in result.figures.confused if pair.count >= 2][:NAMED]
    if not often:
        return None
    names = "; ".join(
        f"“{labels[pair.truth]}” is taken for “{labels[pair.predicted]}” ({pair.count} times)"
        for pair in often
    )
    return "Most confused:", f"{names}. Say in the labels what tells them apart, or merge them."


def _pictures(result: Result) -> Advice | None:
    conflicts = len(result.conflicts)
    # sure of another label, and the own one out of the question: often it is labelled wrongly
    odd = [
        mistake
        for mistake in result.mistakes
        if mistake.mistake.score > 0.9 and mistake.mistake.own < 0.02
    ]
    parts = []
    if conflicts:
        parts.append(f"{many(conflicts, 'picture')} labelled in two ways")
    if odd:
        parts.append(f"{many(len(odd), 'picture')} whose label looks wrong (Worst mistakes)")
    return ("Pictures to check:", f"{' and '.join(parts)}.") if parts else None


def _templates(result: Result) -> Advice | None:
    section = next((one for one in result.sections if isinstance(one, TrialsSection)), None)
    if section is None:
        return None
    trials = section.trials
    # the best of those that are better for certain, which need not be the best of all
    lead = next((one for one in trials.to_reference if one.verdict is Verdict.BETTER), None)
    if lead is not None:
        return f"Use the templates {lead.name}.", f"They are better than {trials.reference}."
    text = "No other set is better beyond doubt on these pictures."
    return f"Keep the templates {trials.reference}.", text


def _calibration(result: Result) -> Advice | None:
    section = next((one for one in result.sections if isinstance(one, CalibrationSection)), None)
    error, count = result.figures.calibration.error, len(result.encoded.rows)
    if section is not None:
        return _fitted(section, count)
    if error < MISCALIBRATED:
        return "Calibration is not needed.", f"Scores are off by {percent(error)} on average."
    if count < ENOUGH:
        text = f"Scores are off by {percent(error)} on average, but it takes {ENOUGH} pictures."
        return "Calibration would need more pictures.", text
    text = f"Scores are off by {percent(error)} on average; --calibrate mends that."
    return "Calibration is worth it.", text


def _fitted(section: CalibrationSection, count: int) -> Advice:
    """What to do with a calibration that was fitted to `count` pictures."""
    before, after = section.fitted.before.error, section.fitted.after.error
    text = (
        f"It takes the calibration error from {percent(before)} to {percent(after)} on held-out "
        "pictures."
    )
    if section.worse:
        return "Do not use this calibration.", f"{section.worse}."
    if after >= before:
        return "The calibration does not make scores truer.", f"{text} Its limits may help."
    if count < ENOUGH:
        return "The calibration may help.", f"{text} {count} are few; {ENOUGH} would tell."
    return "Use the calibration.", text
