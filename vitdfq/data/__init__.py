"""Labelled images to evaluate on: from the zoo, the Hub, parquet files, tar shards or class folders; decoded as timm does.

load_labelled   finds a set, checks its columns and classes; yields rows        sources.py, labelled.py
                where the rows are: on disk, or on the Hub                      local.py, splits.py, remote.py
batches         rows to (images, labels), decoded and transformed in order      batches.py
unseen_images   images that are never evaluated, without labels                 unseen.py
"""

from vitdfq.data.batches import batches, transform_of
from vitdfq.data.labelled import Labelled, load_labelled
from vitdfq.data.sources import check_dataset
from vitdfq.data.unseen import unseen_images

__all__ = ["Labelled", "batches", "check_dataset", "load_labelled", "transform_of", "unseen_images"]
