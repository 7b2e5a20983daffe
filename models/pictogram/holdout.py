"""Which emoji no picture and no caption of the training may show.

Chosen by a hash of the concept's character, so that every run agrees; knows words, not pictures.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable

from captions import Concepts

SHARE = 0.10
# what the sample pictures under tests/samples show, and pizza; a sample must be a known thing
SHOWN = frozenset(
    {
        "airplane",
        "banana",
        "bicycle",
        "cat",
        "dog",
        "doughnut",
        "guitar",
        "key",
        "octopus",
        "pizza",
        "rocket",
        "sunflower",
        "umbrella",
    }
)
TRAINED, TEXT_ONLY, NEVER = "trained", "text only", "never"


def _digest(key: str) -> bytes:
    return hashlib.sha256(f"pictogram:{key}".encode()).digest()


def _whole_words(names: Iterable[str]) -> re.Pattern[str]:
    ordered = sorted(names, key=lambda n: (-len(n), n))
    return re.compile(rf"(?<![a-z])(?:{'|'.join(map(re.escape, ordered))})(?![a-z])")


class HoldOut:
    """The concepts left out, in two halves: `TEXT_ONLY` may be read by the distillation of the
    text tower, `NEVER` may not even be read."""

    def __init__(self, concepts: Concepts, shown_by_twemoji: Iterable[str]) -> None:
        keys = sorted(set(shown_by_twemoji))
        uses = Counter(form for key in keys for form in concepts.forms(key))
        self.group: dict[str, str] = {}
        # a name that two emoji go by ("cat" and "cat face") cannot be left out of one of them
        clean = [
            k
            for k in keys
            if all(uses[f] == 1 for f in concepts.forms(k)) and not concepts.forms(k) & SHOWN
        ]
        count = round(SHARE * len(keys))
        for key in sorted(clean, key=_digest)[:count]:
            self.group[key] = NEVER if _digest(key)[-1] % 2 else TEXT_ONLY
        self.names = frozenset(f for k in self.group for f in concepts.forms(k))
        self._named = _whole_words(self.names)
        unread = {f for k, g in self.group.items() if g == NEVER for f in concepts.forms(k)}
        self.read = sorted(self.names - unread)
        self._unread = _whole_words(unread)

    def of(self, key: str) -> str:
        return self.group.get(key, TRAINED)

    def may_show(self, key: str, is_emoji: bool) -> bool:
        """False for a held-out concept, and for an icon ("plastic duck") whose name holds one."""
        return key not in self.group and (is_emoji or self._named.search(key) is None)

    def may_read(self, text: str) -> bool:
        """False for a text with the name of a `NEVER` concept in it, as whole words."""
        return self._unread.search(text) is None
