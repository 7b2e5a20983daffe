"""The settings: names, defaults, limits, purposes. Read by entry points and main only."""

import os
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

DEFAULT_MODEL = "ViT-B-32-256/datacomp_s34b_b86k"


class Settings(BaseSettings):
    """Every field is set by the environment variable OPENVOCAB_ and its name in capitals."""

    model_config = SettingsConfigDict(env_prefix="OPENVOCAB_", frozen=True, protected_namespaces=())

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
    max_text_queue: int = Field(
        400_000,
        ge=1,
        description="Prompts (labels times templates) that may wait; more are answered 503.",
    )
    max_image_bytes: int = Field(20_000_000, ge=1, description="Largest image file, in bytes.")
    max_image_pixels: int = Field(
        50_000_000,
        ge=1,
        description="Largest image, width x height in pixels, read from its header.",
    )
    heic: bool = Field(
        False, description="Accept HEIC pictures; needs the extra `openvocab[heic]` (pi-heif)."
    )
    exact_jpeg: bool = Field(
        False,
        description="Decode every JPEG in full. Otherwise one of four times the model's size or "
        "more is decoded at a half, a quarter or an eighth of its own.",
    )
    max_labels: int = Field(1_000, ge=1, description="Labels that one request may name.")
    max_label_length: int = Field(
        200, ge=1, le=10_000, description="Length of a label, in characters."
    )
    max_templates: int = Field(
        200, ge=1, le=10_000, description="Own templates that one request may bring."
    )
    vector_cache_bytes: int = Field(
        256_000_000,
        ge=0,
        description="Memory for label vectors; the least recently used go first. 0: none.",
    )
    image_cache_bytes: int = Field(
        32_000_000,
        ge=0,
        description="Memory for embeddings of pictures seen lately, so that scoring one again "
        "costs nothing. 0: none.",
    )
    labelset_cache_bytes: int = Field(
        512_000_000, ge=0, description="Memory for the matrices of label sets in use."
    )
    store_url: str = Field(
        "",
        description="Where label sets are kept: empty (a SQLite file in the data directory), "
        "`redis://…`, `rediss://…`, `unix://…`, or `memory://` (gone at the end).",
    )
    store_timeout: float = Field(
        0.25, gt=0, le=60, description="Seconds that nothing waits longer for the store."
    )
    data_dir: Path = Field(
        Path("~/.local/share/openvocab"), description="Folder of the SQLite file; made if missing."
    )
    vector_ttl: float = Field(
        2_592_000, ge=60, description="Seconds that the store keeps a label vector (30 days)."
    )
    vector_store_bytes: int = Field(
        2_000_000_000, ge=0, description="Room for label vectors in the SQLite file."
    )
    max_labelsets: int = Field(1_000, ge=1, description="Label sets in a store.")
    max_labelset_labels: int = Field(10_000, ge=1, description="Labels of one label set.")
    max_label_texts: int = Field(
        100, ge=1, description="Synonyms, or whole prompts, of one label of a label set."
    )
    max_labelset_prompts: int = Field(
        1_000_000, ge=1, description="Prompts of one label set: texts times templates."
    )
    max_labelset_bytes: int = Field(
        16_000_000, ge=1, description="Largest body that registers a label set."
    )
    request_timeout: float = Field(
        30.0, gt=0, le=3600, description="Seconds after which a request is answered 504."
    )
    root_path: str = Field(
        "", description="Path under which a proxy serves this, such as `/vision`."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe level that is logged."
    )

    def cores_for_decoding(self) -> int:
        """`decode_threads`, or the number of cores."""
        return self.decode_threads or os.cpu_count() or 1


def settings_page() -> str:
    """docs/settings.md: a table of every setting, made from the fields above."""
    rows = [
        f"| `OPENVOCAB_{name.upper()}` | {_default(field.default)} | {_limits(field.metadata)} "
        f"| {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    return "\n".join(
        [
            "# Settings",
            "",
            "Environment variables, read once when the server starts. A value that does not fit",
            "ends the start with one line that names it; `openvocab serve --help` shows which have",
            "an option.",
            "",
            "This page is made from `app/settings.py` by `make docs`; a test holds both together.",
            "",
            "| variable | default | limits | what |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )


def _default(value: object) -> str:
    """A default as the environment would spell it."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f"`{text}`" if text else "empty"


def _limits(metadata: list[object]) -> str:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "min_length": "length ≥"}
    return ", ".join(
        f"{sign} {getattr(bound, name)}"
        for bound in metadata
        for name, sign in signs.items()
        if hasattr(bound, name)
    )


def write_settings_page(path: Path) -> None:
    """Write the page where the documentation keeps it."""
    path.write_text(settings_page(), encoding="utf-8")
