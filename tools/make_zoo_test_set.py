"""Write the 10,000 Fashion-MNIST test images as the test set of the package, in the schema of ImageNet-1k.

    python tools/make_zoo_test_set.py

The files are written to vitdfq/zoo/fashion-mnist/ as parquet with the columns `image` (PNG bytes) and `label` (a ClassLabel with
the ten names), so that the evaluation of a zoo model runs the same code as one on ImageNet.
"""

import argparse
import io
from pathlib import Path

import numpy as np
from datasets import ClassLabel, Dataset, Features, Image, load_dataset
from fashion_mnist import CLASS_NAMES, load_fashion_mnist
from PIL import Image as PILImage

FEATURES = Features({"image": Image(), "label": ClassLabel(names=CLASS_NAMES)})
MAX_SHARD_BYTES = 4_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "vitdfq" / "zoo" / "fashion-mnist")
    args = parser.parse_args()
    images, labels = load_fashion_mnist("test")
    pngs = [png(image) for image in images]
    shards = -(-sum(map(len, pngs)) // (MAX_SHARD_BYTES * 3 // 4))  # a quarter for what parquet adds
    args.out.mkdir(parents=True, exist_ok=True)
    for old in args.out.glob("test-*.parquet"):
        old.unlink()
    for shard, rows in enumerate(np.array_split(np.arange(len(pngs)), shards)):
        columns = {"image": [{"bytes": pngs[i], "path": None} for i in rows], "label": labels[rows].tolist()}
        path = args.out / f"test-{shard:05d}-of-{shards:05d}.parquet"
        Dataset.from_dict(columns, features=FEATURES).to_parquet(path, batch_size=1000)
        print(f"{path.name}: {len(rows)} images, {path.stat().st_size:,} bytes")
        assert path.stat().st_size < MAX_SHARD_BYTES
    check(args.out, images, labels)


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    PILImage.fromarray(image).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def check(folder: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """Read the files as the package does, and compare features, pixels, labels and their order."""
    files = [str(path) for path in sorted(folder.glob("test-*.parquet"))]
    rows = load_dataset("parquet", data_files={"test": files}, split="test", streaming=True)
    assert rows.features == FEATURES, rows.features
    count = 0
    for row, image, label in zip(rows, images, labels, strict=True):
        assert row["label"] == label and np.array_equal(np.asarray(row["image"]), image), f"row {count} differs"
        count += 1
    print(f"{count} rows read back, features {list(rows.features)}")


if __name__ == "__main__":
    main()
