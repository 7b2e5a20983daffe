"""The route of batches: parse, run, and answer as images are done."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import ExitStack, aclosing
from dataclasses import replace
from typing import Final

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from app import batch_inputs, examples
from app.batch import Item, Outcome, outcomes
from app.classification import Query
from app.deps import CallerDep, Services, ServicesDep, patience
from app.embedding_schemas import with_rows
from app.errors import Invalid, Problem, TooLarge
from app.problems import document, documented
from app.schemas import BatchAnswer, BatchLine, ClassifyAnswer
from app.stages import Stages

router = APIRouter()

NDJSON: Final = "application/x-ndjson"

# bytes of an answer that is no stream, which is held as a whole
LARGEST_WHOLE: Final = 64_000_000


@router.post(
    "/classify/batch",
    summary="Score labels against many images",
    description=examples.BATCH_DESCRIPTION,
    openapi_extra=examples.batch_body(),
    response_model=BatchAnswer,
    responses={
        200: {"content": {NDJSON: {}}},
        **documented(400, 401, 403, 404, 408, 413, 422, 429, 503),
    },
)
async def classify_batch(request: Request, services: ServicesDep, caller: CallerDep) -> Response:
    place = ExitStack()
    request.state.at_end = place.close  # however the request ends
    place.enter_context(services.upload_batches.one())
    query, items = await batch_inputs.read_batch(
        request, services.input_limits, services.upload_batches
    )
    if query.explain:
        raise Invalid("explain is for one image at a time: POST /classify", field="explain")
    query = replace(query, namespace=caller.namespace, patience=await patience(request))
    await services.classifier.prepare(query)
    done = _outcomes(services, query, items)
    if NDJSON not in request.headers.get("accept", ""):
        return await _whole(done)
    request.state.streams = True
    text = _streamed(done, request.state.request_id)
    return _Duplex(text, media_type=NDJSON, headers={"Vary": "Accept"})


class _Duplex(StreamingResponse):
    """Answers while the body still arrives; the framework's own would read that itself."""

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        await self.stream_response(send)


async def _whole(done: AsyncGenerator[Outcome | Problem, None]) -> Response:
    lines: list[tuple[int, bytes]] = []
    failed = size = 0
    async with aclosing(done):
        async for outcome in done:
            if isinstance(outcome, Problem):
                raise outcome
            line = _line(outcome)
            failed += isinstance(outcome.found, Problem)
            size += len(line)
            if size > LARGEST_WHOLE:
                detail = f"the answer has over {LARGEST_WHOLE} bytes; ask for {NDJSON}, or a top_k"
                raise TooLarge(detail, field="top_k", limit=LARGEST_WHOLE)
            lines.append((outcome.index, line))
    lines.sort()
    head = {"count": len(lines), "failed": failed}
    return Response(
        with_rows(head, "results", [line for _, line in lines]),
        media_type="application/json",
        headers={"Vary": "Accept"},
    )


async def _streamed(
    done: AsyncGenerator[Outcome | Problem, None], request_id: str
) -> AsyncIterator[bytes]:
    async with aclosing(done):
        async for outcome in done:
            if isinstance(outcome, Problem):
                yield _json(BatchLine(error=document(outcome, request_id))) + b"\n"
            else:
                yield _line(outcome) + b"\n"


async def _outcomes(
    services: Services, query: Query, items: AsyncGenerator[Item, None]
) -> AsyncGenerator[Outcome | Problem, None]:
    """What each image gives, as they are done."""

    async def classify(image: bytes) -> bytes:
        return _json(ClassifyAnswer.of(await services.classifier.classify(image, query, Stages())))

    async with aclosing(items), aclosing(outcomes(items, classify)) as done:
        async for outcome in done:
            yield outcome


def _line(outcome: Outcome) -> bytes:
    """The JSON of a BatchLine."""
    named = {} if outcome.name is None else {"name": outcome.name}
    if isinstance(outcome.found, Problem):
        return _json(BatchLine(index=outcome.index, **named, error=document(outcome.found)))
    begun = _json(BatchLine(index=outcome.index, **named)).removesuffix(b"}")
    return b'%b,"result":%b}' % (begun, outcome.found)


def _json(answer: BaseModel) -> bytes:
    return answer.model_dump_json(exclude_unset=True).encode()
