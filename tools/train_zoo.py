"""Train the zoo: three tiny vision transformers on the 60,000 Fashion-MNIST training images.

    python tools/train_zoo.py                 # all three; about an hour on 2 idle CPU cores, less on a GPU
    python tools/train_zoo.py --models swin   # one of them

Each epoch ends with a checkpoint in --work; the same command resumes. The result is a timm local-dir folder
(config.json + model.safetensors in fp16) under vitdfq/zoo/. The test images are read once, after training, for the accuracy
in config.json.
"""

import argparse
import json
import math
import os
import time
from pathlib import Path

os.environ.setdefault("TIMM_FUSED_ATTN", "0")  # bfloat16 flash attention is 4x slower backwards on CPUs

import timm
import torch
from fashion_mnist import CLASS_NAMES, load_fashion_mnist
from safetensors.torch import save_file
from torch.nn import functional as F

MEAN, STD = 0.286, 0.353  # of the training images, the same for the three equal channels
# Each round is one warm-up and one cosine. The first round has strong augmentation (shifted, partly blanked images), the second
# weak augmentation, for fine-tuning. The DeiT is initialized from the ViT and learns its predictions with the distillation token
# (hard distillation, arXiv 2012.12877). The first stage of the Swin is initialized from the ViT's first blocks, and the Swin
# learns the ViT's probabilities. Windows of 4 on a grid of 7 are shifted and padded.
BROAD = {"lr": 1e-3, "shift": 2, "erase": 0.25}
FINE = {"lr": 8e-4, "shift": 1, "erase": 0.0}
ZOO = {
    "vit": {
        "architecture": "vit_tiny_patch16_224",
        "model_args": {"img_size": 28, "patch_size": 4, "embed_dim": 128, "depth": 6, "num_heads": 4},
        "rounds": [{"epochs": 20, **BROAD}, {"epochs": 10, **FINE}],
    },
    "swin": {
        "architecture": "swin_tiny_patch4_window7_224",
        "model_args": {
            "img_size": 28,
            "patch_size": 4,
            "window_size": 4,
            "embed_dim": 128,
            "depths": [4, 1],
            "num_heads": [4, 8],
        },
        "start_from": "vit",
        "rounds": [{"epochs": 10, "teacher": "vit", **FINE, "lr": 1e-3}],
    },
    "deit": {
        "architecture": "deit_tiny_distilled_patch16_224",
        "model_args": {"img_size": 28, "patch_size": 4, "embed_dim": 128, "depth": 6, "num_heads": 4},
        "start_from": "vit",
        "rounds": [{"epochs": 2, "teacher": "vit", **FINE}],
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(ZOO), default=list(ZOO))
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "vitdfq" / "zoo")
    parser.add_argument("--work", type=Path, default=Path("runs/train_zoo"), help="checkpoints, for resuming")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    for name in args.models:
        model = train(name, args)
        export(name, model, args.out / name)


def build(name: str) -> torch.nn.Module:
    entry = ZOO[name]
    return timm.create_model(entry["architecture"], num_classes=len(CLASS_NAMES), drop_path_rate=0.05, **entry["model_args"])


def train(name: str, args: argparse.Namespace) -> torch.nn.Module:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(args.seed)
    images, labels = load_fashion_mnist("train")
    images, labels = normalize(images).to(device), torch.from_numpy(labels).to(device)
    model = build(name).to(device)
    if "start_from" in ZOO[name]:
        start_from(model, args.out / ZOO[name]["start_from"])
    checkpoint = args.work / f"{name}.pt"
    state = torch.load(checkpoint, map_location=device, weights_only=True) if checkpoint.exists() else None
    for number, spec in enumerate(ZOO[name]["rounds"]):
        if state and number < state["round"]:
            continue
        train_round(name, number, spec, model, images, labels, state, checkpoint, args)
        state = None
    return model.cpu()


def train_round(name, number, spec, model, images, labels, state, checkpoint: Path, args: argparse.Namespace) -> None:
    """Train through one warm-up and cosine; `state` is the checkpoint to resume from, if any."""
    device, epochs, steps = images.device, spec["epochs"], len(images) // args.batch_size
    teacher = None
    if "teacher" in spec:
        teacher = timm.create_model(f"local-dir:{args.out / spec['teacher']}", pretrained=True).to(device).eval()
    if hasattr(model, "set_distilled_training"):
        model.set_distilled_training(True)
    decay = [p for p in model.parameters() if p.ndim >= 2]
    no_decay = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decay, "weight_decay": 0.05}, {"params": no_decay, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=spec["lr"])
    total, warmup = epochs * steps, steps
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda t: min((t + 1) / warmup, 0.5 * (1 + math.cos(math.pi * max(0, t - warmup) / (total - warmup)))),
    )
    first = 0
    if state:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        first = state["epoch"] + 1
        print(f"{name}: resuming round {number} at epoch {first}", flush=True)
    for epoch in range(first, epochs):
        torch.manual_seed(args.seed * 1000 + 100 * number + epoch)  # a resumed run has the same batches
        model.train()
        start, losses = time.time(), 0.0
        order = torch.randperm(len(images), device=device)
        for step in range(steps):
            batch = order[step * args.batch_size : (step + 1) * args.batch_size]
            x, y = augment(images[batch], spec["shift"], spec["erase"]), labels[batch]
            with torch.autocast(device.type, torch.bfloat16):
                loss = loss_of(model, teacher, x, y)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses += loss.item()
        state = {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "schedule": schedule.state_dict(),
            "epoch": epoch,
            "round": number,
        }
        torch.save(state, checkpoint.with_suffix(".tmp"))
        checkpoint.with_suffix(".tmp").replace(checkpoint)
        print(f"{name}: round {number}, epoch {epoch}, loss {losses / steps:.4f}, {time.time() - start:.0f} s", flush=True)


