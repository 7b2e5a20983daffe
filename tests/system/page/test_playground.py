"""What somebody does on the playground, in a real Chromium against a real server."""

import base64
import csv
import io
import json
import os
import subprocess
from pathlib import Path

import httpx
import pytest
from PIL import Image
from playwright.sync_api import Page, Route, expect

from app.classify.heatmap import GRID
from benchmarks.servers import wait_until
from tests.system.page.conftest import KEY, MOST_MS, REFUSED, Open
from tests.system.page.steps import (
    CLIPBOARD,
    answered_card,
    card,
    run_copied,
    sample,
    set_labels,
    words,
)

HOSTILE = "<img src=x onerror=document.title='hacked'>"
NASTY = [
    "it's", 'a "quote"', "$HOME `id` \\n !x", "semi;type=text/html", "@file", "<in", "a, b",
    "né 猫", "[list", "-dash", "100%", HOSTILE,
]  # fmt: skip

LANGUAGES = ("curl", "Python", "JavaScript")

DIMMED = "rgb(92, 93, 88)"
DIMMED_BAR = "rgb(227, 224, 216)"
INK = "rgb(27, 28, 26)"


def test_an_uploaded_picture_gets_bars_with_scores_similarities_and_times(
    open_page: Open, samples: dict[str, Path], api: httpx.Client
) -> None:
    page = open_page().page
    page.locator("#files").set_input_files(samples["cat"])
    card = answered_card(page, "cat.png")
    labels = page.locator(".chip span").all_inner_texts()
    with samples["cat"].open("rb") as image:
        form = {"labels": json.dumps(labels)}
        answer = api.post("/classify", data=form, files={"image": image}).json()
    best = answer["predictions"][0]
    row = card.locator(".rows li").first
    expect(row).to_contain_text(f"cat{100 * best['score']:.1f} %")
    expect(row).to_contain_text(f"{best['similarity']:.3f}")
    assert words(card) == [prediction["label"] for prediction in answer["predictions"]]
    bar = row.locator(".fill").bounding_box()
    track = row.locator(".track").bounding_box()
    assert bar
    assert track
    assert bar["width"] / track["width"] == pytest.approx(best["score"], abs=0.02)
    tracks = [track.bounding_box() for track in card.locator(".rows .track").all()]
    assert len({round(track["width"]) for track in tracks if track}) == 1
    expect(card.locator(".timing")).to_be_hidden()
    card.get_by_text("About", exact=True).click()
    expect(card.locator(".timing dt")).to_contain_text(["decode", "queue", "encode"])
    expect(card.locator(".timing")).to_contain_text("ms server · ")
    expect(card.locator(".basis")).to_contain_text("Scores add up to 100 % over your words.")
    expect(page.get_by_role("status").filter(has_text="cat.png: cat")).to_be_attached()


def test_a_picture_can_be_dropped(open_page: Open, samples: dict[str, Path]) -> None:
    page = open_page().page
    devtools = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(samples["dog"])], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver"):
        drag = {"type": kind, "x": 600, "y": 400, "data": data}
        devtools.send("Input.dispatchDragEvent", drag)
    expect(page.locator("#veil")).to_be_visible()
    devtools.send("Input.dispatchDragEvent", {"type": "drop", "x": 600, "y": 400, "data": data})
    assert words(answered_card(page, "dog.png"))[0] == "dog"
    expect(page.locator("#veil")).to_be_hidden()


