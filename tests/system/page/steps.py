"""What somebody does on the page, and reads from it."""

import json
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import Locator, Page, expect

CLIPBOARD = {"permissions": ["clipboard-read", "clipboard-write"]}


def sample(page: Page, name: str) -> Locator:
    page.get_by_role("button", name=f"Sample: {name}", exact=True).click()
    return answered_card(page, f"{name}.webp")


def card(page: Page, name: str) -> Locator:
    return page.get_by_role("article", name=name, exact=True)


def answered_card(page: Page, name: str) -> Locator:
    article = card(page, name)
    expect(article).to_have_attribute("data-state", "done")
    return article


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


def run_copied(page: Page, found: Locator, language: str, folder: Path) -> list[str]:
    """The labels that the server answers to the code, run as somebody would."""
    found.get_by_role("button", name=f"Copy as {language}").click()
    expect(found.get_by_role("button", name=f"Copy as {language}")).to_have_text("Copied")
    expect(page.locator("#toast")).to_contain_text(f"Copied as {language}.")
    expect(found.locator(".line")).to_be_visible()
    code = page.evaluate("navigator.clipboard.readText()")
    assert found.locator(".line").text_content() == code
    command = {
        "curl": ["bash", "-c", code],
        "Python": [sys.executable, "-c", code],
        "JavaScript": ["node", "--input-type=module", "-e", code],
    }[language]
    process = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=300, check=True
    )
    if language == "curl":
        answer = json.loads(process.stdout)
        (result,) = answer.get("boxes", [answer])
        return [prediction["label"] for prediction in result["predictions"]]
    return [line.rpartition(" ")[0] for line in process.stdout.splitlines()]
