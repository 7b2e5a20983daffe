"""The settings: names, defaults, limits, purposes. Read by entry points and main only."""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Self, get_args, get_origin

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.images.apart import Kind, installed
from app.images.apart_child import BOUNDS
from app.images.urls import AllowedHost
from app.server.addresses import ANY, check_host, check_origin, check_proxy
from app.server.cgroups import memory_limit
from app.server.cpus import available_cores, is_limited
from app.server.signals import REPLACED
from app.stores.gcra import LEAST_RATE, MOST_BURST, MOST_RATE

DEFAULT_MODEL = "ViT-B-32-256/datacomp_s34b_b86k"

# the least of what 0 switches off: a smaller number would be no rate, or a look without a pause
LEAST = {"rate_limit": LEAST_RATE, "model_idle": 0.01}

PREFIX = "OPENVOCAB_"

# characters of a path (RFC 3986, section 3.3); two slashes would begin the name of a host
ROOT_PATH = re.compile(r"(/(?!/)[\w.~%!$&'()*+,;=:@/-]*)?", re.ASCII)

# what other commands than `serve` read of the environment
OF_CLIENTS = frozenset({"url", "api_key"})


# what checks an entry of each comma-separated list; raises ValueError
LISTS: Mapping[str, Callable[[str], object]] = {
    "image_url_hosts": AllowedHost.parse,
    "allowed_hosts": check_host,
    "cors_origins": check_origin,
    "trusted_proxies": check_proxy,
}


