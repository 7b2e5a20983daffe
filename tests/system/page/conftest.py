"""A real Chromium, real servers, and a page that must stay clean whatever a test does to it."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from models.encoder import Encoder
from tests.conftest import Serve

KEY = "ov_for-the-tests-of-the-page"

# for what a page is expected to show, on a busy machine
MOST_MS = 90_000

# what the page shows for some seconds only is there still when a busy machine comes to look
LONGER = """
const timeout = window.setTimeout;
window.setTimeout = (call, ms, ...rest) => timeout(call, ms > 2000 ? 20 * ms : ms, ...rest);
"""

# what the browser itself says of an answer that is a problem; the page shows it in words
REFUSED = "Failed to load resource: the server responded with a status of "


@dataclass
class Visit:
    """One page, and what it did that nobody saw."""

    page: Page
    site: str
    console: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)

    def watch(self) -> None:
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.console.append(f"error: {error}"))
        self.page.on("request", lambda request: self.requests.append(request.url))

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.console.append(message.text)

    def check(self) -> None:
        """No request went elsewhere, and the console holds only what the test expected."""
        host = urlsplit(self.site).netloc
        elsewhere = [
            url for url in self.requests if host not in url and not url.startswith("data:image/png")
        ]
        assert not elsewhere
        unexpected = [
            line for line in self.console if not any(pattern in line for pattern in self.expected)
        ]
        assert not unexpected


# for each file: while Playwright runs, no test in this thread can run an event loop of its own
@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    """The system's Chromium, with a camera that is none."""
    expect.set_options(timeout=MOST_MS)
    camera = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=camera)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def api(pictogram: Encoder, serve: Serve) -> Iterator[httpx.Client]:
    """A client of the server whose page is visited."""
    with serve(pictogram) as client:
        yield client


@pytest.fixture(scope="module")
def guarded(pictogram: Encoder, serve: Serve) -> Iterator[httpx.Client]:
    """The same for a server that wants a key."""
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    with serve(pictogram, api_keys=f"page:classify:{digest}") as client:
        yield client


Open = Callable[..., Visit]


@pytest.fixture
def open_page(browser: Browser, api: httpx.Client) -> Iterator[Open]:
    """Open a page in a browser of its own; at the end nothing odd may have happened on it."""
    visits: list[Visit] = []

    def opening(site: str = "", *, ready: str = "#model-tags li", **options: object) -> Visit:
        site = site or f"{str(api.base_url).rstrip('/')}/"
        chosen = {"reduced_motion": "reduce", "viewport": {"width": 1280, "height": 900}, **options}
        context = browser.new_context(**chosen)
        context.set_default_timeout(MOST_MS)
        context.add_init_script(LONGER)
        visit = Visit(context.new_page(), site)
        visit.watch()
        visits.append(visit)
        visit.page.goto(site)
        visit.page.wait_for_selector(ready, state="attached")
        return visit

    yield opening
    for visit in visits:
        visit.page.context.close()
    for visit in visits:
        visit.check()
