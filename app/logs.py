"""What is logged, and how it reads. Knows nothing of what happens."""

import logging


def quiet_logging(level: str) -> None:
    """Log our own lines from `level` on, and of others only what an operator needs."""
    logging.basicConfig(
        level=level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    for chatty in ("httpx", "httpcore", "httpx2", "httpcore2", "PIL", "python_multipart"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    # open_clip writes to the root logger what only its developers need
    for handler in logging.getLogger().handlers:
        handler.addFilter(lambda record: record.name != "root")
