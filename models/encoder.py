"""The encoder: arrays and prompts in, unit vectors out, on a thread of its own. Knows no labels.

What computes is given to it: towers in torch (torch_towers.py) or in OpenVINO (openvino_towers.py).
"""

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future
from typing import Final, Protocol, runtime_checkable

import numpy as np

from models.device_state import DeviceMemory, device_memory, is_lost
from models.device_thread import DeviceThread
from models.errors import PromptTooLong
from models.info import AnyEncoder, EncoderInfo, Floats, Pixels
from models.sizes import NODES
from models.token_tree import Forest, Tree, lengths
from models.tokens import Ids, Tokens

# which prompts, how many positions they took, their unit rows
Piece = tuple[Ids, int, Floats]

# seconds a piece of text work may take, so that an image behind it waits no longer than 50 ms
TEXT_STEP: Final = 0.03
PROMPTS_PER_TOKENIZER_STEP: Final = 256
# token positions of a forward pass: below this, reading the weights once costs more than they do
LEAST_POSITIONS: Final = 64
# positions per second of a slow device: until it is measured, steps are short
SLOW: Final = 2_000.0


class ImageTower(Protocol):
    """What an image becomes a vector by."""

    def launch(self, batch: Pixels) -> Callable[[], Floats]:
        """(B, 3, H, W) uint8; what is returned waits for the (B, D) unit rows."""
        ...


@runtime_checkable
class TreeTower(Protocol):
    """What prompts become vectors by, where equal beginnings of them are computed once."""

    # how it finds the end of a prompt (`lengths`)
    eos_id: int | None
    # of one call, at most
    most_nodes: int

    def of_tree(self, tree: Tree) -> Floats:
        """(p, D) unit rows, in the tree's order. Raises MemoryError if it is too large."""
        ...


class FullTower(Protocol):
    """What prompts become vectors by, each at full length."""

    # of one call, at most
    most_prompts: int

    def at_full_length(self, ids: Ids) -> Floats:
        """(N, L) -> (N, D) unit rows. Raises MemoryError if they are too many."""
        ...


