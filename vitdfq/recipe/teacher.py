"""Calls that a recipe's sections hold the arguments of: an error names the section."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vitdfq.common.errors import RecipeError, VitdfqError
from vitdfq.models import load_teacher


@contextmanager
def errors_of_section(section: str) -> Iterator[None]:
    """Turn a ValueError inside the block into a RecipeError that names the recipe section of the wrong arguments."""
    try:
        yield
    except VitdfqError:
        raise
    except ValueError as error:
        raise RecipeError(f"{section}: {error}") from error


def load_section(model: dict[str, Any]) -> Any:
    """Return the teacher that the section `model` describes.

    Raises:
        RecipeError: no family opens it, or its arguments do not fit: what only building it shows.
        VitdfqError: as `load_teacher`, for files and the Hub.
    """
    with errors_of_section("model"):
        return load_teacher(**model)
