"""Every command ends its help with examples, and the examples are command lines that it takes."""

import shlex

import pytest
import typer

from vitdfq import cli
from vitdfq.cli.examples import EXAMPLES

COMMANDS = typer.main.get_command(cli.app).commands
LINES = [line for lines in EXAMPLES.values() for line in lines]


def test_every_command_has_examples():
    assert set(EXAMPLES) == set(COMMANDS)


@pytest.mark.parametrize("line", LINES)
def test_an_example_is_parsed(line):
    words = shlex.split(line.partition(" > ")[0])
    assert words[0] == "vitdfq"
    COMMANDS[words[1]].make_context(words[1], words[2:], resilient_parsing=False)  # raises on unknown options and values


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_examples_end_the_help_a_line_each(name, command):
    assert command(name, "--help")[1].rstrip().endswith("\n".join(["Examples:", *(f"    {line}" for line in EXAMPLES[name])]))
