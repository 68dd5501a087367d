import errno

import pytest
import torch
from safetensors import SafetensorError

from vitdfq.common.safetensors_io import digest, write_tensors


@pytest.mark.parametrize(
    ("message", "number"),
    [
        ("Error while serializing: I/O error: No space left on device (os error 28)", errno.ENOSPC),
        ('Error while serializing: IoError(Os { code: 28, kind: StorageFull, message: "..." })', errno.ENOSPC),
        ("Error while serializing: whatever", None),
    ],
)
def test_a_full_disk_is_an_oserror(tmp_path, monkeypatch, message, number):
    def save_file(*arguments, **kwargs):
        raise SafetensorError(message)

    monkeypatch.setattr("vitdfq.common.safetensors_io.save_file", save_file)
    with pytest.raises(SafetensorError if number is None else OSError) as caught:
        write_tensors(tmp_path / "x.safetensors", {"x": torch.ones(2)})
    if number is not None:
        assert (caught.value.errno, caught.value.filename) == (number, str(tmp_path / "x.safetensors"))
    assert not list(tmp_path.iterdir())


def test_a_digest_sees_names_shapes_types_and_values():
    tensors = {"x": torch.zeros(2, 3), "y": torch.ones((), dtype=torch.bfloat16), "none": torch.zeros(0)}
    changed = [{"z": torch.zeros(2, 3)}, {"x": torch.zeros(3, 2)}, {"x": torch.zeros(2, 3, dtype=torch.int32)}]
    changed += [{"x": torch.full((2, 3), 1e-9)}, {"y": torch.zeros((), dtype=torch.bfloat16)}]
    assert len({digest(tensors), *(digest(tensors | change) for change in changed)}) == 6
    assert digest(dict(reversed(tensors.items()))) == digest(tensors)
    assert digest({"x": torch.arange(6.0).view(2, 3).T}) == digest({"x": torch.arange(6.0).view(2, 3).T.contiguous()})
