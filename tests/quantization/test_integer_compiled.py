"""The cache of compiled kernels, with a compiler that writes what it should and keeps a list of its calls."""

import os
import shutil
from importlib.resources import files
from pathlib import Path

import pytest

from vitdfq.quantization.integer.fused import compiled as compiling
from vitdfq.quantization.integer.fused.compiled import cache_folder, compiled

if os.name != "posix":
    pytest.skip("kernels are compiled on POSIX systems", allow_module_level=True)

COMPILER = """#!/bin/sh
echo "$*" >> "{calls}"
case "$*" in
*-E*) echo "$FAKE_MACROS" ;;
*-shared*) for last; do :; done; echo whole > "$last" ;;
*"$FAKE_ERROR") echo "error: it is broken" >&2; echo "more" >&2; exit 3 ;;
esac
"""
TARGET = ("-mavx2",)


@pytest.fixture
def compiler(monkeypatch, tmp_path) -> list[str]:
    script = tmp_path / "compiler"
    script.write_text(COMPILER.format(calls=tmp_path / "calls"))
    script.chmod(0o755)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("FAKE_MACROS", "#define __AVX2__ 1")
    monkeypatch.setenv("FAKE_ERROR", "none")
    return [str(script)]


def calls(compiler: list[str]) -> list[str]:
    return Path(compiler[0]).with_name("calls").read_text().splitlines()


def test_a_library_is_compiled_once(compiler):
    path = compiled(compiler, TARGET)
    assert path.read_text() == "whole\n" and list(path.parent.iterdir()) == [path]
    first = calls(compiler)
    assert len(first) == 2 + len(compiling.SOURCES)  # macros, the sources, the library
    assert compiled(compiler, TARGET) == path
    assert calls(compiler) == [*first, first[0]]


def test_sources_compiler_processor_and_flags_name_the_library(monkeypatch, compiler, tmp_path):
    paths = {compiled(compiler, TARGET)}
    paths.add(compiled(compiler, ("-mavx",)))
    paths.add(compiled([*compiler, "-g"], TARGET))
    with monkeypatch.context() as patch:
        patch.setenv("FAKE_MACROS", "#define __AVX512F__ 1")
        paths.add(compiled(compiler, TARGET))
    with monkeypatch.context() as patch:
        patch.setattr(compiling, "FLAGS", compiling.FLAGS[:-1])
        paths.add(compiled(compiler, TARGET))
    changed = tmp_path / "sources"
    shutil.copytree(str(files("vitdfq.quantization.integer.fused")), changed)
    monkeypatch.setattr(compiling, "files", lambda package: changed)
    assert compiled(compiler, TARGET) in paths  # of the same sources
    for name in ("common.h", *compiling.SOURCES):
        (changed / name).write_text((changed / name).read_text() + "\n")
        paths.add(compiled(compiler, TARGET))
    assert len(paths) == 5 + 1 + len(compiling.SOURCES)


@pytest.mark.parametrize("where", ["block.c", "linear.c"])
def test_a_compiler_that_fails_leaves_nothing(monkeypatch, compiler, where):
    monkeypatch.setenv("FAKE_ERROR", where)
    with pytest.raises(OSError, match=r"compiler ends with status 3: error: it is broken$"):
        compiled(compiler, TARGET)
    assert not list(cache_folder().iterdir())


def test_two_processes_compile_at_once(monkeypatch, compiler):
    """The second one ends while the first one links: both get the whole library."""
    run, others = compiling._run, []

    def run_and_be_overtaken(*commands, folder=None):
        if "-shared" in commands[0] and not others:
            others.append(None)
            others[0] = compiled(compiler, TARGET)
        return run(*commands, folder=folder)

    monkeypatch.setattr(compiling, "_run", run_and_be_overtaken)
    path = compiled(compiler, TARGET)
    assert others == [path]
    assert sum("-shared" in call for call in calls(compiler)) == 2
    assert path.read_text() == "whole\n" and list(path.parent.iterdir()) == [path]


def test_the_folder_is_the_users_own(monkeypatch, compiler):
    before = os.umask(0)
    try:
        folder = compiled(compiler, TARGET).parent
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == 0o700
    for mode in (0o770, 0o702):
        folder.chmod(mode)
        with pytest.raises(OSError, match="others can write to it"):
            compiled(compiler, TARGET)
    folder.chmod(0o700)
    monkeypatch.setattr(os, "geteuid", lambda: folder.stat().st_uid + 1)
    with pytest.raises(OSError, match="belongs to another user"):
        compiled(compiler, TARGET)
