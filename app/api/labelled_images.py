"""From the body of a calibration or of examples to its images, each with what it shows.

Knows nothing of vectors or stores.
"""

from collections.abc import AsyncGenerator, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from starlette.requests import Request

from app.api import bodies, json_text, multipart
from app.api.bodies import address_fields, is_json, json_body, media_type, merge
from app.api.fields import IMAGE, unknown_field
from app.api.multipart import Part
from app.api.uploads import (
    IMAGES,
    NAME,
    UploadBatches,
    arriving_body,
    counted,
    decoded,
    file_of,
    form_parts,
    json_images,
    labelled,
)
from app.classify.bulk import Item
from app.classify.labels import NONE, composed, folder_name
from app.errors import Invalid, Problem, TooLarge, excerpt, shown
from app.labelsets.calibration.fit import Aim
from app.labelsets.examples import LABEL

FIELDS: Final = ("risk", "confidence")

# of an image in JSON
LABELLED: Final = (IMAGE, LABEL, NAME)

MOST_RISK: Final = 0.5
LEAST_CONFIDENCE: Final = 0.5
MOST_CONFIDENCE: Final = 0.999


@dataclass(slots=True)
class LabelledForm:
    """What the images show: complete once all images have been read.

    `claims` are of each image in order: places of labels, none of them, or why neither.
    """

    labels: Sequence[str]
    fields: dict[str, Any] = field(default_factory=dict)
    claims: list[tuple[int, ...] | Problem] = field(default_factory=list)
    _places: dict[str, int] = field(init=False)
    _folders: dict[str, int] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._places = {label: place for place, label in enumerate(self.labels)}

    def tell(self, label: Any) -> None:
        """What the next image shows: a label, a list of them, or nothing of the sort."""
        self.claims.append(self._claim(label))

    def _claim(self, value: Any) -> tuple[int, ...] | Problem:
        if isinstance(value, Problem):
            return value
        if value is None or value == [] or (isinstance(value, str) and not value.strip()):
            return ()
        every = [value] if isinstance(value, str) else value
        if not isinstance(every, list) or not all(isinstance(label, str) for label in every):
            return Invalid(f"{LABEL} is neither a text nor a list of texts", field=LABEL)
        places = []
        for label in every:
            place = self._place(label)
            if place is None and label == NONE and len(every) == 1:
                return ()
            if place is None:
                detail = f"{shown(label)} is not a label in this label set"
                return Invalid(detail, field=LABEL, value=excerpt(label))
            places.append(place)
        return tuple(sorted(set(places)))

    def knows(self, text: str) -> bool:
        """Whether a label has this name."""
        return text in self._places

    def _place(self, text: str) -> int | None:
        for form in (text, text.strip(), composed(text.strip())):
            if form in self._places:
                return self._places[form]
        if not self._folders:
            # as `openvocab classify --move-to` calls them
            self._folders = {folder_name(label): at for label, at in self._places.items()}
        return self._folders.get(text)

    @property
    def aim(self) -> Aim:
        """The aim of the calibration. Raises Invalid."""
        risk = _number(self.fields, "risk", 0.0, MOST_RISK)
        confidence = _number(self.fields, "confidence", LEAST_CONFIDENCE, MOST_CONFIDENCE)
        return Aim(Aim().risk if risk is None else risk, confidence)


async def read_calibration(
    request: Request, labels: Sequence[str], uploads: UploadBatches
) -> tuple[LabelledForm, AsyncGenerator[Item, None]]:
    """The labels, as they arrive with the images. Raises Unparsable, Invalid, TooLarge."""
    kind = media_type(request.headers.get("content-type", ""))
    form = LabelledForm(labels, fields=_checked_fields(_fields(request)))
    if kind == bodies.FORM:
        multipart.check_charset(request)
        return form, counted(_form(request, form, uploads), uploads)
    if is_json(kind):
        parsed = await json_body(request)
        images = json_images(parsed, uploads)
        form.fields = merge(form.fields, _checked_fields(parsed))
        for image in images:
            has_label = LABEL in image if isinstance(image, dict) else False
            detail = f"an image has no {LABEL}; null or an empty text is none of them"
            form.tell(image[LABEL] if has_label else Invalid(detail, field=LABEL))
        return form, counted(decoded(images, LABELLED), uploads)
    return form, counted(labelled(request, uploads, form.tell), uploads)


