"""What somebody does on the playground, in a real Chromium against a real server."""

import base64
import json
import os
import subprocess
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Locator, Page, expect

from tests.system.page.conftest import KEY, REFUSED, Open

HOSTILE = "<img src=x onerror=document.title='hacked'>"
NASTY = [
    "it's", 'a "quote"', "$HOME `id` \\n !x", "semi;type=text/html", "@file", "<in", "a, b",
    "né 猫", "[list", "-dash", "100%", HOSTILE,
]  # fmt: skip


def sample(page: Page, name: str) -> Locator:
    page.get_by_role("button", name=f"Sample: {name}", exact=True).click()
    return answered(page, f"{name}.webp")


def card(page: Page, name: str) -> Locator:
    return page.get_by_role("article", name=name, exact=True)


def answered(page: Page, name: str) -> Locator:
    found = card(page, name)
    expect(found).to_have_attribute("data-state", "done")
    return found


def words(found: Locator) -> list[str]:
    return found.locator(".word").all_inner_texts()


def set_labels(page: Page, labels: list[str]) -> None:
    clear = page.get_by_role("button", name="Clear", exact=True)
    if clear.is_visible():
        clear.click()
    page.evaluate("text => navigator.clipboard.writeText(text)", "\n".join(labels) + "\n")
    page.get_by_label("Add a label").focus()
    page.keyboard.press("Control+v")
    page.keyboard.press("Enter")  # one line alone is typed on with, more are a list
    expect(page.locator(".chip")).to_have_count(len(labels))


CLIPBOARD = {"permissions": ["clipboard-read", "clipboard-write"]}


def test_an_uploaded_picture_gets_bars_with_scores_similarities_and_times(
    open_page: Open, samples: dict[str, Path], api: httpx.Client
) -> None:
    page = open_page().page
    page.locator("#files").set_input_files(samples["cat"])
    found = answered(page, "cat.png")
    labels = page.locator(".chip span").all_inner_texts()
    with samples["cat"].open("rb") as image:
        form = {"labels": json.dumps(labels)}
        answer = api.post("/classify", data=form, files={"image": image}).json()
    best = answer["predictions"][0]
    row = found.locator(".rows li").first
    expect(row).to_contain_text(f"cat{100 * best['score']:.1f} %")
    expect(row).to_contain_text(f"{best['similarity']:.3f}")
    assert words(found) == [one["label"] for one in answer["predictions"]]
    bar = row.locator(".fill").bounding_box()
    track = row.locator(".track").bounding_box()
    assert bar
    assert track
    assert bar["width"] / track["width"] == pytest.approx(best["score"], abs=0.02)
    expect(found.locator(".timing dt")).to_contain_text(["decode", "queue", "encode"])
    expect(found.locator(".timing")).to_contain_text("in the server")
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
    assert words(answered(page, "dog.png"))[0] == "dog"
    expect(page.locator("#veil")).to_be_hidden()


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
    assert words(answered(page, "image.png"))[0] == "rocket"
    page.get_by_role("button", name="Paste").click()
    assert words(answered(page, "pasted.png"))[0] == "rocket"


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
    while page.evaluate("document.activeElement.ariaLabel") != "Sample: guitar":
        press("Tab")
    press("Enter")
    answered(page, "guitar.webp")
    while page.evaluate("document.activeElement.id") != "label-input":
        press("Tab")
    for _ in range(8):
        press("Backspace")
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
    expect(card(page, "guitar.webp").locator(".word")).to_have_text(["guitar", "drum, small"])


def test_a_pasted_list_is_one_label_a_line(open_page: Open) -> None:
    page = open_page(**CLIPBOARD).page
    set_labels(page, ["a pizza, sliced", "rocket", "rocket ship"])
    assert words(sample(page, "rocket"))[-1] == "a pizza, sliced"
    expect(page.locator("#label-count")).to_have_text("3 words")


