"""Labelled images to evaluate on: from the zoo, the Hub, parquet files or class folders; decoded as timm decodes them.

load_labelled   finds a set, checks its columns and classes; yields rows        sources.py, labelled.py
batches         rows to (images, labels), decoded and transformed in order      batches.py
unseen_images   images that are never evaluated, without labels                 unseen.py
"""

from vitdfq.data.batches import batches, transform_of
from vitdfq.data.labelled import Labelled, load_labelled
from vitdfq.data.sources import check_dataset
from vitdfq.data.unseen import unseen_images

__all__ = ["Labelled", "batches", "check_dataset", "load_labelled", "transform_of", "unseen_images"]
