"""The playground's "none of these": asked for by a switch, answered in words and for readers."""

import httpx
from playwright.sync_api import expect

from tests.system.page.conftest import Open


def test_none_of_these_is_answered_with_its_reason_and_what_was_nearest(
    open_page: Open, api: httpx.Client
) -> None:
    page = open_page().page
    page.get_by_role("button", name="Clear", exact=True).click()
    page.get_by_label("Add a label").fill("cat, dog, pizza,")
    page.get_by_role("button", name="Sample: umbrella", exact=True).click()
    card = page.get_by_role("article", name="umbrella.webp", exact=True)
    expect(card).to_have_attribute("data-state", "done")
    expect(card.locator(".none")).to_be_hidden()
    page.get_by_text("Options", exact=True).click()
    switch = page.get_by_role("switch", name="Allow “none of these”")
    page.get_by_text("Allow “none of these”", exact=True).click()
    expect(switch).to_be_checked()
    expect(page.locator("#options-summary")).to_contain_text("or none of these")
    expect(card.locator(".none")).to_contain_text("None of these. The best similarity")
    expect(card.locator(".rows.withheld .word")).to_have_count(3)
    expect(
        page.get_by_role("status").filter(has_text="umbrella.webp: none of these")
    ).to_be_attached()
    page.get_by_label("Add a label").fill("umbrella,")
    expect(card.locator(".none")).to_be_hidden()
    expect(card.locator(".rows:not(.withheld) .word").first).to_have_text("umbrella")
    page.reload()  # it is remembered
    page.wait_for_selector("#model-tags li", state="attached")
    expect(page.locator("#options-summary")).to_contain_text("or none of these")


def test_one_word_alone_may_be_none(open_page: Open) -> None:
    page = open_page().page
    page.get_by_role("button", name="Clear", exact=True).click()
    page.get_by_label("Add a label").fill("banana,")
    page.get_by_text("Options", exact=True).click()
    page.get_by_text("Allow “none of these”", exact=True).click()
    page.get_by_role("button", name="Sample: octopus", exact=True).click()
    card = page.get_by_role("article", name="octopus.webp", exact=True)
    expect(card.locator(".none")).to_contain_text("None of these.")
