"""What CI checks beside the tests: formatting, lint, types. `python tools/check.py` before you commit; `--fix` repairs."""

import subprocess
import sys

FIX = "--fix" in sys.argv
COMMANDS = [
    ["ruff", "format", *([] if FIX else ["--check"]), "."],
    ["ruff", "check", *(["--fix"] if FIX else []), "."],
    ["pyright"],
]
if "--no-tests" not in sys.argv:
    COMMANDS.append([sys.executable, "-m", "pytest", "-q"])

failed = False
for command in COMMANDS:
    print("$", " ".join(command), flush=True)
    failed |= subprocess.run(command).returncode != 0
sys.exit(failed)
