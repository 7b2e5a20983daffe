"""What signals do until a server serves. Knows nothing of servers."""

import _thread
import logging
import os
import signal
import sys
from typing import Final

from app.server.exit_status import SIGNALLED

log = logging.getLogger("openvocab")

# what ends a worker whose successor serves; there is none on Windows, where there is one process
REPLACED: Final[int] = getattr(signal, "SIGUSR1", 0)


def hear_signals() -> None:
    """Until it serves, SIGHUP is ignored, unless the terminal is gone; SIGTERM ends any process."""
    if hears_hang_ups() and not sys.stderr.isatty():
        signal.signal(signal.SIGHUP, _still_starting)
    # that of a container has no default action; others end by theirs even where a driver hangs
    if os.getpid() == 1:
        signal.signal(signal.SIGTERM, give_up)


def give_up(number: int, _frame: object) -> None:
    """Handle a signal while the model is loaded.

    Nothing is raised: libraries turn what interrupts their import into errors of their own.
    """
    os._exit(SIGNALLED + number)


def hears_hang_ups() -> bool:
    """Not under nohup, nor on Windows."""
    return hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN


def _still_starting(_number: int, _frame: object) -> None:
    warn("SIGHUP during startup is ignored")


def warn(text: str) -> None:
    """Log from a signal's handler: in a thread, for a line may just be half written in this one."""
    _thread.start_new_thread(log.warning, (text,))
