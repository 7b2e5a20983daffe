"""What an image may cost to decode, as an error. Knows no format."""

from app.errors import TooLarge


def check(count: int, limit: int, what: str) -> None:
    """Raises TooLarge."""
    if count > limit:
        detail = f"the image has over {limit} {what}; it would take too long to decode"
        raise TooLarge(detail, field="image", limit=limit, value=count)


def check_size(width: int, height: int, limit: int) -> None:
    """Raises TooLarge."""
    if width * height > limit:
        detail = f"the image has {width} x {height} = {width * height} pixels, the limit is {limit}"
        raise TooLarge(detail, field="image", limit=limit, value=width * height)
