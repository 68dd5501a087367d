"""Shell completion, as the shells ask for it."""

import pytest
from typer.testing import CliRunner

from vitdfq import cli


def completed(*words: str) -> list[str]:
    """What bash is offered for the last word."""
    environment = {
        "_VITDFQ_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(("vitdfq", *words)),
        "COMP_CWORD": str(len(words)),
    }
    return CliRunner().invoke(cli.app, [], prog_name="vitdfq", env=environment).output.split()


@pytest.mark.parametrize(
    ("words", "choices"),
    [
        (["comp"], ["compare"]),
        (["run", "quick"], ["quickstart"]),
        (["compare", "compare_z"], ["compare_zoo"]),
        (["run", "quickstart", "--dry"], ["--dry-run"]),
        (["list", "--format", "j"], ["json"]),
        (["run", "./no_recipe_has_this_name"], []),  # then the shell completes file names
    ],
    ids=lambda value: " ".join(value) or "nothing",
)
def test_names_are_completed(words, choices):
    assert completed(*words) == choices


@pytest.mark.integration  # asks bash for its version
def test_every_shell_has_a_script():
    for shell in ("bash", "zsh", "fish"):
        environment = {"_VITDFQ_COMPLETE": f"source_{shell}"}
        script = CliRunner().invoke(cli.app, [], prog_name="vitdfq", env=environment).output
        assert "_VITDFQ_COMPLETE" in script