def test_one_word_alone_is_explained_and_not_asked(open_page: Open) -> None:
    page = open_page(**CLIPBOARD).page
    set_labels(page, ["cat"])
    page.get_by_role("button", name="Sample: cat").click()
    expect(page.locator("#empty-text")).to_contain_text("One word alone always scores 100 %")
    page.locator("#options summary").click()
    page.locator(".switch", has_text="on its own").click()
    found = answered(page, "cat.webp")
    expect(found.locator(".basis")).to_contain_text("Each scored on its own")
    page.get_by_label("Least score").fill("0.9999")
    expect(found.locator(".notes")).to_contain_text("No word reached the least score of 0.9999")


def test_a_label_that_the_model_cannot_read_is_warned_about(open_page: Open) -> None:
    page = open_page(**CLIPBOARD).page
    set_labels(page, ["cat", "猫"])
    expect(sample(page, "cat").locator(".notes")).to_contain_text("猫")


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

    expect(page.locator(".set")).to_have_count(51)
    page.get_by_role("button", name="Show more").click()
    expect(page.locator(".set")).to_have_count(61)
    page.get_by_label("Filter by name").fill("ler-5")
    expect(page.locator(".set-name")).to_have_text([f"filler-{n}" for n in range(50, 60)])
    page.get_by_label("Filter by name").fill("zoo")
    page.get_by_role("button", name="Edit its words").click()
    expect(page.get_by_label("Add a label")).to_be_focused()
    page.keyboard.type("rocket,")
    page.get_by_role("button", name="Save as label set").click()
    page.get_by_label("Name of the label set").fill("zoo")
    page.keyboard.press("Enter")
    expect(page.locator("#save-error")).to_have_text("There is a label set “zoo” already.")
    assert api.get("/labelsets/zoo").json()["label_count"] == 2
    page.get_by_role("button", name="Replace it").click()
    expect(page.get_by_role("radio", name="zoo")).to_be_checked()
    assert api.get("/labelsets/zoo").json()["label_count"] == 3
    visit.expected.append(f"{REFUSED}412")


def test_problems_are_said_in_words_where_they_arise(open_page: Open) -> None:
    visit = open_page()
    page = visit.page
    page.locator("#files").set_input_files(
        {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"not a picture"}
    )
    problem = card(page, "notes.txt").locator(".problem")
    expect(problem).to_contain_text("This is not an image format that is accepted")
    expect(problem).to_contain_text("field: image")
    found = sample(page, "cat")
    page.locator("#options summary").click()
    page.get_by_label("Least score").fill("1.5")
    expect(page.locator("#threshold-error")).to_contain_text("less than or equal to 1")
    expect(page.get_by_label("Least score")).to_have_attribute("aria-invalid", "true")
    expect(found.locator(".problem")).to_contain_text("limit: 1 · sent: 1.5")
    page.get_by_label("Least score").fill("0.01")
    expect(found).to_have_attribute("data-state", "done")
    expect(page.locator("#threshold-error")).to_be_empty()
    visit.expected += [f"{REFUSED}415", f"{REFUSED}422"]


def test_a_server_that_does_not_answer_can_be_tried_again(open_page: Open) -> None:
    visit = open_page()
    page = visit.page
    page.context.set_offline(True)
    page.locator("#files").set_input_files(Path(__file__).parents[2] / "samples" / "cat.png")
    problem = card(page, "cat.png").locator(".problem")
    expect(problem).to_contain_text("The server does not answer")
    page.context.set_offline(False)
    problem.get_by_role("button", name="Try again").click()
    assert words(answered(page, "cat.png"))[0] == "cat"
    visit.expected.append("net::ERR_INTERNET_DISCONNECTED")


def test_a_file_that_is_gone_since_it_was_chosen_is_said_to_be_unreadable(
    open_page: Open, samples: dict[str, Path], tmp_path: Path
) -> None:
    visit = open_page(**CLIPBOARD)
    page = visit.page
    page.get_by_role("button", name="Clear", exact=True).click()
    chosen = tmp_path / "cat.png"
    chosen.write_bytes(samples["cat"].read_bytes())
    page.locator("#files").set_input_files(chosen)
    expect(page.locator("#empty-text")).to_have_text("Type at least two words that it might be.")
    chosen.unlink()
    set_labels(page, ["cat", "dog"])
    expect(card(page, "cat.png").locator(".problem")).to_contain_text("The file cannot be read")
    visit.expected.append("net::ERR_")


