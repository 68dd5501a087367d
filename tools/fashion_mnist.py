"""Fashion-MNIST as arrays: from Debian's package `dataset-fashion-mnist`, or through `datasets` on a connected machine.

The images are MIT-licensed (Zalando Research, arXiv 1708.07747).
"""

import gzip
from pathlib import Path

import numpy as np

DEBIAN_DIR = Path("/usr/share/datasets/fashion-mnist")
CLASS_NAMES = [
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
]


def load_fashion_mnist(split: str, folder: Path = DEBIAN_DIR) -> tuple[np.ndarray, np.ndarray]:
    """Return (images uint8 (N, 28, 28), labels int64 (N,)) of split "train" (60,000) or "test" (10,000)."""
    if folder.is_dir():
        prefix = {"train": "train", "test": "t10k"}[split]
        images = _read_idx(folder / f"{prefix}-images-idx3-ubyte.gz", header=16).reshape(-1, 28, 28)
        labels = _read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", header=8)
    else:
        from datasets import load_dataset

        rows = load_dataset("zalando-datasets/fashion_mnist", split=split).with_format("numpy")
        images, labels = np.asarray(rows["image"]), np.asarray(rows["label"])
    return images, labels.astype(np.int64)


def _read_idx(path: Path, header: int) -> np.ndarray:
    with gzip.open(path) as file:
        return np.frombuffer(file.read(), dtype=np.uint8, offset=header)
