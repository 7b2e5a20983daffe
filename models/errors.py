"""What can go wrong with a model. Knows nothing of HTTP: the service maps these to its own."""

from collections.abc import Sequence


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or the error's name where it says nothing."""
    return next(iter(str(error).splitlines()), type(error).__name__)


class ModelError(Exception):
    """Base of all that this package raises on purpose; the text is one line for a person."""


class UnknownModel(ModelError):
    """The name is in no catalogue, or its form is not understood."""


class ModelUnavailable(ModelError):
    """The name is right but its weights cannot be had now: hub out of reach, package missing."""


class BadCheckpoint(ModelError):
    """A local file is missing, damaged, or does not fit its architecture."""


class BadExport(ModelError):
    """A folder of an exported model is incomplete, damaged, or does not compute what it should."""


class BadDevice(ModelError):
    """The device or the precision asked for does not exist here."""


class DeviceUnfit(BadDevice):
    """A device does not compute what a CPU computes, or cannot run the model."""


class EncoderClosed(ModelError):
    """Work was handed to an encoder that has been closed."""


class PromptTooLong(ModelError):
    """A prompt has more tokens than the text tower reads; it is never cut silently.

    Attributes:
        index: position of the prompt in the list that was submitted.
        prompt: the prompt itself.
        tokens: its length in tokens, start and end markers included; `limit + 1` where the
            tokenizer cannot tell more.
        limit: the tower's context length in tokens.
        others: the same of each further prompt of the list that is too long, in order.
    """

    others: tuple["PromptTooLong", ...] = ()

    def __init__(self, index: int, prompt: str, tokens: int, limit: int) -> None:
        super().__init__(f"prompt {index} has {tokens} tokens, the model reads {limit}: {prompt!r}")
        self.index = index
        self.prompt = prompt
        self.tokens = tokens
        self.limit = limit

    @classmethod
    def together(cls, problems: Sequence["PromptTooLong"]) -> "PromptTooLong":
        """The first of them, of which there is one at least; it knows the others."""
        first, *others = problems
        first.others = tuple(others)
        for other in others:
            other.others = ()
        return first

    @property
    def all(self) -> tuple["PromptTooLong", ...]:
        """Itself and the others."""
        return (self, *self.others)

    def __reduce__(self) -> tuple[type, tuple[int, str, int, int], dict[str, object]]:
        # from an encoder in another process
        arguments = (self.index, self.prompt, self.tokens, self.limit)
        return type(self), arguments, {"others": self.others}
