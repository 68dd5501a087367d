"""Budgets, and what students cost of them."""

import pytest

import vitdfq
from vitdfq.analysis.budget import BUDGETS, Budget
from vitdfq.analysis.switches import Switches
from vitdfq.analysis.untrained import calibrated_switches
from vitdfq.models.multiplications import multiplications, multiplications_by_site
from vitdfq.runtime.run import Run


@pytest.fixture
def switches(tiny_vit, images) -> Switches:
    return calibrated_switches(vitdfq.quantize(tiny_vit, bits="w4a6"), tiny_vit, images, ["observe"], 0, Run())


@pytest.mark.parametrize(
    ("text", "kind", "amount"),
    [
        ("average-bits=4", "average-bits", 4.0),
        ("average-bits=3.5", "average-bits", 3.5),
        ("size=700000", "size", 7e5),
        ("size=0.7MB", "size", 7e5),
        ("size=700 kB", "size", 7e5),
        ("bops=1.2G", "bops", 1.2e9),
    ],
)
def test_budgets_are_read(text, kind, amount):
    assert Budget.parse(text) == Budget(kind, pytest.approx(amount))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("average-bit=4", "unknown budget 'average-bit', did you mean 'average-bits'.; choices: average-bits, bops, size"),
        ("4", "expected size=0.7MB, average-bits=4 or bops=1.2G"),
        ("size=many", "size='many': not a positive number"),
        ("average-bits=0", "not a positive number"),
        ("size=-3MB", "not a positive number"),
        ("size=" + "9" * 300 + "x", "not a positive number"),
    ],
)
def test_other_budgets_are_refused_in_one_line(text, message):
    with pytest.raises(ValueError, match=message) as caught:
        Budget.parse(text)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_the_average_counts_every_weight_once(switches, tiny_vit):
    costs = BUDGETS["average-bits"](switches, tiny_vit, (2, 4))
    sizes = {name: weight.numel() for name, weight in switches.float_weights.items()}
    mixed = {name: 4 if name == "head" else 2 for name in sizes}
    assert costs.of(dict.fromkeys(sizes, 4)) == pytest.approx(4)
    assert costs.of(mixed) == pytest.approx(2 + 2 * sizes["head"] / sum(sizes.values()))


def test_bit_operations_by_hand(switches, tiny_vit):
    costs = BUDGETS["bops"](switches, tiny_vit, (2, 4))
    tokens, width = 17, 32
    assert costs.by_layer["blocks.0.mlp.fc1"] == {2: tokens * width * 4 * width * 2 * 6, 4: tokens * width * 4 * width * 4 * 6}
    products = 3 * 2 * tokens * tokens * width * 6 * 6  # q @ k and p @ v of three blocks, both operands of 6 bits
    assert costs.rest == products  # nothing of a ViT's products is out of reach
    counts, rest = multiplications_by_site(tiny_vit)
    assert sum(counts.values()) == multiplications(tiny_vit).in_sites and rest == 0


def test_the_size_is_that_of_the_file(tiny_vit, images, tmp_path):
    switches = calibrated_switches(vitdfq.quantize(tiny_vit), tiny_vit, images, ["observe"], 0, Run())
    costs = BUDGETS["size"](switches, tiny_vit, (2, 3, 4, 8))
    bits_of = {name: (2, 3, 4, 8)[index % 4] for index, name in enumerate(switches.float_weights)}
    overrides = {name: {"weight": {"bits": bits}} for name, bits in bits_of.items()}
    student = vitdfq.calibrate(vitdfq.quantize(tiny_vit, overrides=overrides), tiny_vit, images, steps=["observe"])
    written = (vitdfq.save(student, tmp_path) / "model.safetensors").stat().st_size
    assert written <= costs.of(bits_of) < 1.01 * written  # digits in the header differ
