"""From the body of a calibration to its images, one at a time, each with what it shows.

Knows nothing of vectors or stores.
"""

import json
import unicodedata
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from starlette.requests import Request

from app import inputs
from app.batch import Item
from app.batch_inputs import (
    UploadBatches,
    arriving_body,
    counted,
    decoded,
    file_of,
    json_body,
    json_images,
    labelled,
    text_of,
)
from app.bodies import address_fields, merge
from app.calibration_fit import Aim
from app.errors import Invalid, Problem
from app.example_changes import LABEL
from app.folder_names import NONE, folder_name
from app.labels import excerpt, shown
from app.media_types import is_json, media_type
from app.parts import Part, parts
from app.queries import IMAGE

FIELDS: Final = ("risk", "confidence")

MOST_RISK: Final = 0.5
LEAST_CONFIDENCE: Final = 0.5
MOST_CONFIDENCE: Final = 0.999


@dataclass(slots=True)
class Shown:
    """What the images show, as it is told: complete once all images have been read.

    `claims` are by the number of the image: places of labels, none of them, or why neither.
    """

    labels: Sequence[str]
    claims: dict[int, tuple[int, ...] | Problem] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)
    told: int = 0
    _places: dict[str, int] = field(init=False)
    _folders: dict[str, int] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._places = {label: place for place, label in enumerate(self.labels)}

    def tell(self, said: Any) -> None:
        """What the next image shows: a label, a list of them, or nothing of the sort."""
        self.claims[self.told] = self._claim(said)
        self.told += 1

    def _claim(self, said: Any) -> tuple[int, ...] | Problem:
        if isinstance(said, Problem):
            return said
        if said is None or said == [] or (isinstance(said, str) and not said.strip()):
            return ()
        every = [said] if isinstance(said, str) else said
        if not isinstance(every, list) or not all(isinstance(one, str) for one in every):
            return Invalid(f"{LABEL} is neither a text nor a list of texts", field=LABEL)
        found = []
        for one in every:
            place = self._place(one)
            if place is None and one == NONE and len(every) == 1:
                return ()
            if place is None:
                detail = f"{shown(one)} is no label of this label set"
                return Invalid(detail, field=LABEL, value=excerpt(one))
            found.append(place)
        return tuple(sorted(set(found)))

    def _place(self, text: str) -> int | None:
        for form in (text, text.strip(), unicodedata.normalize("NFC", text.strip())):
            if form in self._places:
                return self._places[form]
        if not self._folders:
            # as `openvocab classify --move-to` calls them
            self._folders = {folder_name(label): at for label, at in self._places.items()}
        return self._folders.get(text)

    @property
    def aim(self) -> Aim:
        """What is asked of the calibration. Raises Invalid."""
        risk = _number(self.fields, "risk", 0.0, MOST_RISK)
        confidence = _number(self.fields, "confidence", LEAST_CONFIDENCE, MOST_CONFIDENCE)
        return Aim(Aim().risk if risk is None else risk, confidence)


async def read_calibration(
    request: Request, labels: Sequence[str], uploads: UploadBatches
) -> tuple[Shown, AsyncGenerator[Item, None]]:
    """What is told, as it arrives with the images. Raises Unparsable, Invalid, TooLarge."""
    kind = media_type(request.headers.get("content-type", ""))
    told = Shown(labels, fields=_known(address_fields(request.query_params, ())))
    if kind == "multipart/form-data":
        inputs.check_charset(request)
        return told, counted(_form(request, told, uploads), uploads)
    if is_json(kind):
        parsed = await json_body(request)
        images = json_images(parsed, uploads)
        told.fields = merge(told.fields, _known(parsed))
        for image in images:
            sent = LABEL in image if isinstance(image, dict) else False
            detail = f"an image has no {LABEL}; null or an empty text is none of them"
            told.tell(image[LABEL] if sent else Invalid(detail, field=LABEL))
        return told, counted(decoded(images), uploads)
    return told, counted(labelled(request, uploads, told.tell), uploads)


async def _form(
    request: Request, told: Shown, uploads: UploadBatches
) -> AsyncGenerator[tuple[str, Any], None]:
    """Labels may come before, between and after the images; the first is that of the first."""
    content_type, images = request.headers["content-type"], 0
    arriving = parts(arriving_body(request), content_type, uploads.image_bytes, inputs.LARGEST_TEXT)
    async for part in arriving:
        if part.filename is None:
            _text(part, told, uploads)
        else:
            images += 1
            yield file_of(part)
    if images != told.told:
        detail = f"there are {images} images and {told.told} labels; each image needs one"
        raise Invalid(detail, field=LABEL, limit=images, value=told.told)


def _text(part: Part, told: Shown, uploads: UploadBatches) -> None:
    if isinstance(part.content, Problem):
        raise part.content
    text = text_of(part.name, part.content)
    if part.name != LABEL:
        told.fields = merge(told.fields, _known({part.name: text}))
        return
    if told.told >= uploads.images:
        detail = f"over {uploads.images} labels, the limit of max_upload_images"
        raise Invalid(detail, field=LABEL, limit=uploads.images, value=told.told + 1)
    # a list as JSON, unless a label is called so
    listed = text.lstrip().startswith("[") and text.strip() not in told.labels
    told.tell(_json_list(text) if listed else text)


def _json_list(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return Invalid(f"{LABEL} starts like a JSON list and is none", field=LABEL)


def _known(fields: dict[str, Any]) -> dict[str, Any]:
    for name in fields:
        if name not in FIELDS:
            known = ", ".join((IMAGE, LABEL, *FIELDS))
            detail = f"there is no field {shown(name)}; the fields are {known}"
            raise Invalid(detail, field=excerpt(name))
    return fields


def _number(fields: dict[str, Any], name: str, low: float, high: float) -> float | None:
    sent = fields.get(name)
    if sent is None or sent == "":
        return None
    try:
        value = float(sent) if isinstance(sent, str | int | float) else -1.0
    except ValueError:
        value = -1.0
    if not low <= value <= high:
        detail = f"{name} is a number from {low:g} to {high:g}"
        raise Invalid(detail, field=name, limit=high, value=excerpt(str(sent)))
    return value
