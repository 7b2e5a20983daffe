"""The batch route: parse, run, and respond as images are done."""

import csv
import io
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from app.api import bodies, multipart, openapi
from app.api.answers import CSV, preferred, with_rows
from app.api.bodies import JSON, address_fields, is_json, json_body, media_type, merge, single
from app.api.fields import IMAGE, InputLimits, build_query
from app.api.middleware.state import state_of
from app.api.multipart import Part
from app.api.problems import SENT, ProblemAnswer, document, documented, sendable
from app.api.results import (
    BATCH_END,
    BATCH_HEAD,
    Answer,
    answer_of,
    check_columns,
    csv_rows,
    text_rows,
)
from app.api.services import CallerDep, Services, ServicesDep, of_model, patience
from app.api.uploads import (
    UploadBatches,
    archived,
    counted,
    decoded,
    file_of,
    form_parts,
    json_images,
)
from app.classify.bulk import Item, Outcome, outcomes
from app.classify.query import Query
from app.errors import Invalid, Problem, TooLarge
from app.telemetry.spans import Stages


class BatchLine(BaseModel):
    """The outcome of one image of a batch; without `index`, why the remaining ones are missing."""

    index: int | None = Field(None, description="Index of the image in the request, from 0.")
    name: str | None = Field(None, description="File name, as sent.")
    result: Answer | None = None
    error: ProblemAnswer | None = None


class BatchAnswer(BaseModel):
    """The response of POST /classify/batch, in the order of the images."""

    count: int
    failed: int
    results: list[BatchLine]


def failed_lines(outcomes: Sequence[Outcome[Any]]) -> list[BatchLine]:
    """Why there is no result, of those outcomes that have none."""
    return [
        BatchLine(index=outcome.index, name=outcome.name, error=document(outcome.result))
        for outcome in outcomes
        if isinstance(outcome.result, Problem)
    ]


async def read_batch(
    request: Request, limits: InputLimits, uploads: UploadBatches
) -> tuple[Query, AsyncGenerator[Item, None]]:
    """The query, and the images as they arrive; the rest of the body is read with them.

    Raises:
        Unparsable, Invalid, TooLarge: what is wrong, with the field at fault.
    """
    kind = media_type(request.headers.get("content-type", ""))
    fields = address_fields(request, bodies.LISTS)
    if kind == bodies.FORM:
        return await _form(request, fields, limits, uploads)
    if is_json(kind):
        return await _json(request, fields, limits, uploads)
    return build_query(fields, limits), counted(archived(request, uploads), uploads)


async def _form(
    request: Request, fields: dict[str, Any], limits: InputLimits, uploads: UploadBatches
) -> tuple[Query, AsyncGenerator[Item, None]]:
    multipart.check_charset(request)
    arriving = form_parts(request, uploads)
    form: dict[str, list[Any]] = {}
    first: Part | None = None
    async for part in arriving:
        if part.filename is not None and part.name not in bodies.LISTS:
            first = part
            break
        _keep(form, part, limits)
    texts = {name: single(name, values, bodies.LISTS) for name, values in form.items()}
    query = build_query(merge(fields, texts), limits)
    if first is None:
        raise Invalid(f"no image was sent: send each as a form field named {IMAGE}", field=IMAGE)
    return query, counted(_files(first, arriving), uploads)


def _keep(form: dict[str, list[Any]], part: Part, limits: InputLimits) -> None:
    form.setdefault(part.name, []).extend(bodies.field_values(part))
    if sum(map(len, form.values())) > limits.fields:
        raise bodies.too_many(limits)


async def _files(first: Part, rest: AsyncIterator[Part]) -> AsyncGenerator[tuple[str, Any], None]:
    yield file_of(first)
    async for part in rest:
        yield file_of(part)


