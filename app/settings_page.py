"""docs/settings.md, made from the settings themselves. Knows nothing of what they do."""

from pathlib import Path

from app.settings import Settings


def settings_page() -> str:
    """The page: a table of every setting."""
    rows = [
        f"| `OPENVOCAB_{name.upper()}` | {_default(field.default)} | {_limits(field.metadata)} "
        f"| {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    return "\n".join(
        [
            "# Settings",
            "",
            "Environment variables, read once when the server starts. A value that does not fit",
            "ends the start with one line that names it; `openvocab serve --help` shows which have",
            "an option.",
            "",
            "This page is made from `app/settings.py` by `make docs`; a test holds both together.",
            "",
            "| variable | default | limits | what |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )


def _default(value: object) -> str:
    """A default as the environment would spell it."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f"`{text}`" if text else "empty"


def _limits(metadata: list[object]) -> str:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "min_length": "length ≥"}
    return ", ".join(
        f"{sign} {getattr(bound, name)}"
        for bound in metadata
        for name, sign in signs.items()
        if hasattr(bound, name)
    )


def write_settings_page(path: Path) -> None:
    """Write the page where the documentation keeps it."""
    path.write_text(settings_page(), encoding="utf-8")
