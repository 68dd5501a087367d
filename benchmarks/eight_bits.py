"""Is W8A8 safe whatever the images? Agreement of students, calibrated on the images of every preset, with their teacher.

    python benchmarks/eight_bits.py --model zoo:deit --num-test 1000
    python benchmarks/eight_bits.py --model local-dir:PATH --dataset FOLDER --methods noise dead_leaves --num-test 400

"alone": ranges cover the images given (`observe: {num_cover: 0}`). "covered": also procedural images, the default at 8 bits.
"""

import argparse

import vitdfq
from vitdfq.synthesis import METHODS

STEPS = {
    "alone": ["center", {"observe": {"num_cover": 0}}],
    "covered": ["center", "observe"],
    "covered, gptq": ["center", "observe", "gptq"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="zoo:deit")
    parser.add_argument("--dataset", default="zoo:fashion-mnist")
    parser.add_argument("--split", default="validation")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--num-images", type=int, default=16)
    parser.add_argument("--steps", type=int, default=20, help="of synthesis, where a preset takes steps")
    parser.add_argument("--num-test", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    teacher = vitdfq.load_teacher(arguments.model)
    prepared = vitdfq.prepare(teacher)
    print("| images | ranges | agreement % | KL | logits SQNR dB | top-1 % |\n|-|-|-:|-:|-:|-:|")
    for method in arguments.methods:
        steps = {"steps": arguments.steps} if METHODS[method].steps else {}
        images = vitdfq.synthesize(teacher, method=method, num_images=arguments.num_images, seed=arguments.seed, **steps)
        for ranges, calibration in STEPS.items():
            student = vitdfq.calibrate(vitdfq.quantize(prepared, bits="w8a8"), prepared, images, steps=calibration)
            scores = vitdfq.evaluate(
                student, teacher=prepared, dataset=arguments.dataset, split=arguments.split, num_images=arguments.num_test
            )
            numbers = f"{scores['agreement']:.2f} | {scores['kl']:.4f} | {scores['logits_sqnr_db']:.1f} | {scores['top1']:.2f}"
            print(f"| {arguments.num_images} {method} | {ranges} | {numbers} |", flush=True)


if __name__ == "__main__":
    main()
