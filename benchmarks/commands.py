"""How long the README's two commands take in a fresh clone with an empty cache: benchmarks/results/commands.csv.

    python benchmarks/commands.py

The first step installs everything (pip's own cache is used if there is one), the second trains and scores, the third runs all that is checked.
"""
import os
import subprocess
import tempfile
import time
from pathlib import Path

from common import machine

from specgen.core import write_table

ROOT = Path(__file__).parents[1]
STEPS = {"make run, its installation alone": ".venv/ready", "make run, once installed": "run", "make test, once installed": "test"}
OWN = ("SPECGEN_DATA", "SPECGEN_TRAIN", "PYTHONPATH", "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "VIRTUAL_ENV")


def main():
    rows = []
    with tempfile.TemporaryDirectory() as place:
        clone = Path(place) / "specgen"
        subprocess.run(["git", "clone", "-q", ROOT, clone], check=True)
        env = {name: value for name, value in os.environ.items() if name not in OWN} | {"SPECGEN_CACHE": str(Path(place) / "cache")}
        for name, target in STEPS.items():
            start = time.perf_counter()
            subprocess.run(["make", target], cwd=clone, env=env, check=True)
            rows.append({"command": name, "seconds": round(time.perf_counter() - start), "machine": ", ".join(machine().split(", ")[:2])})
    write_table(ROOT / "benchmarks" / "results" / "commands.csv", rows, list(rows[0]))


if __name__ == "__main__":
    main()
