"""What routes receive: one frozen value with everything that the lifespan built."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request

from app.classifier import Classifier
from app.definitions import Stored
from app.labelsets import LabelSetService
from app.metrics import Stages
from app.queries import InputLimits
from app.stores.guard import Guarded
from app.stores.levels import TwoLevels
from app.stores.lru import ByteLru
from app.templates import TemplateSets
from app.uploads import UploadLimits

if TYPE_CHECKING:
    from models.encoder import Encoder


@dataclass(frozen=True, slots=True)
class Services:
    """The parts of the running service; times are in seconds."""

    encoder: "Encoder"
    classifier: Classifier
    labelsets: LabelSetService
    templates: TemplateSets
    vectors: TwoLevels
    images: ByteLru
    matrices: ByteLru
    store: Guarded
    store_kind: str
    input_limits: InputLimits
    upload_limits: UploadLimits
    request_timeout: float
    patience: float

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


ServicesDep = Annotated[Services, Depends(services)]
StagesDep = Annotated[Stages, Depends(stages)]