def start_from(model: torch.nn.Module, folder: Path) -> None:
    """Initialize `model` with the weights of a trained ViT where names and shapes agree; the others stay random."""
    trained = timm.create_model(f"local-dir:{folder}", pretrained=True).state_dict()
    if "head_dist.weight" in model.state_dict():  # DeiT: a second prefix token, position and head, equal at the start
        trained["pos_embed"] = torch.cat([trained["pos_embed"][:, :1], trained["pos_embed"]], dim=1)
        trained["dist_token"] = trained["cls_token"]
        trained |= {f"head_dist.{part}": trained[f"head.{part}"] for part in ("weight", "bias")}
    else:  # Swin: blocks of the first stage
        trained = {key.replace("blocks.", "layers.0.blocks.", 1): value for key, value in trained.items()}
    state = model.state_dict()
    fitting = {key: value for key, value in trained.items() if key in state and value.shape == state[key].shape}
    model.load_state_dict(fitting, strict=False)


def loss_of(model, teacher, x, y) -> torch.Tensor:
    output = model(x)
    if teacher is None:
        return F.cross_entropy(output.float(), y, label_smoothing=0.1)
    with torch.no_grad():
        target = teacher(x).float()
    if isinstance(output, tuple):  # DeiT: the class token learns the labels, the distillation token the teacher's classes
        by_class, by_distillation = (logits.float() for logits in output)
        distillation = F.cross_entropy(by_distillation, target.argmax(dim=1), label_smoothing=0.1)
        return 0.5 * F.cross_entropy(by_class, y, label_smoothing=0.1) + 0.5 * distillation
    soft = F.kl_div(output.float().log_softmax(1), target.log_softmax(1), log_target=True, reduction="batchmean")
    return 0.5 * F.cross_entropy(output.float(), y, label_smoothing=0.1) + 0.5 * soft


def normalize(images) -> torch.Tensor:
    """uint8 (N, 28, 28) -> float32 (N, 1, 28, 28); the three channels are expanded per batch."""
    return (torch.from_numpy(images.copy())[:, None].float() / 255 - MEAN) / STD


def augment(x: torch.Tensor, shift: int, erase_share: float) -> torch.Tensor:
    """Flip half of the images, shift each by up to `shift` pixels, blank a rectangle in a share of them: (B, 3, 28, 28)."""
    b, _, h, w = x.shape
    x = torch.where(torch.rand(b, 1, 1, 1, device=x.device) < 0.5, x.flip(3), x)
    padded = F.pad(x, (shift,) * 4, value=-MEAN / STD)
    top, left = torch.randint(0, 2 * shift + 1, (2, b, 1, 1), device=x.device)
    rows = top + torch.arange(h, device=x.device)[None, :, None]
    columns = left + torch.arange(w, device=x.device)[None, None, :]
    x = padded[torch.arange(b, device=x.device)[:, None, None], 0, rows, columns][:, None]
    size = torch.randint(4, 13, (2, b, 1, 1, 1), device=x.device)
    corner = (torch.rand(2, b, 1, 1, 1, device=x.device) * (h - size)).long()
    in_rows = (torch.arange(h, device=x.device)[:, None] - corner[0]) // size[0] == 0
    in_columns = (torch.arange(w, device=x.device)[None, :] - corner[1]) // size[1] == 0
    erase = in_rows & in_columns & (torch.rand(b, 1, 1, 1, device=x.device) < erase_share)
    return torch.where(erase, torch.randn_like(x), x).expand(-1, 3, -1, -1).contiguous()


@torch.no_grad()
def accuracy(model: torch.nn.Module) -> float:
    """Top-1 in percent on the 10,000 test images, which are not used in training."""
    images, labels = load_fashion_mnist("test")
    images, labels = normalize(images).expand(-1, 3, -1, -1), torch.from_numpy(labels)
    hits = sum((model(x).argmax(1) == y).sum().item() for x, y in zip(images.split(500), labels.split(500), strict=True))
    return 100 * hits / len(labels)


def export(name: str, model: torch.nn.Module, folder: Path) -> None:
    """Write the timm local-dir folder; the accuracy is that of the fp16 weights, loaded from there."""
    entry = ZOO[name]
    folder.mkdir(parents=True, exist_ok=True)
    halves = {key: value.half().contiguous() for key, value in model.state_dict().items()}
    save_file(halves, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    config = {
        "architecture": entry["architecture"],
        "num_classes": len(CLASS_NAMES),
        "model_args": entry["model_args"],
        "pretrained_cfg": {
            "tag": "fashion_mnist",
            "license": "apache-2.0",
            "input_size": [3, 28, 28],
            "fixed_input_size": True,
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "mean": [MEAN] * 3,
            "std": [STD] * 3,
            "num_classes": len(CLASS_NAMES),
            "label_names": CLASS_NAMES,
        },
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    top1 = accuracy(timm.create_model(f"local-dir:{folder}", pretrained=True).eval())
    config["top1_fashion_mnist_test"] = top1
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    print(f"{name}: {top1:.2f} % top-1 on the 10,000 test images", flush=True)


if __name__ == "__main__":
    main()
