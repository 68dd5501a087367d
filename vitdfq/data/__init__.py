"""Labelled images to evaluate on: from the zoo, the Hub, parquet files, tar shards or class folders; decoded as timm does.

load_labelled   opens a set by its name, checks columns and classes; yields rows        sources.py, labelled.py
                reads rows from disk or from the Hub                                    local.py, splits.py, remote.py
batches         rows to (images, labels), decoded and transformed in order              batches.py
unseen_images   real images without labels that are never evaluated                     unseen.py
"""

from vitdfq.data.batches import batches, transform_of
from vitdfq.data.labelled import Labelled, load_labelled
from vitdfq.data.sources import check_dataset
from vitdfq.data.unseen import unseen_images

__all__ = ["Labelled", "batches", "check_dataset", "load_labelled", "transform_of", "unseen_images"]