async def _json(
    request: Request, fields: dict[str, Any], limits: InputLimits, uploads: UploadBatches
) -> tuple[Query, AsyncGenerator[Item, None]]:
    parsed = await json_body(request)
    images = json_images(parsed, uploads)
    query = build_query(merge(fields, parsed), limits)
    return query, counted(decoded(images), uploads)


router = APIRouter(tags=["Classify"])

NDJSON: Final = "application/x-ndjson"

# bytes of an answer that are held: as a whole, or until the body has arrived
LARGEST_WHOLE: Final = 64_000_000


@router.post(
    "/classify/batch",
    operation_id="classifyBatch",
    summary="Score labels against many images",
    description=openapi.BATCH_DESCRIPTION,
    openapi_extra=openapi.batch_body(),
    response_model=BatchAnswer,
    responses={
        200: {
            "content": {
                NDJSON: {},
                "text/plain": openapi.BATCH_LINES,
                "text/csv": openapi.BATCH_TABLE,
            }
        },
        **documented(*SENT, 404, 409),
    },
)
async def classify_batch(request: Request, services: ServicesDep, caller: CallerDep) -> Response:
    state_of(request.scope).closing.enter_context(services.upload_batches.one(caller))
    query, items = await read_batch(request, services.input_limits, services.upload_batches)
    if query.explain:
        raise Invalid("explain works on one image at a time; use POST /classify", field="explain")
    query = replace(query, namespace=caller.namespace, patience=await patience(request))
    services = await of_model(request, services, query.model)
    await services.classifier.prepare(query)
    kind = preferred(request.headers.get("accept", ""), (NDJSON,))
    if kind not in (JSON, NDJSON):
        return await _table(kind, services, query, items)
    results = _outcomes(services, query, items)
    if kind == JSON:
        return await _whole(results)
    state = state_of(request.scope)
    state.duplex = True
    declared = request.headers.get("content-length", "0")  # chunked: it is answered as it arrives

    def arrived() -> bool:
        return state.received >= int(declared)

    lines = _after_body(_streamed(results, state.request_id), arrived)
    return _Duplex(lines, media_type=NDJSON, headers={"Vary": "Accept"})


