"""The API reference that the playground's "API" opens."""

import httpx
import pytest
from playwright.sync_api import expect

from tests.system.page.conftest import Open


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


@pytest.mark.parametrize("width", [320, 390, 768, 1440])
def test_the_reference_fits(open_page: Open, api: httpx.Client, width: int) -> None:
    page = open_page(
        f"{str(api.base_url).rstrip('/')}/page/reference.html#classify",
        ready="#classify",
        viewport={"width": width, "height": 800},
    ).page
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    expect(page.locator("#classify")).to_contain_text("curl -F image=@cat.png")
