"""Image sets that mix several presets."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import make_tiny

from vitdfq.synthesis import METHODS, synthesize
from vitdfq.synthesis.mix import SELF, kinds, seed_of
from vitdfq.synthesis.resolve import parts_of, resolve_method

SHARES = st.dictionaries(st.sampled_from("abc"), st.floats(0.01, 0.3))


@given(st.integers(1, 60), SHARES)
def test_every_prefix_has_the_shares(count, mix):
    order = kinds(count, mix)
    assert kinds(count + 5, mix)[:count] == order
    shares = {SELF: 1 - sum(mix.values()), **mix}
    for length in range(1, count + 1):
        for kind, share in shares.items():
            assert abs(order[:length].count(kind) - share * length) < len(shares)


@pytest.mark.parametrize("engine", ["images", "generator"])
def test_images_are_those_of_the_mixed_presets(engine):
    teacher, options = make_tiny("vit"), {"steps": 2, "seed": 3}
    mix = {"dead_leaves": 0.5, "psaq": 0.2}
    images = synthesize(teacher, method="gdfq", engine=engine, num_images=7, mix=mix, **options)
    order = kinds(7, mix)
    assert set(order) == {SELF, "dead_leaves", "psaq"}
    for kind in order:
        part = images[[index for index, name in enumerate(order) if name == kind]]
        alone = {"method": "gdfq", "engine": engine} if kind == SELF else {"method": kind}
        steps = {"seed": 3} if kind == "dead_leaves" else options | {"seed": seed_of(kind, 3)}
        torch.testing.assert_close(part, synthesize(teacher, num_images=len(part), **alone, **steps), rtol=1e-4, atol=1e-4)


def test_parts_have_the_methods_steps_and_precision_and_no_mix():
    method = resolve_method("psaq", steps=7, precision="bfloat16", mix={"dead_leaves": 0.5, "sardfq": 0.2})
    parts = parts_of(method)
    assert {kind: part.steps for kind, part in parts.items()} == {SELF: 7, "dead_leaves": 0, "sardfq": 7}
    assert {part.precision for part in parts.values()} == {"bfloat16"}
    assert parts["sardfq"].losses == METHODS["sardfq"].losses and not parts["sardfq"].mix


@pytest.mark.parametrize(
    ("mix", "message"),
    [
        ({"psak": 0.5}, "psaq"),
        ({"psaq": 1.0}, "leave some"),
        ({"psaq": 0.0}, "above 0"),
        ({"psaq": 0.6, "smi": 0.5}, "leave some"),
    ],
)
def test_bad_shares_are_refused(mix, message):
    with pytest.raises(ValueError, match=message):
        synthesize(make_tiny("vit"), method="noise", num_images=1, mix=mix)
