"""What the page can ask beyond own words and one label set, each where a person looks for it."""

import csv
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Locator, Page, Route, expect

from models.encoder import Encoder
from tests.conftest import Serve
from tests.system.page.conftest import REFUSED, Open
from tests.system.page.steps import CLIPBOARD, answered_card, card, run_copied, sample, words

pytestmark = pytest.mark.timeout(600)  # a further model is exported when it is first loaded

# a build of some words in the templates of the model
BUILD_MS = 60_000


def choose(page: Page, mode: str) -> None:
    page.locator(".segments label", has_text=mode).click()


def open_options(page: Page) -> None:
    page.locator("#options summary").click()


def choose_shipped(page: Page, *names: str) -> None:
    choose(page, "Label set")
    page.get_by_text("Shipped vocabularies").first.click()
    for name in names:
        page.locator("#shipped .set", has_text=name).first.locator("input").check()


def both_sections(page: Page) -> Locator:
    choose(page, "Label set")
    page.get_by_text("Several at once").click()
    page.get_by_text("Shipped vocabularies").first.click()
    for name in ("animals", "weather"):
        page.locator("#shipped .set", has_text=name).first.locator("input").check()
    titles = card(page, "cat.webp").locator(".set-title")
    expect(titles).to_have_text(["animals", "weather"], timeout=BUILD_MS)
    return answered_card(page, "cat.webp")


def test_a_shipped_vocabulary_is_asked_without_registering_it(open_page: Open) -> None:
    page = open_page().page
    sample(page, "cat")
    choose_shipped(page, "weather")
    expect(card(page, "cat.webp").locator(".basis")).to_contain_text("16 words", timeout=BUILD_MS)
    page.get_by_label("Filter by name").fill("zoo")
    expect(page.locator("#shipped .set-name")).to_have_text(["animals"])  # by its description
    page.reload()
    page.wait_for_selector("#model-tags li", state="attached")
    expect(page.locator("#shipped input[value='preset:weather']")).to_be_checked()


def test_several_label_sets_are_answered_each_on_its_own(
    open_page: Open, tmp_path: Path, samples: dict[str, Path]
) -> None:
    page = open_page(**CLIPBOARD).page
    sample(page, "cat")
    sections = both_sections(page)
    expect(sections.locator(".rows")).to_have_count(2)
    expect(sections.locator(".rows").first.locator(".word")).to_have_count(5)
    for language in ("Python", "JavaScript"):
        assert run_copied(page, sections, language, tmp_path) == words(sections)

    page.locator("#files").set_input_files([samples["dog"], samples["pizza"]])
    expect(card(page, "pizza.png")).to_have_attribute("data-state", "done")
    expect(card(page, "dog.png")).to_have_attribute("data-state", "done")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download CSV").click()
    table = list(csv.reader(download.value.path().read_text().splitlines()))
    assert table[0][-1] == "labelset"
    assert {row[-1] for row in table[1:]} == {"preset:animals", "preset:weather"}

    page.get_by_text("Several at once").click()  # the first stays
    expect(page.locator("#shipped input:checked")).to_have_value("preset:animals")
    expect(card(page, "pizza.png").locator(".set-title:visible")).to_have_count(0)


def test_tags_need_no_words(open_page: Open) -> None:
    page = open_page().page
    sample(page, "cat")
    choose(page, "Tags")
    tagged = card(page, "cat.webp")
    warnings = tagged.get_by_role("list", name="Warnings")
    expect(warnings).to_contain_text("no labels were given", timeout=BUILD_MS)
    assert {"cat", "fox", "kitten"} & set(words(tagged))
    expect(page.get_by_label("Add a label")).to_be_hidden()


