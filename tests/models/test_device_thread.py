"""The device thread: order, failures, cancellation, the end."""

import gc
import threading
import weakref
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import CancelledError
from types import SimpleNamespace

import pytest

from benchmarks.servers import wait_until
from models import device_thread
from models.device_thread import URGENT_IN_A_ROW, DeviceThread
from models.errors import EncoderClosed


@pytest.fixture
def thread() -> Iterator[DeviceThread]:
    worker = DeviceThread("test", in_flight=1)
    yield worker
    worker.close()


def hold(worker: DeviceThread) -> threading.Event:
    """Keep the thread busy until the event is set."""
    started, release = threading.Event(), threading.Event()

    def launch() -> Callable[[], None]:
        started.set()
        release.wait(240)
        return lambda: None

    worker.submit(launch)
    assert started.wait(240)
    return release


def steps(log: list[str], name: str, count: int) -> Generator[None, None, str]:
    for step in range(count):
        log.append(f"{name}{step}")
        if step < count - 1:
            yield
    return name


def note(log: list[str], name: str) -> Callable[[], Callable[[], str]]:
    def launch() -> Callable[[], str]:
        log.append(name)
        return lambda: name

    return launch


def test_urgent_work_goes_before_steps_that_came_earlier(thread: DeviceThread) -> None:
    log: list[str] = []
    release = hold(thread)
    text = thread.submit_steps(steps(log, "t", 3))
    image = thread.submit(note(log, "image"))
    release.set()
    assert (image.result(240), text.result(240)) == ("image", "t")
    assert log == ["image", "t0", "t1", "t2"]


