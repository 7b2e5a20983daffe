"""What axe finds on the playground: nothing, in light and dark, whatever is open."""

from pathlib import Path

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.system.page.conftest import REFUSED, Open

STANDARDS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
NOTES = {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no picture"}


# takes nine tenths of the time, and depends on nothing but how an element and those around it look
CONTRAST = "color-contrast"

# leaves one element of each look and place: the last of those that are alike but for their words
ONE_OF_EACH = """() => {
    const kinds = new Map();
    for (const one of document.body.querySelectorAll("*")) {
        const { color, backgroundColor, fontSize, fontWeight, opacity } = getComputedStyle(one);
        kinds.set(one, [kinds.get(one.parentElement), one.tagName, one.getAttribute("class"), color,
            backgroundColor, fontSize, fontWeight, opacity].join());
    }
    const seen = new Set();
    for (const [one, kind] of [...kinds].reverse()) {  // the inner before the outer
        if (seen.has(kind) && !one.childElementCount) one.remove();
        seen.add(kind);
    }
    return [kinds.size, document.body.querySelectorAll("*").length];
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(open_page: Open, samples: dict[str, Path], scheme: str) -> None:
    visit = open_page(color_scheme=scheme, bypass_csp=True)
    visit.expected += [f"{REFUSED}422"]
    page = visit.page
    check(page)  # as it is found

    page.locator("#files").set_input_files(samples["cat"])
    page.locator("#show-heat").click()
    card = page.get_by_role("article", name="cat.png")
    expect(card.locator(".heat-box")).to_be_visible()
    page.locator("#files").set_input_files(
        {"name": "cut.png", "mimeType": "image/png", "buffer": samples["cat"].read_bytes()[:900]}
    )
    page.locator("#files").set_input_files(NOTES)
    expect(page.locator(".card .problem:not([hidden])")).to_be_visible()
    expect(page.locator("#image-error")).to_contain_text("notes.txt is not an image")
    for summary in ("#options summary", ".problem summary:visible"):
        page.locator(summary).click()
    card.get_by_role("button", name="Look at a part").click()
    for text in ("JSON", "About"):
        card.get_by_text(text, exact=True).click()
    card.get_by_role("button", name="Copy as curl").click()
    page.get_by_role("button", name="Save as label set").click()
    page.get_by_label("Add a label").fill("猫, cat, dog,")
    expect(card.locator(".notes li")).to_have_count(1)
    page.locator("#model summary").click()
    check(page)  # an answer, a problem, a warning, a heat map, and everything open

    page.keyboard.press("Escape")
    page.get_by_role("button", name="Clear", exact=True).click()
    page.get_by_label("Add a label").fill("cat,")
    expect(page.get_by_role("button", name="Score on its own")).to_be_visible()
    card.get_by_role("button", name="Remove").click()
    check(page)  # one word alone, and what was removed

    page.get_by_label("Add a label").fill("dog,")
    for name in ("dog", "pizza", "rocket"):
        page.get_by_role("button", name=f"Sample: {name}").click()
    expect(page.locator(".card[data-state=done]")).to_have_count(3)
    page.get_by_text("Group by answer").click()
    page.locator(".tile").first.click()
    check(page)  # a grid of tiles, one of them open

    page.get_by_label("Min. score").fill("7")
    expect(page.locator("#threshold-error")).not_to_be_empty()
    page.locator(".segments label", has_text="Label set").click()
    expect(page.locator("#sets-state")).not_to_be_empty()
    page.get_by_text("Shipped vocabularies").first.click()
    page.get_by_text("Several at once").click()
    page.evaluate("document.getElementById('key-panel').hidden = false")
    check(page)  # a field that is wrong, label sets, the key

    page.get_by_role("button", name="Camera").click()
    expect(page.get_by_role("button", name="Take picture")).to_be_enabled()
    check(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_on_the_reference(
    open_page: Open, api: httpx.Client, scheme: str
) -> None:
    site = f"{str(api.base_url).rstrip('/')}/page/reference.html"
    page = open_page(site, ready="#classify", color_scheme=scheme, bypass_csp=True).page
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
    if scheme == "light":  # what is no colour is the same in both
        check(page, rules={CONTRAST: {"enabled": False}})
    every, kept = page.evaluate(ONE_OF_EACH)
    assert every > 5000 > 100 < kept
    check(page, runOnly=[CONTRAST])


def check(page: Page, **options: object) -> None:
    chosen = {"resultTypes": ["violations"], "runOnly": STANDARDS, **options}
    violations = Axe().run(page, options=chosen)
    assert violations.violations_count == 0, violations.generate_report()


@pytest.mark.parametrize("width", [390, 1280])
def test_words_are_as_large_as_the_reader_has_them_and_the_page_still_fits(
    open_page: Open, samples: dict[str, Path], width: int
) -> None:
    visit = open_page(viewport={"width": width, "height": 900})
    page = visit.page
    page.locator("#files").set_input_files(samples["cat"])
    expect(page.locator(".card[data-state=done]")).to_have_count(1)
    page.locator("#options summary").click()
    smallest = """() => Math.min(...[...document.querySelectorAll("main :not(:empty)")]
        .filter(one => one.checkVisibility())
        .map(one => parseFloat(getComputedStyle(one).fontSize)))"""
    before = page.evaluate(smallest)
    reader = page.context.new_cdp_session(page)
    reader.send("Page.setFontSizes", {"fontSizes": {"standard": 32, "fixed": 26}})
    expect(page.locator("body")).to_have_css("font-size", "30px")
    assert page.evaluate(smallest) == 2 * before
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.goto(f"{visit.site}page/reference.html")
    page.wait_for_selector(".route")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