def test_a_part_of_a_picture_is_drawn_moved_by_keys_and_taken_away(
    open_page: Open, tmp_path: Path
) -> None:
    page = open_page(**CLIPBOARD).page
    card = sample(page, "cat")
    whole = card.locator(".similarity").all_inner_texts()
    page.locator("#show-heat").click()
    expect(card.locator("canvas")).to_be_visible()
    card.get_by_role("button", name="Look at a part").click()
    part = card.locator(".part")
    expect(part).to_be_focused()
    expect(card.locator(".previous")).to_be_hidden()
    card.get_by_text("JSON", exact=True).click()
    answer = card.locator("pre").first
    expect(answer).to_contain_text('"boxes"')
    assert card.locator(".similarity").all_inner_texts() != whole
    expect(answer).to_contain_text('"x": 64')
    # the heat map lies over the part
    heat, box = card.locator("canvas").bounding_box(), part.bounding_box()
    assert heat
    assert box
    assert (heat["x"], heat["width"]) == pytest.approx((box["x"], box["width"]), abs=3)
    part.press("ArrowRight")
    expect(answer).to_contain_text('"x": 76')
    part.press("Shift+ArrowDown")
    expect(answer).to_contain_text('"height": 141')
    expect(card.locator(".previous")).to_be_hidden()
    for language in ("curl", "Python", "JavaScript"):
        process = run_copied(page, card, language, tmp_path)
        assert process == words(card)

    page.evaluate("scrollTo(0, 0)")
    picture = card.locator(".frame img").bounding_box()
    assert picture
    left, top, size = picture["x"], picture["y"], picture["width"]
    page.mouse.move(left + 0.9 * size, top + 0.9 * size)
    page.mouse.down()
    page.mouse.move(left + size / 2, top + size / 2, steps=3)
    page.mouse.up()
    expect(answer).to_contain_text('"x": 128')
    expect(answer).to_contain_text('"y": 128')
    page.mouse.click(left + 4, top + 4)  # a click draws nothing
    expect(answer).to_contain_text('"y": 128')
    part.press("Escape")
    expect(card.get_by_role("button", name="Look at a part")).to_be_focused()
    expect(answer).not_to_contain_text('"boxes"')
    assert card.locator(".similarity").all_inner_texts() == whole


def test_what_is_looked_at_is_chosen_and_carried_by_a_link(open_page: Open) -> None:
    visit = open_page(**CLIPBOARD)
    page = visit.page
    card = sample(page, "cat")
    open_options(page)
    page.get_by_label("Look at").select_option(label="The whole and its parts, the best counts")
    expect(card.locator(".previous")).to_be_hidden()
    expect(page.locator("#options-summary")).to_contain_text("the whole and its parts")
    page.get_by_role("button", name="Copy link").click()
    link = page.evaluate("navigator.clipboard.readText()")
    assert "view=tiles" in link
    second = open_page(link).page
    expect(second.get_by_label("Look at")).to_have_value("tiles")


def test_other_things_that_a_picture_may_show_rule_its_words_out(open_page: Open) -> None:
    visit = open_page()
    page = visit.page
    page.get_by_role("button", name="Clear", exact=True).click()
    page.get_by_label("Add a label").fill("dog, pizza,")
    card = sample(page, "cat")
    open_options(page)
    page.get_by_label("Other things it may show").fill("cat, an empty page")
    expect(card.locator(".none")).to_contain_text("None of these.")
    expect(card.locator(".none")).to_contain_text("cat")
    page.get_by_label("Other things it may show").fill("dog")
    expect(page.locator("#not-error")).to_contain_text("is a label")
    page.get_by_label("Other things it may show").fill("")
    expect(card.locator(".none")).to_be_hidden()
    visit.expected.append(f"{REFUSED}422")


def test_groups_and_the_nearest_of_several_texts_are_shown(
    open_page: Open, api: httpx.Client
) -> None:
    api.put(
        "/labelsets/grouped",
        json={
            "labels": {"animal": {"cat": [], "dog": ["corgi", "poodle"]}, "food": {"pizza": []}},
            "combine": "best",
        },
        params={"wait": True},
    )
    page = open_page().page
    card = sample(page, "dog")
    choose(page, "Label set")
    page.get_by_role("radio", name="grouped").check()
    expect(card.locator(".groups dt")).to_have_text(["animal", "food"])
    dog = card.locator(".rows li", has=page.locator(".word", has_text="dog"))
    expect(dog.locator(".via")).to_contain_text("in animal · nearest: ")


