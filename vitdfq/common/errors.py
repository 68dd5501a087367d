"""Errors a user can do something about: each is shown as one line and ends the command with its exit code."""


class VitdfqError(ValueError):
    """Base class; `exit_code` is what the command line returns."""

    exit_code = 1


class InputError(VitdfqError):
    """A file or folder is missing, damaged, or belongs to something else."""

    exit_code = 2


class RecipeError(VitdfqError):
    """The recipe says something that cannot be."""

    exit_code = 3


class AccessError(VitdfqError):
    """Weights or data could not be reached: offline, gated or not found."""

    exit_code = 4


class GateError(VitdfqError):
    """An accuracy gate failed."""

    exit_code = 5


class ExportError(VitdfqError):
    """A model cannot be written in another format, or what writes it is not installed."""

    exit_code = 2


class LaunchError(VitdfqError):
    """Several processes were started in a way that cannot work."""

    exit_code = 2


class NotFiniteError(ValueError):
    """A loss became NaN or infinite; `where` says in which places of the batch, [] if that is not known."""

    def __init__(self, message: str, where: list[int] | None = None) -> None:
        super().__init__(message)
        self.where = where or []


def one_line(said: object, most: int | None = 200) -> str:
    """What somebody else's error says, in one line of at most `most` characters; its type if it says nothing."""
    text = " ".join(str(said).split()) or type(said).__name__
    return text if most is None or len(text) <= most else text[:most] + " ..."
