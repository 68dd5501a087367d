import gc

import pytest

from vitdfq.common.batch_size import AdaptiveBatchSize


def test_what_does_not_fit_is_tried_with_half_as_many_and_remembered(caplog):
    tried = []

    def do(size):
        tried.append(size)
        if size > 5:
            raise RuntimeError("CUDA out of memory.")
        return 10 * size

    fitting = AdaptiveBatchSize(20)
    assert fitting(do) == 50 and tried == [20, 10, 5]
    assert fitting(do) == 50 and tried == [20, 10, 5, 5]
    assert caplog.messages == [f"out of memory: {size} images at a time from now on" for size in (10, 5)]
    with pytest.raises(MemoryError, match="one image at a time"):
        fitting(lambda size: do(6))
    with pytest.raises(ValueError, match="another"):
        AdaptiveBatchSize(3)(lambda size: (_ for _ in ()).throw(ValueError("another")))


def test_what_fits_is_called_as_it_is(monkeypatch):
    """Emptying caches before every batch of an evaluation took a third of its time."""
    emptied = []
    monkeypatch.setattr(gc, "collect", lambda *generation: emptied.append(1))
    assert AdaptiveBatchSize(20)(lambda size: size) == 20 and not emptied
