"""A search for templates as a section of a report: what was chosen, and what it is worth.

Computes nothing.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from app.evaluation.figures import number
from app.evaluation.report.html import (
    Cell,
    Column,
    esc,
    how,
    many,
    paragraph,
    percent,
    plain_table,
    points,
    table,
    with_numbers,
)
from app.evaluation.report.trials import FIGURE_NAMES, method_of, power, trials_json
from app.evaluation.template_search import CHOSEN, Search
from app.evaluation.trials import Difference, Verdict


@dataclass(frozen=True, slots=True)
class SearchSection:
    """Templates that were chosen on one half of the pictures, and judged on the other."""

    search: Search

    key = "template_search"
    title = "Search for templates"

    def labelset_json(self) -> str:
        """The fields for PUT /labelsets/{name}, besides its labels."""
        return json.dumps({"templates": list(self.search.templates)}, ensure_ascii=False)

    def file_text(self) -> str:
        """One template a line."""
        return "".join(f"{template}\n" for template in self.search.templates)

    def words(self) -> list[str]:
        """What to do first, then how it was found."""
        search = self.search
        chosen, before = search.report.to_reference[0], search.search.to_reference[0]
        figure = FIGURE_NAMES[search.report.compared_by]
        own, base = (search.report.figures[search.report.compared_by][name].value
                     for name in (CHOSEN, search.default))  # fmt: skip
        return [
            _advice(search, chosen),
            f"On the {many(search.report.pictures, 'picture')} that the search never saw, they "
            f"reach {percent(own)} {figure}, {search.default} {percent(base)}: "
            f"{points(chosen.lead.value)} points (95 % interval {points(chosen.lead.low)} to "
            f"{points(chosen.lead.high)}).",
            f"On the {many(search.search.pictures, 'picture')} that chose them, the lead is "
            f"{points(before.lead.value)} points. {_overfitting(before, chosen)}",
            f"{many(search.candidates, 'template')} were tried, one added at a time; of the sets "
            "on the way, the smallest that is within one standard error of the best was kept. Each "
            f"class was cut in half, seed {search.seed}.",
            method_of(search.report),
            power([chosen], search.report.pictures),
        ]

    def json(self) -> Mapping[str, Any]:
        """The chosen templates, the way there, both halves."""
        search = self.search
        return {
            "templates": list(search.templates),
            "steps": [
                {"template": step.template, "value": number(step.figure), "kept": step.kept}
                for step in search.steps
            ],
            "candidates": search.candidates,
            "default": search.default,
            "search": trials_json(search.search),
            "report": trials_json(search.report),
            "seed": search.seed,
            "words": self.words(),
        }

    def html(self) -> str:
        """The verdict, both halves, the way there, and the templates to copy."""
        advice, *rest = self.words()
        halves = table("The lead on both halves", with_numbers(self._head()), self._rows())
        steps = table(
            f"The search, on its half: {FIGURE_NAMES[self.search.report.compared_by]} with each "
            "template added",
            [Column("template"), Column("with it", number=True), Column("kept")],
            [
                [step.template, percent(step.figure), "yes" if step.kept else "no"]
                for step in self.search.steps
            ],
        )
        return (
            f'<p class="note{self._tone()}">{esc(advice)}</p>'
            + "<p>For <code>PUT /labelsets/NAME</code>, beside its labels:</p>"
            + f"<p><code>{esc(self.labelset_json())}</code></p>"
            + halves
            + "".join(paragraph(line) for line in rest[:2])
            + steps
            + how(*rest[2:])
        )

    def table(self) -> RenderableType:
        """Both halves, the verdict, and the templates to copy."""
        grid = plain_table(self._head(), self._rows())
        words = [Text(line) for line in self.words()]
        copied = (Text(f"  {template}") for template in self.search.templates)
        return Group(grid, *words, Text("The templates:"), *copied)

    def _head(self) -> list[str]:
        return ["half", "pictures", "chosen", "default", "lead", "95 %"]

    def _rows(self) -> list[list[Cell]]:
        rows: list[list[Cell]] = []
        for name, half in (("searched", self.search.search), ("reported", self.search.report)):
            figures, lead = half.figures[half.compared_by], half.to_reference[0].lead
            rows.append(
                [
                    name, half.pictures, percent(figures[CHOSEN].value),
                    percent(figures[self.search.default].value), points(lead.value),
                    f"{points(lead.low)} to {points(lead.high)}",
                ]
            )  # fmt: skip
        return rows

    def _tone(self) -> str:
        tones = {Verdict.BETTER: " good", Verdict.WORSE: " bad"}
        return tones.get(self.search.report.to_reference[0].verdict, "")


def _advice(search: Search, lead: Difference) -> str:
    many_templates = many(len(search.templates), "template")
    if lead.verdict is Verdict.BETTER:
        return (
            f"Use them: the {many_templates} found do better than {search.default} on new pictures."
        )
    if lead.verdict is Verdict.WORSE:
        return f"Keep {search.default}: the {many_templates} found are worse on new pictures."
    if lead.detectable >= 0.05:
        return (
            f"Too few pictures to tell: {search.report.pictures} show differences of "
            f"{points(lead.detectable).removeprefix('+')} points and more. Keep {search.default}, "
            "or come back with more."
        )
    return (
        f"Keep {search.default}: no difference from the {many_templates} found was seen on new "
        "pictures."
    )


def _overfitting(searched: Difference, reported: Difference) -> str:
    lost = searched.lead.value - reported.lead.value
    if lost <= 0:
        return "None of it was lost on new pictures."
    return f"{points(lost).removeprefix('+')} points of it did not carry over to new pictures."
