"""Where the training pictures come from: pinned packages, their checksums and licences.

Knows how to fetch and open them; knows nothing of captions, rendering or training.
"""

import hashlib
import json
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Source:
    """One package. `weight` is how often a picture of it is drawn, against 1 for a colour emoji."""

    name: str
    version: str
    archive: str
    sha256: str
    licence: str
    author: str
    weight: float = 1.0


ICON_SETS = (
    Source(
        "noto",
        "1.2.9",
        "iconify-json-noto-1.2.9.tgz",
        "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad",
        "Apache-2.0",
        "Google Inc (Noto Emoji)",
    ),
    Source(
        "noto-v1",
        "1.2.5",
        "iconify-json-noto-v1-1.2.5.tgz",
        "2bf62c26c2c2884aa99e90aec942cdaee17a5921f05690694f4978ad4b017c37",
        "Apache-2.0",
        "Google Inc (Noto Emoji, first design)",
    ),
    Source(
        "fluent-emoji",
        "1.2.7",
        "iconify-json-fluent-emoji-1.2.7.tgz",
        "8044210dbf11e016d4de85f15d01a243423bd832457e7e2491df1b751c0e272b",
        "MIT",
        "Microsoft Corporation (Fluent Emoji)",
    ),
    Source(
        "fluent-emoji-flat",
        "1.2.6",
        "iconify-json-fluent-emoji-flat-1.2.6.tgz",
        "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175",
        "MIT",
        "Microsoft Corporation (Fluent Emoji, flat)",
    ),
    Source(
        "fluent-emoji-high-contrast",
        "1.2.6",
        "iconify-json-fluent-emoji-high-contrast-1.2.6.tgz",
        "0b92d48c90d2200bd499e3cdd09a127ca6a8c8ddefd34c35eb5a1e4994012ae0",
        "MIT",
        "Microsoft Corporation (Fluent Emoji, high contrast)",
        0.3,
    ),
    Source(
        "emojione",
        "1.2.3",
        "iconify-json-emojione-1.2.3.tgz",
        "26a14f44284407e8bcde91799388dca2bfd91dbcd55a97f425524a1c5b73610e",
        "CC-BY-4.0",
        "Emoji One / EmojiTwo",
    ),
    Source(
        "emojione-monotone",
        "1.2.1",
        "iconify-json-emojione-monotone-1.2.1.tgz",
        "40b90004bafb406b59266155ef9b7e1dd67bf2947fc8db8d07388776f4d0d04e",
        "CC-BY-4.0",
        "Emoji One",
        0.3,
    ),
    Source(
        "fxemoji",
        "1.2.2",
        "iconify-json-fxemoji-1.2.2.tgz",
        "f3e72b3c59d05e1db03b7e308d55c0d05bd7ba3f625a90da1b79313c12858eef",
        "Apache-2.0",
        "Mozilla (Firefox OS Emojis)",
    ),
    Source(
        "streamline-emojis",
        "1.2.4",
        "iconify-json-streamline-emojis-1.2.4.tgz",
        "5dac87c876b322500989828c5823143e0100d78881627a2e4081a4b897cbfdbc",
        "CC-BY-4.0",
        "Streamline",
    ),
    Source(
        "flat-color-icons",
        "1.2.3",
        "iconify-json-flat-color-icons-1.2.3.tgz",
        "d8878a9b0f02d749bc8671eb7d47882eb711185cbcefbb365cbfb488773c4786",
        "MIT",
        "Icons8",
        0.5,
    ),
    Source(
        "game-icons",
        "1.2.4",
        "iconify-json-game-icons-1.2.4.tgz",
        "f5758efb34d91c4f50b941f355f16ee73938625e5996fabc25171288404460a4",
        "CC-BY-3.0",
        "Lorc, Delapouite and contributors (game-icons.net)",
        0.25,
    ),
)
# never trained on: the one emoji style kept back to measure with
HELD_OUT = Source(
    "twemoji",
    "1.2.5",
    "iconify-json-twemoji-1.2.5.tgz",
    "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7",
    "CC-BY-4.0",
    "Twitter, Inc and other contributors (Twemoji)",
)
KEYWORDS = Source(
    "emojilib",
    "4.0.3",
    "emojilib-4.0.3.tgz",
    "7f9a6b43cff31d18985b7d65d11faba5bd971cbcc60020cf6d09322fbaaaf303",
    "MIT",
    "Mu-An Chiou (emojilib)",
)
CLIP_ART = Source(
    "openclipart-svg",
    "1:0.18+dfsg-19",
    "openclipart-svg_1%3a0.18+dfsg-19_all.deb",
    "989712d90d57dfa3230049f553bb43b76c30ee4d4b8c5f6e106e33f7db5cbdc5",
    "public domain (CC-PD)",
    "Open Clip Art Library contributors",
    0.4,
)


def fetch(source: Source, downloads: Path) -> Path:
    """Download once, check always: a changed archive must not silently change the model."""
    archive = downloads / source.archive
    if not archive.exists():
        if source is CLIP_ART:
            command = ["apt-get", "download", f"{source.name}={source.version}"]
        elif source is KEYWORDS:
            command = ["npm", "pack", f"{source.name}@{source.version}"]
        else:
            command = ["npm", "pack", f"@iconify-json/{source.name}@{source.version}"]
        subprocess.run(command, cwd=downloads, check=True, stdout=subprocess.DEVNULL)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != source.sha256:
        raise SystemExit(f"{archive.name}: SHA-256 is {digest}, expected {source.sha256}")
    return archive


def read_json(archive: Path, member: str) -> Any:
    """One JSON member of an npm package."""
    with tarfile.open(archive) as tar:
        handle = tar.extractfile(f"package/{member}")
        if handle is None:
            raise SystemExit(f"{archive.name} has no {member}")
        return json.load(handle)


@dataclass(frozen=True, slots=True)
class IconSet:
    """An icon package in Iconify's JSON form: name -> SVG body, on a width x height canvas."""

    source: Source
    bodies: dict[str, str]
    boxes: dict[str, tuple[float, float, float, float]]
    aliases: dict[str, list[str]]
    characters: dict[str, str]

    def svg(self, name: str, colour: str = "#222222") -> str:
        left, top, width, height = self.boxes[name]
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="{left} {top} {width} {height}" width="{width}" height="{height}" '
            f'color="{colour}">{self.bodies[name]}</svg>'
        )


def open_icons(source: Source, downloads: Path) -> IconSet:
    archive = fetch(source, downloads)
    icons = read_json(archive, "icons.json")
    try:
        characters = read_json(archive, "chars.json")
    except KeyError:
        characters = {}
    bodies, boxes = {}, {}
    for name, icon in icons["icons"].items():
        if icon.get("hidden"):
            continue  # withdrawn by the set's own authors
        bodies[name] = icon["body"]
        boxes[name] = (
            icon.get("left", 0),
            icon.get("top", 0),
            icon.get("width", icons.get("width", 16)),
            icon.get("height", icons.get("height", 16)),
        )
    aliases: dict[str, list[str]] = {}
    for alias, entry in icons.get("aliases", {}).items():
        if set(entry) == {"parent"} and entry["parent"] in bodies:  # a flip is another picture
            aliases.setdefault(entry["parent"], []).append(alias)
    return IconSet(source, bodies, boxes, aliases, {n: c for c, n in characters.items()})


def fetch_all(downloads: Path) -> None:
    downloads.mkdir(parents=True, exist_ok=True)
    for source in (*ICON_SETS, HELD_OUT, KEYWORDS, CLIP_ART):
        fetch(source, downloads)
