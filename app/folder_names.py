"""What the folder of a label is called. Knows nothing of files."""

import hashlib
import re
import unicodedata
from typing import Final

NONE: Final = "_none"

# bytes of a folder's name; file systems allow 255
LONGEST: Final = 100

# separators, and what Windows forbids
UNSAFE: Final = frozenset('/\\<>:"|?*')
RESERVED: Final = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?|_none", re.IGNORECASE)


def folder_name(label: str | None) -> str:
    """A label as a folder may be called anywhere; different labels differ. None is `_none`.

    A name that had to be changed ends in a digest of the label.
    """
    if label is None:
        return NONE
    text = unicodedata.normalize("NFC", label)
    # what does not print would also lead a terminal or a reader astray
    name = "".join("_" if c in UNSAFE or not c.isprintable() else c for c in text)
    name = name.encode()[:LONGEST].decode(errors="ignore").lstrip(" .-").rstrip(" .")
    if name == label and not RESERVED.fullmatch(name):
        return name
    digest = hashlib.sha256(label.encode(errors="surrogatepass")).hexdigest()[:6]
    return f"{name or '_'}~{digest}"