class Encoder:
    """A CLIP dual encoder that takes work without blocking its caller.

    Vectors come back as float32 rows of unit length, whatever the precision inside.
    """

    def __init__(
        self,
        info: EncoderInfo,
        tokens: Tokens,
        images: ImageTower,
        texts: TreeTower | FullTower,
    ) -> None:
        self.info = info
        self.tokens = tokens
        self.images = images
        self.texts = texts
        self._positions_per_second = SLOW  # corrected by each measured step
        self.restart()

    def restart(self) -> None:
        """Begin with a thread of this process: after a fork there is none.

        Before any work is handed over.
        """
        self._thread = DeviceThread("encoder", self.info.in_flight)

    def share_device(self, encoder: AnyEncoder) -> None:
        """Take turns with another encoder from now on, if both have the same device.

        Before any work is handed over.
        """
        if isinstance(encoder, Encoder) and encoder.info.device == self.info.device:
            self._thread.close()
            self._thread = DeviceThread("encoder", self.info.in_flight, encoder._thread)

    def submit_images(self, images: Sequence[Pixels]) -> Future[Floats]:
        """`images`: B arrays (3, H, W) uint8 of the size in `info.image` -> (B, D) float32.

        Raises through the future: whatever the forward pass raised; EncoderClosed.
        """
        batch = list(images)
        return self._thread.submit(lambda: self._launch_images(batch))

    def submit_texts(self, prompts: Sequence[str]) -> Future[Floats]:
        """N prompts -> (N, D) float32, in the order given.

        Runs in steps of about TEXT_STEP seconds between which images go first. Raises through the
        future: PromptTooLong, which knows all such prompts; whatever the forward pass raised;
        EncoderClosed.
        """
        return self._thread.submit_steps(self._encode_texts(list(prompts)))

    @property
    def busy_since(self) -> float | None:
        """The `time.monotonic()` at which the device began what it works on, None if it waits."""
        return self._thread.busy_since

    @property
    def slowest(self) -> float:
        """Seconds that the longest piece of work so far took."""
        return self._thread.slowest

    @property
    def busy_seconds(self) -> Mapping[str, float]:
        """Seconds that the device spent so far on images and on text."""
        image, text = self._thread.busy_seconds
        return {"image": image, "text": text}

    def on_device_lost(self, action: Callable[[BaseException], object]) -> None:
        """Called, on the encoder's thread, when the device fails for good; before any answer."""
        self._thread.when_failed(lambda error: action(error) if is_lost(error) else None)

    def memory(self) -> DeviceMemory | None:
        """What is in use of the device's own memory; None for a CPU."""
        return device_memory(self.info.device)

    def warm_up(self) -> None:
        """One image and one prompt through the towers, so that the first caller does not pay."""
        image = np.zeros((3, self.info.image.height, self.info.image.width), np.uint8)
        self.submit_images([image]).result()
        self.submit_texts(["warm up"]).result()

    def close(self) -> None:
        """End the thread; work that waits fails with EncoderClosed."""
        self._thread.close()

    def _launch_images(self, batch: list[Pixels]) -> Callable[[], Floats]:
        return self.images.launch(np.stack(batch))

    def _encode_texts(self, prompts: list[str]) -> Generator[None, None, Floats]:
        ids = np.empty((len(prompts), self.tokens.context_length), np.int64)
        too_long: list[PromptTooLong] = []
        for start in range(0, len(prompts), PROMPTS_PER_TOKENIZER_STEP):
            stop = start + PROMPTS_PER_TOKENIZER_STEP
            try:
                ids[start:stop] = self.tokens(prompts[start:stop], start)
            except PromptTooLong as problem:
                too_long += problem.all
            if stop < len(prompts):
                yield
        if too_long:
            raise PromptTooLong.together(too_long)
        pieces = self._pieces(ids)
        vectors = np.empty((len(prompts), self.info.embedding_width), np.float32)
        encoded = 0
        while encoded < len(prompts):
            started = time.perf_counter()
            rows, positions, piece_vectors = pieces(encoded)
            vectors[rows] = piece_vectors
            encoded += len(rows)
            self._note_speed(positions, time.perf_counter() - started)
            if encoded < len(prompts):
                yield
        return vectors

    def _pieces(self, ids: Ids) -> Callable[[int], Piece]:
        """What computes the next piece, once so many prompts are done."""
        texts = self.texts
        if not isinstance(texts, TreeTower):
            return lambda start: self._at_full_length(texts, ids, start)
        forest = Forest(ids, lengths(ids, texts.eos_id))
        return lambda start: self._as_tree(texts, forest, start, self._fitting(texts.most_nodes))

    def _as_tree(self, texts: TreeTower, forest: Forest, start: int, most: int) -> Piece:
        tree = forest.tree(start, most)
        try:
            return tree.rows, len(tree.tokens), texts.of_tree(tree)
        except MemoryError:
            if len(tree.rows) == 1:
                raise
        return self._as_tree(texts, forest, start, len(tree.tokens) // 2)

    def _at_full_length(self, texts: FullTower, ids: Ids, start: int) -> Piece:
        context = ids.shape[1]
        most = self._fitting(texts.most_prompts * context) // context
        rows = np.arange(start, min(start + max(1, most), len(ids)))
        vectors = self._full_rows(texts, ids[start : start + len(rows)])
        return rows, len(rows) * context, vectors

    def _full_rows(self, texts: FullTower, ids: Ids) -> Floats:
        try:
            return texts.at_full_length(ids)
        except MemoryError:
            if len(ids) == 1:
                raise
        half = len(ids) // 2
        parts = ids[:half], ids[half:]
        return np.concatenate([self._full_rows(texts, part) for part in parts])

    def _fitting(self, most: int) -> int:
        """Positions that should take TEXT_STEP seconds, `most` at most; a size of trees."""
        positions = max(LEAST_POSITIONS, min(int(self._positions_per_second * TEXT_STEP), most))
        return positions // NODES * NODES

    def _note_speed(self, positions: int, seconds: float) -> None:
        # half old, half new: one slow step must not make all later ones tiny
        speed = positions / max(seconds, 1e-6)
        self._positions_per_second = 0.5 * self._positions_per_second + 0.5 * speed
