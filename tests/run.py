"""Everything that has to run: each notebook's fast cells and the files of tests, two jobs at a time with one thread each, a line as each finishes.

The Hub is not asked for anything: where there is no network, its package tries for twenty seconds.

`python tests/run.py` runs all; further words pick the jobs whose names hold one of them. `python tests/run.py --pretend ...` runs them as on a machine with a
GPU, of which there need be none (see pretend.py), several times as slow. Torch processes that share cores with more threads slow one another down many times
over: hence one thread each.
"""
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

ROOT = Path(__file__).parents[1]
WORKERS = 2
BIN = Path(sys.executable).parent
LONG = tuple("test_exact_inverse test_pipeline test_notebook 22_ test_training 31_ 20_ 15_ test_devices test_gan 32_ 19_ 13_".split())  # first, each alone
TOGETHER = 6  # other files of tests, and other notebooks, that share a process, whose start takes as long as many a file


def jobs(words: list[str], pretend: bool = False) -> dict[str, list]:
    "A command for each group of notebooks or of files of tests, of those whose names hold one of the words."
    paths = [path for folder, kind in (("tests", "test_*.py"), ("nbs", "*.ipynb")) for path in sorted((ROOT / folder).glob(kind))]
    paths = [path for path in paths if not words or any(word in path.name for word in words)]
    alone = sorted((path for path in paths if path.name.startswith(LONG)), key=lambda path: next(k for k, x in enumerate(LONG) if path.name.startswith(x)))
    rest = [path for path in paths if path not in alone]
    groups = [[path] for path in alone]
    for suffix in (".py", ".ipynb"):
        files = [path for path in rest if path.suffix == suffix]
        each = 1 if pretend and suffix == ".ipynb" else TOGETHER
        groups += [files[k::-(-len(files) // each)] for k in range(-(-len(files) // each))]
    return {", ".join(path.name for path in group): command(group, pretend) for group in groups}


def command(group: list[Path], pretend: bool) -> list:
    if group[0].suffix == ".py":
        return [sys.executable, "-m", "pytest", "-q", *group]
    if pretend:
        return [sys.executable, ROOT / "tests" / "pretend.py", *group]
    names = "|".join(re.escape(path.name) for path in group)
    return [BIN / "nbdev_test", "--n_workers", "0", "--timing", "--path", ROOT / "nbs", "--file_re", f"^({names})$"]


def run(name: str, command: list) -> tuple[str, float, subprocess.CompletedProcess]:
    "Run one job with one thread; what it printed comes along."
    start = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg", "HF_HUB_OFFLINE": "1"},
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