class _Duplex(StreamingResponse):
    """Answers while the body may still arrive; the framework's own would read that itself.

    It begins with its first line: as soon as it begins, nginx sends no more of the body.
    """

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        start: list[Message] = []

        async def send_with_first_line(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.append(message)
                return
            if start:
                await send(start.pop())
            await send(message)

        await self.stream_response(send_with_first_line)


async def _after_body(
    lines: AsyncGenerator[bytes, None], arrived: Callable[[], bool]
) -> AsyncGenerator[bytes, None]:
    """The same lines; up to so many bytes of them wait until the body has arrived."""
    waiting: list[bytes] = []
    size = 0
    async with aclosing(lines):
        async for line in lines:
            waiting.append(line)
            size += len(line)
            if arrived() or size > LARGEST_WHOLE:
                yield b"".join(waiting)
                waiting.clear()
    if waiting:
        yield b"".join(waiting)


async def _whole(results: AsyncGenerator[Outcome[bytes] | Problem, None]) -> Response:
    lines: list[tuple[int, bytes]] = []
    failed = size = 0
    async with aclosing(results):
        async for outcome in results:
            if isinstance(outcome, Problem):
                raise outcome
            line = _line(outcome)
            failed += isinstance(outcome.result, Problem)
            size += len(line)
            if size > LARGEST_WHOLE:
                raise _too_long()
            lines.append((outcome.index, line))
    lines.sort()
    head = {"count": len(lines), "failed": failed}
    return Response(
        with_rows(head, "results", [line for _, line in lines]),
        media_type="application/json",
        headers={"Vary": "Accept"},
    )


Row = tuple[str, ...]


async def _table(
    kind: str, services: Services, query: Query, items: AsyncGenerator[Item, None]
) -> Response:
    """Lines of text or CSV (RFC 4180), in image order; failed images have a line too."""
    check_columns(kind, query.coverage)

    async def classify(image: bytes) -> list[Row]:
        answer = answer_of(await services.classifier.classify(image, query, Stages()))
        return list(csv_rows(answer) if kind == CSV else text_rows(answer, query.abstain))

    more = ("set",) * (query.coverage is not None)
    more += ("labelset",) * (len(query.labelsets) > 1) + ("box",) * bool(query.look.boxes)
    header: Row = (*BATCH_HEAD, *more, *BATCH_END)
    tables: list[tuple[int, list[Row]]] = []
    size = 0
    async with aclosing(items), aclosing(outcomes(items, classify, _size)) as stream:
        async for outcome in stream:
            if isinstance(outcome, Problem):
                raise outcome
            rows = _csv(outcome, len(header)) if kind == CSV else _text(outcome)
            size += _size(rows)
            if size > LARGEST_WHOLE:
                raise _too_long()
            tables.append((outcome.index, rows))
    tables.sort()
    if kind == CSV:
        out = io.StringIO()
        csv.writer(out).writerows([header, *(row for _, rows in tables for row in rows)])
        content = out.getvalue()
    else:
        content = "".join("\t".join(row) + "\n" for _, rows in tables for row in rows)
    return Response(content, media_type=kind, headers={"Vary": "Accept"})


def _csv(outcome: Outcome[list[Row]], columns: int) -> list[Row]:
    head = (str(outcome.index), sendable(outcome.name or ""))
    if isinstance(outcome.result, Problem):
        return [(*head, *[""] * (columns - 3), document(outcome.result).detail)]
    return [(*head, *row, "") for row in outcome.result]


def _text(outcome: Outcome[list[Row]]) -> list[Row]:
    name = outcome.name or str(outcome.index)
    # a name is a stranger's: it makes no line and no column of its own
    name = "".join(c if c.isprintable() else "?" for c in sendable(name))
    if isinstance(outcome.result, Problem):
        return [("-", f"error: {document(outcome.result).detail}", name)]
    return [(*row, name) for row in outcome.result]


def _size(rows: list[Row]) -> int:
    return sum(len(cell) + 1 for row in rows for cell in row)


def _too_long() -> TooLarge:
    detail = f"the answer has over {LARGEST_WHOLE} bytes; request {NDJSON}, or set top_k"
    return TooLarge(detail, field="top_k", limit=LARGEST_WHOLE)


async def _streamed(
    results: AsyncGenerator[Outcome[bytes] | Problem, None], request_id: str
) -> AsyncGenerator[bytes, None]:
    async with aclosing(results):
        async for outcome in results:
            if isinstance(outcome, Problem):
                yield _to_json(BatchLine(error=document(outcome, request_id))) + b"\n"
            else:
                yield _line(outcome) + b"\n"


async def _outcomes(
    services: Services, query: Query, items: AsyncGenerator[Item, None]
) -> AsyncGenerator[Outcome[bytes] | Problem, None]:
    """The outcome of each image, as they are done."""

    async def classify(image: bytes) -> bytes:
        return _to_json(answer_of(await services.classifier.classify(image, query, Stages())))

    async with aclosing(items), aclosing(outcomes(items, classify, len)) as stream:
        async for outcome in stream:
            yield outcome


def _line(outcome: Outcome[bytes]) -> bytes:
    """The JSON of a BatchLine."""
    named = {} if outcome.name is None else {"name": outcome.name}
    if isinstance(outcome.result, Problem):
        return _to_json(BatchLine(index=outcome.index, **named, error=document(outcome.result)))
    begun = _to_json(BatchLine(index=outcome.index, **named)).removesuffix(b"}")
    return b'%b,"result":%b}' % (begun, outcome.result)


def _to_json(answer: BaseModel) -> bytes:
    return answer.model_dump_json(exclude_unset=True, by_alias=True).encode()
