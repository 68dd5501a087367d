"""Labeled images to evaluate on: from the zoo, the Hub, parquet files, tar shards or class folders; decoded as timm does.

load_labeled   opens a set by its name, checks columns and classes; yields rows        sources.py, labeled.py
                reads rows from disk or from the Hub                                    local.py, splits.py, remote.py
batches         rows to (images, labels), decoded and transformed in order              batches.py
unseen_images   real images without labels that are never evaluated                     unseen.py
"""

from vitdfq.data.batches import batches, transform_of
from vitdfq.data.labeled import Labeled, load_labeled
from vitdfq.data.sources import check_dataset
from vitdfq.data.unseen import unseen_images

__all__ = ["Labeled", "batches", "check_dataset", "load_labeled", "transform_of", "unseen_images"]
