"""The teacher of a recipe: `load_teacher` with the section `model`."""

from typing import Any

from vitdfq.common.errors import RecipeError, VitdfqError
from vitdfq.models import load_teacher


def load_section(model: dict[str, Any]) -> Any:
    """Return the teacher that the section `model` describes.

    Raises:
        RecipeError: no family opens it, or its arguments do not fit: what only building it shows.
        VitdfqError: as `load_teacher`, for files and the Hub.
    """
    try:
        return load_teacher(**model)
    except VitdfqError:
        raise
    except ValueError as error:
        raise RecipeError(f"model: {error}") from error
