"""The encoders: the only place that imports torch. Arrays cross its border, tensors do not."""

import os
import sys

from models.catalog import OFFLINE_MODEL, CatalogEntry, catalog
from models.errors import (
    BadCheckpoint,
    BadDevice,
    BadExport,
    EncoderClosed,
    ModelError,
    ModelUnavailable,
    PromptTooLong,
    UnknownModel,
)
from models.info import EncoderInfo, ImageSpec, Provenance

# read by the hub's client when it is imported; its own default waits far longer on a dead network
os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", "5")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
# OpenVINO does without its converter if it is missing; with it, each import is reported to its
# makers over the network, from a thread and a process of its own
sys.modules.setdefault("openvino.tools.ovc", None)  # type: ignore[arg-type]

__all__ = [
    "OFFLINE_MODEL",
    "BadCheckpoint",
    "BadDevice",
    "BadExport",
    "CatalogEntry",
    "EncoderClosed",
    "EncoderInfo",
    "ImageSpec",
    "ModelError",
    "ModelUnavailable",
    "PromptTooLong",
    "Provenance",
    "UnknownModel",
    "catalog",
]