def test_a_link_that_is_dropped_leaves_the_page_where_it_is(open_page: Open) -> None:
    page = open_page().page
    devtools = page.context.new_cdp_session(page)

    def drop(address: str) -> None:
        item = {"mimeType": "text/uri-list", "data": address}
        data = {"items": [item], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            drag = {"type": kind, "x": 600, "y": 400, "data": data}
            devtools.send("Input.dispatchDragEvent", drag)

    drop("https://example.org/cat.jpg")
    expect(page.locator("#toast")).to_contain_text("That is a link, not a picture.")
    expect(page.locator("#veil")).to_be_hidden()
    drop(f"{page.url}page/samples/cat.webp")
    assert words(answered_card(page, "cat.webp"))[0] == "cat"


def test_what_is_pasted_and_no_picture_is_said_to_be_none(open_page: Open) -> None:
    page = open_page(**CLIPBOARD).page
    page.evaluate("navigator.clipboard.writeText('https://example.org/cat.jpg')")
    page.get_by_label("Add a label").focus()
    page.keyboard.press("Control+v")
    expect(page.get_by_label("Add a label")).to_have_value("https://example.org/cat.jpg")
    expect(page.locator("#toast")).to_be_hidden()
    page.locator("#drop").focus()
    page.keyboard.press("Control+v")
    expect(page.locator("#toast-text")).to_have_text("There is no picture on the clipboard.")


def test_a_picture_can_be_pasted(open_page: Open, samples: dict[str, Path]) -> None:
    page = open_page(**CLIPBOARD).page
    encoded = base64.b64encode(samples["rocket"].read_bytes()).decode()
    page.evaluate(
        """async text => {
            const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
            const blob = new Blob([bytes], { type: "image/png" });
            await navigator.clipboard.write([new ClipboardItem({ "image/png": blob })]);
        }""",
        encoded,
    )
    page.keyboard.press("Control+v")
    assert words(answered_card(page, "image.png"))[0] == "rocket"
    page.get_by_role("button", name="Paste").click()
    assert words(answered_card(page, "pasted.png"))[0] == "rocket"


def test_a_picture_can_be_taken_with_the_camera(open_page: Open) -> None:
    page = open_page(permissions=["camera"]).page
    page.get_by_role("button", name="Camera").click()
    page.get_by_role("button", name="Take picture").click()
    expect(page.locator(".card[data-state=done]")).to_have_count(1)
    assert page.locator(".card h3").inner_text().startswith("camera-")
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_everything_can_be_done_with_the_keyboard_alone(open_page: Open) -> None:
    page = open_page().page
    press = page.keyboard.press
    press("Tab")
    expect(page.get_by_role("link", name="Skip to the pictures")).to_be_focused()
    press("Enter")
    press("Tab")
    expect(page.get_by_role("button", name="Choose pictures")).to_be_focused()
    while page.evaluate("document.activeElement.id") != "label-input":
        press("Tab")
    page.keyboard.type('guitar,violin, "drum, small"')
    press("Enter")
    page.keyboard.type("guitar")
    press("Enter")
    chips = page.locator(".chip span")
    expect(chips).to_have_text(["guitar", "violin", "drum, small"])
    press("ArrowLeft")
    press("ArrowLeft")
    expect(page.get_by_role("button", name="Remove violin")).to_be_focused()
    press("Delete")
    expect(chips).to_have_text(["guitar", "drum, small"])
    expect(page.get_by_role("button", name="Remove drum, small")).to_be_focused()
    press("ArrowRight")
    expect(page.get_by_label("Add a label")).to_be_focused()
    while page.evaluate("document.activeElement.ariaLabel") != "Sample: guitar":
        press("Tab")
    press("Enter")
    expect(card(page, "guitar.webp").locator(".word")).to_have_text(["guitar", "drum, small"])


def test_a_pasted_list_is_one_label_a_line(open_page: Open) -> None:
    page = open_page(**CLIPBOARD).page
    set_labels(page, ["a pizza, sliced", "rocket", "rocket ship"])
    assert words(sample(page, "rocket"))[-1] == "a pizza, sliced"
    expect(page.locator("#label-count")).to_have_text("3 words")


def test_one_word_alone_shows_its_similarity_and_offers_a_score(
    open_page: Open, samples: dict[str, Path], api: httpx.Client
) -> None:
    page = open_page(**CLIPBOARD).page
    set_labels(page, ["cat"])
    card = sample(page, "cat")
    expect(page.locator("#empty-text")).to_contain_text("One word has nothing to be compared with")
    picture = api.get("/page/samples/cat.webp").content
    plain = api.post("/classify?labels=cat&threshold=0", content=picture).json()
    expect(card.locator(".similarity")).to_contain_text(
        f"{plain['predictions'][0]['similarity']:.3f}"
    )
    expect(card.locator(".score")).to_be_hidden()
    expect(card.locator(".rows .track")).to_be_hidden()
    page.locator("#options summary").click()
    page.get_by_label("Other things it may show").fill(" ,")  # says nothing
    page.get_by_label("Max. answers").fill("1")
    expect(card.locator(".previous")).to_be_hidden()
    expect(card).to_have_attribute("data-state", "done")
    expect(card.locator(".score")).to_be_hidden()
    page.get_by_role("button", name="Score on its own").click()
    expect(card.locator(".score")).to_be_visible()
    expect(page.locator("#empty")).to_be_hidden()
    expect(card.locator(".basis")).to_contain_text("Each word is scored on its own")
    page.get_by_label("Min. score").fill("0.9999")
    expect(card.locator(".none")).to_have_text("No word reached the minimum score of 0.9999.")


def test_one_word_alone_has_a_score_where_the_model_scores_each_on_its_own(open_page: Open) -> None:
    page = open_page(**CLIPBOARD).page

    def sigmoid(route: Route) -> None:
        answer = route.fetch()
        models = answer.json()
        route.fulfill(
            response=answer, json={**models, "loaded": {**models["loaded"], "logit_bias": -10.0}}
        )

    page.route("**/models", sigmoid)
    page.reload()
    expect(page.locator("#alone-field")).to_have_attribute("hidden", "")
    set_labels(page, ["cat"])
    card = sample(page, "cat")
    expect(card.locator(".score")).to_be_visible()
    expect(page.locator("#empty")).to_be_hidden()
    page.locator("#options summary").click()
    page.get_by_text("Scores add up to 100 %", exact=True).click()
    page.get_by_label("Max. answers").fill("1")
    expect(card.locator(".previous")).to_be_hidden()
    expect(card.locator(".score")).to_be_visible()


def test_the_first_own_word_replaces_the_examples_and_the_second_does_not(open_page: Open) -> None:
    page = open_page().page
    chips = page.locator(".chip span")
    expect(chips).to_have_count(8)
    page.get_by_label("Add a label").fill("violin,")
    expect(chips).to_have_text(["violin"])
    page.get_by_label("Add a label").fill("guitar,")
    expect(chips).to_have_text(["violin", "guitar"])
    page.reload()
    expect(chips).to_have_text(["violin", "guitar"])


def test_a_sample_brings_its_word_while_the_words_are_examples(open_page: Open) -> None:
    page = open_page().page
    assert words(sample(page, "airplane"))[0] == "airplane"
    page.get_by_label("Add a label").fill("boat,ship,")
    expect(page.locator(".chip span")).to_have_text(["boat", "ship"])
    sample(page, "guitar")
    expect(page.locator(".chip span")).to_have_text(["boat", "ship"])


def test_an_answer_to_other_words_is_dimmed_and_called_previous(open_page: Open) -> None:
    page = open_page(**CLIPBOARD).page
    set_labels(page, ["cat", "dog"])
    card = sample(page, "cat")
    expect(card.locator(".previous")).to_be_hidden()
    page.get_by_role("button", name="Clear", exact=True).click()
    expect(card.locator(".previous")).to_be_visible()
    best = card.locator(".word").first
    expect(best).to_have_css("color", DIMMED)
    for bar in card.locator(".rows .fill").all():
        expect(bar).to_have_css("background-color", DIMMED_BAR)
    expect(page.locator("#empty-text")).to_contain_text("Type at least two words")
    set_labels(page, ["dog", "cat", "key"])
    expect(card.locator(".word")).to_have_count(3)
    expect(card.locator(".previous")).to_be_hidden()
    expect(best).not_to_have_css("color", DIMMED)


def test_a_label_that_the_model_cannot_read_is_warned_about(open_page: Open) -> None:
    page = open_page(**CLIPBOARD).page
    set_labels(page, ["cat", "猫"])
    notes = sample(page, "cat").get_by_role("list", name="Warnings")
    expect(notes).to_contain_text("猫")
    expect(notes).to_be_visible()  # without opening anything


def test_a_label_written_from_the_right_reads_from_the_right(open_page: Open) -> None:
    page = open_page(**CLIPBOARD).page
    set_labels(page, ["cat", "כלב!"])
    words_of = sample(page, "cat").locator(".word")
    for shown in (page.locator(".chip span"), words_of):
        expect(shown.filter(has_text="כלב")).to_have_css("direction", "rtl")
        expect(shown.filter(has_text="cat")).to_have_css("direction", "ltr")


def test_labels_are_saved_as_a_label_set_picked_filtered_and_edited(
    open_page: Open, api: httpx.Client
) -> None:
    for number in range(60):
        api.put(f"/labelsets/filler-{number:02}", json={"labels": ["x", "y"]})
    visit = open_page(**CLIPBOARD)
    page = visit.page
    set_labels(page, ["octopus", "umbrella"])
    page.get_by_role("button", name="Save as label set").click()
    page.get_by_label("Name of the label set").fill("zoo")
    page.keyboard.press("Enter")
    expect(page.get_by_role("radio", name="zoo")).to_be_checked()
    assert words(sample(page, "octopus")) == ["octopus", "umbrella"]
    assert api.get("/labelsets/zoo").json()["labels"] == ["octopus", "umbrella"]
    octopus = card(page, "octopus.webp")
    octopus.get_by_text("JSON", exact=True).click()
    expect(octopus.locator("pre").first).to_contain_text('"labelset": "zoo"')

    expect(page.locator("#sets .set")).to_have_count(51)
    page.get_by_role("button", name="Show more").click()
    expect(page.locator("#sets .set")).to_have_count(61)
    page.get_by_label("Filter by name").fill("ler-5")
    expect(page.locator(".set-name")).to_have_text([f"filler-{n}" for n in range(50, 60)])
    page.get_by_label("Filter by name").fill("zoo")
    page.get_by_role("button", name="Copy words to edit").click()
    expect(page.get_by_label("Add a label")).to_be_focused()
    page.keyboard.type("rocket,")
    page.get_by_role("button", name="Save as label set").click()
    page.get_by_label("Name of the label set").fill("zoo")
    page.keyboard.press("Enter")
    expect(page.locator("#save-error")).to_have_text("Label set “zoo” already exists.")
    assert api.get("/labelsets/zoo").json()["label_count"] == 2
    page.get_by_role("button", name="Replace it").click()
    expect(page.get_by_role("radio", name="zoo")).to_be_checked()
    wait_until(lambda: api.get("/labelsets/zoo").json()["label_count"] == 3)
    visit.expected.append(f"{REFUSED}412")


def test_problems_are_said_in_words_where_they_arise(open_page: Open) -> None:
    visit = open_page()
    page = visit.page
    card = sample(page, "cat")
    page.locator("#options summary").click()
    page.get_by_label("Min. score").fill("1.5")
    expect(page.locator("#threshold-error")).to_contain_text("less than or equal to 1")
    expect(page.get_by_label("Min. score")).to_have_attribute("aria-invalid", "true")
    details = card.locator(".problem details")
    expect(details.locator(".meta")).to_be_hidden()
    details.locator("summary").click()
    expect(details.locator(".meta")).to_contain_text("limit: 1 · sent: 1.5")
    page.get_by_label("Min. score").fill("0.01")
    expect(card).to_have_attribute("data-state", "done")
    expect(page.locator("#threshold-error")).to_be_empty()
    visit.expected += [f"{REFUSED}422"]


def test_what_is_no_image_is_refused_before_it_is_sent(
    open_page: Open, samples: dict[str, Path]
) -> None:
    visit = open_page()
    page = visit.page
    page.locator("#files").set_input_files(
        [
            {"name": "notes.png", "mimeType": "image/png", "buffer": b"not a picture"},
            {"name": "empty.png", "mimeType": "image/png", "buffer": b""},
            {"name": "cat.png", "mimeType": "", "buffer": samples["cat"].read_bytes()},
        ]
    )
    answered_card(page, "cat.png")
    expect(page.locator("#image-error")).to_contain_text("notes.png is not an image.")
    expect(page.locator("#image-error")).to_contain_text("empty.png is empty.")
    expect(page.locator(".card")).to_have_count(1)
    assert sum(url.endswith("/classify") for url in visit.requests) == 1
    names = ("a.pdf", "b.pdf", "c.pdf")
    several = [{"name": name, "mimeType": "", "buffer": b"%PDF-1.7"} for name in names]
    page.locator("#files").set_input_files(several)
    expect(page.locator("#image-error")).to_contain_text("a.pdf is not an image. b.pdf is not")
    assert (page.locator("#image-error").text_content() or "").count("JPEG") == 1
    sample(page, "dog")
    expect(page.locator("#image-error")).to_be_empty()


def test_what_the_server_may_read_is_left_to_the_server(open_page: Open) -> None:
    page = open_page().page
    comment = f"<!-- {'drawn by hand ' * 200}-->\n"
    icon = (
        f'<?xml version="1.0"?>\n{comment}<svg xmlns="http://www.w3.org/2000/svg" width="24" '
        'height="24" viewBox="0 0 24 24" fill="none" stroke="#000" stroke-width="2">'
        '<circle cx="12" cy="12" r="9"/></svg>'
    )
    bitmap = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(bitmap, "BMP")
    camera = bitmap.getvalue()[:6] + b"FLIR" + bitmap.getvalue()[10:]
    files = {"ring.svg": icon.encode(), "thermal.bmp": camera}
    for name, data in files.items():
        page.locator("#files").set_input_files({"name": name, "mimeType": "", "buffer": data})
        assert words(answered_card(page, name))
    page_of_html = {"name": "a.svg", "mimeType": "", "buffer": b"<!DOCTYPE html>\n<title>404"}
    page.locator("#files").set_input_files(page_of_html)
    expect(page.locator("#image-error")).to_contain_text("a.svg is not an image.")


def test_a_page_in_place_of_an_answer_is_a_problem_and_stops_nothing(open_page: Open) -> None:
    visit = open_page()
    page = visit.page
    login = "<!DOCTYPE html><title>Sign in</title>"
    page.route("**/classify", lambda route: route.fulfill(body=login, content_type="text/html"))
    for name in ("cat", "dog", "rocket", "pizza"):  # more than are asked at once
        page.get_by_role("button", name=f"Sample: {name}", exact=True).click()
    failed = page.locator(".card[data-state=failed]")
    expect(failed).to_have_count(4)
    expect(failed.first).to_contain_text("Something before the server answered")
    page.unroute("**/classify")
    page.get_by_role("button", name="Retry").first.click()
    expect(page.locator(".card[data-state=done]")).to_have_count(4)


def test_a_link_with_numbers_that_are_none_leaves_nothing_behind(
    open_page: Open, api: httpx.Client
) -> None:
    root = str(api.base_url).rstrip("/")
    page = open_page(f"{root}/#mode=own&label=cat&label=dog&topK=abc&threshold=x&coverage=y").page
    sample(page, "cat")
    assert words(answered_card(page, "cat.webp"))[0] == "cat"
    page.reload()
    expect(page.locator(".options .summary")).not_to_contain_text("abc")


def test_each_format_of_the_server_passes_the_browser(open_page: Open) -> None:
    page = open_page().page
    for suffix in ("jpg", "png", "webp", "gif", "bmp", "tif", "avif"):
        out = io.BytesIO()
        name = {"jpg": "jpeg", "tif": "tiff"}.get(suffix, suffix)
        Image.new("RGB", (32, 32), "red").save(out, name)
        file = {"name": f"red.{suffix}", "mimeType": "", "buffer": out.getvalue()}
        page.locator("#files").set_input_files(file)
        assert words(answered_card(page, f"red.{suffix}"))
        page.get_by_role("button", name=f"Remove red.{suffix}").click()


def test_a_server_that_does_not_answer_can_be_tried_again(open_page: Open) -> None:
    visit = open_page()
    page = visit.page
    page.context.set_offline(True)
    page.locator("#files").set_input_files(Path(__file__).parents[2] / "samples" / "cat.png")
    problem = card(page, "cat.png").locator(".problem")
    expect(problem).to_contain_text("The server does not respond")
    page.context.set_offline(False)
    down = page.locator("#down")
    expect(down).to_contain_text("is it running".capitalize())
    problem.get_by_role("button", name="Retry").click()
    assert words(answered_card(page, "cat.png"))[0] == "cat"
    expect(down).to_be_hidden()
    page.context.set_offline(True)
    page.locator("#files").set_input_files(Path(__file__).parents[2] / "samples" / "dog.png")
    expect(card(page, "dog.png").locator(".problem")).to_contain_text("does not respond")
    page.context.set_offline(False)
    down.get_by_role("button", name="Retry").click()
    assert words(answered_card(page, "dog.png"))[0] == "dog"
    visit.expected.append("net::ERR_INTERNET_DISCONNECTED")


def test_a_server_that_refuses_the_page_at_its_start_can_be_tried_again(open_page: Open) -> None:
    visit = open_page()
    visit.expected.append(f"{REFUSED}429")
    page = visit.page
    busy = {
        "title": "Too many requests", "status": 429, "error_type": "too_many_requests",
        "detail": "more than 1 request a second",
    }  # fmt: skip
    page.route("**/models", lambda route: route.fulfill(status=429, json=busy), times=1)
    page.reload()
    expect(page.locator("#down")).to_contain_text("Too many requests. More than 1 request")
    page.locator("#down").get_by_role("button", name="Retry").click()
    expect(page.locator("#model-name")).to_have_text("pictogram")
    expect(page.locator("#down")).to_be_hidden()


def test_a_file_that_is_gone_since_it_was_chosen_is_said_to_be_unreadable(
    open_page: Open, samples: dict[str, Path], tmp_path: Path
) -> None:
    visit = open_page(**CLIPBOARD)
    page = visit.page
    page.get_by_role("button", name="Clear", exact=True).click()
    chosen = tmp_path / "cat.png"
    chosen.write_bytes(samples["cat"].read_bytes())
    page.locator("#files").set_input_files(chosen)
    expect(page.locator("#empty-text")).to_have_text("Type at least two words to choose between.")
    chosen.unlink()
    set_labels(page, ["cat", "dog"])
    expect(card(page, "cat.png").locator(".problem")).to_contain_text("The file cannot be read")
    visit.expected.append("net::ERR_")


def test_several_pictures_are_asked_three_at_a_time_and_each_has_its_own_answer(
    open_page: Open, samples: dict[str, Path]
) -> None:
    visit = open_page()
    page = visit.page
    # counted by the page itself: the browser tells of ends and beginnings in any order
    page.evaluate(
        """() => {
            const ask = window.fetch;
            window.underWay = window.most = 0;
            window.fetch = async (...request) => {
                if (!String(request[0]).endsWith("/classify")) return ask(...request);
                window.most = Math.max(window.most, ++window.underWay);
                try { return await ask(...request); } finally { window.underWay -= 1; }
            };
        }"""
    )
    names = ["cat", "dog", "octopus", "pizza", "doughnut", "banana", "rocket", "umbrella"]
    files = [
        {"name": f"{name}.png", "mimeType": "image/png", "buffer": samples[name].read_bytes()}
        for name in names
    ]
    broken = {"name": "cut.png", "mimeType": "image/png", "buffer": files[0]["buffer"][:900]}
    page.locator("#files").set_input_files([*files[:4], broken, *files[4:]])
    expect(card(page, "cut.png")).to_have_attribute("data-state", "failed")
    for name in names:
        assert words(answered_card(page, f"{name}.png"))[0] == name
    assert 1 < page.evaluate("window.most") <= 3
    expect(page.locator("#status")).to_have_text("9 pictures answered, 1 error")
    visit.expected.append(f"{REFUSED}422")


def upload(page: Page, samples: dict[str, Path], names: list[str]) -> None:
    files = [{"name": f"{at}-{name}.png", "mimeType": "image/png",
              "buffer": samples[name].read_bytes()} for at, name in enumerate(names)]  # fmt: skip
    page.locator("#files").set_input_files(files)
    expect(page.locator(".card[data-state=done]")).to_have_count(len(names), timeout=90_000)


def test_from_the_third_on_pictures_are_tiles_in_the_order_chosen_and_open_by_a_click(
    open_page: Open, samples: dict[str, Path]
) -> None:
    page = open_page().page
    upload(page, samples, ["cat", "dog"])
    expect(page.locator(".tile").first).to_be_hidden()
    page.get_by_role("button", name="Remove all").click()
    upload(page, samples, ["cat", "dog", "pizza"])
    tiles = page.locator(".tile")
    assert page.locator(".tile-word").all_inner_texts() == ["cat", "dog", "pizza"]
    dog = card(page, "1-dog.png")
    expect(dog.locator(".rows")).to_be_hidden()
    page.get_by_role("button", name="1-dog.png: dog").press("Enter")
    expect(dog.locator(".rows")).to_be_visible()
    expect(dog.get_by_role("button", name="Close 1-dog.png")).to_be_focused()
    tiles.nth(2).click()
    expect(dog.locator(".rows")).to_be_hidden()  # one is open at a time
    page.get_by_role("button", name="Close 2-pizza.png").click()
    expect(page.get_by_role("button", name="2-pizza.png: pizza")).to_be_focused()


def test_tiles_are_grouped_by_answer_and_downloaded_as_csv(
    open_page: Open, samples: dict[str, Path]
) -> None:
    page = open_page(**CLIPBOARD).page
    set_labels(page, ["cat", "dog", "=1+1"])
    upload(page, samples, ["cat", "dog", "cat", "dog", "dog"])
    page.get_by_text("Group by answer").click()
    expect(page.locator(".group")).to_have_text(["dog 3", "cat 2"])
    order = page.locator(".card h3").all_inner_texts()
    assert order == ["1-dog.png", "3-dog.png", "4-dog.png", "0-cat.png", "2-cat.png"]
    with page.expect_download() as download:
        page.get_by_role("button", name="Download CSV").click()
    table = list(csv.DictReader(download.value.path().read_text().splitlines()))
    assert download.value.suggested_filename == "openvocab.csv"
    best = {row["file"]: row["label"] for row in reversed(table)}
    assert best == {name: name[2:5] for name in order}
    assert len(table) == 15
    # a spreadsheet would compute it
    assert {row["label"] for row in table} == {"cat", "dog", "'=1+1"}
    page.get_by_text("Group by answer").click()
    expect(page.locator(".group")).to_have_count(0)


def test_the_table_says_why_a_picture_has_no_answer(
    open_page: Open, samples: dict[str, Path]
) -> None:
    page = open_page().page
    page.locator("#options summary").click()
    page.get_by_label("Min. score").fill("1")
    upload(page, samples, ["cat", "dog", "pizza"])
    with page.expect_download() as download:
        page.get_by_role("button", name="Download CSV").click()
    table = list(csv.DictReader(download.value.path().read_text().splitlines()))
    assert [(row["label"], row["reason"]) for row in table] == [("", "score_below_threshold")] * 3


def test_sixty_pictures_are_few_screens(open_page: Open, samples: dict[str, Path]) -> None:
    page = open_page(viewport={"width": 1440, "height": 900}).page
    upload(page, samples, ["cat", "dog", "pizza"] * 20)
    assert page.evaluate("document.documentElement.scrollHeight") < 4000
    assert page.locator(".ask").bounding_box()
    page.locator(".tile").last.scroll_into_view_if_needed()
    expect(page.locator("#words-title")).to_be_in_viewport()  # the panel stays


def test_a_sample_on_a_full_page_is_chosen_again_and_stays(
    open_page: Open, samples: dict[str, Path]
) -> None:
    page = open_page().page
    page.route("**/classify", lambda _: None)  # nobody waits for an answer
    again = page.get_by_role("button", name="Sample: cat", exact=True)
    again.click()
    expect(card(page, "cat.webp")).to_be_attached()
    dog = samples["dog"].read_bytes()
    page.locator("#files").set_input_files(
        [{"name": f"{n}.png", "mimeType": "image/png", "buffer": dog} for n in range(59)]
    )
    expect(page.locator(".card")).to_have_count(60)
    again.click()
    expect(page.locator(".card h3").first).to_have_text("cat.webp")
    expect(page.locator(".card")).to_have_count(60)


def test_removed_pictures_can_be_brought_back(open_page: Open, samples: dict[str, Path]) -> None:
    page = open_page().page
    upload(page, samples, ["cat", "dog", "pizza"])
    page.locator(".tile-box").first.hover()
    page.get_by_role("button", name="Remove 0-cat.png").click()
    expect(page.locator(".card")).to_have_count(2)
    page.get_by_role("button", name="Undo").click()
    assert page.locator(".tile-word").all_inner_texts() == ["cat", "dog", "pizza"]
    page.get_by_role("button", name="Remove all").click()
    expect(page.locator(".card")).to_have_count(0)
    expect(page.locator("#toast")).to_contain_text("3 pictures removed.")
    page.get_by_role("button", name="Undo").click()
    assert page.locator(".tile-word").all_inner_texts() == ["cat", "dog", "pizza"]
    tile = page.locator(".tile img").first
    assert tile.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0


def test_what_is_waiting_when_it_is_removed_lets_the_others_go_on(
    open_page: Open, samples: dict[str, Path]
) -> None:
    page = open_page().page
    requests = []
    page.route("**/classify", lambda route: requests.append(route))  # noqa: PLW0108 (it is inspected)
    page.locator("#files").set_input_files([samples["cat"], samples["dog"], samples["pizza"]])
    expect(page.locator(".card")).to_have_count(3)
    page.locator("#files").set_input_files(samples["rocket"])
    while len(requests) < 3:
        page.wait_for_timeout(10)
    page.unroute("**/classify")
    for name in ("cat", "dog", "pizza"):
        card(page, f"{name}.png").locator(".tile-box .remove").evaluate("button => button.click()")
    assert words(answered_card(page, "rocket.png"))[0] == "rocket"


def test_a_link_carries_words_and_options(open_page: Open) -> None:
    visit = open_page(**CLIPBOARD)
    page = visit.page
    set_labels(page, [*NASTY, "cat"])
    page.locator("#options summary").click()
    page.get_by_label("Max. answers").fill("3")
    page.get_by_label("Templates", exact=True).select_option("*own")
    page.get_by_label("Own templates").fill("a drawing of {}.\nmy {}")
    page.get_by_text("Score each word on its own").click()
    page.get_by_role("button", name="Copy link").click()
    expect(page.locator("#toast-text")).to_have_text("The link is copied.")
    address = page.evaluate("navigator.clipboard.readText()")
    second = open_page(address).page
    expect(second.locator(".chip span")).to_have_text([*NASTY, "cat"])
    second.locator("#options summary").click()
    expect(second.get_by_label("Max. answers")).to_have_value("3")
    expect(second.get_by_label("Own templates")).to_have_value("a drawing of {}.\nmy {}")
    expect(second.get_by_label("Score each word on its own")).to_be_checked()
    expect(second.get_by_label("Min. score")).to_have_value("")
    assert second.url == visit.site  # read once: a reload keeps what was changed since


def test_a_link_opened_where_the_page_is_open_already_is_read(open_page: Open) -> None:
    visit = open_page()
    page = visit.page
    page.get_by_role("button", name="Clear", exact=True).click()
    page.goto(f"{visit.site}#mode=own&label=tabby+cat&label=dog&topK=1")
    expect(page.locator(".chip span")).to_have_text(["tabby cat", "dog"])
    expect(page.locator("#options-summary")).to_contain_text("best 1")
    expect(page).to_have_url(visit.site)


def test_every_word_has_room_for_nine_characters_at_every_width(
    open_page: Open, samples: dict[str, Path]
) -> None:
    page = open_page().page
    upload(page, samples, ["cat"])
    narrow = """() => {
        const probe = document.createElement("span");
        probe.textContent = "0".repeat(9);
        const narrow = [];
        for (const word of document.querySelectorAll(".word, .tile-word")) {
            if (!word.checkVisibility()) continue;
            probe.style.font = getComputedStyle(word).font;
            probe.style.position = "absolute";
            document.body.append(probe);
            const least = probe.getBoundingClientRect().width;
            const width = word.getBoundingClientRect().width;
            if (width < least - 0.5) narrow.push([word.className, word.textContent, width, least]);
        }
        probe.remove();
        return [narrow, document.documentElement.scrollWidth - innerWidth];
    }"""

    def check() -> None:
        for width in range(320, 1441, 20):
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate(narrow) == [[], 0], width

    check()  # a picture alone
    page.get_by_role("button", name="Remove 0-cat.png").click()
    upload(page, samples, ["cat", "dog", "pizza"])
    page.locator(".tile").first.click()
    check()  # tiles, one of them open


def test_input_and_answer_are_side_by_side_from_the_first_pixel(open_page: Open) -> None:
    page = open_page(viewport={"width": 720, "height": 900}).page
    sample(page, "cat")
    for width in (720, 1000, 1140, 1440):
        page.set_viewport_size({"width": width, "height": 900})
        panel, first = page.locator(".ask").bounding_box(), page.locator(".card").bounding_box()
        assert panel
        assert first
        assert panel["x"] + panel["width"] <= first["x"], width
        assert panel["y"] < 80, width
        assert first["y"] < 160, width


def test_on_a_phone_the_first_answer_is_on_the_second_screen(open_page: Open) -> None:
    page = open_page(viewport={"width": 390, "height": 760}, has_touch=True, is_mobile=True).page
    card = sample(page, "cat")
    top = card.locator(".word").first.evaluate(
        "word => word.getBoundingClientRect().bottom + scrollY"
    )
    assert top < 2 * 760


def test_the_copied_code_answers_what_the_page_shows(
    open_page: Open, samples: dict[str, Path], tmp_path: Path
) -> None:
    page = open_page(**CLIPBOARD).page
    set_labels(page, [*NASTY, "cat"])
    page.locator("#options summary").click()
    page.get_by_label("Max. answers").fill("13")
    page.get_by_label("Templates", exact=True).select_option("*own")
    page.get_by_label("Own templates").fill("a drawing of 'a' {}.\n{};type=x")
    name = """it's; a "cat", 1.png"""
    (tmp_path / name).write_bytes(samples["cat"].read_bytes())
    page.locator("#files").set_input_files(tmp_path / name)
    article = card(page, name)
    expect(article.locator(".word")).to_have_count(13)
    for language in LANGUAGES:
        assert words(article) == run_copied(page, article, language, tmp_path), language


def test_the_code_of_a_sample_fetches_the_sample(open_page: Open, tmp_path: Path) -> None:
    page = open_page(**CLIPBOARD).page
    card = sample(page, "bicycle")
    for language in LANGUAGES:
        assert words(card) == run_copied(page, card, language, tmp_path), language


def test_a_hostile_label_stays_a_text(open_page: Open, api: httpx.Client) -> None:
    api.put(
        "/labelsets/aaa-hostile",
        json={"labels": [HOSTILE, "cat"], "description": f"{HOSTILE}</fieldset>"},
    )
    page = open_page(**CLIPBOARD).page
    set_labels(page, [HOSTILE, "cat"])
    assert HOSTILE in words(sample(page, "cat"))
    page.locator(".segments label", has_text="Label set").click()
    page.get_by_role("radio", name="aaa-hostile").check()
    expect(page.locator(".set-description").first).to_have_text(f"{HOSTILE}</fieldset>")
    expect(card(page, "cat.webp").locator(".word").last).to_have_text(HOSTILE)
    assert page.title() == "openvocab playground"
    assert page.locator("img[src=x]").count() == 0


def test_a_picture_of_which_no_part_matters_is_not_darkened(open_page: Open) -> None:
    page = open_page().page
    cold = io.BytesIO()
    Image.new("L", (GRID, GRID)).save(cold, "PNG")
    uri = "data:image/png;base64," + base64.b64encode(cold.getvalue()).decode()

    def without_heat(route: Route) -> None:
        answer = route.fetch(timeout=MOST_MS).json()
        for prediction in answer["predictions"]:
            prediction["heatmap"] = uri
        route.fulfill(json=answer)

    found = sample(page, "cat")
    page.route("**/classify", without_heat)
    page.locator("#show-heat").click()
    expect(found.locator(".heat-box")).to_contain_text("No single part of the picture lowers “cat”")
    expect(found.locator("canvas")).to_be_hidden()
    expect(found.get_by_label("Opacity")).to_be_hidden()


def test_the_heat_map_of_the_chosen_label_lies_over_the_picture(open_page: Open) -> None:
    page = open_page().page
    card = sample(page, "cat")
    page.locator("#show-heat").click()
    heat = card.locator("canvas")
    expect(card.locator(".heat-box")).to_contain_text("lowers “cat” most")
    expect(card.locator(".heat-box")).to_contain_text(f"{GRID} × {GRID} squares")
    picture, laid = card.locator(".frame img").bounding_box(), heat.bounding_box()
    assert picture
    assert laid
    assert (laid["width"], laid["height"]) == pytest.approx(
        (picture["width"], picture["height"]), abs=2
    )
    script = "canvas => canvas.toDataURL()"
    before = heat.evaluate(script)
    card.get_by_role("button", name="dog", exact=True).click()
    expect(card.locator(".heat-box")).to_contain_text("lowers “dog” most")
    expect(card.get_by_role("button", name="dog", exact=True)).to_have_attribute(
        "aria-pressed", "true"
    )
    page.wait_for_function(
        "([canvas, old]) => canvas.toDataURL() !== old", arg=[heat.element_handle(), before]
    )
    page.get_by_label("Opacity of the heat map").fill("0.3")
    expect(heat).to_have_css("opacity", "0.3")
    page.locator("#show-heat").click()
    expect(heat).to_be_hidden()


def test_the_page_says_which_model_is_loaded_and_what_for(
    open_page: Open, api: httpx.Client
) -> None:
    loaded = api.get("/models").json()["loaded"]
    page = open_page().page
    expect(page.locator("#model-name")).to_have_text(loaded["name"])
    page.locator("#model summary").click()
    model = page.get_by_role("region", name="About the model")
    about = model.inner_text()
    assert about.count(loaded["description"].partition(".")[0]) == 1  # said once
    expect(model.locator("li")).to_contain_text([loaded["precision"], loaded["device"]])
    expect(model.locator("dd")).to_contain_text(["simple drawings", "Photographs.", "English"])
    page.keyboard.press("Escape")
    expect(model).to_be_hidden()
    expect(page.locator("#model summary")).to_be_focused()


def test_a_reload_keeps_what_was_chosen(open_page: Open) -> None:
    page = open_page(**CLIPBOARD).page
    set_labels(page, ["key", "banana", "airplane"])
    page.locator("#options summary").click()
    page.get_by_label("Templates", exact=True).select_option("imagenet")
    page.get_by_label("Max. answers").fill("2")
    page.get_by_label("Min. score").fill("0.05")
    page.locator(".switch", has_text="on its own").click()
    page.reload()
    page.wait_for_selector("#model-tags li", state="attached")
    expect(page.locator(".chip span")).to_have_text(["key", "banana", "airplane"])
    page.locator("#options summary").click()
    expect(page.get_by_label("Templates", exact=True)).to_have_value("imagenet")
    expect(page.get_by_label("Max. answers")).to_have_value("2")
    expect(page.get_by_label("Min. score")).to_have_value("0.05")
    expect(page.get_by_label("Score each word on its own")).to_be_checked()


def test_light_and_dark_follow_the_system_until_somebody_chooses(open_page: Open) -> None:
    page = open_page(color_scheme="dark").page
    body = page.locator("body")
    dark, light = "rgb(18, 20, 19)", "rgb(246, 245, 241)"
    expect(body).to_have_css("background-color", dark)
    toggle = page.get_by_role("button", name="Dark theme")
    expect(toggle).to_have_attribute("aria-pressed", "true")
    toggle.click()
    expect(body).to_have_css("background-color", light)
    page.reload()
    expect(body).to_have_css("background-color", light)
    expect(toggle).to_have_attribute("aria-pressed", "false")


def test_answers_are_printed_dark_on_white_with_their_bars(open_page: Open) -> None:
    page = open_page(color_scheme="dark").page
    page.get_by_role("button", name="Dark theme").click(click_count=2)  # light, and dark for good
    card = sample(page, "cat")
    expect(card.locator(".word").first).not_to_have_css("color", INK)
    card.locator(".raw summary").click()
    page.emulate_media(media="print")
    expect(card.locator(".word").first).to_have_css("color", INK)
    expect(card.locator(".fill").first).to_have_css("print-color-adjust", "exact")
    for pressed in (page.locator(".ask"), page.locator(".tools"), card.get_by_role("button")):
        expect(pressed.filter(visible=True)).to_have_count(0)
    assert card.locator(".raw pre").evaluate("text => text.scrollWidth <= text.clientWidth")


def test_a_minimum_score_is_marked_in_forced_colours(open_page: Open) -> None:
    page = open_page(forced_colors="active").page
    card = sample(page, "cat")
    page.locator("#options summary").click()
    page.get_by_label("Min. score").fill("0.0001")
    expect(card.locator(".rows.bounded")).to_be_visible()
    mark, ground = card.locator(".rows .track").first.evaluate(
        "track => ['::after', null].map(one => getComputedStyle(track, one).backgroundColor)"
    )
    assert mark != ground


def test_the_page_works_under_a_path_that_a_proxy_puts_before_it(
    open_page: Open, api: httpx.Client
) -> None:
    site = str(api.base_url).rstrip("/")
    visit = open_page(f"{site}/openapi.json", ready="body", **CLIPBOARD)
    page = visit.page
    page.context.route(
        "**/vision/**",
        lambda route: route.continue_(url=route.request.url.replace("/vision/", "/", 1)),
    )
    visit.requests.clear()
    page.goto(f"{site}/vision/")
    assert words(sample(page, "pizza"))[0] == "pizza"
    assert [url for url in visit.requests if not url.startswith((f"{site}/vision/", "blob:"))] == []
    card(page, "pizza.webp").get_by_role("button", name="Copy as curl").click()
    line = page.evaluate("navigator.clipboard.readText()")
    assert line.endswith(f"{site}/vision/classify")
    assert line.startswith(f"curl -s {site}/vision/page/samples/pizza.webp |")


def test_a_server_with_keys_is_used_with_a_key(
    open_page: Open, guarded: httpx.Client, samples: dict[str, Path], tmp_path: Path
) -> None:
    site = f"{str(guarded.base_url).rstrip('/')}/"
    visit = open_page(site, ready="#key-panel", **CLIPBOARD)
    page = visit.page
    field, use = (
        page.get_by_label("API key", exact=True),
        page.get_by_role("button", name="Use this key"),
    )
    field.fill("ov_wrong")
    use.click()
    expect(page.locator("#key-error")).to_contain_text("Unknown API key")
    field.fill(KEY)
    use.click()
    expect(page.locator("#key-panel")).to_be_hidden()
    page.locator("#files").set_input_files(samples["key"])
    answered_card(page, "key.jpg")
    card(page, "key.jpg").get_by_role("button", name="Copy as curl").click()
    expect(page.locator("#toast")).to_contain_text("OPENVOCAB_API_KEY")
    line = page.evaluate("navigator.clipboard.readText()")
    assert KEY not in line
    keyed = {"OPENVOCAB_API_KEY": KEY, "PATH": os.environ["PATH"]}
    process = subprocess.run(
        ["bash", "-c", line],
        cwd=samples["key"].parent,
        env=keyed,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert json.loads(process.stdout)["predictions"]
    page.reload()
    page.wait_for_selector("#model-tags li", state="attached")
    stored = page.evaluate("JSON.stringify([{ ...localStorage }, document.cookie])")
    assert KEY not in stored
    page.get_by_role("button", name="Save as label set").click()
    page.get_by_label("Name of the label set").fill("mine")
    page.keyboard.press("Enter")
    expect(page.locator("#save-error")).to_contain_text("labelsets:write")
    visit.expected += [f"{REFUSED}401", f"{REFUSED}403"]


def test_it_fits_a_phone_and_a_thumb(open_page: Open) -> None:
    page = open_page(viewport={"width": 360, "height": 760}, has_touch=True, is_mobile=True).page
    page.locator("#options summary").click()
    sample(page, "cat")
    for width in (360, 390, 768):
        page.set_viewport_size({"width": width, "height": 760})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        expect(page.locator("#peek")).to_contain_text("cat")
        small = page.evaluate(
            """() => [...document.querySelectorAll(
                "button, select, summary, .switch, .segments label"
            )]
                .filter(one => one.checkVisibility())
                .map(one => [one.textContent.trim() || one.ariaLabel, one.getBoundingClientRect()])
                .filter(([, box]) => Math.min(box.width, box.height) < 44)
                .map(([name, box]) => `${name}: ${box.width} x ${box.height}`)"""
        )
        assert small == [], width
        if width < 720:  # else the answer is beside the input
            page.evaluate("scrollTo(0, 0)")
            page.locator("#peek").click()
            expect(page.locator("#answers-title")).to_be_in_viewport()


@pytest.mark.parametrize("zoom", [2, 4])
def test_it_can_be_read_at_two_and_four_hundred_percent(open_page: Open, zoom: int) -> None:
    # zoom is a smaller viewport with larger pixels (WCAG 1.4.4, and 1.4.10 for 400 %)
    size = {"width": 1280 // zoom, "height": 1024 // zoom}
    page = open_page(viewport=size, device_scale_factor=zoom).page
    page.locator("#options summary").click()
    card = sample(page, "cat")
    page.locator(".segments label", has_text="Label set").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    cut = page.evaluate(
        """() => [...document.querySelectorAll("button, label, h2, .word, .score, summary")]
            .filter(one => one.checkVisibility() && !one.closest(".samples, .sr"))
            .filter(one => one.getBoundingClientRect().right > innerWidth + 1)
            .map(one => one.textContent)"""
    )
    assert cut == []
    page.locator(".segments label", has_text="My own").click()
    card.locator(".word").first.scroll_into_view_if_needed()
    expect(card.locator(".word").first).to_be_in_viewport()
