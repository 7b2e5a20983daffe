"""What routes receive: one frozen value with everything that the lifespan built."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request

from app.classifier import Classifier
from app.metrics import Stages
from app.queries import InputLimits
from app.stores.lru import ByteLru
from prompts import TemplateSet

if TYPE_CHECKING:
    from models.encoder import Encoder


@dataclass(frozen=True, slots=True)
class Services:
    """The parts of the running service."""

    encoder: "Encoder"
    classifier: Classifier
    vector_cache: ByteLru
    template_sets: Mapping[str, TemplateSet]
    input_limits: InputLimits
    request_timeout: float


def services(request: Request) -> Services:
    """The services of the application that this request reached."""
    found: Services = request.app.state.services
    return found


def stages(request: Request) -> Stages:
    """The clock of this request; the middleware answers it as Server-Timing."""
    clock: Stages = request.state.stages
    return clock


ServicesDep = Annotated[Services, Depends(services)]
StagesDep = Annotated[Stages, Depends(stages)]
