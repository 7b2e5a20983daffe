"""What a report says first: the result in a sentence, and its figures. Knows no page."""

from app.evaluation.report import Result
from app.evaluation.report_parts import esc, many, percent, span


def tiles(result: Result) -> str:
    """The figures that are asked for first."""
    found, classes = result.figures, result.figures.classes
    tops = [
        ("top-1", found.top1),
        (f"top-{min(5, len(classes.count))}", found.top5),
    ]
    shown = [
        (name, percent(s.value), f"95 %: {span(*s.interval)}") for name, s in tops if s is not None
    ]
    mean_ap = ("mAP", percent(classes.mean_average_precision), "mean average precision")
    per_class = "mean per class" if shown else "mean recall"
    rest = [
        (per_class, percent(classes.mean_recall), "each class weighs the same"),
        ("macro F1", percent(classes.macro_f1), "precision and recall"),
        (
            "calibration error",
            percent(found.calibration.error),
            f"claims {percent(found.calibration.mean_confidence, 0)}",
        ),
    ]
    shown = [*shown, rest[0], mean_ap, *rest[1:]] if shown else [mean_ap, *rest]
    items = "".join(
        f'<div{_first(place)}><dt>{esc(name)}</dt><dd class="value">{esc(value)}</dd>'
        f'<dd class="more">{esc(more)}</dd></div>'
        for place, (name, value, more) in enumerate(shown)
    )
    return f'<dl class="tiles">{items}</dl>'


def _first(place: int) -> str:
    return "" if place else ' class="first"'


def verdict(result: Result) -> str:
    """The result in a sentence or two."""
    found, data = result.figures, result.encoded.dataset
    if found.top1 is None:
        mean = percent(found.classes.mean_average_precision)
        return (
            f"Ranked by the score of a label, the pictures that show it come first with a mean "
            f"average precision of {mean} over {many(len(data.classes), 'label')}."
        )
    by_chance = 1 / len(data.classes)
    return (
        f"The right label of {len(data.classes):,} comes first for {found.top1.hits:,} of "
        f"{many(found.top1.count, 'picture')}: {percent(found.top1.value)}. For pictures drawn "
        f"like these the accuracy lies within {span(*found.top1.interval)}; guessing would reach "
        f"{percent(by_chance)}. {_sureness(result)}"
    )


def _sureness(result: Result) -> str:
    found = result.figures.calibration
    right = result.figures.top1
    if right is None or abs(found.mean_confidence - right.value) < 0.02:
        return "Its scores mean what they say, on average."
    kind = "surer" if found.mean_confidence > right.value else "less sure"
    gap = 100 * abs(found.mean_confidence - right.value)
    return f"It is {kind} than it should be, by {gap:.1f} points on average."
