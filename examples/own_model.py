"""A fine-tuned model of your own becomes a teacher: `python examples/own_model.py`."""

import timm
import torch

import vitdfq
from vitdfq.models.convert import convert

# A stand-in for your training script: a small ViT of timm's, whose state dict is saved.
model = timm.create_model("vit_tiny_patch16_224", num_classes=5, img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2)
torch.save({"epoch": 3, "state_dict": model.state_dict()}, "model_best.pth.tar")

# [start:module]
teacher = vitdfq.load_teacher(model.eval())  # a module that timm built, as it is in memory
# [end:module]

# [start:file]
arguments = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}  # none, if the model is timm's default
convert("model_best.pth.tar", "my_vit", "vit_tiny_patch16_224", **arguments)
teacher = vitdfq.load_teacher("local-dir:my_vit")
# [end:file]

images = torch.zeros(1, 3, 32, 32)
assert torch.allclose(teacher(images), model(images), atol=1e-5)
