"""What axe finds on the playground: nothing, in light and dark, whatever is open."""

from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.system.page.conftest import REFUSED, Open

STANDARDS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
NOTES = {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no picture"}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(open_page: Open, samples: dict[str, Path], scheme: str) -> None:
    visit = open_page(color_scheme=scheme, bypass_csp=True)
    page = visit.page
    check(page)  # as it is found

    page.locator("#why").click()
    page.locator("#files").set_input_files(samples["cat"])
    page.locator("#files").set_input_files(NOTES)
    found = page.get_by_role("article", name="cat.png")
    expect(found.locator(".heat-box")).to_be_visible()
    expect(page.locator(".card .problem:not([hidden])")).to_be_visible()
    for summary in ("#options summary", "#model-more summary"):
        page.locator(summary).click()
    found.get_by_text("JSON", exact=True).click()
    found.get_by_role("button", name="Copy as curl").click()
    page.get_by_role("button", name="Save as label set").click()
    page.get_by_label("Add a label").fill("猫,")
    expect(found.locator(".notes li")).to_have_count(1)
    check(page)  # an answer, a problem, a warning, a heat map, and everything open

    page.get_by_label("Least score").fill("7")
    expect(page.locator("#threshold-error")).not_to_be_empty()
    page.locator(".segments label", has_text="Label set").click()
    expect(page.locator("#sets-state")).not_to_be_empty()
    page.evaluate("document.getElementById('key-panel').hidden = false")
    check(page)  # a field that is wrong, label sets, the key

    page.get_by_role("button", name="Camera").click()
    expect(page.get_by_role("button", name="Take picture")).to_be_enabled()
    check(page)
    visit.expected += [f"{REFUSED}415", f"{REFUSED}422"]


def check(page: Page) -> None:
    found = Axe().run(page, options={"resultTypes": ["violations"], "runOnly": STANDARDS})
    assert found.violations_count == 0, found.generate_report()
