"""Readers of rows that are left in the middle, when their process ends."""

import subprocess
import sys

import pytest

LEAVING = {
    "closed": "with closed_at_exit(rows()) as reader: next(reader)",
    "held": "held = closed_at_exit(rows()); reader = held.__enter__(); next(reader)",
}


@pytest.mark.parametrize("leaving", LEAVING.values(), ids=LEAVING)
def test_a_read_under_way_ends_before_the_process(leaving):
    """Reads go on for a moment in another thread, as pyarrow's do; Python ends such threads where they stand."""
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
