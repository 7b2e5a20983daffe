"""The route of batches: parse, run, and answer as images are done."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import ExitStack, aclosing
from dataclasses import replace
from typing import Final

from fastapi import APIRouter, Request, Response
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from app import batch_inputs, examples
from app.batch import Item, Outcome, outcomes
from app.classifier import Classification, Query
from app.deps import CallerDep, Services, ServicesDep, patience
from app.errors import Invalid, Problem
from app.metrics import Stages
from app.problems import document, documented
from app.schemas import BatchAnswer, BatchLine, ClassifyAnswer

router = APIRouter()

NDJSON: Final = "application/x-ndjson"

Line = BatchLine | Problem


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
    lines = _lines(services, query, items)
    if NDJSON not in request.headers.get("accept", ""):
        return await _whole(lines)
    request.state.streams = True
    text = _streamed(lines, request.state.request_id)
    return _Duplex(text, media_type=NDJSON, headers={"Vary": "Accept"})


class _Duplex(StreamingResponse):
    """Answers while the body still arrives; the framework's own would read that itself."""

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        await self.stream_response(send)


async def _whole(lines: AsyncGenerator[Line, None]) -> Response:
    found: list[BatchLine] = []
    async with aclosing(lines):
        async for line in lines:
            if isinstance(line, Problem):
                raise line
            found.append(line)
    found.sort(key=lambda line: line.index or 0)
    failed = sum(line.error is not None for line in found)
    answer = BatchAnswer(count=len(found), failed=failed, results=found)
    return Response(
        answer.model_dump_json(exclude_unset=True) + "\n",
        media_type="application/json",
        headers={"Vary": "Accept"},
    )


async def _streamed(lines: AsyncGenerator[Line, None], request_id: str) -> AsyncIterator[str]:
    async with aclosing(lines):
        async for line in lines:
            shown = (
                BatchLine(error=document(line, request_id)) if isinstance(line, Problem) else line
            )
            yield shown.model_dump_json(exclude_unset=True) + "\n"


async def _lines(
    services: Services, query: Query, items: AsyncGenerator[Item, None]
) -> AsyncGenerator[Line, None]:
    """What each image gives, as they are done."""

    async def classify(image: bytes) -> Classification:
        return await services.classifier.classify(image, query, Stages())

    async with aclosing(items), aclosing(outcomes(items, classify)) as done:
        async for outcome in done:
            yield outcome if isinstance(outcome, Problem) else _line(outcome)


def _line(outcome: Outcome) -> BatchLine:
    line = {"index": outcome.index, "name": outcome.name}
    if outcome.name is None:
        del line["name"]
    if isinstance(outcome.found, Problem):
        return BatchLine(**line, error=document(outcome.found))
    return BatchLine(**line, result=ClassifyAnswer.of(outcome.found))