def test_a_prediction_set_needs_a_calibrated_label_set(open_page: Open, api: httpx.Client) -> None:
    api.put("/labelsets/plain", json={"labels": ["cat", "dog"]}, params={"wait": True})
    visit = open_page()
    page = visit.page
    sample(page, "cat")
    open_options(page)
    expect(page.locator("#coverage")).to_be_hidden()
    choose(page, "Label set")
    page.get_by_role("radio", name="plain").check()
    page.locator("#coverage").fill("90")
    expect(page.locator("#coverage-error")).to_contain_text("calibrat")
    visit.expected.extend(f"{REFUSED}{status}" for status in (409, 422))


@pytest.fixture(scope="module")
def two(pictogram: Encoder, other_model: str, serve: Serve) -> Iterator[httpx.Client]:
    """A server of two models."""
    with serve(pictogram, more_models=other_model, precision="fp32") as client:
        yield client


def test_one_of_several_models_answers(
    open_page: Open, two: httpx.Client, other_model: str
) -> None:
    visit = open_page(f"{str(two.base_url).rstrip('/')}/")
    visit.expected.append(f"{REFUSED}503")  # while it is loaded
    page = visit.page
    card = sample(page, "cat")
    open_options(page)
    page.get_by_label("Model", exact=True).select_option(other_model)
    card.get_by_text("JSON", exact=True).click()
    model = f'"model": "{other_model}"'
    expect(card.locator("pre").first).to_contain_text(model, timeout=240_000)
    expect(page.locator("#model-name")).to_have_text(other_model)
    page.get_by_label("Model", exact=True).select_option("")
    expect(card.locator("pre").first).to_contain_text('"model": "pictogram"')


def test_a_model_that_is_not_loaded_is_called_good_for_nothing(open_page: Open) -> None:
    page = open_page().page
    idle = {"name": "other", "state": "idle", "default": False, "aliases": [], "info": None}

    def two(route: Route) -> None:
        answer = route.fetch()
        models = answer.json()
        route.fulfill(response=answer, json={**models, "models": [*models["models"], idle]})

    page.route("**/models", two)
    page.reload()
    open_options(page)
    page.get_by_label("Model", exact=True).select_option("other")
    expect(page.locator("#model-name")).to_have_text("other")
    page.locator("#model summary").click()
    about = page.get_by_role("region", name="About the model")
    expect(about).to_have_text("It is loaded at its first request.")


def test_a_link_to_a_label_set_that_is_not_here_says_so(open_page: Open, api: httpx.Client) -> None:
    site = str(api.base_url).rstrip("/")
    visit = open_page(f"{site}/#mode=set&several=1&labelset=elsewhere&labelset=gone")
    visit.expected += [f"{REFUSED}404"] * 2
    error = visit.page.locator("#labelset-error")
    expect(error).to_have_text(re.compile("(There is no label set “(elsewhere|gone)” here. ?){2}"))
    visit.page.get_by_role("radio", name="Tags").check(force=True)
    expect(error).to_be_empty()


def test_label_sets_that_cannot_be_listed_are_not_said_to_be_none(open_page: Open) -> None:
    visit = open_page()
    visit.expected.append(f"{REFUSED}503")
    page = visit.page
    away = {"title": "The store is unavailable", "status": 503, "detail": "try again"}
    page.route("**/labelsets?*", lambda route: route.fulfill(status=503, json=away))
    choose(page, "Label set")
    expect(page.locator("#labelset-error")).to_have_text("The store is unavailable. Try again.")
    expect(page.locator("#sets-state")).to_be_empty()


def test_what_is_still_being_built_is_waited_for(open_page: Open) -> None:
    visit = open_page()
    page = visit.page
    building = {
        "title": "The label set is being built", "status": 503, "error_type": "labelset_building",
        "detail": "the label set preset:weather is 40 % built",
    }  # fmt: skip
    refusals = iter([building, building])

    def answer(route: Route) -> None:
        problem = next(refusals, None)
        if problem is None:
            route.continue_()
        else:
            route.fulfill(status=503, json=problem, headers={"Retry-After": "1"})

    page.route("**/classify", answer)
    article = card(page, "cat.webp")
    page.get_by_role("button", name="Sample: cat", exact=True).click()
    expect(article.get_by_role("status")).to_contain_text("is 40 % built")
    expect(article).to_have_attribute("data-state", "done")
    expect(article.get_by_role("status")).to_be_hidden()
    expect(article.locator(".word").first).to_have_text("cat")
    visit.expected.append(f"{REFUSED}503")
