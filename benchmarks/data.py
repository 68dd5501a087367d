"""Does decoding keep up with the model? Images per second by decoding threads, and the share of time that the model waits.

    python benchmarks/data.py                                    # 300 artificial photographs in class folders, DeiT-S's size
    python benchmarks/data.py --layout parquet --threads 0 4 16  # other layouts and threads; a GPU is used if there is one

Generates images (500 x 375, noise on several scales, JPEG of about 100 kB) and a model with random weights; nothing is
downloaded. Prints a markdown table. "reading alone" is reading rows, decoding and timm's transform, without a model. Its
processor time tells how many cores a fast model needs, whatever the load of the machine.
"""

import argparse
import io
import os
import tempfile
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from vitdfq.data import batches, load_labeled, transform_of

CLASSES = 4
SIZE = (375, 500)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layout", choices=sorted(LAYOUTS), default="folders")
    parser.add_argument("--threads", nargs="+", type=int, default=[0, 1, 2, 4, 8])
    parser.add_argument("--images", type=int, default=300, help="read without a model")
    parser.add_argument("--model-images", type=int, default=64, help="read with the model")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--model", default="deit_small_patch16_224", help="timm's name; its weights are random")
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = random_model(args.model).to(device)
    with tempfile.TemporaryDirectory() as root:
        LAYOUTS[args.layout](Path(root), [photograph(number) for number in range(args.images)])
        measure(root, 8, args.batch_size, 1, model, device)  # imports, caches, first kernels
        print(f"{args.model}, batches of {args.batch_size}, {args.layout}, {os.cpu_count()} processors, {device.type}\n")
        print("| threads | images/s, reading alone | CPU ms an image | images/s with the model | model waits |\n|-:|-:|-:|-:|-:|")
        for threads in args.threads:
            alone, milliseconds, _ = measure(root, args.images, args.batch_size, threads)
            together, _, waits = measure(root, args.model_images, args.batch_size, threads, model, device)
            print(f"| {threads} | {alone:.0f} | {milliseconds:.1f} | {together:.1f} | {100 * waits:.0f} % |", flush=True)


@torch.inference_mode()
def measure(root: str, count: int, batch_size: int, threads: int, model=None, device=None) -> tuple[float, float, float]:
    """Read `count` images: (images per second, processor ms per image, share of the time spent waiting for a batch)."""
    waited, start, process_start = 0.0, time.perf_counter(), time.process_time()
    labeled = load_labeled(root, "validation", CLASSES)
    read = batches(labeled, TRANSFORM, batch_size=batch_size, num_images=count, num_workers=threads)
    with closing(read):
        while True:
            request = time.perf_counter()
            batch = next(read, None)
            waited += time.perf_counter() - request
            if batch is None:
                break
            if model is not None:
                model(batch[0].to(device, non_blocking=True)).cpu()
    seconds = time.perf_counter() - start
    return count / seconds, 1000 * (time.process_time() - process_start) / count, waited / seconds


def random_model(name: str) -> torch.nn.Module:
    import timm

    return timm.create_model(name, pretrained=False, num_classes=CLASSES).eval()


TRANSFORM = transform_of(random_model("deit_small_patch16_224"))  # Resize(248, bicubic), CenterCrop(224)


def photograph(number: int) -> bytes:
    """A JPEG with about the size and detail of ImageNet's."""
    rng = np.random.default_rng(number)
    total = np.zeros((*SIZE, 3), dtype=np.float32)
    for scale in (2, 4, 16, 64, 256):  # finer structure is fainter, as in photographs
        small = rng.normal(size=(SIZE[0] // scale + 2, SIZE[1] // scale + 2, 3)).astype(np.float32)
        layers = [Image.fromarray(small[..., channel]).resize(SIZE[::-1], Image.Resampling.BICUBIC) for channel in range(3)]
        total += np.stack([np.asarray(layer) for layer in layers], axis=-1) * scale**0.5
    pixels = np.clip(128 + 8 * total, 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=95)
    return buffer.getvalue()


def write_folders(root: Path, images: list[bytes]) -> None:
    for number, image in enumerate(images):
        folder = root / f"class_{number % CLASSES}"
        folder.mkdir(exist_ok=True)
        (folder / f"{number:05d}.JPEG").write_bytes(image)


def write_parquet(root: Path, images: list[bytes]) -> None:
    import datasets

    datasets.disable_progress_bars()
    names = [f"class_{label}" for label in range(CLASSES)]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
    columns = {
        "image": [{"bytes": image, "path": None} for image in images],
        "label": [number % CLASSES for number in range(len(images))],
    }
    datasets.Dataset.from_dict(columns, features=features).to_parquet(root / "validation.parquet")


def write_tars(root: Path, images: list[bytes]) -> None:
    import tarfile

    with tarfile.open(root / "validation-00.tar", "w") as tar:
        for number, image in enumerate(images):
            for ending, content in (("cls", str(number % CLASSES).encode()), ("jpg", image)):
                entry = tarfile.TarInfo(f"{number:05d}.{ending}")
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))


LAYOUTS = {"folders": write_folders, "parquet": write_parquet, "tars": write_tars}

if __name__ == "__main__":
    main()
