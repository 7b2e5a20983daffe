"""Names of files in archives and folders: which are of no picture, and how their bytes read.

Pure: knows no archive.
"""

import re
from collections.abc import Sequence
from typing import Final

# what systems and packers add to folders
_JUNK: Final = frozenset({"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"})
_JUNK_STARTS: Final = ("._", ".ds_store")

# bytes that are no ASCII, one after the other
_RUN: Final = re.compile(rb"[\x80-\xff]+")

# kana in two bytes of Shift-JIS (JIS X 0208): only Japanese has them
_KANA: Final = re.compile(rb"\x82[\x9f-\xf1]|\x83[\x40-\x96]")
_SHIFT_JIS: Final = re.compile(
    rb"(?:[\x81-\x9f\xe0-\xef][\x40-\x7e\x80-\xfc]|[\x20-\x7e\xa1-\xdf])*"
)
# two bytes above 0xA0: the hanzi of GB 2312 begin with 0xB0 to 0xF7, Hangul with 0xB0 to 0xC8
_PAIRS: Final = re.compile(rb"(?:[\xa1-\xf7][\xa1-\xfe]|[\x00-\x7f])*")
_HANGUL: Final = re.compile(rb"(?:[\xb0-\xc8][\xa1-\xfe]|[\x00-\x7f])*")
# letters of Western Europe in Windows-1252, alone between others
_WESTERN: Final = re.compile(rb"[\xc0-\xd6\xd8-\xf6\xf8-\xff\x8a\x8c\x8e\x9a\x9c\x9e\x9f]{1,2}")
# Cyrillic in Windows-1251, and in the code page 866 of DOS
_RUSSIAN: Final = re.compile(rb"[\xa8\xb8\xc0-\xff]+")
_RUSSIAN_DOS: Final = re.compile(rb"[\x80-\xaf\xe0-\xf1]+")

# letters one after the other, on average, that are words in another script, not accents in Latin
_WORD: Final = 3

DOS: Final = "cp437"


def is_junk(part: str) -> bool:
    """Whether a file or folder of this name was put there by a system or a packer."""
    name = part.lower()
    return name in _JUNK or name.startswith(_JUNK_STARTS)


def is_aside(part: str) -> bool:
    """The same, or it is hidden: no part of the path of a picture."""
    return is_junk(part) or (part.startswith(".") and part not in (".", ".."))


def coding_of(names: Sequence[bytes]) -> str:
    """The coding of names that an archive does not tell; together, for one alone says little.

    UTF-8 where it can be; else what the letters look like; else the code page of DOS, as the ZIP
    format has it.
    """
    together = b"\n".join(name for name in names if not name.isascii())
    if not together or _reads(together, "utf-8"):
        return "utf-8"
    runs = _RUN.findall(together)
    if _KANA.search(together) and _SHIFT_JIS.fullmatch(together.replace(b"\n", b" ")):
        return "cp932" if _reads(together, "cp932") else DOS
    if _PAIRS.fullmatch(together):
        korean = _HANGUL.fullmatch(together) and len(b"".join(runs)) > _WORD
        coding = "cp949" if korean else "gb18030"
        return coding if _reads(together, coding) else DOS
    if sum(map(len, runs)) >= _WORD * len(runs):
        for letters, coding in ((_RUSSIAN, "cp1251"), (_RUSSIAN_DOS, "cp866")):
            if all(map(letters.fullmatch, runs)):
                return coding
    if all(map(_WESTERN.fullmatch, runs)):
        return "cp1252"
    return DOS


def _reads(text: bytes, coding: str) -> bool:
    try:
        text.decode(coding)
    except UnicodeDecodeError:
        return False
    return True
