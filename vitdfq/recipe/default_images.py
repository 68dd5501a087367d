"""The images of a recipe that does not say which: the best that the library has for the time that its bits are worth."""

from typing import Any

from vitdfq.quantization.options import parse_bits
from vitdfq.synthesis.options import SynthesisOptions
from vitdfq.synthesis.presets import DEFAULT_METHOD

INDEPENDENT = ("num_images", "batch_size", "seed", "precision")  # keys that say how many images and how, not which


def default_images(section: dict[str, Any], *bits: str) -> tuple[dict[str, Any], str]:
    """Return the keys that a section `synthesize` without a method lacks, and the reason, for people.

    Two uses of images differ in what they need. Ranges and GPTQ need activations of the usual size: procedural images give
    them in seconds, and at 8 bits nothing else is asked of images. Training (`distill`, from 6 bits down) learns from what the
    images show. The preset `vitdfq` renders scenes where these suit the teacher, and inverts it where not, which takes minutes:
    the steps say how long. It has a form for teachers that give features, so the choice is the same.

    Args:
        section: the section of the recipe; a key that says more than how many images keeps the preset's own defaults.
        bits: of every student that is calibrated on the images, such as "w4a4", already checked; the fewest decide.
    """
    fewest, hardest = min((_fewest(text), text) for text in bits)
    if any(key not in INDEPENDENT for key in section):
        keys, reason = {"method": DEFAULT_METHOD}, "the preset whose students are nearest to their teachers on average"
    elif fewest >= 8:
        keys, reason = (
            {"method": "dead_leaves", "num_images": 32},
            f"{hardest} needs ranges and GPTQ, which procedural images show in seconds",
        )
    elif fewest > 6:
        keys, reason = (
            {"method": DEFAULT_METHOD, "num_images": 32, "steps": 50},
            f"{hardest} is not trained on them: few are enough",
        )
    else:
        keys, reason = (
            {"method": DEFAULT_METHOD, "num_images": 128, "steps": 100},
            f"{hardest} is trained on them (distill), unless the effort is quick",
        )
    return keys | section, reason


def _fewest(bits: str) -> int:
    weight_bits, activation_bits = parse_bits(bits)
    return min(weight_bits, activation_bits or weight_bits)


def describe(section: dict[str, Any]) -> str:
    """ "64 images of vitdfq, 100 steps": what `default_images` chose."""
    options = SynthesisOptions(**section)
    steps = "" if options.steps is None else f", {options.steps} steps"
    return f"{options.num_images} images of {options.method}{steps}"
