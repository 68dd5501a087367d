"""Real images without labels that are never evaluated: a reference for calibration on real data."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vitdfq.common.errors import RecipeError
from vitdfq.data.batches import batches, transform_of
from vitdfq.data.class_names import Classes
from vitdfq.data.labeled import Labeled, load_labeled
from vitdfq.data.sources import has_split_beside

if TYPE_CHECKING:
    from torch import Tensor


def unseen_images(
    model: Any,
    *,
    dataset: str,
    split: str,
    evaluated: int | None,
    count: int,
    block: int = 0,
    has_classes: bool = True,
    **reading: Any,
) -> "Tensor":
    """Return images (count, 3, H, W), normalized for the model, on the CPU.

    They are the first of the split "train" if there is one, else the last of `split`. Block 1 holds the next `count` images
    after (or before) those of block 0, and so on.

    Args:
        model: a timm model; it defines the normalization and the number of classes.
        dataset: as in `load_labeled`.
        split: the split that is evaluated.
        evaluated: number of its images that are evaluated, from the first; None: all.
        count: images to return.
        block: number of the block of `count` images.
        has_classes: whether the model gives classes, which the set's must be.
        reading: columns and the like, as in `load_labeled`: rows are in the order in which they are evaluated.

    Raises:
        RecipeError: there are fewer images that are not evaluated.
        InputError, AccessError: as `load_labeled`.
    """
    classes = Classes.of(model) if has_classes else None
    labeled, first = _open(classes, dataset, split, evaluated, count, block, reading)
    rest = replace(labeled, source=replace(labeled.source, rows=labeled.source.rows.skip(first)))
    for images, _ in batches(rest, transform_of(model), batch_size=count, num_images=count):
        if len(images) == count:
            return images
    raise _too_few(dataset, count, block)


def _open(
    classes: Classes | None, dataset: str, split: str, evaluated: int | None, count: int, block: int, reading: dict[str, Any]
) -> tuple[Labeled, int]:
    """Return the rows, and the number of the first one to take."""
    if has_split_beside(dataset, split):
        try:
            return load_labeled(dataset, "train", classes, **reading), block * count
        except RecipeError:  # a Hub set without one; any other error of the set is raised again below
            pass
    labeled = load_labeled(dataset, split, classes, **reading)
    num_rows = labeled.num_rows
    if num_rows is None or evaluated is None or (first := num_rows - (block + 1) * count) < evaluated:
        raise _too_few(dataset, count, block)
    return labeled, first


def _too_few(dataset: str, count: int, block: int) -> RecipeError:
    wanted = f"{count} real images" + (f" for each of {block + 1} seeds" if block else "")
    return RecipeError(
        f"dataset {dataset}: no {wanted} that are not evaluated; lower evaluate.num_images or compare.real_images, "
        "or give a dataset with a train split"
    )
