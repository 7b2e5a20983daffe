"""A score as text, readable and in the right order for `sort -n`. Knows no response."""

from typing import Final

# digits of a score that is too small for the usual decimals
SIGNIFICANT: Final = 3


def score_text(score: float, decimals: int) -> str:
    """A score in 0..1 with that many decimals, and more where it would otherwise read zero."""
    if score == 0 or score >= 10.0 ** (SIGNIFICANT - decimals):
        return f"{score:.{decimals}f}"
    exponent = int(f"{score:.{SIGNIFICANT - 1}e}".partition("e")[2])
    return f"{score:.{max(decimals, SIGNIFICANT - 1 - exponent)}f}"
