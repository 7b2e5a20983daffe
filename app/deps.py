"""What routes receive: one frozen value with everything that the lifespan built."""

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final

from fastapi import Depends, Request

from app.batch_inputs import UploadBatches
from app.canary import Canary
from app.classifier import Classifier
from app.definitions import Stored
from app.fetch import Fetcher
from app.few_shot import FewShot
from app.identity import Identity
from app.labelsets import LabelSetService
from app.metrics import Metrics
from app.queries import InputLimits
from app.rates import RateLimiter
from app.stages import Stages
from app.stores.guard import Guarded
from app.stores.levels import TwoLevels
from app.stores.lru import ByteLru
from app.templates import TemplateSets
from app.uploads import UploadLimits

if TYPE_CHECKING:
    from models.protocols import AnyEncoder


# share of its time that a request waits for the first build of its label set
PATIENCE: Final = 0.9


@dataclass(frozen=True, slots=True)
class Services:
    """The parts of the running service."""

    encoder: "AnyEncoder"
    classifier: Classifier
    labelsets: LabelSetService
    few_shot: FewShot
    templates: TemplateSets
    vectors: TwoLevels
    images: ByteLru
    matrices: ByteLru
    store: Guarded
    store_kind: str
    input_limits: InputLimits
    upload_limits: UploadLimits
    upload_batches: UploadBatches
    fetcher: Fetcher | None
    limiter: RateLimiter
    canary: Canary
    metrics: Metrics
    metrics_on: bool
    explains: bool

    def templates_name(self, stored: Stored) -> str:
        """The name of the templates that a label set is built with."""
        return self.templates.name_of(stored.definition.templates)


# these are coroutines because the framework calls plain functions in a thread, at 0.2 ms each
async def services(request: Request) -> Services:
    """The services of the application that this request reached."""
    found: Services = request.app.state.services
    return found


async def stages(request: Request) -> Stages:
    """The clock of this request; the middleware answers it as Server-Timing."""
    clock: Stages = request.state.stages
    return clock


async def caller(request: Request) -> Identity:
    """Who makes this request."""
    found: Identity = request.state.identity
    return found


async def patience(request: Request) -> float:
    """Seconds that this request may wait for a build and still answer before its deadline."""
    left: float = request.state.deadline - asyncio.get_running_loop().time()
    return max(0.0, PATIENCE * left)


ServicesDep = Annotated[Services, Depends(services)]
StagesDep = Annotated[Stages, Depends(stages)]
CallerDep = Annotated[Identity, Depends(caller)]
PatienceDep = Annotated[float, Depends(patience)]
