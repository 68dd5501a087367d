"""Whatever is wrong with a recipe is one line: the place, the key, the value and the choices."""

import re

import pytest
from recipe_text import RECIPE, refusal

from vitdfq.common.errors import InputError, RecipeError
from vitdfq.recipe import load_recipe

WRONG_LINES = [  # line of RECIPE, its new text, the message after "small.yaml:LINE: "
    (2, "sed: 3", "sed: unknown key, did you mean 'seed'?; choices: name, notes, seed,"),
    (2, "seed: '3'", "seed: '3' is text to YAML; write 3 without quotes"),
    (2, "seed: true", "seed: True is true or false; expected a whole number"),
    (2, "seed: -1", "seed: -1 is negative"),
    (2, "reference_top1: 812", "reference_top1: 812 is not a percentage"),
    (2, "min_agreement: -1", "min_agreement: -1 is not a percentage"),
    (2, "name: ../up", "name: '../up' must be letters, digits"),
    (2, f"name: {'a' * 101}", f"name: '{'a' * 101}' must be letters, digits"),
    (2, "seed: 9223372036854775808", "seed: a whole number of more than 63 bits"),
    (2, "name: 2024-01-01", "name: '2024-01-01' is a date; put it in quotes"),
    (2, "on: 3", "True: unknown key: YAML reads it as true or false (as it does on, off, yes and no); put it in quotes"),
    (2, "2: 3", "2: unknown key: YAML reads it as a whole number; put it in quotes"),
    (4, "  nmae: zoo:vit", "model: name is missing: a timm name such as"),
    (4, "  name: deit_tinny_patch16_224", "model.name: unknown timm model 'deit_tinny_patch16_224', did you mean 'deit_t"),
    (4, "  name: [zoo:vit]", "model.name: ['zoo:vit'] is a list; expected text"),
    (6, "  method: sardf", "synthesize.method: unknown synthesis method 'sardf', did you mean 'sardfq'?; choices: acq, "),
    (6, "  method: off", "synthesize.method: 'off' is false to YAML; put it in quotes"),
    (6, "  method: Yes", "synthesize.method: 'Yes' is true to YAML; put it in quotes"),
    (6, "  step: 3", "synthesize.step: unknown key, did you mean 'steps'?; choices: method, num_images, steps, "),
    (6, "  teacher: 3", "synthesize.teacher: unknown key; choices: method, "),
    (6, "  steps: many", "synthesize.steps: 'many' is text; expected a whole number"),
    (6, "  steps: 1e3", "synthesize.steps: '1e3' is text to YAML; write 1000 or 1.0e+3"),
    (6, "  steps: 3.0", "synthesize.steps: 3.0 is a number; expected a whole number"),
    (6, "  steps: -3", "synthesize.steps: steps must not be negative, got -3"),
    (6, "  lr: 1e-3", "synthesize.lr: '1e-3' is text to YAML; write 0.001 or 1.0e-3"),
    (6, "  lr: 2.5e7", "synthesize.lr: '2.5e7' is text to YAML; write 25000000 or 2.5e+7"),
    (6, "  lr: .nan", "synthesize.lr: nan is a number; expected a finite number"),
    (6, "  lr: -1", "synthesize.lr: lr must be positive"),
    (6, "  labels: sft", "synthesize.labels: unknown label kind 'sft', did you mean 'soft'?"),
    (6, "  label_range: [1, a]", "synthesize.label_range.1: 'a' is text; expected a number"),
    (7, "  num_images: 0", "synthesize.num_images: num_images 0 is not a whole number of at least 1"),
    (9, "    attention: {weight: 3}", "synthesize.losses.attention: unknown loss 'attention', did you mean 'attention_prior'"),
    (9, "    attention_prior: {wieght: 3}", "synthesize.losses.attention_prior.wieght: unknown key, did you mean 'weight'"),
    (9, "    attention_prior: {weight: 1e2}", "synthesize.losses.attention_prior.weight: '1e2' is text to YAML; write 100"),
    (9, "    attention_prior: 3", "synthesize.losses.attention_prior: 3 is a whole number; expected a mapping"),
    (9, "    mine: {function: os.system}", "synthesize.losses.mine: unknown loss 'mine'"),
    (9, "    attention_prior: {function: os.system}", "synthesize.losses.attention_prior.function: unknown key"),
    (11, "  bits: w9a9", "quantize.bits: unknown bits 'w9a9'; choices: "),
    (11, "  bits: 4", "quantize.bits: 4 is a whole number; expected text"),
    (11, "  weight: {bits: 9}", "quantize.weight.bits: bits is 9; choices: 2 to 8, or null for float"),
    (11, "  activation: {bits: 1}", "quantize.activation.bits: bits is 1; choices: 2 to 8"),
    (11, "  weight: {bits: four}", "quantize.weight.bits: bits is 'four'; choices: 2 to 8, or null for float"),
    (11, "  weight: {symmetric: 1}", "quantize.weight.symmetric: symmetric is 1; expected true or false"),
    (11, "  softmax: {quantizer: log3}", "quantize.softmax.quantizer: unknown quantizer 'log3', did you mean 'log2'?"),
    (11, "  softmax: {quantiser: log2}", "quantize.softmax.quantiser: unknown key, did you mean 'quantizer'?"),
    (13, '    "blocks.0.*": {bits: 1}', "quantize.overrides.blocks.0.*.bits: bits is 1; choices: 2 to 8"),
    (13, '    "blocks.0.*": {bit: 4}', "quantize.overrides.blocks.0.*.bit: unknown key, did you mean 'bits'?"),
    (13, '    "blocks.0.*": 8', "quantize.overrides.blocks.0.*: 8 is a whole number; expected a mapping"),
    (13, '    "blocks.0.*": {weight: {bits: "4"}}', "quantize.overrides.blocks.0.*.weight.bits: bits is '4'; choices: 2 to 8"),
    (16, "    - observ", "calibrate.steps.0: unknown calibration step 'observ', did you mean 'observe'?; choices: "),
    (16, "    - 3", "calibrate.steps.0: 3 is a whole number; expected text or a mapping"),
    (16, "    - {observe: null, reconstruct: null}", "calibrate.steps.0: a step is a name or {name: {option: value}}"),
    (17, "    - reconstruct: {iterrations: 3}", "calibrate.steps.1.reconstruct.iterrations: unknown key, did you mean 'it"),
    (17, "    - reconstruct: {lr: 1e-3}", "calibrate.steps.1.reconstruct.lr: '1e-3' is text to YAML; write 0.001"),
    (
        17,
        "    - reconstruct: {iterations: 0}",
        "calibrate.steps.1.reconstruct.iterations: iterations 0 is not a whole number of at least 1",
    ),
    (18, "evaluate: {dataset: zoo:mnist}", "evaluate.dataset: unknown dataset 'zoo:mnist', did you mean 'zoo:fashion"),
    (18, "evaluate: {dataset: imagenet1k}", "evaluate.dataset: unknown dataset 'imagenet1k', did you mean 'imagenet-1k'"),
    (18, "evaluate: {num_images: 0}", "evaluate.num_images: num_images is 0; it must be at least 1"),
    (
        18,
        "evaluate: {split: 'train[:10%]'}",
        "evaluate.split: split 'train[:10%]': parts of splits are not read; write split: train",
    ),
    (18, "evaluate: {num_workers: -1}", "evaluate.num_workers: num_workers is -1; it must be at least 0"),
    (18, "evaluate: {teacher: zoo:vit}", "evaluate.teacher: unknown key; choices: dataset, split, "),
    (18, "prepare: {steps: [fold]}", "prepare.steps.0: unknown preparation step 'fold'"),
    (18, "prepare: {steps: fold_layer_scale}", "prepare.steps: 'fold_layer_scale' is text; expected a list"),
    (18, "prepare: 3", "prepare: 3 is a whole number; expected a mapping"),
    (19, "baselines: noise", "baselines: 'noise' is text; expected a list"),
    (19, "baselines: [nois]", "baselines.0: unknown synthesis method 'nois', did you mean 'noise'?"),
    (19, "seed: 4", "given twice, here and in line 19"),
    (19, "also: [", "not YAML ("),
    (19, "also: &a [*a]", "not YAML (aliases (*name) are not read"),
    (19, "also: !!python/object/apply:os.system [ls]", "not YAML (could not determine a constructor"),
]