async def _form(
    request: Request, form: LabelledForm, uploads: UploadBatches
) -> AsyncGenerator[tuple[str, Any], None]:
    """Labels may come before, between and after the images; the first is that of the first."""
    images = 0
    arriving = form_parts(request, uploads)
    async for part in arriving:
        if part.filename is None:
            _text(part, form, uploads)
        else:
            images += 1
            yield file_of(part)
    labels = len(form.claims)
    if images != labels:
        detail = f"there are {images} images and {labels} labels; each image needs one"
        raise Invalid(detail, field=LABEL, limit=images, value=labels)


def _text(part: Part, form: LabelledForm, uploads: UploadBatches) -> None:
    text = _text_of(part)
    if part.name != LABEL:
        form.fields = merge(form.fields, _checked_fields({part.name: text}))
        return
    _check_count(len(form.claims), uploads)
    # a list as JSON, unless a label has that name
    listed = text.lstrip().startswith("[") and not form.knows(text.strip())
    form.tell(_json_list(text) if listed else text)


def _text_of(part: Part) -> str:
    """The text of a part. Raises Problem, Unparsable."""
    if isinstance(part.content, Problem):
        raise part.content
    return bodies.text_of(part.content, part.name)


def _check_count(labels: int, uploads: UploadBatches) -> None:
    """Nothing if one more label may come after so many. Raises TooLarge."""
    if labels >= uploads.images:
        detail = f"over {uploads.images} labels, the limit of max_upload_images"
        raise TooLarge(detail, field=LABEL, limit=uploads.images, value=labels + 1)


def _json_list(text: str) -> Any:
    try:
        return json_text.json_list(text)
    except (ValueError, Invalid) as error:
        return Invalid(f"{LABEL} {error}", field=LABEL)


def _checked_fields(fields: dict[str, Any]) -> dict[str, Any]:
    _check_known(fields, FIELDS, (IMAGE, LABEL, *FIELDS))
    return fields


def _check_known(fields: Collection[str], known: Collection[str], listed: Sequence[str]) -> None:
    """Nothing if all are `known`; a problem lists those `listed`. Raises Invalid."""
    for name in fields:
        if name not in known:
            only_url = f"; {name} goes into the URL: ?{name}=…" if name in OPTIONS else ""
            raise unknown_field(name, ", ".join(listed), only_url)


def _number(fields: dict[str, Any], name: str, low: float, high: float) -> float | None:
    raw = fields.get(name)
    if raw is None or raw == "":
        return None
    try:
        value = float(raw) if isinstance(raw, str | int | float) else -1.0
    except (ValueError, OverflowError):
        value = -1.0
    if not low <= value <= high:
        detail = f"{name} is a number from {low:g} to {high:g}"
        raise Invalid(detail, field=name, limit=high, value=excerpt(str(raw)))
    return value


# only in the query: needed before the first picture
OPTIONS: Final = ("model", "wait")


@dataclass(slots=True)
class Claims:
    """The labels as sent: one for all pictures, or one for each, in order."""

    stated: list[Any] = field(default_factory=list)
    images: int = 0

    def tell(self, label: str | Problem) -> None:
        """What the next picture shows."""
        self.stated.append(label)
        self.images += 1

    def of(self, index: int) -> str | Problem:
        """The label of a picture by its number, once all have been read."""
        if not self.stated:
            return Invalid(f"{LABEL} is missing: what the pictures show", field=LABEL)
        if len(self.stated) not in (1, self.images):
            detail = f"there are {self.images} images and {len(self.stated)} labels; send one for "
            detail += "all or one for each"
            return Invalid(detail, field=LABEL, limit=self.images, value=len(self.stated))
        label = self.stated[0 if len(self.stated) == 1 else index]
        if isinstance(label, Problem):
            return label
        return label if isinstance(label, str) else Invalid(f"{LABEL} is not a text", field=LABEL)


