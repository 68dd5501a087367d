"""Small ViTs of several tasks, each trained within a minute or two of one core on a half of the zoo's test set.

    python benchmarks/small_models.py     # trains them and prints their top-1; `confidence.py` calibrates on them

They differ in what a student's agreement depends on: the number of classes, how sure they are, and how much they overfit. They
are measured on the other half.
"""

from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import vitdfq
from vitdfq.data import Classes, batches, load_labeled, transform_of

COARSE = torch.tensor([0, 1, 0, 2, 0, 3, 0, 3, 4, 3])  # clothes, trousers, dresses, shoes, bags
NUM_CLASSES = {"classes": 10, "coarse": 5, "turned": 4, "classes_turned": 40}
HALF, NUM_TEST, BATCH = 5000, 2000, 100
LR, WEIGHT_DECAY, WARMUP = 1.5e-3, 0.05, 0.15


@dataclass(frozen=True)
class SmallModel:
    """What is trained: a task of `NUM_CLASSES`, a ViT of 16 patches, how long, and with how much label smoothing."""

    task: str
    embed_dim: int
    depth: int
    num_heads: int
    epochs: int
    smoothing: float

    @property
    def model_args(self) -> dict[str, Any]:
        sizes = {"embed_dim": self.embed_dim, "depth": self.depth, "num_heads": self.num_heads}
        return {"num_classes": NUM_CLASSES[self.task], "img_size": 28, "patch_size": 7} | sizes


SMALL_MODELS = {
    "s_classes": SmallModel("classes", 64, 4, 2, 12, 0.0),
    "s_short": SmallModel("classes", 96, 3, 3, 3, 0.1),
    "s_coarse": SmallModel("coarse", 64, 6, 4, 8, 0.0),
    "s_turned": SmallModel("turned", 96, 4, 3, 8, 0.0),
    "s_both": SmallModel("classes_turned", 96, 4, 3, 12, 0.1),
    "s_bothlong": SmallModel("classes_turned", 64, 6, 2, 20, 0.0),
}


def main() -> None:
    print("| model | task | top-1 % |\n|-|-|-:|")
    for name, config in SMALL_MODELS.items():
        teacher, images, labels = small_model(name)
        with torch.no_grad():
            hits = (teacher(images).argmax(1) == labels).double()
        print(f"| {name} | {config.task} | {100 * hits.mean().item():.2f} |", flush=True)


def small_model(name: str) -> tuple[nn.Module, Tensor, Tensor]:
    """Train a model of `SMALL_MODELS`, always the same way.

    Returns:
        the teacher, images (NUM_TEST, 3, 28, 28) that it was not trained on, and their labels.
    """
    number, config = list(SMALL_MODELS).index(name), SMALL_MODELS[name]
    images, labels = all_images()
    torch.manual_seed(number)  # after all that draws random numbers: this is the model's initialization
    generator = torch.Generator().manual_seed(number)
    model = timm.create_model("vit_tiny_patch16_224", **config.model_args)
    train(model, *of_task(config.task, images[HALF:], labels[HALF:], generator), config, generator)
    model.pretrained_cfg |= {"mean": (0.286,) * 3, "std": (0.353,) * 3, "input_size": (3, 28, 28), "fixed_input_size": True}
    teacher = vitdfq.load_teacher(model.eval(), **config.model_args)
    return teacher, *of_task(config.task, images[:NUM_TEST], labels[:NUM_TEST], generator)


def all_images() -> tuple[Tensor, Tensor]:
    """The zoo's test images, normalized, and their labels."""
    zoo = vitdfq.load_teacher("zoo:vit")
    labeled = load_labeled("zoo:fashion-mnist", "test", Classes.of(zoo))
    return next(batches(labeled, transform_of(zoo), batch_size=2 * HALF, num_images=2 * HALF))


def of_task(task: str, images: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Images and labels of a task; "turned" asks by how many quarters an image was turned."""
    if task == "classes":
        return images, labels
    if task == "coarse":
        return images, COARSE[labels]
    quarters = torch.randint(0, 4, (len(images),), generator=generator)
    turned = torch.stack([torch.rot90(image, int(count), (1, 2)) for image, count in zip(images, quarters, strict=True)])
    return turned, quarters if task == "turned" else 4 * labels + quarters


def train(model: nn.Module, images: Tensor, labels: Tensor, config: SmallModel, generator: torch.Generator) -> None:
    """Train with AdamW and one cycle of the learning rate, on images that are shifted by up to a pixel."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
    steps = config.epochs * (len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=steps, pct_start=WARMUP)
    for _ in range(config.epochs):
        for chosen in torch.randperm(len(images), generator=generator).split(BATCH):
            shift = tuple(torch.randint(-1, 2, (2,), generator=generator).tolist())
            logits = model(torch.roll(images[chosen], shift, (2, 3)))
            loss = F.cross_entropy(logits, labels[chosen], label_smoothing=config.smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


if __name__ == "__main__":
    main()