WRONG_PLACES = [  # line of RECIPE, its new text, the reason, which the choices follow
    (11, "  also_bits: [w3a3]", "quantize.also_bits: unknown key; its place is the top level; choices here: bits, policy, "),
    (11, "  dataset: zoo:fashion-mnist", "quantize.dataset: unknown key; its place is evaluate.dataset; choices here: bits, "),
    (2, "method: psaq", "method: unknown key; its place is synthesize.method; choices here: name, "),
    (2, "steps: 3", "steps: unknown key; its place is synthesize.steps, prepare.steps or calibrate.steps; choices here: name, "),
    (2, "gptq: {}", "gptq: unknown key; its place is calibrate.steps.*.gptq; choices here: name, "),
    (6, "  smoothness: {}", "synthesize.smoothness: unknown key; its place is synthesize.losses.smoothness; choices here: "),
    (6, "  effort: quick", "synthesize.effort: unknown key; its place is the top level or calibrate.effort; choices here: "),
    (11, "  weight: {policy: fq_vit}", "quantize.weight.policy: unknown key; its place is quantize.policy; choices here: bits, "),
    (
        13,
        "    head: {policy: fq_vit}",
        "quantize.overrides.head.policy: unknown key; its place is quantize.policy; choices here: ",
    ),
    (
        18,
        "evaluate: {knn: {seed: 3}}",
        "evaluate.knn.seed: unknown key; its place is the top level, synthesize.seed or calibrate.seed",
    ),
    (
        16,
        "    - observe: {lr: 3}",
        ".observe.lr: unknown key; its place is calibrate.steps.*.reconstruct.lr, calibrate.steps.*.distill.lr or synthesize.lr",
    ),
    (
        2,
        "weight: 3",
        "weight: unknown key; its place is quantize.weight, synthesize.losses.attention_center.weight, synthesize.losses",
    ),
    (2, "weight: 3", " or one of "),
]


