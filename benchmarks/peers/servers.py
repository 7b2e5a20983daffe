"""The servers that are compared: how each is started and asked. Knows nothing of timing."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from benchmarks import bodies
from benchmarks.bodies import Bodies
from benchmarks.checkpoint import open_clip_folder, transformers_folder
from benchmarks.environments import clean_env, environment
from benchmarks.servers import Server, free_port, serving
from benchmarks.sides import FIELDS
from models.info import Precision

HERE: Final = Path(__file__).parent
START_SECONDS: Final = 300

Form = Literal["classify", "embed"]


@dataclass(frozen=True, slots=True)
class Peer:
    """A server of others: `variants` are ways to run it, of which the fastest is compared.

    `about` says what it does for a request.
    """

    name: str
    environment: str
    form: Form
    about: str
    variants: Mapping[str, Mapping[str, str]]

    def precision(self, variant: str) -> Precision:
        """What it computes in; infinity's `auto` is float32 on a CPU."""
        return "bf16" if "bfloat16" in self.variants[variant].values() else "fp32"

    @property
    def path(self) -> str:
        """Where it takes pictures."""
        return "/classify" if self.form == "classify" else "/embeddings"

    def bodies(self, images: Sequence[Path], folder: Path) -> Bodies:
        """The pictures as it wants them."""
        if self.form == "classify":
            return bodies.multipart(images, FIELDS, folder)
        return bodies.with_base64(images, folder, embedding_request)


_HANDLERS: Final = {"async": {"HANDLER": "async"}, "def": {"HANDLER": "def"}}
_HALVED: Final = {"async, bfloat16": {"HANDLER": "async", "DTYPE": "bfloat16"}}
TUTORIAL: Final = Peer(
    "tutorial, 1 template", "tutorial", "classify",
    "FastAPI, open_clip in the handler; 10 prompts encoded per request", _HANDLERS,
)  # fmt: skip
EIGHTY: Final = Peer(
    "tutorial, 80 templates", "tutorial", "classify",
    "the same, 800 prompts encoded per request",
    {"async": {"HANDLER": "async", "TEMPLATES": "80"}},
)  # fmt: skip
TRANSFORMERS: Final = Peer(
    "transformers pipeline", "transformers", "classify",
    "FastAPI, zero-shot-image-classification; 10 prompts encoded per request",
    {**_HANDLERS, **_HALVED},
)  # fmt: skip
INFINITY: Final = Peer(
    "infinity_emb", "infinity", "embed", "image embedding only: no labels, no scores",
    {
        "bfloat16": {"--dtype": "bfloat16"},
        "float32": {"--dtype": "float32"},
        "auto": {"--dtype": "auto"},
        "float32, BetterTransformer": {"--dtype": "float32", "--bettertransformer": ""},
    },
)  # fmt: skip
PEERS: Final = (TUTORIAL, TRANSFORMERS, INFINITY)


def embedding_request(image: str) -> object:
    """What infinity's own HTTP interface takes for one picture in base64."""
    return {"model": "clip", "modality": "image", "input": [f"data:image/jpeg;base64,{image}"]}


@contextlib.contextmanager
def started(peer: Peer, variant: str, folder: Path) -> Iterator[Server]:
    """The peer, ready. Raises NoEnvironment, DidNotStart."""
    programs, port, chosen = environment(peer.environment), free_port(), peer.variants[variant]
    log = folder / f"{peer.environment}-{port}.log"
    if peer.form == "embed":
        switch = [] if "--bettertransformer" in chosen else ["--no-bettertransformer"]
        options = [x for pair in chosen.items() for x in pair if x]
        command = [str(programs / "infinity_emb"), "v2", "--model-id", str(transformers_folder())]
        command += ["--served-model-name", "clip", "--engine", "torch", "--device", "cpu"]
        command += ["--host", "127.0.0.1", "--port", str(port), *switch, *options]
        env, ready = clean_env(), "/health"
    else:
        command = [str(programs / "python"), "-m", "uvicorn", "--port", str(port)]
        command += ["--log-level", "warning", "--app-dir", str(HERE / peer.environment)]
        command += ["server:app"]
        tutorial = peer.environment == "tutorial"
        model = open_clip_folder() if tutorial else transformers_folder()
        env, ready = clean_env(MODEL=str(model), **chosen), "/ready"
    with serving(command, port, log, env, ready, START_SECONDS) as server:
        yield server
