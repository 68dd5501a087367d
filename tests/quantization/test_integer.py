"""Integer students: every site equals its fake-quantized form, or says why it stays simulated."""

from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from integer_students import OPTIONS, student_of
from quantizer_values import NAMES, fitted, values
from tiny import TINY
from torch import nn

import vitdfq
from vitdfq.calibration import calibrate
from vitdfq.quantization import quantize
from vitdfq.quantization.integer import backends, integer_report, products, to_integer, weights
from vitdfq.quantization.integer.codes import Plane
from vitdfq.quantization.integer.convert import MOST_PLANES, integer_form
from vitdfq.quantization.integer.layers import IntegerLinear, IntegerMatMul
from vitdfq.quantization.modules import QuantLinear, QuantMatMul, is_dynamic, named_sites
from vitdfq.quantization.quantizers.base import Unquantized
from vitdfq.quantization.quantizers.uniform import Uniform, weight_shape

KINDS = ["fused", "int8", "float"]
OF_EVERY_FAMILY = ("w8a8", "w4a4", "dynamic w8a8", "dynamic w4a4")
CASES = [(kind, name) for kind in sorted(TINY) for name in OF_EVERY_FAMILY]
CASES += [("vit", name) for name in list(OPTIONS)[3:] if name not in OF_EVERY_FAMILY]


