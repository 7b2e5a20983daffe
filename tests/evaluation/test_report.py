"""The report as a browser shows it: complete, quiet, for everyone, whatever things are called."""

import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright
from rich.console import Console

from app.arrays import Truth
from app.evaluation.data import ClassRows, Dataset, Encoded, ModelInfo, Unread
from app.evaluation.figures import Share, figures_of, mistakes, scores_of
from app.evaluation.report import plots
from app.evaluation.report.advice import advice
from app.evaluation.report.calibration import calibrate
from app.evaluation.report.files import show, thumbnail, write
from app.evaluation.report.html import esc
from app.evaluation.report.plots import NAMED
from app.evaluation.report.result import Picture, Result, data_digest
from app.evaluation.report.trials import TrialsSection
from app.evaluation.trials import TOP1, Difference, Estimate, Trials
from app.images.limits import ImageLimits
from app.labelsets.calibration.fit import Aim
from app.labelsets.calibration.reliability import reliability

STANDARDS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
INFO = ModelInfo("tiny", "f" * 16, "fp32", "cpu", "torch", 30.0, None, 16, "simple")
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "\N{RIGHT-TO-LEFT OVERRIDE}dog & 'cat'",
    "</title></style>" + "long " * 30,
)


class Section:
    """What another module adds."""

    key, title = "more_of_it", "More & more"

    def json(self) -> dict[str, int]:
        return {"answer": 42}

    def html(self) -> str:
        return "<p>More of it.</p>"

    def table(self) -> str:
        return "more"


def small(file: Path) -> str | None:
    return thumbnail(file, ImageLimits(), heic=False)


def result_of(folder: Path, names: tuple[str, ...], *, multi_label: bool = False) -> Result:
    """A result with these classes, two picture files of each, and vectors that know a little."""
    rng = np.random.default_rng(3)
    classes, count = len(names), 2 * len(names)
    files = []
    for number in range(count):
        # a slash is all that a file name cannot hold
        file = folder / f"{number}{names[number // 2].replace('/', '')[:60]}.png"
        Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8)).save(file)
        files.append(file)
    truth = np.repeat(np.eye(classes, dtype=bool), 2, axis=0)
    text = rng.normal(size=(classes, 16))
    rows = text[truth.argmax(axis=1)] + rng.normal(size=(count, 16)) * 3
    units = [(m / np.linalg.norm(m, axis=1, keepdims=True)).astype("f4") for m in (rows, text)]
    if multi_label:
        truth[0] = True
    dataset = Dataset(names, tuple(files), truth, multi_label)
    unread = (Unread(folder / "<b>gone</b>.png", "it is <i>gone</i>"),)
    encoded = Encoded(dataset, units[0], unread, INFO)
    background = np.full(16, 0.25, np.float32)
    scores = scores_of(units[0], ClassRows(units[1], background), INFO, multi_label=multi_label)
    figures = figures_of(truth, scores, multi_label=multi_label)
    return Result(
        version="1", when=datetime(2026, 1, 2, tzinfo=UTC), command="openvocab eval '<x>'",
        source="<my pictures>", data=data_digest(encoded, [str(n) for n in range(count)]),
        encoded=encoded, names=[file.name for file in files], template_set="simple",
        templates=("a {}.",), scores=scores, figures=figures,
        mistakes=[
            Picture(m, files[m.picture].name, small(files[m.picture]))
            for m in mistakes(truth, figures, scores, 8)
        ],
        conflicts=[(1, 2)], copies={0: ["again.png"]}, notes=["<u>note</u>"], sections=[Section()],
    )  # fmt: skip


def test_the_digest_of_the_data_is_the_same_in_any_order(tmp_path: Path) -> None:
    pictures = ("a", "b", "c")
    truth = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 1]], bool)

    def digest(order: list[int], classes: list[int], truth: Truth = truth) -> str:
        names = tuple(("dog", "cat", "bird")[place] for place in classes)
        files = tuple(tmp_path / str(place) for place in order)
        dataset = Dataset(names, files, truth[np.ix_(order, classes)], multi_label=True)
        encoded = Encoded(dataset, np.eye(3, 16, dtype=np.float32), (), INFO)
        return data_digest(encoded, [pictures[place] for place in order])

    first = digest([0, 1, 2], [0, 1, 2])
    assert digest([2, 0, 1], [1, 2, 0]) == first
    assert digest([0, 1, 2], [0, 1, 2], truth[[1, 0, 2]]) != first


