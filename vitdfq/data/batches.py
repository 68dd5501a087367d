"""Rows to batches: decoded and transformed as timm does, in the order of the rows."""

import io
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING, Any

from vitdfq.common.errors import InputError, one_line
from vitdfq.data.labeled import Labeled

if TYPE_CHECKING:
    from torch import Tensor, nn


def transform_of(model: "nn.Module") -> Callable[[Any], "Tensor"]:
    """Return the evaluation transform of the model's own timm configuration: PIL image -> (3, H, W), normalized."""
    from timm.data import create_transform, resolve_model_data_config

    transform: Any = create_transform(**resolve_model_data_config(model, use_test_size=True), is_training=False)
    return transform


def batches(
    labeled: Labeled,
    transform: Callable[[Any], "Tensor"],
    *,
    batch_size: int,
    num_images: int | None = None,
    wanted: Callable[[int], bool] = lambda row: True,
    num_workers: int = 0,
) -> Iterator[tuple["Tensor", "Tensor"]]:
    """Yield (images (B, 3, H, W), labels (B,)) of the first `num_images` rows, or all; the last batch may be smaller.

    Args:
        labeled: from `load_labeled`.
        transform: PIL image -> tensor.
        batch_size: rows in a batch.
        num_images: stop after so many rows.
        wanted: whether to decode a row, by its number; the other rows are left out.
        num_workers: threads that decode ahead. Threads, not processes: decoding and resizing release the interpreter
            lock, and a streamed reader must not be forked.

    Raises:
        InputError: a row that is not an image.
    """
    import torch

    def load(numbered: tuple[int, dict[str, Any]]) -> tuple["Tensor", int]:
        index, row = numbered
        return transform(_picture(labeled.name, index, row["image"])), row["label"]

    with closing(labeled.rows()) as rows:  # an unfinished reader holds threads until the process ends
        numbered = (pair for pair in enumerate(islice(rows, num_images)) if wanted(pair[0]))
        loaded = _in_order(load, numbered, num_workers, ahead=2 * batch_size)
        with closing(loaded):
            while batch := list(islice(loaded, batch_size)):
                images, labels = zip(*batch, strict=True)
                yield torch.stack(images), torch.tensor(labels)


def _picture(name: str, index: int, image: dict[str, Any] | None) -> Any:
    """Decode as timm's reader does: no rotation by EXIF, three channels."""
    import fsspec
    from PIL import Image, UnidentifiedImageError

    try:
        if image is None:
            raise ValueError("it is missing")
        if image["bytes"] is not None:
            return _rgb(Image.open(io.BytesIO(image["bytes"])))
        file: Any
        with fsspec.open(image["path"], "rb") as file:  # a path on disk or inside a Hub repository
            return _rgb(Image.open(file))
    except Exception as error:  # PIL raises OSError, SyntaxError, ValueError and its own for damaged files
        if isinstance(error, UnidentifiedImageError):
            error = ValueError("none of the formats that PIL reads")  # its own text is the address of an object
        path = (image or {}).get("path")
        where = f"row {index}" + (f" ({path})" if path else "")
        raise InputError(f"dataset {name}: {where} is not a readable image ({one_line(error)})") from error


def _rgb(image: Any) -> Any:
    """Convert to three channels of 8 bits.

    Raises:
        ValueError: gray values of more than 8 bits, which PIL does not scale: almost all would be white, or of floats black.
    """
    if image.mode.startswith(("I", "F")):
        low, high = image.getextrema()
        if low < 0 or high > 255 or image.mode == "F":
            raise ValueError(f"mode {image.mode!r} with values {low:g} to {high:g}; convert it to 8 bits")
    return image.convert("RGB")


def _in_order(function: Callable, items: Iterable, num_workers: int, ahead: int) -> Generator[Any, None, None]:
    """Map in threads, at most `ahead` items ahead of the consumer; results keep the order of the items."""
    if num_workers == 0:
        yield from map(function, items)
        return
    pool = ThreadPoolExecutor(num_workers)
    waiting: deque[Future] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