def exact_product(a: torch.Tensor, w: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    """`int8_product`, by float64."""
    product = (a.double() @ w.double()).to(torch.int32)
    return product if out is None else out.copy_(product)


def only(monkeypatch, kind: str) -> None:
    """Let one way to multiply remain; skip where the machine has no oneDNN kernel for it."""
    if kind == "fused" and not backends.fused_works("cpu"):
        pytest.skip("no fused int8 product on this machine")
    if kind == "int8" and not backends.int8_works("cpu"):  # what surrounds the product is tested on every machine
        for user in (weights, products):
            monkeypatch.setattr(user, "int8_product", exact_product)
    monkeypatch.setattr(weights, "fused_works", lambda device: kind == "fused")
    for user in (weights, products):
        monkeypatch.setattr(user, "int8_works", lambda device: kind != "float")
    monkeypatch.setattr(products, "WORTH_A_CALL", {"cpu": 0})


@pytest.mark.parametrize(("kind", "name"), [*CASES, ("swin", "w6a6")])
def test_every_site_equals_its_fake_quantized_form(kind, name):
    size = TINY[kind][1]["img_size"]
    images = torch.randn(8, 3, size, size, generator=torch.Generator().manual_seed(1))
    student = student_of(kind, OPTIONS[name], images)
    integer = to_integer(student)
    report = integer_report(integer)
    forms = dict(integer.model.named_modules())
    worst = {}

    def compare(site):
        def hook(module, inputs, output):
            difference = (forms[site](*inputs) - output).abs().max() / output.abs().max()
            worst[site] = difference.item()

        return hook

    sites = named_sites(student)
    assert set(report["integer"]) | set(report["simulated"]) == set(sites)
    for site in report["integer"]:
        assert isinstance(forms[site], IntegerLinear | IntegerMatMul)
        sites[site].register_forward_hook(compare(site))
    logits = student(images)
    assert set(worst) == set(report["integer"])
    assert max(worst.values()) < 2e-6, max(worst, key=worst.get)  # float rounding of sums and scales: codes are the same
    best, second = logits.topk(2).values.T
    # A dynamic range turns float rounding into flips of many codes, which change logits by hundredths; no static one does.
    clear = best - second > (0.1 * logits.std() if is_dynamic(student) else -1.0)
    assert clear.sum() >= 4 and torch.equal(integer(images).argmax(1)[clear], logits.argmax(1)[clear])
    assert set(report["simulated"]) == ({"patch_embed.proj"} if OPTIONS[name].get("policy") == "ptq4vit" else set())


@pytest.mark.parametrize("kind", ["int8", "float"])
@pytest.mark.parametrize("bits", [2, 3, 4, 6, 8])
@pytest.mark.parametrize("name", NAMES)
def test_every_quantizer_has_an_integer_form_or_a_reason(monkeypatch, name, bits, kind):
    only(monkeypatch, kind)
    x = values(name, 3, 40 * 50)
    right = torch.randn(2, 50, 7, generator=torch.Generator().manual_seed(4))
    left_quantizer, right_quantizer = fitted(name, bits, x), Uniform(bits)
    right_quantizer.fit(right)
    site = QuantMatMul(left_quantizer, right_quantizer, renormalize=name != "twin_gelu")
    x = x.view(2, 20, 50)
    form = integer_form(site)
    if isinstance(form, str):
        assert left_quantizer.int8_planes().num_planes > MOST_PLANES
        assert f"{bits} bits" in form
        return
    left, right_hat = left_quantizer(x).double(), right_quantizer(right).double()
    exact = left @ right_hat
    largest = left.abs() @ right_hat.abs()
    if site.renormalize:
        sums = left.sum(-1, keepdim=True).clamp(min=0.1)
        exact, largest = exact / sums, largest / sums
    assert ((form(x, right) - exact).abs() <= 2e-6 * largest + 1e-30).all()


def test_four_bits_are_integers_for_every_quantizer():
    """The reason of the test above is an exception."""
    for name in NAMES:
        quantizer, other = fitted(name, 4, values(name, 5)), fitted("uniform", 4, values("uniform", 5))
        assert not isinstance(integer_form(QuantMatMul(quantizer, other)), str), name


@pytest.mark.parametrize("bits", [3, 6])
@pytest.mark.parametrize("name", ["log2", "log_sqrt2"])
@pytest.mark.parametrize("row", [[0.0] * 4, [1.0, 0, 0, 0], [0.5, 0, 0.5, 1e-38], [1e-3, 0, 0.7, 0.3]])
def test_logarithmic_rows_of_few_octaves(name, bits, row):
    right = values("uniform", 5, 4).view(4, 1)
    left_quantizer, right_quantizer = fitted(name, bits, values(name, 0)), fitted("uniform", 4, right)
    form = integer_form(QuantMatMul(left_quantizer, right_quantizer))
    x = torch.tensor([row])
    torch.testing.assert_close(form(x, right), left_quantizer(x) @ right_quantizer(right), rtol=1e-6, atol=0)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 5),
    inner=st.sampled_from([4, 8, 12]),
    columns=st.integers(1, 6),
    bits=st.sampled_from([3, 8]),
    grouped=st.booleans(),
    zero=st.integers(-128, 127),
    seed=st.integers(0, 2**16),
    kind=st.sampled_from(KINDS),
)
def test_zero_points_of_layers_are_corrected_exactly(rows, inner, columns, bits, grouped, zero, seed, kind):
    generator = torch.Generator().manual_seed(seed)
    linear = nn.Linear(inner, columns)
    group_size = 4 if grouped else None
    quantizer = Uniform(bits, shape=weight_shape(columns, inner, group_size), group_size=group_size)
    quantizer.scale.fill_(1.0)  # real values are the whole numbers themselves
    quantizer.zero_point.copy_(torch.randint(0, 2**bits, quantizer.zero_point.shape, generator=generator))
    codes = torch.randint(0, 2**bits, (columns, inner), generator=generator)
    linear.weight.data = quantizer.decode(codes)
    a = torch.randint(-128, 128, (rows, inner), generator=generator)
    plane = Plane(a.to(torch.int8), float(zero), 1.0)
    with pytest.MonkeyPatch.context() as monkeypatch:
        only(monkeypatch, kind)
        got = weights.IntegerWeight(QuantLinear(linear, quantizer, Unquantized()))(plane, None)
    assert torch.equal(got.long(), (a - zero) @ quantizer.decode(codes).long().T)


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 5)] * 4),
    zeros=st.tuples(st.integers(-128, 127), st.integers(-128, 127)),
    per_head=st.booleans(),
    seed=st.integers(0, 2**16),
    kind=st.sampled_from(["int8", "float"]),
)
def test_zero_points_of_attention_are_corrected_exactly(shape, zeros, per_head, seed, kind):
    heads, rows, inner, columns = shape
    generator = torch.Generator().manual_seed(seed)
    left = torch.randint(-128, 128, (2, heads, rows, inner), generator=generator)
    right = torch.randint(-128, 128, (2, heads, inner, columns), generator=generator)
    given_zeros = [torch.full((heads, 1, 1), float(zero)) if per_head else float(zero) for zero in zeros]
    with pytest.MonkeyPatch.context() as monkeypatch:
        only(monkeypatch, kind)
        planes = [Plane(values.to(torch.int8), zero, 1.0) for values, zero in zip((left, right), given_zeros, strict=True)]
        got = products.batched_product(*planes)
    assert torch.equal(got.long(), (left - zeros[0]) @ (right - zeros[1]))