PATIENCE = 240_000  # milliseconds, on a machine that is busy with other things


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, timeout=PATIENCE)
        yield browser
        browser.close()


def opened(browser: Browser, file: Path, **options: object) -> tuple[Page, list[str]]:
    """The page from its file, and what it asked for or complained of."""
    context = browser.new_context(**options)  # type: ignore[arg-type]
    context.set_default_timeout(PATIENCE)
    page, odd = context.new_page(), []
    page.on("console", lambda message: odd.append(message.text))
    page.on("pageerror", lambda error: odd.append(str(error)))
    page.on("dialog", lambda dialog: odd.append("dialog"))
    allowed = ("data:image/jpeg", "data:image/png", file.as_uri())
    page.on("request", lambda r: None if r.url.startswith(allowed) else odd.append(r.url))
    page.goto(file.as_uri())
    return page, odd


def test_names_do_nothing_and_nothing_is_asked_for(browser: Browser, tmp_path: Path) -> None:
    result = result_of(tmp_path, HOSTILE)
    write(result, tmp_path / "out")
    page, odd = opened(browser, tmp_path / "out/report.html")
    names_shown = page.locator("#classes tbody th").all_text_contents()
    # what turns the writing direction stands for itself nowhere
    expected = [
        name.replace("\N{RIGHT-TO-LEFT OVERRIDE}", "\N{REPLACEMENT CHARACTER}") for name in HOSTILE
    ]
    assert sorted(names_shown) == sorted(expected)
    assert page.title() == "<my pictures>: evaluation"
    assert page.locator("script").count() == 1
    assert page.locator("img").count() == len(result.mistakes) > 0
    widths = page.evaluate(
        """() => Promise.all([...document.images].map(image => {
            image.loading = "eager";
            return image.decode().then(() => image.naturalWidth);
        }))"""
    )
    assert widths == [256] * len(result.mistakes)
    assert page.get_by_role("heading", name="More & more").count() == 1
    assert "it is <i>gone</i>" in page.locator("#data").text_content()
    assert odd == []
    document = json.loads((tmp_path / "out/report.json").read_text(encoding="utf-8"))
    assert sorted(entry["label"] for entry in document["classes"]) == sorted(HOSTILE)
    assert document["sections"] == {"more_of_it": {"answer": 42}}
    # the lock behind the escaping holds by itself
    text = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    broken = tmp_path / "broken.html"
    broken.write_text(text.replace(esc(HOSTILE[0]), HOSTILE[0]), encoding="utf-8")
    _, odd = opened(browser, broken)
    assert "dialog" not in odd
    assert any("Content Security Policy" in line for line in odd)


@pytest.mark.parametrize(
    ("scheme", "kind"), [("light", "few"), ("dark", "many"), ("dark", "several")]
)
def test_axe_finds_nothing_and_a_phone_needs_no_scrolling_aside_for_words_of_any_size(
    browser: Browser, tmp_path: Path, scheme: str, kind: str
) -> None:
    count = NAMED + 8 if kind == "many" else 6
    names = tuple(f"class number {n}" for n in range(count))
    write(result_of(tmp_path, names, multi_label=kind == "several"), tmp_path / "out")
    file = tmp_path / "out/report.html"
    options = {"color_scheme": scheme, "bypass_csp": True}
    page, odd = opened(browser, file, viewport={"width": 360, "height": 740}, **options)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    violations = Axe().run(page, options={"resultTypes": ["violations"], "runOnly": STANDARDS})
    assert violations.violations_count == 0, violations.generate_report()
    assert odd == []
    reader = page.context.new_cdp_session(page)
    reader.send("Page.setFontSizes", {"fontSizes": {"standard": 32, "fixed": 26}})
    expect(page.locator("body")).to_have_css("font-size", "31px")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    reader.send("Page.setFontSizes", {"fontSizes": {"standard": 16, "fixed": 13}})
    # the other order of the matrix, with the keyboard; there is none for several labels
    radio = page.locator("#order-1, #whole-1")
    assert radio.count() == (0 if kind == "several" else 1)
    if radio.count():
        radio.focus()
        page.keyboard.press("ArrowRight")
        assert page.locator(".pane-2").is_visible()
        assert not page.locator(".pane-1").is_visible()


