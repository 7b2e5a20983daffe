"""What a Content-Type header says. Knows nothing of bodies."""

JSON = "application/json"
FORM = "multipart/form-data"


def media_type(content_type: str) -> str:
    """The type alone, in lower case, without parameters (RFC 9110, section 8.3.1)."""
    return content_type.partition(";")[0].strip().lower()


def is_json(kind: str) -> bool:
    """Whether a media type is JSON, or a format written in it (RFC 6839, section 3.1)."""
    return kind == JSON or kind.endswith("+json")
