"""Everything that has to run: each notebook's fast cells and each file of tests, two at a time with one thread each, a line as each finishes.

`python tests/run.py` runs all; further words pick the jobs whose names hold one of them. `python tests/run.py --pretend ...` runs them as on a machine with a
GPU, of which there need be none (see pretend.py), several times as slow. Torch processes that share cores with more threads slow one another down many times
over: hence one thread each.
"""
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

ROOT = Path(__file__).parents[1]
WORKERS = 2
BIN = Path(sys.executable).parent
LONG = tuple("test_notebook test_pipeline 31_ 22_ 20_ test_training test_gan test_vae test_spectrogram 28_ 29_ 18_ 13_ 03_".split())  # long: first


def jobs(pretend: bool = False) -> dict[str, list]:
    "A command for every notebook and every file of tests."
    notebook = [sys.executable, ROOT / "tests" / "pretend.py"] if pretend else [BIN / "nbdev_test", "--n_workers", "0", "--path"]
    found = {path.name: [*notebook, path] for path in sorted((ROOT / "nbs").glob("*.ipynb"))}
    found |= {path.name: [sys.executable, "-m", "pytest", "-q", path] for path in sorted((ROOT / "tests").glob("test_*.py"))}
    return dict(sorted(found.items(), key=lambda job: next((k for k, start in enumerate(LONG) if job[0].startswith(start)), len(LONG))))


def run(name: str, command: list) -> tuple[str, float, subprocess.CompletedProcess]:
    "Run one job with one thread; what it printed comes along."
    start = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"},
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return name, time.perf_counter() - start, done


def main(words: list[str]):
    start, failed = time.perf_counter(), []
    if pretend := words[:1] == ["--pretend"]:
        os.environ["SPECGEN_PRETEND"], words = "1", words[1:]
    picked = {name: command for name, command in jobs(pretend).items() if not words or any(word in name for word in words)}
    with ThreadPoolExecutor(WORKERS) as pool:
        for k, future in enumerate(as_completed(pool.submit(run, *job) for job in picked.items()), 1):
            name, seconds, done = future.result()
            bad = done.returncode != 0
            tail = done.stdout.strip().splitlines()[-1:] if name.endswith(".py") else []
            print(f"[{k}/{len(picked)}] {name:32s} {seconds:5.0f} s  {'FAILED' if bad else 'passed'}  {' '.join(tail)}", flush=True)
            if bad:
                failed.append(name)
                print(done.stdout, flush=True)
    print(f"{len(picked)} jobs in {time.perf_counter() - start:.0f} s; failed: {', '.join(failed) or 'none'}")
    print(f"{len(picked) - len(failed)} passed, {len(failed)} failed")
    sys.exit(bool(failed) or not picked)


if __name__ == "__main__":
    main(sys.argv[1:])