def test_the_table_of_classes_is_sorted_by_numbers_not_by_their_digits(
    browser: Browser, tmp_path: Path
) -> None:
    result = result_of(tmp_path, tuple(f"c{n}" for n in range(12)))
    table = result.figures.classes
    counts = np.arange(12) * 9 + 2
    result = replace(result, figures=replace(result.figures, classes=replace(table, count=counts)))
    write(result, tmp_path / "out")
    page, odd = opened(browser, tmp_path / "out/report.html")
    page.get_by_role("button", name="pictures").click()
    head = page.locator("#classes thead th").nth(1)
    assert head.get_attribute("aria-sort") == "ascending"
    cells = page.locator("#classes tbody td:nth-child(2)").all_text_contents()
    assert [int(cell) for cell in cells] == counts.tolist()
    page.get_by_role("button", name="class").first.click()
    assert page.locator("#classes tbody th").first.text_content() == "c0"
    assert odd == []


def test_the_page_opens_with_what_to_do_next(tmp_path: Path) -> None:
    result = result_of(tmp_path, tuple(f"class {n}" for n in range(12)))
    write(result, tmp_path / "out")
    text = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert text.index("What to do next") < text.index('<nav aria-label="Sections">')
    advice_texts = dict(advice(result))
    assert "24 pictures are too few to judge." in advice_texts
    assert "1 picture labelled in two ways" in advice_texts["Pictures to check:"]
    top1 = replace(result.figures, top1=Share(970, 1_000))
    assert "Good enough to use as it is." in dict(advice(replace(result, figures=top1)))
    top1 = replace(result.figures, top1=Share(300, 1_000))
    assert "Not good enough yet." in dict(advice(replace(result, figures=top1)))


def test_a_picture_with_two_labels_is_shown_with_both(tmp_path: Path) -> None:
    result = result_of(tmp_path, ("cat", "dog", "pizza"))
    picture = small(result.encoded.dataset.files[1])
    assert picture is not None
    write(replace(result, previews={1: picture}), tmp_path / "out")
    text = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    section = text[text.index('id="conflicts"') :].partition("</section>")[0]
    assert picture in section
    assert "cat" in section
    assert "dog" in section


def contrast(one: Sequence[float], other: Sequence[float]) -> float:
    """WCAG 2.2, of red, green and blue of 0 to 255."""
    luminances = []
    for colour in (one, other):
        parts = [c / 255 for c in colour]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        luminances.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    low, high = sorted(luminances)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_numbers_of_the_confusion_matrix_can_be_read(
    browser: Browser, tmp_path: Path, scheme: str
) -> None:
    result = result_of(tmp_path, tuple(f"class {n}" for n in range(8)))
    matrix = np.random.default_rng(0).integers(1, 30, (8, 8)) ** 2
    write(replace(result, figures=replace(result.figures, matrix=matrix)), tmp_path / "out")
    page, _ = opened(browser, tmp_path / "out/report.html", color_scheme=scheme)
    cells = page.evaluate(
        """() => {
            const colour = element => getComputedStyle(element).fill.match(/[0-9.]+/g).map(Number);
            const ground = colour(document.querySelector(".matrix .ground"));
            return [...document.querySelectorAll(".pane-1 .matrix g")].map(cell => [
                ground, colour(cell.querySelector("rect")),
                Number(cell.querySelector("rect").getAttribute("fill-opacity")),
                colour(cell.querySelector("text")),
            ]);
        }"""
    )
    assert len(cells) == 64
    for ground, cell, opacity, ink in cells:
        mixed = [opacity * c + (1 - opacity) * g for c, g in zip(cell, ground, strict=True)]
        assert contrast(mixed, ink) >= 4.5


def test_paper_shows_what_is_folded_on_the_screen(browser: Browser, tmp_path: Path) -> None:
    write(result_of(tmp_path, ("cat", "dog", "pizza")), tmp_path / "out")
    page, odd = opened(browser, tmp_path / "out/report.html")
    count = "document.querySelectorAll('details:not([open])').length"
    folded = page.evaluate(count)
    assert folded > 0
    page.evaluate(f"addEventListener('beforeprint', () => {{ window.printed = {count}; }})")
    page.pdf()
    assert page.evaluate("window.printed") == 0
    page.wait_for_function(f"{count} === {folded}")
    assert odd == []