def test_several_pictures_are_asked_three_at_a_time_and_each_has_its_own_answer(
    open_page: Open, samples: dict[str, Path]
) -> None:
    visit = open_page()
    page = visit.page
    under_way, most = 0, 0

    def begun(request: object) -> None:
        nonlocal under_way, most
        if "/classify" in request.url:
            under_way += 1
            most = max(most, under_way)

    def ended(request: object) -> None:
        nonlocal under_way
        under_way -= "/classify" in request.url

    page.on("request", begun)
    page.on("requestfinished", ended)
    names = ["cat", "dog", "octopus", "pizza", "doughnut", "banana", "rocket", "umbrella"]
    files = [
        {"name": f"{name}.png", "mimeType": "image/png", "buffer": samples[name].read_bytes()}
        for name in names
    ]
    broken = {"name": "cut.png", "mimeType": "image/png", "buffer": files[0]["buffer"][:900]}
    page.locator("#files").set_input_files([*files[:4], broken, *files[4:]])
    expect(card(page, "cut.png")).to_have_attribute("data-state", "failed")
    for name in names:
        assert words(answered(page, f"{name}.png"))[0] == name
    assert 1 < most <= 3
    expect(page.locator("#status")).to_have_text("9 pictures answered, 1 error")
    card(page, "pizza.png").get_by_role("button", name="Remove pizza.png").click()
    expect(page.locator(".card")).to_have_count(8)
    page.get_by_role("button", name="Remove all").click()
    expect(page.locator(".card")).to_have_count(0)
    visit.expected.append(f"{REFUSED}422")


def test_the_copied_curl_line_answers_what_the_page_shows(
    open_page: Open, samples: dict[str, Path], tmp_path: Path
) -> None:
    page = open_page(**CLIPBOARD).page
    set_labels(page, [*NASTY, "cat"])
    page.locator("#options summary").click()
    page.get_by_label("How many answers").fill("13")
    page.get_by_label("Templates", exact=True).select_option("*own")
    page.get_by_label("Own templates").fill("a drawing of 'a' {}.\n{};type=x")
    name = """it's; a "cat", 1.png"""
    (tmp_path / name).write_bytes(samples["cat"].read_bytes())
    page.locator("#files").set_input_files(tmp_path / name)
    found = card(page, name)
    expect(found.locator(".word")).to_have_count(13)
    assert words(found) == [one["label"] for one in run_copied(page, found, tmp_path)]


def test_the_curl_line_of_a_sample_fetches_the_sample(open_page: Open, tmp_path: Path) -> None:
    page = open_page(**CLIPBOARD).page
    found = sample(page, "bicycle")
    assert words(found) == [one["label"] for one in run_copied(page, found, tmp_path)]
    expect(page.locator("#toast")).to_have_text("The curl line is copied.")
    expect(found.get_by_role("button", name="Copied")).to_be_visible()


def run_copied(page: Page, found: Locator, folder: Path) -> list[dict[str, object]]:
    """What the server answers to the line, run by a shell."""
    found.get_by_role("button", name="Copy as curl").click()
    expect(found.locator(".line")).to_be_visible()
    line = page.evaluate("navigator.clipboard.readText()")
    done = subprocess.run(
        ["bash", "-c", line], cwd=folder, capture_output=True, text=True, timeout=60, check=True
    )
    predictions: list[dict[str, object]] = json.loads(done.stdout)["predictions"]
    return predictions


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


def test_why_lays_the_heat_map_of_the_chosen_label_over_the_picture(open_page: Open) -> None:
    page = open_page().page
    page.locator("#why").click()
    found = sample(page, "cat")
    heat = found.locator("canvas")
    expect(found.locator(".heat-box")).to_contain_text("Where it looks like “cat”")
    picture, laid = found.locator(".frame img").bounding_box(), heat.bounding_box()
    assert picture
    assert laid
    assert (laid["width"], laid["height"]) == pytest.approx(
        (picture["width"], picture["height"]), abs=2
    )
    read = "canvas => canvas.toDataURL()"
    before = heat.evaluate(read)
    found.get_by_role("button", name="dog", exact=True).click()
    expect(found.locator(".heat-box")).to_contain_text("Where it looks like “dog”")
    expect(found.get_by_role("button", name="dog", exact=True)).to_have_attribute(
        "aria-pressed", "true"
    )
    page.wait_for_function(
        "([canvas, old]) => canvas.toDataURL() !== old", arg=[heat.element_handle(), before]
    )
    page.get_by_label("Opacity of the heat map").fill("0.3")
    expect(heat).to_have_css("opacity", "0.3")
    page.locator("#why").click()
    expect(heat).to_be_hidden()


