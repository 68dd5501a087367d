"""The command line: exit codes, one line for every error, results on stdout, and a fast start."""

import json
import logging
import os
import shlex
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import yaml

import vitdfq
from vitdfq import cli
from vitdfq.common import errors
from vitdfq.recipe import packaged_recipes
from vitdfq.synthesis import METHODS

SMALL = {
    "name": "small",
    "model": {"name": "zoo:vit"},
    "synthesize": {"method": "noise", "num_images": 4},
    "calibrate": {"steps": ["observe"]},
    "evaluate": {"dataset": "zoo:fashion-mnist", "num_images": 100},
}


@pytest.fixture
def recipe(tmp_path) -> str:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(SMALL))
    return str(path)


def one_error(stderr: str) -> str:
    lines = stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), stderr
    return lines[0].removeprefix("error: ")


def test_help_does_not_import_heavy_packages():
    heavy = "torch timm datasets accelerate pydantic yaml numpy huggingface_hub"
    code = (
        "import sys\nfrom vitdfq import cli\nsys.argv = ['vitdfq', '--help']\n"
        "try: cli.main()\nexcept SystemExit as done: assert not done.code\n"
        f"imported = set('{heavy}'.split()) & set(sys.modules)\nassert not imported, imported"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for verb in ("run", "synthesize", "calibrate", "evaluate", "compare", "analyze", "bench", "export", "push", "list", "info"):
        assert verb in done.stdout


def test_defaults_in_help_texts_are_not_taken_for_markup(command):
    for verb in ("run", "compare", "export", "list"):
        code, out, _ = command(verb, "--help")
        assert code == 0 and "efault:" in out
    assert "runs/RECIPE_NAME" in command("run", "--help")[1]


def test_the_options_are_these_and_no_others():
    """A new setting is a recipe key, never a new option."""
    import typer

    commands = typer.main.get_command(cli.app).commands
    options = {
        name: {flag for option in verb.params for flag in option.opts if flag.startswith("--")} for name, verb in commands.items()
    }
    stages = {"--out", "--set", "--fresh", "--format", "--quiet"}
    assert options == {
        "run": stages | {"--dry-run", "--verbose"},
        "synthesize": stages,
        "calibrate": stages,
        "compare": stages,
        "analyze": stages | {"--budget"},
        "evaluate": {"--set", "--format", "--quiet"},
        "bench": {"--set", "--batches", "--format", "--quiet"},
        "convert": {"--out", "--arch", "--key", "--set", "--format", "--quiet"},
        "push": {"--repo", "--private", "--format", "--quiet"},
        "export": {"--out", "--format", "--runtime", "--cpu", "--quiet"},
        "images": {"--out", "--format", "--quiet"},
        "info": {"--format", "--quiet"},
        "list": {"--format", "--quiet"},
        "schema": {"--quiet"},
    }


def test_every_command_takes_h_and_q(command):
    import typer

    for verb in typer.main.get_command(cli.app).commands:
        code, out, _ = command(verb, "-h")
        assert code == 0 and "--quiet" in out and "-h, --help" in out and "Usage" in out
    for arguments in (["list", "bits", "-q"], ["-q", "list", "bits"], ["list", "--quiet", "bits"]):
        assert command(*arguments)[0] == 0
        assert logging.getLogger("vitdfq").level == logging.WARNING
    command("list", "bits")
    assert logging.getLogger("vitdfq").level == logging.INFO


def test_brackets_in_help_texts_are_printed():
    import typer

    app = typer.Typer(**{"rich_markup_mode": cli.app.rich_markup_mode})

    @app.command()
    def verb(folder: str = typer.Option("", help="Folder [default: runs/NAME].")) -> None: ...

    from typer.testing import CliRunner

    assert "Folder [default: runs/NAME]." in CliRunner().invoke(app, ["--help"]).output


def test_version_and_no_arguments(command):
    assert command("--version")[:2] == (0, f"{vitdfq.__version__}\n")
    code, out, err = command()
    assert code in (0, 2) and "Usage" in out + err  # click 8.1 and 8.2 differ


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["run", "absent.yaml"], 2, "absent.yaml: no such recipe"),
        (["run", "quikstart"], 2, "did you mean 'quickstart'"),
        (["run", "RECIPE", "--set", "synthesize"], 2, "--set synthesize: expected section.key=value"),
        (["run", "RECIPE", "--set", "synthesize.step=3"], 3, "unknown key, did you mean 'steps'?"),
        (["run", "RECIPE", "--set", "synthesize.lr=1e-3"], 3, "'1e-3' is text to YAML"),
        (["run", "RECIPE", "--set", "quantize.weight.bits=9"], 3, "bits is 9; choices: 2 to 8"),
        (["synthesize", "RECIPE", "--set", "synthesize.method=sardf"], 3, "did you mean 'sardfq'?"),
        (["calibrate", "RECIPE", "--set", "calibrate.steps=[observ]"], 3, "did you mean 'observe'?"),
        (["run", "RECIPE", "--dry-run", "--set", "model=3"], 3, "model: 3 is a whole number; expected a mapping"),
        (["evaluate", "runs/absent"], 4, "runs/absent: no such folder here, and the Hub"),
        (["info", "absent"], 4, "absent: no such folder here, and the Hub"),
        (["info", "./absent/x"], 2, "./absent/x: neither a folder nor"),
        (["list", "recipe"], 2, "did you mean 'recipes'?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_input_is_one_line(arguments, code, message, command, recipe):
    exit_code, out, err = command(*[recipe if argument == "RECIPE" else argument for argument in arguments])
    assert message in one_error(err) and exit_code == code and not out


@pytest.mark.parametrize("arguments", [["rnu"], ["run"], ["run", "x", "--steps", "3"], ["run", "x", "--format", "xml"]])
def test_usage_errors(arguments, command):
    code, out, err = command(*arguments)
    assert code == 2 and not out and "Traceback" not in err


def test_no_access_names_the_repository_and_a_solution(command, tmp_path):
    code, _, err = command("run", "deit_b_w4a4", "--out", tmp_path / "out")
    message = one_error(err)
    assert code == 4 and "timm/deit_base_patch16_224.fb_in1k" in message and "--set model.name=local-dir:" in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (errors.RecipeError("x.yaml:3: no"), 3, "x.yaml:3: no"),
        (errors.GateError("too low"), 5, "too low"),
        (errors.AccessError("two\nlines"), 4, "two lines"),
        (KeyboardInterrupt(), 130, ""),
        (OSError(28, "No space left on device", "out/model.safetensors"), 1, "out/model.safetensors: No space left"),
        (RuntimeError("a\nbug"), 1, "RuntimeError: a bug (VITDFQ_DEBUG=1 shows the traceback)"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_exit_codes(error, code, message, command, recipe, monkeypatch):
    def run(*args, **kwargs):
        raise error

    monkeypatch.setattr("vitdfq.workflow.run.run", run)
    exit_code, out, err = command("run", recipe)
    assert exit_code == code and not out
    if message:
        assert one_error(err) == message or message in one_error(err)
    assert "Traceback" not in err


def test_debug_shows_the_traceback(recipe, monkeypatch):
    def run(*args, **kwargs):
        raise RuntimeError("a bug")

    monkeypatch.setattr("vitdfq.workflow.run.run", run)
    monkeypatch.setenv("VITDFQ_DEBUG", "1")
    monkeypatch.setattr(sys, "argv", ["vitdfq", "run", recipe])
    with pytest.raises(RuntimeError, match="a bug"):
        cli.main()


def interrupted(command: list[str], when, *signals: signal.Signals) -> str:
    """Start a command, send it the signals once `when()` holds; the last line on stderr."""
    # one thread: threads of busy processes on two cores would wait for each other at every product
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    # a test runner started in the background ignores SIGINT, and its children inherit that
    listen = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    command = [sys.executable, "-m", "vitdfq", *command]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, preexec_fn=listen
    )
    until = time.monotonic() + 600  # a net, not a bound
    while not when(process):
        assert process.poll() is None and time.monotonic() < until, process.communicate()
        time.sleep(0.05)
    for number in signals:
        process.send_signal(number)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 130 and "Traceback" not in err and not out, err
    assert err.count("interrupted") == 1
    return err.splitlines()[-1]


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ctrl_c_says_what_is_kept_and_how_to_go_on(recipe, tmp_path):
    out = tmp_path / "my out"
    command = ["run", recipe, "--out", str(out), "--set", "synthesize={method: sardfq, steps: 100000, num_images: 4}"]
    teacher = out / "stages/teacher_predictions.safetensors"
    line = interrupted([*command, "--fresh"], lambda process: teacher.exists(), signal.SIGINT)
    assert line.startswith("interrupted: ") and " of 4 stages" in line and f"kept in {shlex.quote(str(out))}; " in line
    assert shlex.split(line.partition("to go on: ")[2])[1:] == ["-m", "vitdfq", *command]


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads /proc")
@pytest.mark.parametrize("signals", [[signal.SIGTERM], [signal.SIGINT, signal.SIGINT]], ids=["SIGTERM", "twice"])
def test_imports_can_be_interrupted(signals, recipe):
    def imports_torch(process: subprocess.Popen) -> bool:
        with open(f"/proc/{process.pid}/maps") as libraries:
            return "libc10" in libraries.read()

    line = interrupted(["calibrate", recipe], imports_torch, *signals)
    assert line.startswith("interrupted: nothing new was written here; to go on: ")


def test_json_alone_on_stdout(command):
    code, out, err = command("list", "--format", "json")
    names = json.loads(out)
    assert code == 0 and not err
    assert names["recipes"] == sorted(packaged_recipes())
    assert {"zoo", "methods", "losses", "quantizers", "steps"} <= set(names)
    assert json.loads(command("list", "losses", "--format", "json")[1]) == {"losses": names["losses"]}


def test_every_listed_name_of_bits_is_taken(command):
    from vitdfq.quantization.options import parse_bits

    for bits in json.loads(command("list", "bits", "--format", "json")[1])["bits"]:
        parse_bits(bits)
    assert "w5a7" in command("list", "bits")[1]


def test_every_policy_is_listed_and_taken_by_a_recipe(command):
    from vitdfq.quantization import POLICIES
    from vitdfq.recipe import load_recipe

    assert json.loads(command("list", "policies", "--format", "json")[1])["policies"] == list(POLICIES)
    for policy in POLICIES:
        assert load_recipe("quickstart", [f"quantize.policy={policy}"]).quantize["policy"] == policy


def test_the_choices_of_export_are_those_of_its_layouts():
    """The command names them itself: it must not import torch for its help."""
    from vitdfq.cli.arguments import Processor, Runtime
    from vitdfq.onnx.layout import CPUS, RUNTIMES

    assert (tuple(Runtime), tuple(Processor)) == (RUNTIMES, CPUS)


def test_list_as_text(command):
    code, out, _ = command("list", "methods")
    assert code == 0 and "sardfq" in out and "Gaussian noise; the baseline without optimization" in out
    assert "expected: top-1 of zoo:deit 90.11 ± 0.17 % at W4A4" in out
    assert json.loads(command("list", "methods", "--format", "json")[1])["methods"] == sorted(METHODS)


def test_the_schema_is_json_alone(command):
    code, out, err = command("schema")
    assert code == 0 and not err and "synthesize" in json.loads(out)["properties"]


def test_images_of_a_run_as_files(command, recipe, tmp_path):
    out, pictures = tmp_path / "out", tmp_path / "pictures"
    assert command("synthesize", recipe, "--out", out)[0] == 0
    code, text, _ = command("images", out, "--out", pictures)
    assert code == 0 and text == f"4 images written to {pictures}\n" and len(list(pictures.glob("*.png"))) == 4


def test_a_dry_run_downloads_and_writes_nothing(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = ("--set=model.img_size=32", "--set=model.patch_size=8", "--set=synthesize.num_images=2")
    code, out, err = command("run", "deit_t_w4a4", *small, "--dry-run", "--format", "json")
    plan = json.loads(out)
    assert code == 0 and not err and plan["model"]["name"] == "deit_tiny_patch16_224.fb_in1k"
    assert "blocks.3.attn.qk" in {site["name"] for site in plan["sites"]}
    assert list(tmp_path.iterdir()) == []


def test_verbs_on_a_run(command, recipe, tmp_path):
    out = tmp_path / "out"
    code, text, err = command("calibrate", recipe, "--out", out, "--format", "json")
    files = "images.safetensors, config.json, model.safetensors, recipe.yaml, metrics.json, README.md, reports/index.html"
    assert err.splitlines()[-1] == f"written to {out}: {files}"
    assert "stage 2 of 2: calibrate the student at W4A4" in err
    metrics = json.loads(text)
    assert (
        code == 0
        and metrics == json.loads((out / "metrics.json").read_text())
        and "Not evaluated" in (out / "README.md").read_text()
    )
    assert metrics["student"]["top1"] is None and metrics["synthetic"]["dead_leaves"]["agreement"] > 50
    code, text, err = command("evaluate", out, "--quiet", "--format", "json", "--set", "evaluate.num_images=50")
    row = json.loads(text)
    assert code == 0 and row["num_images"] == 50 and row["top1"] > 50 and not err
    assert "top1" in command("evaluate", out)[1]
    code, text, _ = command("info", out)
    assert code == 0 and "zoo:vit" in text
    code, _, err = command("evaluate", out, "--set", "evaluate.dataset=zoo:mnist")
    assert code == 3 and "did you mean" in one_error(err)
    code, _, err = command("evaluate", out, "--set", f"evaluate.dataset={tmp_path / 'absent'}")
    assert code == 2 and "no such file or folder" in one_error(err)
