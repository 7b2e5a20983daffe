"""The names of label sets as the store keeps them: each namespace apart from all others.

Knows neither stores nor keys.
"""

from typing import Final

# no name of a label set holds it, and every such name sorts before it
MARK: Final = "~"
_END: Final = "/"
_AFTER_END: Final = "0"  # the character that follows "/"


def inside(namespace: str, name: str) -> str:
    """The name under which the store keeps a label set; "" is the namespace of no key."""
    return f"{MARK}{namespace}{_END}{name}" if namespace else name


def outside(stored: str) -> str:
    """The name as its owner knows it."""
    return stored.partition(_END)[2] if stored.startswith(MARK) else stored


def of(stored: str) -> str:
    """The namespace that a stored name is in."""
    return stored[len(MARK) :].partition(_END)[0] if stored.startswith(MARK) else ""


def bounds(namespace: str) -> tuple[str, str]:
    """What all stored names of a namespace lie strictly between, and no other's do."""
    if not namespace:
        return "", MARK
    return f"{MARK}{namespace}{_END}", f"{MARK}{namespace}{_AFTER_END}"
