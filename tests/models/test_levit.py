"""What only LeViT has: biases that timm caches, queries that are fewer than keys, no norm before the head."""

import timm
import torch
from tiny import make_tiny
from torch import nn

from vitdfq.models import attention_sites, image_size, norm_readers, open_model, projections, record


def test_biases_do_not_go_stale_when_weights_are_loaded():
    teacher, other = make_tiny("levit"), make_tiny("levit")
    images = torch.randn(2, 3, *image_size(teacher))
    before = teacher(images)
    with torch.no_grad():
        for site in attention_sites(other):
            other.get_submodule(site.name).attention_biases.neg_()
    teacher.load_state_dict(other.state_dict())
    assert not torch.allclose(teacher(images), before)
    assert torch.equal(teacher(images), other(images))


def test_places_where_queries_are_fewer():
    teacher = make_tiny("levit")
    site = next(site for site in attention_sites(teacher) if site.query_grid)
    with record(teacher, [f"{site.name}.{place}" for place in ("qk", "softmax", "av")]) as outputs:
        teacher(torch.randn(2, 3, *image_size(teacher)))
    shapes = {name.rpartition(".")[2]: tuple(value.shape) for name, value in outputs.items()}
    assert shapes == {"qk": (2, 4, 4, 16), "softmax": (2, 4, 4, 16), "av": (2, 4, 4, 32)}


def test_the_teacher_keeps_its_batch_norms():
    plain = timm.create_model("levit_128s")
    count = sum(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in plain.modules())
    open_model(plain)
    assert sum(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in plain.modules()) == count > 40
    assert image_size(plain) == (224, 224)
    assert norm_readers(plain) == []
    assert all(projection.reader is None for projection in projections(plain))
