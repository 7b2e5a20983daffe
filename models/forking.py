"""An encoder in processes that are forked from the one that loaded it. Knows no server.

They share its weights, in the layout that kernels want, and its compiled graphs: pages that nobody
writes to. What a fork does not copy is threads. Also how any child ends with its parent.
"""

import contextlib
import ctypes
import importlib
import logging
import math
import multiprocessing
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Final

import numpy as np

from models.device import CPU
from models.encoder import Encoder
from models.info import Floats, Pixels
from models.openvino_towers import available

# seconds for one image and one prompt in a forked process, however busy the machine is
TRIAL_SECONDS: Final = 30.0

# in a row, in which no other thread is awake
QUIET_LOOKS: Final = 3

PROMPT: Final = "a photo of a cat."

# of prctl(2)
PR_SET_PDEATHSIG: Final = 1

log = logging.getLogger("openvocab.models")


def end_with_parent() -> None:
    """On Linux: be killed when the thread that started this process, and waits for it, ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def import_ahead(device: str, backend: str) -> None:
    """Import what a CPU needs to load a model, so that forked processes share it.

    Starts no thread; torch starts some, and is left to those processes.
    """
    if device in ("auto", CPU) and backend != "torch" and available():
        importlib.import_module("openvino")


def survives(encoder: Encoder) -> bool:
    """Whether a forked process computes with an encoder what this one does.

    Ends the encoder's thread; `Encoder.restart` begins another one in each process. No release of
    OpenVINO promises what is tried here, so it is tried where it is used, at each start.
    """
    shape = 3, encoder.info.image.height, encoder.info.image.width
    picture = np.arange(math.prod(shape), dtype=np.uint8).reshape(shape)
    expected = _rows(encoder, picture)
    encoder.close()
    _let_threads_rest()
    trial = multiprocessing.get_context("fork").Process(
        target=_try, args=(encoder, picture, expected), daemon=True
    )
    # a terminal's Ctrl-C is for the process that waits
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        trial.start()
    except OSError as error:  # no room for a process
        log.warning("no process can be forked (%s); each worker loads its own model", error)
        return False
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    try:
        trial.join(TRIAL_SECONDS)
        if trial.exitcode == 0:
            return True
    finally:
        trial.kill()
        trial.join()
    log.warning("a forked process cannot use the loaded model; each worker loads its own")
    return False


def _let_threads_rest() -> None:
    """Until all other threads sleep, some milliseconds.

    Each that OpenVINO begins takes a lock at that moment, and the encoder's may hold one as long as
    its thread-local variables are destroyed, for which Python does not wait: a fork just then would
    copy it, locked for good.
    """
    end, quiet = time.monotonic() + TRIAL_SECONDS, 0
    while quiet < QUIET_LOOKS and time.monotonic() < end:
        quiet = 0 if _awake() else quiet + 1
        time.sleep(0.002)


def _awake() -> bool:
    """Whether a thread of this process besides the one that calls runs, or could."""
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # it has ended
            state = (task / "stat").read_text().rpartition(")")[2].split()[0]
            if state != "S" and int(task.name) != threading.get_native_id():
                return True
    return False


def _try(encoder: Encoder, picture: Pixels, expected: Floats) -> None:
    # it holds the sockets of the process that waits, and must not outlive it
    end_with_parent()
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, TRIAL_SECONDS)
    encoder.restart()
    try:
        rows = _rows(encoder, picture)
    except Exception as error:
        log.warning("the model in a forked process: %s", error)
        raise SystemExit(1) from None
    if not np.array_equal(rows, expected):
        log.warning("the model in a forked process: other vectors than before the fork")
        raise SystemExit(1)


def _rows(encoder: Encoder, picture: Pixels) -> Floats:
    """(2, D): of one image, and of one prompt."""
    image = encoder.submit_images([picture]).result()
    return np.concatenate([image, encoder.submit_texts([PROMPT]).result()])
