"""Names of interface icons: which say what is drawn, and which are a variant or a button.

Knows words only. Emoji need none of this: their names are made for people.
"""

import re
from pathlib import Path

# how a set spells the same drawing in another stroke
STYLE = re.compile(
    r"-(outline|outlined|filled|fill|solid|line|linear|bold|bold-duotone|line-duotone|duotone|duo|"
    r"flat|remix|rounded|sharp|regular|thin|light|broken|variant|alt|24px|24|20|28|32|48|16|12)$"
)
SIZE = re.compile(r"-(one|two|three|four|five|six|simple|\d+)$")
# of these strokes one or two are enough; the others repeat them
SKIP = re.compile(
    r"(-(off|slash|thin|light|broken|sharp|rounded|negative)$)|-(16|12|20|28|32|48)-(filled|regular)$"
    r"|-(outline-rounded|outline-sharp|outline-24px|24px)$|-off-|-slash-"
)
# words of user interfaces: with one of these, a name of several words tells of a state, not a thing
INTERFACE = frozenset(Path(__file__).with_name("interface-words.txt").read_text().split())
ICON_WORD = re.compile(r"[a-z]{2,}$")


def base_name(name: str) -> str | None:
    """'traffic-light-outline' -> 'traffic light'; None if the name is a state or a repeat."""
    if SKIP.search(name):
        return None
    text = name.removeprefix("animal-").removeprefix("i-")
    shorter = STYLE.sub("", text)
    while shorter != text:
        text, shorter = shorter, STYLE.sub("", shorter)
    text = SIZE.sub("", text)
    words = text.split("-")
    if len(words) > 3 or not all(ICON_WORD.match(w) for w in words):
        return None
    if len(words) > 1 and not INTERFACE.isdisjoint(words):
        return None
    return " ".join(words)