async def read_examples(
    request: Request, uploads: UploadBatches
) -> tuple[Claims, AsyncGenerator[Item, None]]:
    """The labels, complete once all pictures have been read. Raises Unparsable, Invalid."""
    kind = media_type(request.headers.get("content-type", ""))
    claims = Claims()
    fields = _fields(request)
    _check_known(fields, (LABEL,), (IMAGE, LABEL))
    if LABEL in fields:
        claims.stated.append(fields[LABEL])
    if kind == bodies.FORM:
        multipart.check_charset(request)
        return claims, counted(_example_form(request, claims, uploads), uploads)
    if is_json(kind):
        images = await _json(request, claims, uploads)
        claims.images = len(images)
        return claims, counted(decoded(images, LABELLED), uploads)
    if LABEL in fields:
        return claims, counted(_raw(request, claims, uploads), uploads)
    return claims, counted(labelled(request, uploads, claims.tell), uploads)


def _fields(request: Request) -> dict[str, Any]:
    """Those of the URL, without what is read there before the body."""
    fields = address_fields(request, ())
    return {name: value for name, value in fields.items() if name not in OPTIONS}


async def _example_form(
    request: Request, claims: Claims, uploads: UploadBatches
) -> AsyncGenerator[tuple[str, Any], None]:
    """Labels may come before, between and after the pictures."""
    arriving = form_parts(request, uploads)
    async for part in arriving:
        if part.filename is None:
            claims.stated.append(_example_text(part, claims, uploads))
        else:
            claims.images += 1
            yield file_of(part)
    if not claims.images:
        detail = f"no image was sent: send each as a form field named {IMAGE}"
        raise Invalid(detail, field=IMAGE)


def _example_text(part: Part, claims: Claims, uploads: UploadBatches) -> str:
    _check_known({part.name}, (LABEL,), (IMAGE, LABEL))
    _check_count(len(claims.stated), uploads)
    return _text_of(part)


async def _json(request: Request, claims: Claims, uploads: UploadBatches) -> list[Any]:
    """One `image` with its `label`, or `images` with theirs."""
    parsed = await json_body(request)
    for name in (IMAGE, IMAGES, LABEL):
        if parsed.get(name, "") is None:
            del parsed[name]
    if IMAGE in parsed:
        images: list[Any] = [{IMAGE: parsed.pop(IMAGE)}]
    else:
        images = json_images(parsed, uploads)
        own = [isinstance(image, dict) and image.get(LABEL) is not None for image in images]
        if any(own):
            missing = Invalid(f"an image has no {LABEL}", field=LABEL)
            claims.stated += [
                image[LABEL] if has else missing for image, has in zip(images, own, strict=True)
            ]
    if claims.stated and LABEL in parsed:
        raise Invalid(f"{LABEL} is given twice", field=LABEL)
    if LABEL in parsed:
        claims.stated.append(parsed.pop(LABEL))
    _check_known(parsed, (), (IMAGE, IMAGES, LABEL))
    return images


async def _raw(
    request: Request, claims: Claims, uploads: UploadBatches
) -> AsyncGenerator[tuple[None, bytes], None]:
    """The body is the picture."""
    held = bytearray()
    async for chunk in arriving_body(request):
        held += chunk
        if len(held) > uploads.image_bytes:
            detail = f"the image has {len(held)} bytes or more, the limit is {uploads.image_bytes}"
            raise TooLarge(detail, field=IMAGE, limit=uploads.image_bytes, value=len(held))
    claims.images = 1
    yield None, bytes(held)
