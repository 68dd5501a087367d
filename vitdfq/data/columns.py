"""The columns of images and labels, by their usual names and by their types."""

from typing import Any

from vitdfq.common.errors import RecipeError
from vitdfq.data.source import Columns

IMAGES = ("image", "img", "jpg", "jpeg", "png", "webp", "images", "picture", "photo", "pixel_values")  # in lower case
LABELS = (  # in lower case
    *("label", "labels", "cls", "class", "target", "targets", "fine_label", "coarse_label"),
    *("category", "class_label", "label_id", "class_id", "class_name", "label_name"),
)
NOT_LABELS = ("__key__", "__url__", "id", "image_id", "file_name", "filename", "path", "image_path", "name")  # and no pictures


def with_columns(dataset: str, rows: Any, columns: Columns, num_classes: int) -> Any:
    """Return rows with the columns `image`, still encoded, and, if the set has labels, `label`.

    Args:
        dataset: its name, for messages.
        rows: a datasets.Dataset or datasets.IterableDataset.
        columns: as the caller names them.
        num_classes: of the model: it tells fine from coarse labels.

    Raises:
        RecipeError: a column that is not there, or cannot be found.
    """
    if rows.column_names is None:  # a stream without a schema: its first row has the columns
        rows = rows._resolve_features()
    image = columns.image or _image_column(dataset, rows.features)
    label = (columns.label or _label_column(dataset, rows.features, image, num_classes)) if columns.has_labels else None
    for key, name in (("image_column", image), ("label_column", label)):
        if name is not None and name not in rows.column_names:
            raise RecipeError(f"dataset {dataset}: no column {name!r}; choices of {key}: {', '.join(rows.column_names)}")
    rows = _encoded(dataset, rows, image)  # first: a stream with renamed columns decodes its images
    wanted = {"image": image} | ({} if label is None else {"label": label})
    rows = rows.select_columns(list(wanted.values()))
    return rows.rename_columns({old: new for new, old in wanted.items() if old != new})


def _image_column(dataset: str, features: Any) -> str:
    """Return the column `image`, or the only one with such a name, or else the only one that holds images."""
    named = [name for name in features if name.lower() in IMAGES and holds_images(features[name], bytes_too=True)]
    found = [name for name in named if name.lower() == "image"] or named
    found = found or [name for name in features if holds_images(features[name])]
    if len(found) == 1:
        return found[0]
    if found:
        raise RecipeError(f"dataset {dataset}: several columns of images; choices of image_column: {', '.join(found)}")
    if "image" in features:
        raise RecipeError(f"dataset {dataset}: column image must hold images, found {features['image']}")
    raise RecipeError(
        f"dataset {dataset}: columns image and label are needed; found: {', '.join(features)} "
        "(image_column and label_column name others)"
    )


def _label_column(dataset: str, features: Any, image: str, num_classes: int) -> str | None:
    """Return the column of labels; None if there is none that could be it.

    Of several candidates the only one with the model's number of classes is taken, else the one that is called `label`.
    """
    others = {name: feature for name, feature in features.items() if name != image}
    found = [name for name, feature in others.items() if name.lower() in LABELS or _num_classes(feature)]
    if len(found) > 1:
        found = [name for name in found if _num_classes(others[name]) == num_classes] or found
        found = found if len(found) == 1 else [name for name in found if name.lower() == "label"] or found
    if len(found) == 1:
        return found[0]
    if found:
        sizes = (f"{name} ({_num_classes(others[name]) or 'unknown'} classes)" for name in found)
        raise RecipeError(f"dataset {dataset}: several columns of labels; choices of label_column: {', '.join(sizes)}")
    left = [name for name, feature in others.items() if name.lower() not in NOT_LABELS and not holds_images(feature)]
    if left:
        raise RecipeError(
            f"dataset {dataset}: columns image and label are needed; found: {', '.join(features)} (label_column names another; "
            "label_column: none reads images without labels)"
        )
    return None


def holds_images(feature: Any, bytes_too: bool = False) -> bool:
    """Return whether a column holds encoded images: as `datasets` stores them, and with `bytes_too` any bytes."""
    from datasets import Image

    is_struct = isinstance(feature, dict) and set(feature) == {"bytes", "path"}
    is_bytes = getattr(feature, "dtype", None) in ("binary", "large_binary")
    return isinstance(feature, Image) or is_struct or (bytes_too and is_bytes)


def _num_classes(feature: Any) -> int | None:
    from datasets import ClassLabel

    return feature.num_classes if isinstance(feature, ClassLabel) else None


def _encoded(dataset: str, rows: Any, column: str) -> Any:
    """Leave images encoded: `datasets` would rotate them by EXIF when it decodes, and timm's reader does not."""
    from datasets import Image

    if not holds_images(rows.features[column], bytes_too=True):
        raise RecipeError(f"dataset {dataset}: column {column} must hold images, found {rows.features[column]}")
    return rows.cast_column(column, Image(decode=False))
