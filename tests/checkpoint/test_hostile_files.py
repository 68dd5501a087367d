"""Files of strangers: whatever is in them, they load finite and consistent or are refused in one line, with bounded work."""

import json
import shutil
from pathlib import Path

import pytest
import timm
import torch
import yaml
from effort import bounded_effort
from hostile import Content, changed, damaged, filled, lying
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny import TINY

import vitdfq
from vitdfq.checkpoint.save_load import describe
from vitdfq.common.errors import VitdfqError
from vitdfq.models import image_size, load_teacher
from vitdfq.recipe import Recipe, load_recipe

STORED = Path(__file__).with_name("stored")
EXAMPLES = [pytest.param(15, id="15"), pytest.param(1000, id="1000", marks=pytest.mark.slow)]
RECIPE = {
    "name": "mine",
    "seed": 1,
    "min_agreement": 10.0,
    "model": {"name": "vit_tiny_patch16_224", "img_size": 32, "depth": 2},
    "synthesize": {"method": "noise", "num_images": 2, "losses": {"class_confidence": {"weight": 1.0}}, "prune_at": [0.5]},
    "prepare": {"steps": ["rotate_heads"]},
    "quantize": {"bits": "w4a4", "weight": {"group_size": 16}, "overrides": {"head*": {"activation": {"bits": 8}}}},
    "calibrate": {"steps": ["observe", {"reconstruct": {"iterations": 2}}]},
    "evaluate": {"dataset": "zoo:fashion-mnist", "split": "test", "num_images": 20},
    "baselines": ["noise"],
    "compare": {"methods": ["noise"], "seeds": [0, 1]},
}