def test_the_page_says_which_model_is_loaded_and_what_for(
    open_page: Open, api: httpx.Client
) -> None:
    loaded = api.get("/models").json()["loaded"]
    page = open_page().page
    model = page.get_by_role("region", name=loaded["name"])
    expect(model).to_contain_text(loaded["description"])
    expect(model.locator("li")).to_contain_text([loaded["precision"], loaded["device"]])
    model.locator("summary").click()
    expect(model.locator("dd")).to_contain_text(["simple drawings", "Photographs.", "English"])


def test_a_reload_keeps_what_was_chosen(open_page: Open) -> None:
    page = open_page(**CLIPBOARD).page
    set_labels(page, ["key", "banana", "airplane"])
    page.locator("#options summary").click()
    page.get_by_label("Templates", exact=True).select_option("imagenet")
    page.get_by_label("How many answers").fill("2")
    page.get_by_label("Least score").fill("0.05")
    page.locator(".switch", has_text="on its own").click()
    page.reload()
    page.wait_for_selector("#model-tags li")
    expect(page.locator(".chip span")).to_have_text(["key", "banana", "airplane"])
    page.locator("#options summary").click()
    expect(page.get_by_label("Templates", exact=True)).to_have_value("imagenet")
    expect(page.get_by_label("How many answers")).to_have_value("2")
    expect(page.get_by_label("Least score")).to_have_value("0.05")
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
    expect(page.locator("#key-error")).to_contain_text("not known here")
    field.fill(KEY)
    use.click()
    expect(page.locator("#key-panel")).to_be_hidden()
    page.locator("#files").set_input_files(samples["key"])
    answered(page, "key.jpg")
    card(page, "key.jpg").get_by_role("button", name="Copy as curl").click()
    expect(page.locator("#toast")).to_contain_text("OPENVOCAB_API_KEY")
    line = page.evaluate("navigator.clipboard.readText()")
    assert KEY not in line
    keyed = {"OPENVOCAB_API_KEY": KEY, "PATH": os.environ["PATH"]}
    ran = subprocess.run(
        ["bash", "-c", line],
        cwd=samples["key"].parent,
        env=keyed,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert json.loads(ran.stdout)["predictions"]
    page.reload()
    page.wait_for_selector("#model-tags li")
    kept = page.evaluate("JSON.stringify([{ ...localStorage }, document.cookie])")
    assert KEY not in kept
    page.get_by_role("button", name="Save as label set").click()
    page.get_by_label("Name of the label set").fill("mine")
    page.keyboard.press("Enter")
    expect(page.locator("#save-error")).to_contain_text("labelsets:write")
    visit.expected += [f"{REFUSED}401", f"{REFUSED}403"]


@pytest.mark.parametrize("width", [360, 390, 768])
def test_it_fits_a_phone_and_a_thumb(open_page: Open, width: int) -> None:
    page = open_page(viewport={"width": width, "height": 760}, has_touch=True, is_mobile=True).page
    page.locator("#options summary").click()
    sample(page, "cat")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    expect(page.locator("#peek")).to_contain_text("cat")
    small = page.evaluate(
        """() => [...document.querySelectorAll("button, select, summary, .switch, .segments label")]
            .filter(one => one.checkVisibility())
            .map(one => [one.textContent.trim() || one.ariaLabel, one.getBoundingClientRect()])
            .filter(([, box]) => Math.min(box.width, box.height) < 44)
            .map(([name, box]) => `${name}: ${box.width} x ${box.height}`)"""
    )
    assert small == []
    page.locator("#peek").click()
    expect(page.locator("#answers-title")).to_be_in_viewport()
