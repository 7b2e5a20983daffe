"""The settings of what computes: the model, its device, threads, and what may wait for it.

Read as a part of app/settings.py, and nowhere else.
"""

from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings

DEFAULT_MODEL = "ViT-B-32-256/datacomp_s34b_b86k"


class ModelSettings(BaseSettings):
    """Which model computes, on what, and how much of it at once."""

    model: str = Field(
        DEFAULT_MODEL,
        min_length=1,
        description="Model to load: a name of `openvocab models list`, `ARCH/TAG`, "
        "`hf-hub:owner/name` or `local-dir:/path`.",
    )
    device: str = Field(
        "auto", description="`auto` (a GPU if there is one), `cpu`, `cuda`, `cuda:1`."
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto",
        description="What the model computes in; `auto` is bf16 where the device has it natively, "
        "else fp32. `pictogram` always runs in fp32.",
    )
    backend: Literal["auto", "torch", "openvino"] = Field(
        "auto",
        description="What runs the image tower; `auto` is OpenVINO on a CPU where "
        "`openvocab[openvino]` is installed, else torch.",
    )
    workers: int = Field(
        1,
        ge=1,
        le=256,
        description="Processes that serve, each with its own copy of the model; they share one "
        "store, and the cores.",
    )
    torch_threads: int = Field(
        0,
        ge=0,
        le=1024,
        description="CPU threads of a forward pass; 0: as many as there are cores.",
    )
    decode_threads: int = Field(
        0, ge=0, le=1024, description="Threads that decode images; 0: as many as there are cores."
    )
    max_batch: int = Field(64, ge=1, le=4096, description="Images in one forward pass, at most.")
    max_queue: int = Field(
        512, ge=1, description="Images that may wait for a forward pass; more are answered 503."
    )
    max_pending_bytes: int = Field(
        1_000_000_000,
        ge=1,
        description="Bytes of requests that may be held at once; more are answered 503.",
    )
    max_connections: int = Field(
        4_096, ge=1, description="Connections that may be open; more are answered 503 and closed."
    )
    max_text_queue: int = Field(
        400_000,
        ge=1,
        description="Prompts (labels times templates) that may wait; more are answered 503.",
    )
