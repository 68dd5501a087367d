"""All checks of CI: formatting, lint, types, tests. Run it before a commit; `--fix` formats, `--no-tests` omits the tests."""

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
