"""Write ATTRIBUTION.md from the sources' table and the manifest of the pictures really used.

Knows the two files and the page's words; fetches nothing.
"""

import csv
from collections import Counter
from pathlib import Path

from sources import PICTURES, Source, of_kind, single_source
from workfolder import work_parser

PAGE = Path(__file__).with_name("ATTRIBUTION.md")
LINKS = {
    "Apache-2.0": "https://www.apache.org/licenses/LICENSE-2.0",
    "CC-BY-3.0": "https://creativecommons.org/licenses/by/3.0/",
    "CC-BY-4.0": "https://creativecommons.org/licenses/by/4.0/",
    "CC0-1.0": "https://creativecommons.org/publicdomain/zero/1.0/",
    "ISC": "https://opensource.org/license/isc-license-txt",
    "MIT": "https://opensource.org/license/mit",
}

HEAD = """# What `pictogram` was trained on

{total:,} pictures of {sets} openly licensed sets, fetched as pinned packages with checksums
(`sources.csv`). None of them is in this repository; only the trained weights are. `make data`
writes `manifest.csv` into its work folder, with source, name, licence and author of every single
picture used, and this page from it.

No set is share-alike, non-commercial or without a stated licence; OpenMoji and the first Emoji One
were left out for that reason.

| package | version | pictures | licence | author |
|---|---|---|---|---|
"""

TAIL = """
Changes made to the pictures: rendered to 80 x 80 pixels, then distorted and recoloured at random
while training. Icons were used only where their name says what they show, at most two strokes of
each; pictures of the held-out concepts (see README.md) were not used at all.

Clip art: {authors} authors, named in the manifest.

## Words

- Keywords of emoji: {keywords}.
- Synonyms, hypernyms and glosses: {words}.
  WordNet 3.0, copyright 2006 by Princeton University, all rights reserved; its licence permits use,
  copying and distribution for any purpose and without fee.
- The sentence encoder whose likeness of texts was learned from: {teacher}.
  Its weights are not in this repository.

## Only for measuring, never for training

- {validation}.
  The sample pictures under `tests/samples/` and the sheet `tests/models/pictogram/twemoji-64.png`
  come from it.
- Photographs: {photographs}. `photographs.csv` names the ones used; they are not in this
  repository.
"""


def _line(source: Source) -> str:
    package = f"`{source.package}` {source.version}"
    return f"{package}, {source.author}, {_licence(source)}"


def _licence(source: Source) -> str:
    link = LINKS.get(source.licence)
    return f"[{source.licence}]({link})" if link else source.licence


def main() -> None:
    args = work_parser(__doc__, "pictogram").parse_args()
    with (args.work / "manifest.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    counts = Counter(r["source"] for r in rows)
    clip_art = single_source("clip-art").name
    used = [s for s in of_kind(*PICTURES) if counts[s.name]]
    text = HEAD.format(total=len(rows), sets=len(used))
    for s in used:
        pictures = f"{counts[s.name]:,}"
        text += f"| `{s.package}` | {s.version} | {pictures} | {_licence(s)} | {s.author} |\n"
    text += TAIL.format(
        authors=len({r["author"] for r in rows if r["source"] == clip_art}),
        keywords=_line(single_source("keywords")),
        words=_line(single_source("words")),
        teacher=_line(single_source("teacher")),
        validation=_line(single_source("validation")),
        photographs=_line(single_source("photographs")),
    )
    PAGE.write_text(text)


if __name__ == "__main__":
    main()
