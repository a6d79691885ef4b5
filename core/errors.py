"""What can go wrong for a visitor, as one small tree; any other exception is a bug.

SuiteError
├── ImageError          the upload cannot be read, or is too large
├── PromptError         a prompt is empty, malformed or over its limit
├── ModelUnavailable    weights are not here, damaged, or do not fit
│   └── OutOfMemory     the device ran out of memory; it was freed again
├── NothingFound        a valid answer: no mask reached the threshold
└── Cancelled           the visitor stopped the work

Messages are one sentence that a visitor understands, with the received value, the limit and what
to do next. Pages show them as they are, escaped.
"""


class SuiteError(Exception):
    """The family of everything a page shows as a notice instead of a failure."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ImageError(SuiteError):
    """An upload is not a readable picture, or is over a limit."""


class PromptError(SuiteError):
    """A prompt is missing, malformed or over a limit."""


class ModelUnavailable(SuiteError):
    """A model cannot be used here: not downloaded, damaged, or too large."""


class OutOfMemory(ModelUnavailable):
    """The device ran out of memory during a computation."""


class NothingFound(SuiteError):
    """No mask reached the threshold.

    Args:
        message: what was looked for and what to try.
        best_score: the highest score found below the threshold, None if there was none.
    """

    def __init__(self, message: str, best_score: float | None = None) -> None:
        super().__init__(message)
        self.best_score = best_score

    def __reduce__(self) -> tuple[type, tuple[str, float | None]]:
        # The default would drop best_score when the error crosses a process (a GPU worker).
        return type(self), (self.message, self.best_score)


class Cancelled(SuiteError):
    """The work was stopped on request; the message says how far it came."""
