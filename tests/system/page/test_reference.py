"""The API reference that the playground's "API" opens."""

import re
import subprocess
from pathlib import Path

import httpx
from playwright.sync_api import expect

from tests.system.page.conftest import KEY, REFUSED, Open


def test_the_reference_names_every_route_and_schema_of_the_document(
    open_page: Open, api: httpx.Client
) -> None:
    document = api.get("/openapi.json").json()
    page = open_page().page
    page.get_by_role("link", name="API", exact=True).click()
    expect(page.get_by_role("heading", name="API reference")).to_be_visible()
    page.wait_for_selector("#classify")
    operations = [
        operation["operationId"]
        for item in document["paths"].values()
        for operation in item.values()
    ]
    routes = page.locator(".route").evaluate_all("all => all.map(one => one.id)")
    schemas = [f"schema-{name}" for name in document["components"]["schemas"]]
    assert sorted(routes) == sorted([*operations, *schemas])
    broken = page.locator("a[href^='#']").evaluate_all(
        "all => all.filter(one => !document.getElementById(one.hash.slice(1))).map(one => one.hash)"
    )
    assert broken == []
    page.get_by_label("Filter routes").fill("batch")
    expect(page.locator("#contents li:visible a")).to_contain_text(["/classify/batch"])


def test_the_reference_fits(open_page: Open, api: httpx.Client) -> None:
    page = open_page(
        f"{str(api.base_url).rstrip('/')}/page/reference.html#classify",
        ready="#classify",
        viewport={"width": 320, "height": 800},
    ).page
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
    for width in (320, 390, 768, 1440):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width, width
    expect(page.locator("#classify")).to_contain_text("curl -F image=@cat.png")
    page.emulate_media(media="print")
    wide, text = (
        page.locator(part).evaluate("one => one.clientWidth") for part in ("main", "main .pages")
    )
    assert text > 0.9 * wide


# what needs something of the server that a stranger's line cannot name
NOT_AS_PASTED = {
    "calibrateLabelset", "getCalibration", "putCalibration", "deleteCalibration",
    "getExamplePicture", "deleteExample", "openaiGetModel", "immichPredict",
}  # fmt: skip


def test_its_curl_lines_work_as_pasted(
    open_page: Open, api: httpx.Client, samples: dict[str, Path]
) -> None:
    site = f"{str(api.base_url).rstrip('/')}/page/reference.html"
    lines: dict[str, str] = dict(
        open_page(site, ready="#classify").page.locator(".route:has(.sample)").evaluate_all(
            "all => all.map(one => [one.id, one.querySelector('.sample pre').textContent])"
        )
    )  # fmt: skip
    # deleted last, so that the lines before it find what the first one makes
    order = sorted(lines.keys() - NOT_AS_PASTED, key=lambda one: (one != "createLabelset",
                   one == "deleteLabelset", one))  # fmt: skip
    for name in order:
        process = subprocess.run(
            ["bash", "-c", lines[name].replace("curl ", "curl -sS --fail-with-body ", 1)],
            cwd=samples["cat"].parent, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert process.returncode == 0, f"{lines[name]}\n{process.stdout}{process.stderr}"


def test_its_curl_lines_read_the_key_of_a_server_that_has_keys(
    open_page: Open, guarded: httpx.Client
) -> None:
    site = f"{str(guarded.base_url).rstrip('/')}/"
    visit = open_page(site, ready="#key-panel")
    visit.expected.append(f"{REFUSED}401")
    page = visit.page
    page.get_by_label("API key", exact=True).fill(KEY)
    page.get_by_role("button", name="Use this key").click()
    expect(page.locator("#key-panel")).to_be_hidden()
    page.get_by_role("link", name="API", exact=True).click()
    for name, is_keyed in {"classify": True, "getModels": True, "getHealth": False}.items():
        line = page.locator(f"#{name} .sample pre")
        keyed = '-H "Authorization: Bearer $OPENVOCAB_API_KEY"'
        expect(line).to_have_text(re.compile(re.escape(keyed) if is_keyed else "^curl http"))
