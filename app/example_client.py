"""The examples of a server's label sets: sent in batches, fetched, restored. Knows no terminal."""

import base64
import binascii
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from app.labelset_client import LabelSets
from app.labelset_files import BadFile
from app.shell import Ended
from app.statuses import SOME_FAILED

# pictures and bytes of them that one request carries: each request makes a version
BATCH: Final = 200
BATCH_BYTES: Final = 16_000_000


@dataclass(frozen=True, slots=True)
class Picture:
    """A file with what it shows; `name` is what its sender calls it."""

    label: str
    name: str
    data: bytes


@dataclass(slots=True)
class Sent:
    """What became of pictures; `answer` is the server's last one."""

    added: int = 0
    unchanged: int = 0
    refused: list[tuple[str, str]] = field(default_factory=list)
    answer: dict[str, Any] | None = None


async def send(
    sets: LabelSets, name: str, pictures: Iterable[Picture], tell: Callable[[str], None]
) -> Sent:
    """Add pictures to a label set, batch by batch; `tell` hears how far it is. Raises Ended."""
    sent = Sent()
    for batch in _batches(pictures):
        answer = await sets.add_examples(name, [(one.label, one.name, one.data) for one in batch])
        sent.added += answer["added"]
        sent.unchanged += answer["unchanged"]
        for error in answer["errors"]:
            sent.refused.append((batch[error["index"]].name, error["error"]["detail"]))
        sent.answer = answer
        tell(f"{name}: {sent.added} examples added, {sent.unchanged} were there")
    return sent


async def backed_up(sets: LabelSets, name: str) -> list[dict[str, str]]:
    """Every example with its picture, as a backup holds it."""
    return [
        {
            "label": example["label"],
            "image": base64.b64encode(await sets.picture(name, example["id"])).decode(),
        }
        async for example in sets.examples(name)
    ]


async def restore(
    sets: LabelSets, name: str, kept: Iterable[Mapping[str, Any]], tell: Callable[[str], None]
) -> None:
    """Make the examples those of a backup. Raises Ended, BadFile."""
    pictures = [_picture(one, number) for number, one in enumerate(kept)]
    wanted = {hashlib.sha256(one.data).hexdigest(): one.label for one in pictures}
    there = {example["id"]: example["label"] async for example in sets.examples(name)}
    # first those that are in the way: a picture can be of one label alone
    for id_, label in there.items():
        if wanted.get(id_) != label:
            await sets.remove_examples(name, id_)
    # those that are there already change nothing
    sent = await send(sets, name, pictures, tell)
    if sent.refused:
        which, why = sent.refused[0]
        raise Ended(SOME_FAILED, f"{len(sent.refused)} examples were refused; {which}: {why}")


def _picture(kept: Mapping[str, Any], number: int) -> Picture:
    try:
        data = base64.b64decode(kept["image"], validate=True)
        return Picture(str(kept["label"]), f"example {number + 1}", data)
    except (KeyError, TypeError, ValueError, binascii.Error):
        raise BadFile(f"holds an example, number {number + 1}, that is none") from None


def _batches(pictures: Iterable[Picture]) -> Iterator[list[Picture]]:
    batch: list[Picture] = []
    size = 0
    for one in pictures:
        if batch and (len(batch) == BATCH or size + len(one.data) > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(one)
        size += len(one.data)
    if batch:
        yield batch