def test_images_of_all_models_go_before_text_of_any(
    thread: DeviceThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[str] = []
    # time passes while the thread is held, and at no other time
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(device_thread, "time", SimpleNamespace(monotonic=lambda: clock.now))
    release = hold(thread)
    clock.now = 5.0
    beside = DeviceThread("not used", in_flight=1, beside=thread)
    texts = [
        worker.submit_steps(steps(log, name, 2)) for worker, name in ((thread, "t"), (beside, "u"))
    ]
    images = [worker.submit(note(log, name)) for worker, name in ((thread, "a"), (beside, "b"))]
    release.set()
    assert [future.result(240) for future in (*texts, *images)] == ["t", "u", "a", "b"]
    assert log == ["a", "b", "t0", "u0", "t1", "u1"]
    assert thread.slowest == 5
    assert beside.slowest == 0, "what one was held up by is not the other's"
    beside.close()


def test_a_model_that_leaves_ends_its_own_work_alone(thread: DeviceThread) -> None:
    log: list[str] = []
    beside = DeviceThread("not used", in_flight=1, beside=thread)
    release = hold(thread)
    first_future, lost = thread.submit(note(log, "kept")), beside.submit(note(log, "lost"))
    text = beside.submit_steps(steps(log, "t", 2))
    beside.close()
    for future in (lost, text):
        with pytest.raises(EncoderClosed):
            future.result(240)
    with pytest.raises(EncoderClosed):
        beside.submit(note(log, "late"))
    release.set()
    assert first_future.result(240) == "kept"
    assert log == ["kept"]


class Steps:
    """Text of two steps, the first of which ends when it may."""

    def __init__(self) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.log: list[str] = []

    def __call__(self) -> Generator[None, None, None]:
        self.begun.set()
        self.go_on.wait(240)
        yield
        self.log.append("went on")


def test_steps_that_are_under_way_fail_when_their_model_leaves(thread: DeviceThread) -> None:
    beside = DeviceThread("not used", in_flight=1, beside=thread)
    text = Steps()
    future = beside.submit_steps(text())
    assert text.begun.wait(240)
    started, release = threading.Event(), threading.Event()

    def launch() -> Callable[[], str]:
        started.set()
        release.wait(240)
        return lambda: "image"

    image = thread.submit(launch)
    text.go_on.set()
    assert started.wait(240)
    beside.close()
    with pytest.raises(EncoderClosed):
        future.result(240)
    release.set()
    assert image.result(240) == "image"
    assert text.log == []


def test_a_step_that_runs_while_its_model_leaves_is_its_last(thread: DeviceThread) -> None:
    beside = DeviceThread("not used", in_flight=1, beside=thread)
    text = Steps()

    def is_closed() -> bool:
        try:
            beside.submit(note(text.log, "late"))
        except EncoderClosed:
            return True
        return False

    future = beside.submit_steps(text())
    assert text.begun.wait(240)
    closing = threading.Thread(target=beside.close, args=(240,))
    closing.start()
    wait_until(is_closed)
    text.go_on.set()
    closing.join(120)  # as soon as the step has ended, not at the end of its patience
    assert not closing.is_alive()
    with pytest.raises(EncoderClosed):
        future.result(240)
    beside.close()  # once more is once too often, and harms nobody
    assert thread.submit(note(text.log, "image")).result(240) == "image"
    assert text.log == ["image"]


def test_what_was_done_is_held_by_nobody(thread: DeviceThread) -> None:
    class Model:
        """Stands for what a piece of work refers to."""

    model = Model()
    reference, beside = weakref.ref(model), DeviceThread("beside", 1, thread)

    def work(model: Model) -> Callable[[], Callable[[], None]]:
        return lambda: lambda: type(model) and None

    beside.submit(work(model)).result(240)
    beside.close()
    del model
    # the thread goes on for the other one, and waits
    wait_until(lambda: gc.collect() >= 0 and reference() is None)


def test_two_stepwise_pieces_take_turns(thread: DeviceThread) -> None:
    log: list[str] = []
    release = hold(thread)
    long = thread.submit_steps(steps(log, "a", 3))
    short = thread.submit_steps(steps(log, "b", 1))
    release.set()
    long.result(240), short.result(240)
    assert log == ["a0", "b0", "a1", "a2"]


def test_steps_come_to_an_end_under_an_endless_stream_of_urgent_work(thread: DeviceThread) -> None:
    log: list[str] = []
    release = hold(thread)
    text = thread.submit_steps(steps(log, "t", 2))
    images = [thread.submit(note(log, "i")) for _ in range(4 * URGENT_IN_A_ROW)]
    release.set()
    text.result(240), [image.result(240) for image in images]
    # the held piece of work counts as the first urgent one
    assert log.index("t0") == URGENT_IN_A_ROW - 1
    assert log.index("t1") == log.index("t0") + URGENT_IN_A_ROW + 1


def test_what_raises_fails_its_own_future_and_the_thread_lives(thread: DeviceThread) -> None:
    def bad() -> Callable[[], None]:
        raise MemoryError("no")

    def bad_fetch() -> Callable[[], None]:
        def fetch() -> None:
            raise KeyError("late")

        return fetch

    def bad_steps() -> Generator[None, None, None]:
        yield
        raise ZeroDivisionError

    with pytest.raises(MemoryError):
        thread.submit(bad).result(240)
    with pytest.raises(KeyError):
        thread.submit(bad_fetch).result(240)
    with pytest.raises(ZeroDivisionError):
        thread.submit_steps(bad_steps()).result(240)
    assert thread.submit(note([], "fine")).result(240) == "fine"


def test_cancelled_work_is_dropped_before_it_starts(thread: DeviceThread) -> None:
    log: list[str] = []
    release = hold(thread)
    image, text = thread.submit(note(log, "image")), thread.submit_steps(steps(log, "t", 2))
    assert image.cancel()
    assert text.cancel()
    release.set()
    thread.submit(note(log, "after")).result(240)
    with pytest.raises(CancelledError):
        image.result(240)
    assert log == ["after"]


def test_close_ends_what_runs_and_fails_what_waits() -> None:
    worker = DeviceThread("test", in_flight=1)
    log: list[str] = []
    release = hold(worker)
    image, text = worker.submit(note(log, "image")), worker.submit_steps(steps(log, "t", 2))
    closing = threading.Thread(target=worker.close, args=(240,))
    closing.start()
    for future in (image, text):
        with pytest.raises(EncoderClosed):
            future.result(240)
    with pytest.raises(EncoderClosed):
        worker.submit(note(log, "late"))
    assert closing.is_alive(), "what runs was not waited for"
    release.set()
    closing.join()
    assert log == []
    with pytest.raises(EncoderClosed):
        DeviceThread("late", in_flight=1, beside=worker)


def test_two_launches_are_on_the_device_before_the_first_is_fetched() -> None:
    worker = DeviceThread("test", in_flight=2)
    log: list[str] = []

    def launch(name: str) -> Callable[[], Callable[[], None]]:
        def start() -> Callable[[], None]:
            log.append(f"launch {name}")
            return lambda: log.append(f"fetch {name}")

        return start

    release = hold(worker)
    futures = [worker.submit(launch(name)) for name in "abc"]
    release.set()
    for future in futures:
        future.result(240)
    worker.close()
    assert (
        log.index("launch b") < log.index("fetch a") < log.index("launch c") < log.index("fetch c")
    )


def test_a_lone_image_on_the_device_is_not_held_back_by_text() -> None:
    """With two pieces in flight, the first must not wait for a second that never comes."""
    worker = DeviceThread("test", in_flight=2)
    log: list[str] = []
    release = hold(worker)
    image = worker.submit(lambda: lambda: log.append("image"))
    text = worker.submit_steps(steps(log, "t", 50))
    release.set()
    image.result(240), text.result(240)
    worker.close()
    assert log.index("image") <= 1
