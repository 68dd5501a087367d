"""Unfinished readers of rows at the end of their process."""

import subprocess
import sys

import pytest

LEAVING = {
    "closed": "with closed_at_exit(rows()) as reader: next(reader)",
    "held": "held = closed_at_exit(rows()); reader = held.__enter__(); next(reader)",
}


@pytest.mark.parametrize("leaving", LEAVING.values(), ids=LEAVING)
def test_a_pending_read_ends_before_the_process(leaving):
    """A pending read continues in another thread for a moment, as in pyarrow; Python ends such threads at once."""
    code = f"""
import threading, time
from vitdfq.data.readers import closed_at_exit

def read():
    time.sleep(0.02)
    print("read", flush=True)

def rows():
    try:
        yield 0
    finally:
        threading.Thread(target=read, daemon=True).start()

{leaving}
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (0, "read\n", "")