def tried(strategy, examples, check):
    """Call check(example) for so many examples of the strategy; each must end as this file's first line says."""

    @settings(max_examples=examples, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(strategy)
    def run(example):
        try:
            with bounded_effort():
                check(example)
        except VitdfqError as error:
            text = str(error)
            assert "\n" not in text and len(text) < 5000, text

    run()


@torch.no_grad()
def consistent(model):
    assert all(value.isfinite().all() for value in model.state_dict().values() if value.is_floating_point())
    json.dumps(model.vitdfq, allow_nan=False)
    height, width = image_size(model)
    if height * width <= 512**2:
        assert model(torch.zeros(1, 3, height, width)).shape == (1, model.num_classes)


@pytest.fixture(params=["v2", "v3", "v4"])
def checkpoint(request, tmp_path):
    return Path(shutil.copytree(STORED / request.param, tmp_path / "checkpoint"))


@pytest.fixture
def teacher_folder(tmp_path):
    architecture, arguments = TINY["vit"]
    model = timm.create_model(architecture, num_classes=10, **arguments)
    timm.models.save_for_hf(model, tmp_path / "teacher", model_args=arguments, safe_serialization=True)
    return tmp_path / "teacher"


@pytest.mark.parametrize("examples", EXAMPLES)
def test_weights_of_a_checkpoint(checkpoint, examples):
    file = checkpoint / "model.safetensors"
    valid = Content(file.read_bytes())

    def check(content):
        file.write_bytes(content)
        consistent(vitdfq.load(checkpoint))

    tried(st.one_of(damaged(valid), lying(valid), filled(valid)), examples, check)


@pytest.mark.parametrize("examples", EXAMPLES)
def test_config_of_a_checkpoint(checkpoint, examples):
    file = checkpoint / "config.json"
    valid = Content(file.read_bytes())

    def check(content):
        file.write_bytes(content)
        describe(checkpoint)
        consistent(vitdfq.load(checkpoint))

    tried(mostly(changed(json.loads(valid)).map(as_json), damaged(valid)), examples, check)


@pytest.mark.parametrize("examples", EXAMPLES)
def test_teacher(teacher_folder, examples):
    files = [teacher_folder / name for name in ("config.json", "model.safetensors")]
    config, weights = (Content(file.read_bytes()) for file in files)
    configs = mostly(changed(json.loads(config)).map(as_json), damaged(config))
    pairs = st.one_of(
        st.tuples(configs, st.just(weights)),
        st.tuples(st.just(config), st.one_of(damaged(weights), lying(weights), filled(weights))),
    )

    def check(contents):
        for file, content in zip(files, contents, strict=True):
            file.write_bytes(content)
        consistent(load_teacher(f"local-dir:{teacher_folder}"))

    tried(pairs, examples, check)


@pytest.mark.parametrize("examples", EXAMPLES)
def test_metrics(tmp_path, examples):
    folder = Path(shutil.copytree(STORED / "v3", tmp_path / "checkpoint"))
    metrics = {"recipe": "x", "student": {"top1": 90.0, "num_images": 10}, "teacher": {"top1": 91.0}, "size": {}}

    def check(content):
        (folder / "metrics.json").write_bytes(content)
        json.dumps(describe(folder), allow_nan=False)

    tried(mostly(changed(metrics).map(as_json), damaged(as_json(metrics))), examples, check)


@pytest.mark.parametrize("examples", EXAMPLES)
def test_recipe(tmp_path, examples):
    file = tmp_path / "recipe.yaml"
    valid = Content(yaml.safe_dump(RECIPE, sort_keys=False).encode())

    def check(content):
        file.write_bytes(content)
        recipe = load_recipe(file)
        assert load_recipe(recipe.to_dict()) == recipe
        assert (Path("runs") / recipe.name).resolve().parent == Path("runs").resolve()

    changes = changed(RECIPE).map(lambda content: Content(yaml.safe_dump(content, sort_keys=False).encode()))
    tried(mostly(changes, damaged(valid)), examples, check)


def mostly(intended, random):
    """Three times in four what was meant to harm: random bytes end at the first check."""
    return st.one_of(intended, intended.map(lambda content: content), intended.filter(bool), random)


def as_json(content) -> Content:
    return Content(json.dumps(content).encode())


BOMBS = {
    "aliases": "a: &a [x, x]\nb: &b [*a, *a]\nmodel: *b\n",
    "a python object": "model: !!python/object/apply:os.system ['touch ran']\n",
    "deep": "model: " + "[" * 100_000,
    "deep mappings": "model: " + "{a: " * 50_000,
    "large": "notes: " + "x" * 10**7,
    "a large number": "seed: " + "9" * 4000,
    "a number in base 60": "seed: " + ":".join(["59"] * 50_000),
    "digits": "seed: '" + "1" * 200_000 + "x'\n",
    "not UTF-8": b"\xff\xfe\x00",
    "a NUL": "name: a\x00b\n",
    "a long name": f"name: {'a' * 300}\nmodel: {{name: 'zoo:vit'}}\n",
    "another folder": "name: ../../x\nmodel: {name: 'zoo:vit'}\n",
    "another cache": "model: {name: 'zoo:vit', cache_dir: /tmp/elsewhere}\n",
    "a pickle": "model: {name: vit_tiny_patch16_224, checkpoint_path: /tmp/x.pth}\n",
    "a gigantic model": "model: {name: vit_tiny_patch16_224, depth: 1000000000}\n",
    "no number": "model: {name: vit_tiny_patch16_224, mlp_ratio: .nan}\n",
}


@pytest.mark.parametrize("text", BOMBS.values(), ids=BOMBS)
def test_bombs_in_recipes(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "bomb.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(VitdfqError) as caught, bounded_effort():
        load_recipe(file)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 3000
    assert [path.name for path in tmp_path.iterdir()] == ["bomb.yaml"]


GIGANTIC = [
    ("depth", 10**9),
    ("depth", 60_000),
    ("img_size", 60_000),
    ("embed_dim", 60_000),
    ("mlp_ratio", 60_000),
    ("patch_size", 10**6),
    ("num_classes", 10**12),
    ("reg_tokens", 60_000),
]


@pytest.mark.parametrize(("key", "value"), GIGANTIC)
def test_a_gigantic_model_is_refused_before_it_is_built(checkpoint, key, value):
    config = json.loads((checkpoint / "config.json").read_text())
    described = config["vitdfq"]["model"]
    (described if key == "num_classes" else described["model_args"])[key] = value
    (checkpoint / "config.json").write_text(json.dumps(config))
    for read in (vitdfq.load, describe):
        with pytest.raises(VitdfqError, match=r"config\.json"), bounded_effort():
            read(checkpoint)


def test_a_recipe_made_in_python_is_checked_too():
    assert isinstance(load_recipe(RECIPE), Recipe)
    with pytest.raises(VitdfqError, match="no argument that shapes a model"):
        load_recipe(RECIPE | {"model": {"name": "vit_tiny_patch16_224", "pretrained_filter_fn": "os.system"}})
