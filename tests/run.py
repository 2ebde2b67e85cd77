"""Everything that has to run: each notebook's fast cells and the files of tests, two jobs at a time with one thread each, a line as each finishes.

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
LONG = tuple("test_pipeline test_notebook 22_ test_training 31_ 20_ 15_ test_devices test_gan 32_ 28_ 19_ 13_".split())  # first, each alone
TOGETHER = 6  # other files of tests that share a process, whose start takes as long as many a file


def jobs(words: list[str], pretend: bool = False) -> dict[str, list]:
    "A command for every notebook and for the files of tests, of those whose names hold one of the words."
    notebook = [sys.executable, ROOT / "tests" / "pretend.py"] if pretend else [BIN / "nbdev_test", "--n_workers", "0", "--path"]
    paths = [path for folder, kind in (("tests", "test_*.py"), ("nbs", "*.ipynb")) for path in sorted((ROOT / folder).glob(kind))]
    paths = [path for path in paths if not words or any(word in path.name for word in words)]
    alone = sorted((path for path in paths if path.name.startswith(LONG)), key=lambda path: next(k for k, x in enumerate(LONG) if path.name.startswith(x)))
    tests = [path for path in paths if path.suffix == ".py" and path not in alone]
    groups = [[path] for path in alone] + [tests[k::-(-len(tests) // TOGETHER)] for k in range(-(-len(tests) // TOGETHER))]
    groups += [[path] for path in paths if path not in alone and path not in tests]
    command = {".py": [sys.executable, "-m", "pytest", "-q"], ".ipynb": notebook}
    return {", ".join(path.name for path in group): [*command[group[0].suffix], *group] for group in groups}


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
    picked = jobs(words, pretend)
    with ThreadPoolExecutor(WORKERS) as pool:
        for k, future in enumerate(as_completed(pool.submit(run, *job) for job in picked.items()), 1):
            name, seconds, done = future.result()
            bad = done.returncode != 0
            tail = done.stdout.strip().splitlines()[-1:] if name.endswith(".py") else []
            print(f"[{k}/{len(picked)}] {seconds:4.0f} s  {'FAILED' if bad else 'passed'}  {name}  {' '.join(tail)}", flush=True)
            if bad:
                failed.append(name)
                print(done.stdout, flush=True)
    print(f"{len(picked)} jobs in {time.perf_counter() - start:.0f} s; failed: {', '.join(failed) or 'none'}")
    print(f"{len(picked) - len(failed)} passed, {len(failed)} failed")
    sys.exit(bool(failed) or not picked)


if __name__ == "__main__":
    main(sys.argv[1:])