@pytest.mark.parametrize(("line", "text", "message"), WRONG_PLACES, ids=[message for *_, message in WRONG_PLACES])
def test_a_key_in_a_wrong_place_is_answered_with_its_right_one(line, text, message, file):
    lines = RECIPE.splitlines()
    lines[line - 1] = text
    file.write_text("\n".join(lines) + "\n")
    refused = refusal(RecipeError, file)
    assert refused.startswith(f"{file}:{line}: ") and message in refused


@pytest.mark.parametrize(("line", "text", "message"), WRONG_LINES, ids=[text.strip() for _, text, _ in WRONG_LINES])
def test_wrong_line(line, text, message, file):
    lines = RECIPE.splitlines()
    lines[line - 1] = text
    file.write_text("\n".join(lines) + "\n")
    place, reason = re.match(rf"{re.escape(str(file))}:(\d+): (.*)", refusal(RecipeError, file)).groups()
    assert message in reason
    # a missing name is reported where its section starts, a key given twice where it is first, an open bracket at the end
    assert int(place) == {"model: name": 3, "given twice": 2, "not YAML (while": 20}.get(
        next((start for start in ("model: name", "given twice", "not YAML (while") if start in reason), ""), line
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the recipe is empty"),
        ("- 1", "the recipe is not a mapping but a list"),
        ("3", "the recipe is not a mapping but a whole number"),
        ("a: 2024-99-99", "not YAML (month must be"),
        ("a: \x00", "not YAML ("),
        ("a: 1\n---\nb: 2", "not YAML (expected a single document"),
        ("[" * 1200, "not YAML ("),
        ("seed: 3", "model: name is missing"),
        ("model:\n", "model: name is missing"),
    ],
)
def test_wrong_file(text, message, file):
    file.write_text(text)
    assert message in refusal(RecipeError, file)


def test_not_text(file):
    file.write_bytes(b"\x80\x04\x95pickle")
    assert "not a YAML text file" in refusal(RecipeError, file)


@pytest.mark.parametrize(
    ("override", "error", "message"),
    [
        ("synthesize.step=3", RecipeError, "--set synthesize.step=3: synthesize.step: unknown key, did you mean 'steps'?"),
        ("sythesize.steps=3", RecipeError, "--set sythesize.steps=3: sythesize: unknown key, did you mean 'synthesize'?"),
        ("synthesize.lr=1e-3", RecipeError, "--set synthesize.lr=1e-3: synthesize.lr: '1e-3' is text to YAML"),
        ("synthesize.method=off", RecipeError, "synthesize.method: 'off' is false to YAML"),
        ('quantize.overrides={"blocks.0.*": {bits: 1}}', RecipeError, "{bits: 1}}: quantize.overrides.blocks.0.*.bits: bits"),
        ("synthesize.losses.tv={}", RecipeError, "synthesize.losses.tv: unknown loss 'tv'"),
        ("synthesize.steps=[", RecipeError, "--set synthesize.steps=[: the value is not YAML"),
        ("seed.x=3", RecipeError, "--set seed.x=3: seed is 3, there is no 'x' in it"),
        ("calibrate.steps.7=observe", RecipeError, "calibrate.steps has the entries 0 to 1, not '7'"),
        ("model.name=zoo", RecipeError, "--set model.name=zoo: model.name: unknown timm model 'zoo'"),
        ("synthesize", InputError, "--set synthesize: expected section.key=value"),
        ("=3", InputError, "--set =3: expected section.key=value"),
        ("synthesize..lr=3", InputError, "expected section.key=value"),
    ],
)
def test_wrong_override(override, error, message, file):
    assert message in refusal(error, file, override)


def test_an_override_corrects_a_line_and_does_not_hide_others(file):
    file.write_text(RECIPE.replace("bits: w4a4", "bits: w9a9").replace("num_images: 4", "num_images: 0"))
    assert refusal(RecipeError, file, "quantize.bits=w6a6").startswith(f"{file}:7: synthesize.num_images: num_images 0")


@pytest.mark.parametrize("steps", [[], ["center", {"reconstruct": {"iterations": 3}}]])
def test_steps_without_observe_are_refused_before_any_work(steps):
    message = refusal(RecipeError, {"model": {"name": "zoo:vit"}, "calibrate": {"steps": steps}})
    assert "calibrate.steps: observe is missing, which fits the quantizers; leave steps out" in message


def test_a_recipe_does_not_choose_where_files_are_stored():
    with pytest.raises(RecipeError, match="set HF_HUB_CACHE instead"):
        load_recipe({"model": {"name": "zoo:vit", "cache_dir": "/tmp/elsewhere"}})
    with pytest.raises(RecipeError, match="checkpoint_path: checkpoint_path is no argument that shapes a model"):
        load_recipe({"model": {"name": "zoo:vit", "checkpoint_path": "/tmp/x.pth"}})
