"Damaged input: some dozens of cases of each kind by `fuzz.py`, all in one process with a limit of memory; `make fuzz` runs thousands."
import subprocess
import sys
from pathlib import Path

CASES = 30  # of each kind


def test_damaged_input_is_refused_or_answered():
    done = subprocess.run([sys.executable, Path(__file__).with_name("fuzz.py"), str(CASES)], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0 and done.stdout.endswith("0 wrong\n"), done.stdout + done.stderr[-2000:]
    assert done.stdout.count(" taken ") == 8
