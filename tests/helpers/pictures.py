"""Small pictures, in the layouts that data sets of them have."""

import io

import numpy as np
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as PILImage

CLASSES = ["ant", "bee", "cat"]
LABELS = [0, 1, 2, 0, 1, 2, 0]


def picture(number: int) -> PILImage.Image:
    pixels = np.random.default_rng(number).integers(0, 256, (8, 6, 3), dtype=np.uint8)
    return PILImage.fromarray(pixels)


def png(image: PILImage.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def write_parquet(path, labels=LABELS, label=None, names=("image", "label")):
    path.parent.mkdir(parents=True, exist_ok=True)
    features = Features({names[0]: Image(), names[1]: label or ClassLabel(names=CLASSES)})
    columns = {names[0]: [{"bytes": png(picture(i)), "path": None} for i in range(len(labels))], names[1]: labels}
    Dataset.from_dict(columns, features=features).to_parquet(path)


def write_folders(root, per_class=2):
    for label, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for turn in range(per_class):
            picture(3 * turn + label).save(root / name / f"{turn}.png")
