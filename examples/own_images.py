"""Calibration on images of your own: `python examples/own_images.py`."""

from pathlib import Path

import vitdfq
from vitdfq.reports.image_files import save_images

teacher = vitdfq.load_teacher("zoo:vit")
if not Path("my_images").exists():  # a stand-in for photographs of yours
    save_images(teacher, vitdfq.synthesize(teacher, method="scenes", num_images=8), [None] * 8, Path("my_images"))

# [start:read]
images = vitdfq.synthesize(teacher, images="my_images", num_images=8)  # read, resized and normalized
# [end:read]
assert images.shape == (8, 3, 28, 28)
