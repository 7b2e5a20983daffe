"""The service in this process, for commands without a server. Knows nothing of what they ask."""

import contextlib
import gc
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Final

import httpx2

from app.cli.terminal import Ended
from app.server.build import load_encoder
from app.server.exit_status import MODEL_ERROR, SERVER_ERROR, USAGE_ERROR
from app.server.main import create_app
from app.server.run import tune_interpreter
from app.server.settings import BadSettings, Settings, settings_from
from app.stores.protocols import StoreUnusable
from models import ModelError

if TYPE_CHECKING:
    from models.encoder import Encoder


# nobody waits for one image as long as this
PATIENT: Final = 3_600.0


def settings(model: str | None, *, stored: bool) -> Settings:
    """The environment's settings without what guards a server; `stored`: label sets are needed.

    Without them nothing is kept, so that no file is made or locked. Raises Ended.
    """
    options: dict[str, object] = {
        "api_keys_file": None, "api_keys": "", "rate_limit": 0.0, "allowed_hosts": "*",
        "root_path": "", "request_timeout": PATIENT, "log_level": "error",
        "tracing": "off",
    }  # fmt: skip
    if model is not None:
        options["model"] = model
    if not stored:
        options["store_url"] = "memory://"
    try:
        return settings_from(**options)
    except BadSettings as error:
        raise Ended(USAGE_ERROR, str(error)) from None


@contextlib.contextmanager
def loaded(settings: Settings) -> Iterator["Encoder"]:
    """The model, until the command ends. Raises Ended."""
    try:
        encoder = load_encoder(settings)
    except ModelError as error:
        raise Ended(MODEL_ERROR, str(error)) from None
    try:
        tune_interpreter()
        yield encoder
    finally:
        encoder.close()
        gc.unfreeze()


@contextlib.asynccontextmanager
async def client(settings: Settings, encoder: "Encoder") -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the application in this process. Raises Ended."""
    app = create_app(settings, encoder)
    try:
        async with (
            app.router.lifespan_context(app),
            httpx2.AsyncClient(
                transport=httpx2.ASGITransport(app),
                base_url="http://localhost",
                timeout=None,
                headers={"Accept-Encoding": "identity"},
            ) as client,
        ):
            yield client
    except StoreUnusable as error:
        raise Ended(SERVER_ERROR, str(error)) from None
