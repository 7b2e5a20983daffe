"""The settings: names, defaults, limits, purposes. Read by entry points and main only."""

import os
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator
from pydantic_settings import SettingsConfigDict

from app.model_settings import ModelSettings
from app.targets import AllowedHost


class Settings(ModelSettings):
    """Every field is set by the environment variable OPENVOCAB_ and its name in capitals."""

    model_config = SettingsConfigDict(env_prefix="OPENVOCAB_", frozen=True, protected_namespaces=())

    max_image_bytes: int = Field(20_000_000, ge=1, description="Largest image file, in bytes.")
    max_upload_bytes: int = Field(
        4_000_000_000, ge=1, description="Largest body of `POST /classify/batch`, in bytes."
    )
    max_upload_images: int = Field(
        10_000, ge=1, description="Images in one `POST /classify/batch`."
    )
    max_uploads: int = Field(
        8, ge=1, description="`POST /classify/batch` at a time; more are answered 503."
    )
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
    explain: bool = Field(
        True,
        description="Answer heat maps where a request asks for them: 36 more forward passes each.",
    )
    image_urls: bool = Field(
        False,
        description="Fetch images that requests name by their URL, from public addresses only.",
    )
    image_url_hosts: str = Field(
        "",
        description="Hosts that images may be fetched from, with commas: `example.org`, "
        "`*.example.org`, `example.org:8443`; empty: all.",
    )
    image_url_timeout: float = Field(
        10.0, gt=0, le=600, description="Seconds that fetching an image may take."
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
    max_examples: int = Field(1_000, ge=0, description="Example pictures of one label set.")
    max_example_bytes: int = Field(
        200_000_000, ge=0, description="Example pictures of one label set together, in bytes."
    )
    example_store_bytes: int = Field(
        2_000_000_000, ge=0, description="All example pictures in a store together, in bytes."
    )
    request_timeout: float = Field(
        30.0,
        gt=0,
        le=3600,
        description="Seconds after which a request is answered 504, or 408 while its body is still "
        "arriving; the header `X-Request-Timeout` may ask for less.",
    )
    head_timeout: float = Field(
        10.0, gt=0, le=3600, description="Seconds that the head of a request may take to arrive."
    )
    hang_timeout: float = Field(
        300.0,
        gt=0,
        le=86_400,
        description="Seconds after which a forward pass or a decoder that does not return ends the "
        "process with status 70; longer than the largest batch takes.",
    )
    drain_seconds: float = Field(
        0.0,
        ge=0,
        le=3600,
        description="Seconds after SIGTERM in which requests are still taken while `/readyz` "
        "answers 503, so that a load balancer turns away first.",
    )
    api_keys_file: Path | None = Field(
        None,
        description="TOML file of API keys, read again when it changes (docs/security.md); without "
        "keys anybody may do everything.",
    )
    api_keys: str = Field(
        "",
        repr=False,
        description="More keys, as NAME:SCOPE+SCOPE:SHA256 with commas; `openvocab keys new` makes "
        "one.",
    )
    rate_limit: float = Field(
        0.0,
        ge=0,
        description="Requests a second of each key, or without keys of each address, counted over "
        "all processes of a store; 0: no limit.",
    )
    rate_burst: int = Field(
        1, ge=1, description="Requests that may come at once; at least one second's worth."
    )
    metrics: Literal["open", "admin", "off"] = Field(
        "open", description="Who may read `/metrics`: anybody, keys with the scope `admin`, nobody."
    )
    cors_origins: str = Field(
        "",
        description="Origins whose pages may use the API from a browser, with commas, such as "
        "`https://example.org`; `*`: all.",
    )
    allowed_hosts: str = Field(
        "*", description="Host names that requests may be addressed to, with commas; `*`: any."
    )
    trusted_proxies: str = Field(
        "",
        description="Addresses or networks of proxies, with commas, whose `X-Forwarded-For` and "
        "`X-Forwarded-Proto` are believed.",
    )
    tls_cert_file: Path | None = Field(
        None, description="PEM file of the certificate chain; with it the server speaks HTTPS."
    )
    tls_key_file: Path | None = Field(
        None, description="PEM file of its private key, if that is not in the same file."
    )
    root_path: str = Field(
        "", description="Path under which a proxy serves this, such as `/vision`."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe level that is logged."
    )
    log_format: Literal["auto", "text", "json"] = Field(
        "auto",
        description="How the log reads: `text`, `json` (an object a line), or `auto`: text on a "
        "terminal, JSON wherever else it goes.",
    )
    log_labels: bool = Field(
        False, description="Write the labels that a request asks for into its line of the log."
    )
    tracing: Literal["auto", "on", "off"] = Field(
        "auto",
        description="OpenTelemetry traces, sent where the `OTEL_…` variables say; `auto`: if "
        "`OTEL_EXPORTER_OTLP_ENDPOINT` is set. Needs the extra `openvocab[otel]`.",
    )

    @field_validator("image_url_hosts")
    @classmethod
    def _hosts(cls, value: str) -> str:
        for host in filter(None, map(str.strip, value.split(","))):
            AllowedHost.parse(host)
        return value

    def listed(self, name: str) -> list[str]:
        """The parts of a setting that is written with commas."""
        return [part.strip() for part in getattr(self, name).split(",") if part.strip()]

    def cores_for_decoding(self) -> int:
        """`decode_threads`, or the number of cores."""
        return self.decode_threads or os.cpu_count() or 1
