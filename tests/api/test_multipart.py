"""Forms as they arrive: text fields count together, wherever they stand."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from app.api.multipart import LARGEST_TEXTS, Part, parts
from app.errors import Problem, TooLarge, Unparsable

TYPE = "multipart/form-data; boundary=B"


def text(name: str, content: bytes, more: str = "") -> bytes:
    head = f'--B\r\nContent-Disposition: form-data; name="{name}"\r\n{more}\r\n'
    return head.encode() + content + b"\r\n"


def parse(*pieces: bytes, sizes: list[int] | None = None) -> list[Part]:
    async def arriving() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    async def run() -> list[Part]:
        hold = (sizes if sizes is not None else []).append
        return [part async for part in parts(arriving(), TYPE, 100, 1_000_000, hold)]

    return asyncio.run(run())


def test_all_text_fields_of_a_form_count_together_and_as_held() -> None:
    field = text("labels", b"x" * 999_000)
    sizes: list[int] = []
    with pytest.raises(TooLarge, match="together") as caught:
        parse(*[field] * 600, sizes=sizes)
    assert caught.value.limit == LARGEST_TEXTS
    assert LARGEST_TEXTS - 1_000_000 < sum(sizes) <= LARGEST_TEXTS


def test_a_text_that_has_not_ended_counts_as_it_arrives() -> None:
    with pytest.raises(TooLarge, match="together"):
        parse(text("labels", b"")[:-2], *[b"x" * 100_000] * 200)


def test_names_count_as_their_texts_do() -> None:
    with pytest.raises(TooLarge, match="together"):
        parse(*[text("x" * 4_000, b"")] * 2_100)


def test_the_headers_of_a_part_are_bounded() -> None:
    for more in ("".join(f"x{n}: y\r\n" for n in range(10_000)), f"x: {'y' * 50_000}\r\n"):
        with pytest.raises(Unparsable, match="header"):
            parse(text("a", b"", more))


@pytest.mark.parametrize("first", [1, 4, 7, 13, 63])
def test_a_picture_without_a_file_name_is_a_file_however_it_arrives(first: int) -> None:
    picture = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + b"x" * 80
    form = text("image", picture) + text("labels", b"GIF89a") + b"--B--\r\n"
    begins = form.index(picture)
    image, labels = parse(form[: begins + first], form[begins + first :])
    assert (image.filename, image.content) == ("", picture)
    assert (labels.filename, labels.content) == (None, b"GIF89a")


def test_files_are_bounded_each_and_do_not_count_as_texts() -> None:
    head = b'--B\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
    sizes: list[int] = []
    parts = parse(
        *[head + b"x" * 101 + b"\r\n"] * 3, text("labels", b"a,b"), b"--B--\r\n", sizes=sizes
    )
    assert [isinstance(part.content, Problem) for part in parts] == [True, True, True, False]
    assert sum(sizes) == len("labels") + len("a,b")
