"""Write a tiny checkpoint of the current format for tests/checkpoint/stored/, with images and the expected logits.

python tools/make_checkpoint_fixture.py [POLICY] [BITS]     # before FORMAT_VERSION changes

Commit the folder and never write it again.
"""

import sys
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file

import vitdfq
from vitdfq.checkpoint.save_load import FORMAT_VERSION

SHAPE = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
OVERRIDES = {  # one of each kind of packed layer
    "blocks.0.attn.*": {"weight": {"bits": 3, "group_size": 16}},
    "blocks.0.mlp.fc1": {"weight": {"bits": 6, "symmetric": True}},
    "blocks.1.mlp.fc2": {"weight": {"bits": 5}, "activation": {"bits": None}},
    "blocks.1.attn.proj": {"weight": {"bits": 2, "per_channel": False}},
    "blocks.1.attn.qkv": {"weight": {"bits": None}},
}
DEFAULTS = ["vitdfq", "w4a4"]
POLICY, BITS = [*sys.argv[1:], *DEFAULTS[len(sys.argv) - 1 :]]
STORED = Path(__file__).parents[1] / "tests" / "checkpoint" / "stored"
FOLDER = STORED / "_".join([f"v{FORMAT_VERSION}", *[word for word in (POLICY, BITS) if word not in DEFAULTS]])

torch.manual_seed(0)
model = timm.create_model("vit_tiny_patch16_224", num_classes=10, **SHAPE)
for parameter in model.parameters():
    parameter.data = 2 * parameter.data if parameter.ndim > 1 else parameter.data + 0.2 * torch.randn_like(parameter)
images = torch.randn(4, 3, 32, 32)
teacher = vitdfq.prepare(vitdfq.load_teacher(model, **SHAPE))
student = vitdfq.calibrate(vitdfq.quantize(teacher, bits=BITS, policy=POLICY, overrides=OVERRIDES), teacher, images)
vitdfq.save(student, FOLDER)
with torch.no_grad():
    save_file({"images": images, "logits": student(images)}, FOLDER / "expected.safetensors")
print(FOLDER, {path.name: path.stat().st_size for path in FOLDER.iterdir()})
