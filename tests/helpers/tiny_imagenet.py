"""A data set with ImageNet's schema and unusual files, in each of the layouts that ImageNet is published in."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as PILImage

WNIDS = ["n01440764", "n01443537", "n01484850", "n01491361"]
NUM_ROWS = 11
LABELS = [row % len(WNIDS) for row in range(NUM_ROWS)]  # interleaved, which is also the order for class folders
SHARDS = ([0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10])
CARD = """---
dataset_info:
  features:
  - name: image
    dtype: image
  - name: label
    dtype:
      class_label:
        names: {names}
  splits:
  - name: train
    num_bytes: 1
    num_examples: 3
  - name: validation
    num_bytes: 1
    num_examples: {rows}
---
"""


def photograph(row: int) -> bytes:
    """An encoded image: row 1 is gray, 2 is CMYK, 3 is rotated by EXIF, 4 is a PNG; the others are plain JPEGs."""
    pixels = np.random.default_rng(row).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    image = PILImage.fromarray(pixels).resize((50 + row, 40), PILImage.Resampling.BICUBIC)
    options = {}
    if row == 3:
        exif = PILImage.Exif()
        exif[0x0112] = 6
        options["exif"] = exif
    image = image.convert({1: "L", 2: "CMYK"}.get(row, "RGB"))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG" if row == 4 else "JPEG", **options)
    return buffer.getvalue()


def file_name(row: int) -> str:
    return f"ILSVRC2012_val_{row + 1:08d}.JPEG"


def write_folders(root: Path) -> Path:
    for row, label in enumerate(LABELS):
        path = root / "val" / WNIDS[label] / file_name(row)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photograph(row))
    return root


def write_parquet(root: Path) -> Path:
    """As ILSVRC/imagenet-1k: images inside the files, class names in the schema and on the card."""
    features = Features({"image": Image(), "label": ClassLabel(names=WNIDS)})
    (root / "data").mkdir(parents=True)
    for split, shards in (("validation", SHARDS), ("train", ([0, 1, 2],))):
        for shard, rows in enumerate(shards):
            images = [{"bytes": photograph(row), "path": file_name(row)} for row in rows]
            columns = {"image": images, "label": [LABELS[row] for row in rows]}
            path = root / f"data/{split}-{shard:05d}-of-{len(shards):05d}.parquet"
            Dataset.from_dict(columns, features=features).to_parquet(path, batch_size=2)  # several row groups, as there
    names = "".join(f"\n          '{label}': {wnid}" for label, wnid in enumerate(WNIDS))
    (root / "README.md").write_text(CARD.format(names=names, rows=NUM_ROWS))
    return root


def write_tars(root: Path) -> Path:
    """As timm/imagenet-1k-wds: shards of jpg, cls and json, without the numbers of rows and classes."""
    root.mkdir(parents=True)
    for split, shards in (("validation", SHARDS), ("train", ([0, 1, 2],))):
        for shard, rows in enumerate(shards):
            with tarfile.open(root / f"imagenet1k-{split}-{shard:02d}.tar", "w") as tar:
                for row in rows:
                    facts = {"filename": file_name(row), "label": LABELS[row]} | ({"note": "odd"} if row == 6 else {})
                    _add(tar, f"{WNIDS[LABELS[row]]}_{row:08d}.cls", str(LABELS[row]).encode())
                    _add(tar, f"{WNIDS[LABELS[row]]}_{row:08d}.jpg", photograph(row))
                    _add(tar, f"{WNIDS[LABELS[row]]}_{row:08d}.json", json.dumps(facts).encode())
    (root / "README.md").write_text("---\nlicense: other\n---\n")
    return root


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))