def test_a_mistake_is_shown_with_the_folders_that_it_lies_in(tmp_path: Path) -> None:
    result = result_of(tmp_path, ("cat", "dog", "pizza"))
    first = replace(result.mistakes[0], name="set/cat/001.png")
    write(replace(result, mistakes=[first]), tmp_path / "out")
    text = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert ">set/cat/001.png</p>" in text


@pytest.mark.parametrize(("count", "shown"), [(5, False), (6, True)])
def test_top_5_is_shown_where_it_says_something(tmp_path: Path, count: int, shown: bool) -> None:
    result = result_of(tmp_path, tuple(f"class {n}" for n in range(count)))
    console = Console(width=80, record=True, file=io.StringIO())
    show(result, console)
    assert ("top-5" in console.export_text()) is shown
    write(result, tmp_path / "out")
    assert ("top-5" in (tmp_path / "out/report.html").read_text(encoding="utf-8")) is shown
    assert "top5" in result.json()["figures"]


def test_a_mistake_has_two_more_candidates(tmp_path: Path) -> None:
    result = result_of(tmp_path, tuple(f"class {n}" for n in range(6)))
    write(result, tmp_path / "out")
    text = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    section = text[text.index('id="mistakes"') :].partition("</section>")[0]
    assert section.count("<dt>also</dt>") == 2 * len(result.mistakes) > 0


def test_a_calibration_that_makes_held_out_figures_worse_says_how_many_pictures_it_needs(
    tmp_path: Path,
) -> None:
    result = result_of(tmp_path, tuple(f"class {n}" for n in range(30)))
    rng = np.random.default_rng(1)
    text = rng.normal(size=(30, 16)).astype("f4")
    rows = ClassRows(text / np.linalg.norm(text, axis=1, keepdims=True), np.zeros(16, np.float32))
    section = calibrate(result.encoded, rows, "stamp", aim=Aim(0.99))
    sure = np.full(10, 0.9)
    good, bad = reliability(sure, np.arange(10) < 9), reliability(sure, np.arange(10) < 3)
    better = replace(section, fitted=replace(section.fitted, before=bad, after=good))
    worse = replace(section, fitted=replace(section.fitted, before=good, after=bad))
    assert better.worse == ""
    assert "rises from 0.0 % to 60.0 %" in worse.worse.replace("\N{NO-BREAK SPACE}", " ")
    assert "about 200 are needed" in worse.worse
    advice_texts = dict(advice(replace(result, sections=[worse])))
    assert worse.worse in advice_texts["Do not use this calibration."]
    # as good as before is no reason to say that it helps
    unchanged = replace(section, fitted=replace(section.fitted, before=good, after=good))
    assert unchanged.worse == ""
    assert "The calibration does not make scores truer." in dict(
        advice(replace(result, sections=[unchanged]))
    )


def test_the_templates_that_are_better_for_certain_are_advised_where_the_best_are_not(
    tmp_path: Path,
) -> None:
    def lead(name: str, value: float, low: float, p: float) -> Difference:
        estimate = Estimate(value, low, 2 * value - low)
        return Difference(name, "none", estimate, p, p, 2, 9, 3, 0.01, 100)

    own = {name: Estimate(0.5, 0.4, 0.6) for name in ("none", "loud", "quiet")}
    trials = Trials(
        100, 3, tuple(own), "none", "loud", {TOP1: own},
        (lead("loud", 0.03, -0.01, 0.2), lead("quiet", 0.02, 0.01, 0.01)), (), {TOP1: 10_000}, 0,
    )  # fmt: skip
    result = replace(result_of(tmp_path, ("cat", "dog")), sections=[TrialsSection(trials)])
    assert dict(advice(result))["Use the templates quiet."] == "They are better than none."
    unsure = replace(trials, to_reference=trials.to_reference[:1])
    result = replace(result, sections=[TrialsSection(unsure)])
    assert "Keep the templates none." in dict(advice(result))


def test_reliability_tells_scores_that_are_too_high_from_those_too_low() -> None:
    sure = np.repeat([0.95, 0.45], 20)
    right = np.arange(40) % 20 < np.repeat([10, 16], 20)
    drawing = plots.reliability(reliability(sure, right))
    # the bins of 45 % and of 95 %: 80 % and 50 % are right
    assert re.findall(r'<rect class="(over|under)"', drawing) == ["under", "over"]
