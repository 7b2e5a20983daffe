"""The metrics of all processes of a server, for Prometheus. Knows nothing of HTTP."""

import contextlib
import threading
from collections.abc import Iterator, Mapping
from typing import Final, Literal

from prometheus_client.exposition import CONTENT_TYPE_LATEST

from app.telemetry.instruments import Instruments
from app.telemetry.shared_memory import Board
from app.telemetry.spans import Stages

MEDIA_TYPE: Final = CONTENT_TYPE_LATEST

# seconds; fine where answers are, from a cached image on a GPU to a picture on two cores
SECONDS: Final = (
    0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.04, 0.06, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5,
    10, 30,
)  # fmt: skip
BUILD_SECONDS: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)
BATCH_SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096)

# seconds between two times that a process tells the others what is read from its parts
EVERY: Final = 1.0

# why work was given up before it was done
Reason = Literal["left", "expired"]

# what the device works on
Kind = Literal["image", "text"]

# how a build of a label set ended: `refused` by what it holds, `failed` by a fault of ours
Built = Literal["built", "refused", "failed", "cancelled"]

# a call of the store, and what came of it: an answer, a refusal to write, nothing
StoreCall = Literal["read", "write", "count"]
StoreResult = Literal["ok", "refused", "away"]

# why a worker was replaced
Renewal = Literal["died", "hung", "renewed"]


class Metrics(Instruments):
    """What one process counts, and the text with what all of its server do.

    Alone it has a board of its own. What ends with `_total` and what has buckets is counted where
    it happens, in memory that outlives the process; the rest is read once a second, and when asked.
    """

    def __init__(self, board: Board | None = None, page: int = 0) -> None:
        self._shared = board is not None
        board = board or Board(1)
        super().__init__(board, board.pages[page])
        self._requests = self.counter(
            "openvocab_requests_total", "Requests answered.", "route", "status"
        )
        self._seconds = self.histogram(
            "openvocab_request_seconds",
            "Seconds from the first byte of a request to its answer.",
            SECONDS,
            "route",
        )
        self._stages = self.histogram(
            "openvocab_stage_seconds",
            "Seconds of a request's stages: fetch, decode, queue, encode, text, score, explain.",
            SECONDS,
            "stage",
        )
        self._problems = self.counter(
            "openvocab_problems_total", "Requests and connections refused or failed.", "error_type"
        )
        self._dropped = self.counter(
            "openvocab_dropped_total",
            "Requests abandoned: the client disconnected, or the deadline passed.",
            "reason",
        )
        self._received = self.counter("openvocab_received_bytes_total", "Bytes of bodies read.")
        self._batches = self.histogram(
            "openvocab_batch_size", "Images or prompts encoded in one batch.", BATCH_SIZES,
            "kind", "model",
        )  # fmt: skip
        self._forward = self.histogram(
            "openvocab_forward_seconds",
            "Seconds from handing a batch to the device to its vectors.",
            SECONDS,
            "kind",
            "model",
        )
        self._builds = self.counter(
            "openvocab_labelset_builds_total", "Builds of label sets that finished.", "result"
        )
        self._build_seconds = self.histogram(
            "openvocab_labelset_build_seconds", "Seconds of builds of label sets.", BUILD_SECONDS
        )
        self._build_labels = self.counter(
            "openvocab_labelset_build_labels_total", "Labels in the label sets built."
        )
        self._store_calls = self.counter(
            "openvocab_store_calls_total", "Calls to the store.", "call", "result"
        )
        self._store_seconds = self.histogram(
            "openvocab_store_seconds", "Seconds spent in calls to the store.", SECONDS, "call"
        )
        self._renewals = self.counter(
            "openvocab_worker_renewals_total", "Worker processes replaced.", "reason"
        )
        self.watch(
            "openvocab_silent_seconds",
            "Seconds since a process last reported; each reports once a second.",
            self.silent,
            together="max",
        )
        self._begin()

    def _begin(self) -> None:
        """Export 0 for what has not happened yet: a rate needs a starting value."""
        for reason in ("left", "expired"):
            self._dropped.inc(reason, by=0)
        for error in ("internal", "overloaded", "too_many_requests", "deadline_passed"):
            self._problems.inc(error, by=0)
        for result in ("built", "refused", "failed", "cancelled"):
            self._builds.inc(result, by=0)
        for call in ("read", "write", "count"):
            for answer in ("ok", "refused", "away"):
                self._store_calls.inc(call, answer, by=0)
        for renewal in ("died", "hung", "renewed"):
            self._renewals.inc(renewal, by=0)
        self._received.inc(by=0)
        self._build_labels.inc(by=0)

    def answered(
        self, route: str, status: int, seconds: float, stages: Stages, problem: str | None
    ) -> None:
        """One request, with the code of its problem if it had one."""
        self._requests.inc(route, str(status))
        self._seconds.observe(seconds, route)
        for name, spent in stages.seconds.items():
            if name != "total":  # that is the request itself
                self._stages.observe(spent, name)
        if problem is not None:
            self._problems.inc(problem)

    def refused(self, problem: str) -> None:
        """One connection or request that the application never saw, with the code of why."""
        self._problems.inc(problem)

    def dropped(self, reason: Reason) -> None:
        """One abandoned request."""
        self._dropped.inc(reason)

    def received(self, count: int) -> None:
        """So many bytes of a body."""
        self._received.inc(by=count)

    def encoded(self, kind: Kind, model: str, count: int, seconds: float) -> None:
        """One batch of images or prompts, from its submission to a model to its vectors."""
        self._batches.observe(count, kind, model)
        self._forward.observe(seconds, kind, model)

    def built(self, result: Built, seconds: float, labels: int) -> None:
        """One build of a label set."""
        self._builds.inc(result)
        if result == "built":
            self._build_seconds.observe(seconds)
            self._build_labels.inc(by=labels)

    def store_called(self, call: StoreCall, result: StoreResult, seconds: float) -> None:
        """One call of the store, or one that was not made because it is away."""
        self._store_calls.inc(call, result)
        if result != "away":  # most of those are not even asked
            self._store_seconds.observe(seconds, call)

    def renewed(self, reason: Renewal) -> None:
        """One worker that was replaced."""
        self._renewals.inc(reason)

    def info(self, name: str, about: str, values: Mapping[str, str]) -> None:
        """A series that is 1 and tells by its labels; several where processes differ."""
        self.watch(name, about, lambda: {tuple(values.values()): 1.0}, *values, together="max")

    @contextlib.contextmanager
    def published(self) -> Iterator[None]:
        """Tell other processes what is read here, from a thread: the event loop may be busy."""
        if not self._shared:
            yield  # it is read when it is asked for
            return
        ended = threading.Event()
        thread = threading.Thread(
            target=self._keep_publishing, args=(ended,), name="metrics", daemon=True
        )
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(EVERY)

    def _keep_publishing(self, ended: threading.Event) -> None:
        self.publish()
        while not ended.wait(EVERY):
            self.publish()