class Settings(BaseSettings):
    """Every field is set by the environment variable OPENVOCAB_ and its name in capitals."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, protected_namespaces=())

    model: str = Field(
        DEFAULT_MODEL,
        min_length=1,
        description="Model to load: a name of `openvocab models list`, `ARCH/TAG`, "
        "`hf-hub:owner/name`, `local-dir:/path` or `exported:/path`.",
    )
    more_models: str = Field(
        "",
        description="Further models, comma-separated; a request names one in its field "
        "`model`. As `--model`, repeated.",
    )
    loaded_models: int = Field(
        0,
        ge=0,
        description="Models loaded at once, `OPENVOCAB_MODEL` always among them; others are loaded "
        "when they are asked for, and the least recently used goes. 0: all, from the start.",
    )
    model_idle: float = Field(
        0.0,
        ge=0,
        allow_inf_nan=False,
        description="Seconds after which a further model that nobody uses is unloaded, at least "
        "0.01; 0: never.",
    )
    model_aliases: str = Field(
        "",
        description="Other names of models, as `ALIAS=MODEL` comma-separated, for clients "
        "whose model name cannot be changed.",
    )
    device: str = Field(
        "auto",
        description="`auto` (a GPU if there is one, in the order named here), `cuda`, `cuda:1`, "
        "`xpu` (Intel's, by PyTorch), `mps` (Apple's), `gpu` (Intel's, by OpenVINO), `cpu`.",
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto",
        description="What the model computes in; `auto` is bf16 on GPUs that have it natively and "
        "on a CPU where it was measured to be faster, fp16 on `mps` and `gpu`, else fp32. The "
        "bundled models always run in fp32.",
    )
    backend: Literal["auto", "torch", "openvino"] = Field(
        "auto",
        description="What runs the model; `auto` is OpenVINO on a CPU or `gpu` where "
        "`openvocab[openvino]` is installed and torch was not measured to be clearly faster, else "
        "torch. OpenVINO needs the model to be exported: "
        "that happens once, into the data directory.",
    )
    workers: int = Field(
        1,
        ge=1,
        le=256,
        description="Worker processes, which share one store and the CPU cores; on Linux also the "
        "model, where OpenVINO runs it on one core of a CPU for each. Else each has its own copy.",
    )
    torch_threads: int = Field(
        0,
        ge=0,
        le=1024,
        description="CPU threads of a forward pass; 0: one per available core, or fewer where that "
        "was measured to be as fast.",
    )
    decode_threads: int = Field(
        0, ge=0, le=1024, description="Threads that decode images; 0: one per available core."
    )
    max_batch: int = Field(
        64, ge=1, le=4096, description="Maximum number of images in one forward pass."
    )
    max_queue: int = Field(
        512,
        ge=1,
        description="Maximum number of images waiting for a forward pass; beyond it: 503.",
    )
    max_pending_bytes: int = Field(
        1_000_000_000,
        ge=1,
        description="Maximum bytes of request bodies held at once; beyond it: 503. As many bytes "
        "of answers may wait in each process to be read; beyond it the connection that has waited "
        "longest is closed.",
    )
    max_connections: int = Field(
        4_096,
        ge=1,
        description="Maximum number of open connections of a process, each of which is an open "
        "file; beyond it: 503 and closed.",
    )
    max_text_queue: int = Field(
        400_000,
        ge=1,
        description="Maximum number of prompts (labels times templates) waiting; beyond it: 503.",
    )
    max_image_bytes: int = Field(20_000_000, ge=1, description="Largest image file, in bytes.")
    max_upload_bytes: int = Field(
        4_000_000_000,
        ge=1,
        description="Largest upload, in bytes: a batch, examples, pictures to calibrate with.",
    )
    max_upload_images: int = Field(
        10_000, ge=1, description="Maximum number of images in one upload."
    )
    max_uploads: int = Field(
        8, ge=1, description="Maximum number of concurrent uploads; beyond it: 503."
    )
    max_image_pixels: int = Field(
        50_000_000,
        ge=1,
        description="Largest image, width x height in pixels, read from its header.",
    )
    heic: bool = Field(
        False, description="Accept HEIC pictures; needs the extra `openvocab[heic]` (pi-heif)."
    )
    svg: bool | None = Field(
        None,
        description="Draw SVG files, in a process of their own; needs the extra `openvocab[svg]` "
        "(resvg-py). Default: where that is installed.",
    )
    jpeg_2000: bool = Field(
        False, description="Accept JPEG 2000 pictures, decoded in a process of their own."
    )
    jpeg_xl: bool = Field(
        False,
        description="Accept JPEG XL pictures, decoded in a process of their own; needs the extra "
        "`openvocab[jxl]` (pillow-jxl-plugin).",
    )
    exact_jpeg: bool = Field(
        False,
        description="Decode every JPEG in full. Otherwise one of four times the model's size or "
        "more is decoded at a half, a quarter or an eighth of its own.",
    )
    explain: bool = Field(
        True,
        description="Allow heat maps (`explain=true`): 36 more forward passes each.",
    )
    image_urls: bool = Field(
        False,
        description="Allow `image_url`: the server fetches images from public addresses.",
    )
    image_url_hosts: str = Field(
        "",
        description="Hosts that images may be fetched from, comma-separated: `example.org`, "
        "`*.example.org`, `example.org:8443`; empty: all.",
    )
    image_url_timeout: float = Field(
        10.0,
        gt=0,
        le=600,
        description="Longest time to fetch an image, in seconds, and to wait for a free slot "
        "before that.",
    )
    max_labels: int = Field(1_000, ge=1, description="Maximum number of labels in a request.")
    max_label_length: int = Field(
        200, ge=1, le=10_000, description="Maximum length of a label, in characters."
    )
    max_templates: int = Field(
        200, ge=1, le=10_000, description="Maximum number of own templates in a request."
    )
    vector_cache_bytes: int = Field(
        256_000_000,
        ge=0,
        description="Memory for label vectors, least recently used evicted first; 0: none.",
    )
    image_cache_bytes: int = Field(
        32_000_000,
        ge=0,
        description="Memory for embeddings of recent pictures, so that scoring one again needs no "
        "encoding; 0: none.",
    )
    labelset_cache_bytes: int = Field(
        512_000_000, ge=0, description="Memory for the class vectors of label sets in use."
    )
    definition_cache_bytes: int = Field(
        512_000_000,
        ge=0,
        description="Memory for definitions of label sets, about; what does not fit is read from "
        "the store again.",
    )
    store_url: str = Field(
        "",
        description="Where label sets are kept: empty (a SQLite file in the data directory), "
        "`redis://…`, `rediss://…`, `unix://…`, `redis+sentinel://…`, or `memory://` (gone at the "
        "end).",
    )
    store_prefix: str = Field(
        "openvocab:",
        min_length=1,
        max_length=100,
        pattern=r"^[\x21-\x7e]+$",
        description="Prefix of all keys in Redis; choose another for each installation that shares "
        "a database. A hash tag, as in `{openvocab}:`, keeps them on one node of a Cluster.",
    )
    store_timeout: float = Field(
        0.25,
        gt=0,
        le=60,
        description="Longest wait for Redis, in seconds. SQLite may take 1 second to read and 5 to "
        "write, or this if it is more.",
    )
    data_dir: Path = Field(
        Path("~/.local/share/openvocab"),
        description="Folder of the SQLite file and of exported models; created if missing.",
    )
    vector_ttl: float = Field(
        2_592_000,
        ge=60,
        le=10_000_000_000,
        description="How long the store keeps a label vector, in seconds (30 days).",
    )
    vector_store_bytes: int = Field(
        2_000_000_000, ge=0, description="Space for label vectors in the SQLite file, in bytes."
    )
    max_labelsets: int = Field(1_000, ge=1, description="Maximum number of label sets in a store.")
    max_labelset_labels: int = Field(
        10_000, ge=1, description="Maximum number of labels in a label set."
    )
    max_label_texts: int = Field(
        100,
        ge=1,
        description="Maximum number of synonyms, or prompts, of a label, and of words in `not`.",
    )
    max_labelset_prompts: int = Field(
        1_000_000,
        ge=1,
        description="Maximum number of prompts of a label set: texts times templates.",
    )
    max_labelset_bytes: int = Field(
        16_000_000, ge=1, description="Largest body that registers a label set, in bytes."
    )
    max_examples: int = Field(
        1_000, ge=0, description="Maximum number of example pictures of a label set."
    )
    max_example_bytes: int = Field(
        200_000_000,
        ge=0,
        description="Maximum size of all example pictures of a label set, in bytes.",
    )
    example_store_bytes: int = Field(
        2_000_000_000,
        ge=0,
        description="Maximum size of all example pictures in a store, in bytes.",
    )
    request_timeout: float = Field(
        30.0,
        gt=0,
        le=3600,
        description="Request timeout in seconds: then 504, or 408 while the body still arrives; "
        "the header `X-Request-Timeout` may ask for less.",
    )
    keep_alive: float = Field(
        75.0,
        gt=0,
        le=3600,
        description="How long an idle connection stays open, in seconds; set it longer than the "
        "idle timeout of the proxy in front (docs/operations.md).",
    )
    head_timeout: float = Field(
        10.0,
        gt=0,
        le=3600,
        description="Longest time for a request's head to arrive, and for a TLS handshake, in "
        "seconds.",
    )
    hang_timeout: float = Field(
        300.0,
        gt=0,
        le=86_400,
        description="A forward pass or decoder that hangs for this many seconds ends the process "
        "with status 70; set it longer than the largest batch takes.",
    )
    drain_seconds: float = Field(
        0.0,
        ge=0,
        le=3600,
        description="Seconds after SIGTERM in which requests are still accepted while `/readyz` "
        "answers 503, so that load balancers stop sending traffic first.",
    )
    api_keys_file: Path | None = Field(
        None,
        description="TOML file of API keys, reloaded when it changes (docs/security.md); without "
        "keys anyone may do anything.",
    )
    api_keys: str = Field(
        "",
        repr=False,
        description="More keys, comma-separated NAME:SCOPE+SCOPE:SHA256, as `openvocab keys new` "
        "prints them.",
    )
    rate_limit: float = Field(
        0.0,
        ge=0,
        le=MOST_RATE,
        description="Requests per second for each key (without keys: each client address), counted "
        "across all processes of a store, at least 0.000001; 0: no limit.",
    )
    rate_burst: int = Field(
        1, ge=1, le=MOST_BURST, description="Burst size; at least one second's worth."
    )
    metrics: Literal["open", "admin", "off"] = Field(
        "admin",
        description="Who may read `/metrics`: anyone (`open`), keys with the scope `admin` (anyone "
        "while there are no keys), nobody (`off`).",
    )
    cors_origins: str = Field(
        "",
        description="Origins whose pages may call the API from a browser, comma-separated, such as "
        "`https://example.org`; `*`: all.",
    )
    allowed_hosts: str = Field(
        "*",
        description="Accepted names and addresses of hosts, without ports, comma-separated; `*`: "
        "any.",
    )
    trusted_proxies: str = Field(
        "",
        description="Addresses or networks of proxies, comma-separated, whose `X-Forwarded-For` "
        "and `X-Forwarded-Proto` are trusted; `*`: of every peer, as behind `--uds`.",
    )
    tls_cert_file: Path | None = Field(
        None, description="PEM file of the certificate chain; enables HTTPS."
    )
    tls_key_file: Path | None = Field(
        None, description="PEM file of the private key, if not in the same file."
    )
    root_path: str = Field(
        "", description="Path prefix under which a proxy serves this, such as `/vision`."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Minimum level of log messages."
    )
    log_format: Literal["auto", "text", "json"] = Field(
        "auto",
        description="Log format: `text`, `json` (one object a line) or `auto`: text on a terminal, "
        "JSON elsewhere.",
    )
    log_labels: bool = Field(False, description="Log the labels of each request.")
    tracing: Literal["auto", "on", "off"] = Field(
        "auto",
        description="OpenTelemetry traces, sent where the `OTEL_…` variables say; `auto`: if "
        "`OTEL_EXPORTER_OTLP_ENDPOINT` is set. Needs the extra `openvocab[otel]`.",
    )

    @field_validator(*LISTS)
    @classmethod
    def _entries(cls, value: str, info: ValidationInfo) -> str:
        name = info.field_name or ""
        entries = list(filter(None, map(str.strip, value.split(","))))
        for entry in entries:
            LISTS[name](entry)
        if name == "allowed_hosts" and not entries:
            raise ValueError("no host would be answered; * is any")
        if name == "trusted_proxies" and ANY in entries and len(entries) > 1:
            raise ValueError("* is every peer, and stands alone")
        return value

    @field_validator("root_path")
    @classmethod
    def _is_a_path(cls, value: str) -> str:
        if not ROOT_PATH.fullmatch(value):
            raise ValueError("it is not a path such as /vision")
        return value.rstrip("/")  # what is below it begins with one

    @field_validator("data_dir", mode="before")
    @classmethod
    def _is_a_folder(cls, value: str | Path) -> str | Path:
        if not str(value):  # or it would be whatever folder the server is started in
            raise ValueError("it is empty; name a folder")
        try:
            Path(value).expanduser()
        except RuntimeError:
            raise ValueError("there is no such home; name a folder without ~") from None
        return value

    @field_validator(*LEAST)
    @classmethod
    def _off_or_enough(cls, value: float, info: ValidationInfo) -> float:
        least = LEAST[info.field_name or ""]
        if 0 < value < least:
            raise ValueError(f"Input should be 0, or at least {least:f}".rstrip("0"))
        return value

    @field_validator("workers")
    @classmethod
    def _can_be_several(cls, value: int) -> int:
        if value > 1 and not REPLACED:
            raise ValueError("several processes need signals that this system lacks; use 1")
        return value

    @field_validator("svg", "jpeg_2000", "jpeg_xl")
    @classmethod
    def _can_be_bounded(cls, value: bool | None) -> bool | None:
        if value and not BOUNDS:
            raise ValueError("this system cannot bound the memory of its decoder")
        return value

    def listed(self, name: str) -> list[str]:
        """The parts of a comma-separated setting."""
        return [part.strip() for part in getattr(self, name).split(",") if part.strip()]

    @property
    def models(self) -> tuple[str, ...]:
        """Every model once, the default first."""
        return tuple(dict.fromkeys((self.model, *self.listed("more_models"))))

    @property
    def aliases(self) -> dict[str, str]:
        """The model of each alias."""
        pairs = (part.partition("=") for part in self.listed("model_aliases"))
        return {alias.strip(): name.strip() for alias, _, name in pairs}

    @property
    def unloads(self) -> bool:
        """Whether models are loaded and unloaded while it serves."""
        return len(self.models) > 1 and bool(self.loaded_models or self.model_idle)

    @model_validator(mode="after")
    def _models_fit(self) -> Self:
        if self.loaded_models == 1 and len(self.models) > 1:
            raise ValueError(
                "OPENVOCAB_LOADED_MODELS: 1 leaves no room beside the default model; use 0 or 2"
            )
        for alias, name in self.aliases.items():
            if not alias or alias in self.models or name not in self.models:
                served = ", ".join(self.models)
                raise ValueError(
                    f"OPENVOCAB_MODEL_ALIASES: {alias!r}={name!r} is not a new name for one of "
                    f"the models served: {served}"
                )
        return self

    def formats_apart(self) -> frozenset[Kind]:
        """The formats that are decoded in a process of their own."""
        drawn = installed("svg") if self.svg is None else self.svg
        chosen: dict[Kind, bool] = {
            "svg": drawn,
            "jpeg2000": self.jpeg_2000,
            "jpegxl": self.jpeg_xl,
        }
        return frozenset(kind for kind, enabled in chosen.items() if enabled)

    def cores_for_decoding(self) -> int:
        """`decode_threads`, or the number of cores that this process may use."""
        return self.decode_threads or available_cores()

    def memory_for_decoding(self) -> float:
        """Bytes for pictures that are decoded: half of what each worker may use."""
        return memory_limit() / (2 * self.workers)

    def cores_for_encoding(self) -> int:
        """The cores that this process may use; 0 where nothing limits them."""
        return available_cores() if is_limited() else 0


def settings_page() -> str:
    """The page: a table of every setting."""
    rows = [
        f"| `{PREFIX}{name.upper()}` | {_default(field.default)} | {_limits(field)} "
        f"| {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    return "\n".join(
        [
            "# Settings",
            "",
            "Environment variables, read once when the server starts. An invalid value ends the",
            "start with one line that names it; a variable `OPENVOCAB_…` that is not a setting",
            "causes a warning. `openvocab serve --help` shows which settings also have an option.",
            "",
            "Generated from `app/server/settings.py` by `make docs`; a test keeps both in step.",
            "",
            "| variable | default | limits | what |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )


def _default(value: object) -> str:
    """A default as it would be written in the environment."""
    if value is None:
        return "not set"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f"`{text}`" if text else "empty"


def _limits(field: FieldInfo) -> str:
    """The values that a setting may have, or the bounds of its value."""
    if get_origin(field.annotation) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(field.annotation))
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    signs |= {"min_length": "length ≥", "max_length": "length ≤"}
    return ", ".join(
        f"{sign} {getattr(bound, name)}"
        for bound in field.metadata
        for name, sign in signs.items()
        if hasattr(bound, name)
    )


def write_settings_page(path: Path) -> None:
    """Write the page into the documentation."""
    path.write_text(settings_page(), encoding="utf-8")


def unknown_variables(names: Iterable[str]) -> list[str]:
    """A line for each of these environment variables that is named like a setting and is none."""
    lines = []
    for variable in sorted(names):
        name = variable.lower().removeprefix(PREFIX.lower())  # it is read in whatever case
        if len(name) == len(variable) or name in OF_CLIENTS or name in Settings.model_fields:
            continue
        lines.append(f"{variable} is not a setting and has no effect{_meant(name)}")
    return lines


def _meant(name: str) -> str:
    near = difflib.get_close_matches(name, Settings.model_fields, 1)
    return f"; is {PREFIX}{near[0].upper()} meant?" if near else ""


class BadSettings(ValueError):
    """Which setting is invalid, in one line."""


def settings_from(**options: Any) -> Settings:
    """The settings of the environment, overridden by those given. Raises BadSettings."""
    try:
        return Settings(**options)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if not first["loc"]:  # of several settings: the message names them
            raise BadSettings(first["msg"].removeprefix("Value error, ")) from None
        field = "_".join(map(str, first["loc"]))
        name = PREFIX + field.upper()
        if first["type"] == "extra_forbidden":
            raise BadSettings(f"{name} is not a setting{_meant(field)}") from None
        reason = first["msg"].removeprefix("Value error, ")
        raise BadSettings(f"{name}: {reason}, got {str(first['input'])!r}") from None