def test_float_sites_are_reported_and_computed_as_before(tiny_vit, images):
    student = quantize(tiny_vit, bits="w8a8", softmax={"quantizer": "log2"}, overrides={"blocks.0.*": {"bits": None}})
    calibrate(student, tiny_vit, images, steps=["observe"])
    integer = to_integer(student)
    simulated = integer_report(integer)["simulated"]
    assert simulated["blocks.0.mlp.fc1"] == "weight_quantizer is float"
    assert "8 bits" in simulated["blocks.1.attn.av"] and "planes" in simulated["blocks.1.attn.av"]
    assert not {"blocks.1.attn.qk", "blocks.1.mlp.fc1", "head"} & set(simulated)
    torch.testing.assert_close(integer(images), student(images), rtol=1e-4, atol=1e-4)


def test_the_student_is_untouched_and_copies_run(tiny_vit, images):
    student = calibrate(quantize(tiny_vit), tiny_vit, images, steps=["observe"])
    before = deepcopy(student.state_dict())
    integer = to_integer(student)
    logits = integer(images)
    assert all(torch.equal(before[name], value) for name, value in student.state_dict().items())
    assert "quantize" in student.vitdfq and "integer" not in student.vitdfq
    assert torch.equal(deepcopy(integer)(images), logits)
    assert torch.equal(deepcopy(integer).to("cpu").eval()(images), logits)
    assert integer.num_classes == student.num_classes and integer.pretrained_cfg == student.pretrained_cfg  # evaluate asks
    assert not any(parameter.requires_grad for parameter in integer.parameters())


def test_parts_of_a_batch_are_the_batch(tiny_vit, images, monkeypatch):
    integer = to_integer(calibrate(quantize(tiny_vit), tiny_vit, images, steps=["observe"]))
    whole = integer(images)
    seen = []
    integer.model.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    monkeypatch.setattr("vitdfq.quantization.integer.layers.VALUES_AT_ONCE", {"cpu": 3 * images[0].numel()})
    torch.testing.assert_close(integer(images), whole, rtol=1e-6, atol=1e-6)
    assert seen == [3, 3, 2]


def test_only_calibrated_students_are_taken(tiny_vit, images):
    with pytest.raises(ValueError, match="to_integer takes what quantize returned"):
        to_integer(tiny_vit)
    student = quantize(tiny_vit)
    with pytest.raises(ValueError, match=r"to_integer: patch_embed\.proj\.weight_quantizer is not fitted; calibrate the student"):
        to_integer(student)
    with pytest.raises(ValueError, match="integer_report takes what to_integer returned"):
        integer_report(student)
    integer = to_integer(calibrate(student, tiny_vit, images, steps=["observe"]))
    with pytest.raises(ValueError, match="runs in integers"):
        to_integer(integer)
    with pytest.raises(ValueError, match="runs in integers"):
        calibrate(integer, tiny_vit, images)
    with pytest.raises(ValueError, match="quantized already"):
        quantize(integer)
    with pytest.raises(ValueError, match="save takes what quantize"):
        vitdfq.save(integer, "nowhere")


def test_a_backend_that_saturates_fails_or_crawls_is_refused(monkeypatch):
    now = [0.0]

    def repeat(run, number, repeat):
        times = []
        for _ in range(repeat):
            start, now[0] = now[0], now[0] + 0.001  # every product takes a millisecond here
            run()
            times.append(now[0] - start)
        return times

    monkeypatch.setattr(backends, "timeit", SimpleNamespace(repeat=repeat))

    def exact(a, w):
        return (a.double() @ w.double().t()).to(torch.int32)

    def slow(a, w):
        now[0] += 0.1
        return exact(a, w)

    def missing(a, w):
        raise RuntimeError("not implemented for 'Char'")

    assert backends._works(exact, 0)
    assert not backends._works(lambda a, w: exact(a, w).clamp(-(2**15), 2**15 - 1), 0)
    assert not backends._works(missing, 0)
    assert not backends._works(slow, 0)


@pytest.mark.gpu
@pytest.mark.parametrize("bits", ["w8a8", "w6a6", "w4a4"])
def test_integer_students_on_cuda(tiny_vit, images, bits):
    student = calibrate(quantize(tiny_vit, bits=bits), tiny_vit, images, steps=["observe"])
    integer = to_integer(student)
    wanted = integer(images)
    torch.testing.assert_close(integer.to("cuda")(images.cuda()).cpu(), wanted, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(to_integer(student.to("cuda"))(images.cuda()).cpu(), wanted, rtol=1e-3, atol=1e-3)
