"""Images to evaluate on: from the zoo, the Hub, parquet files, tar shards, lists or folders; decoded as timm does.

load_labeled    opens a set by its name, checks columns and classes; yields rows         sources.py, labeled.py, columns.py
                finds the files of a split                                               splits.py, hidden.py
                reads rows from disk or from the Hub    local.py, tar_shards.py, lists.py, class_folders.py, remote.py
                matches the set's classes to the model's                                 class_names.py
                or numbers them alike in all splits of a set                             own_labels.py
batches         rows to (images, labels), decoded and transformed in order               batches.py
unseen_images   real images without labels that are never evaluated                      unseen.py
read_own_images images to calibrate on, in place of synthetic ones                      own_images.py
"""

from vitdfq.data.batches import batches, transform_of
from vitdfq.data.class_names import Classes
from vitdfq.data.labeled import NO_LABEL, Labeled, load_labeled
from vitdfq.data.own_images import check_own_images, read_own_images
from vitdfq.data.source import NO_LABELS
from vitdfq.data.sources import check_dataset, has_split_beside, is_local
from vitdfq.data.splits import check_split, same_split
from vitdfq.data.unseen import unseen_images

load_labelled = load_labeled  # scripts written for vitdfq 0.x use this spelling

__all__ = [
    "NO_LABEL",
    "NO_LABELS",
    "Classes",
    "Labeled",
    "batches",
    "check_dataset",
    "check_own_images",
    "check_split",
    "has_split_beside",
    "is_local",
    "load_labeled",
    "load_labelled",
    "read_own_images",
    "same_split",
    "transform_of",
    "unseen_images",
]
