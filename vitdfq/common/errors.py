"""Errors that a user can act on: the command line prints each as one line and ends with its exit code."""


class VitdfqError(ValueError):
    """Base class; `exit_code` is what the command line returns."""

    exit_code = 1


class InputError(VitdfqError):
    """A file or folder is missing, damaged, or belongs to something else."""

    exit_code = 2


class RecipeError(VitdfqError):
    """A recipe, or a value given in its place, is wrong."""

    exit_code = 3


class AccessError(VitdfqError):
    """Weights or data cannot be reached: offline, gated or not found."""

    exit_code = 4


class GateError(VitdfqError):
    """An accuracy gate failed."""

    exit_code = 5


class ExportError(VitdfqError):
    """A model cannot be written in another format, or a package needed for it is not installed."""

    exit_code = 2


class LaunchError(VitdfqError):
    """The processes of a launch do not fit together."""

    exit_code = 2


class NotFiniteError(ValueError):
    """A loss became NaN or infinite; `where` holds the places in the batch, [] if they are not known."""

    def __init__(self, message: str, where: list[int] | None = None) -> None:
        super().__init__(message)
        self.where = where or []


def one_line(message: object, most: int | None = 200) -> str:
    """Return another library's error or message in one line of at most `most` characters; its type if the text is empty."""
    text = " ".join(str(message).split()) or type(message).__name__
    return text if most is None or len(text) <= most else text[:most] + " ..."
