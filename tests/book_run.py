"""Every cell of the notebooks run again, slow ones too, and what they print, draw and play kept: `make book`.

`python tests/book_run.py` runs all notebooks, words pick those whose names hold one of them: two at a time, one thread each, a line as each finishes. Pictures
are made to fit the size budget, and every output gets its stamp (`book_keep.py`). Trainings of ten minutes and more run where the environment has
SPECGEN_TRAIN=1. A cell that is left out, for those or for want of data, keeps the outputs it had; a notebook with an error stays as it was.
"""
import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from book import UNKNOWN, code_cells, load, stale
from book_keep import is_slow, keep_texts, mark, save, shrink, without_widgets
from figures import ROOT

from specgen.notebook import LEFT_OUT

WORKERS = 2


def minutes(path: Path) -> float:
    "How long a notebook's slow cells say they take."
    return sum(float(m) for _, code, _ in code_cells(load(path)) for m in re.findall(r"^needs\(.*minutes=([\d.]+)", code, re.M))


def left_out(code: str, outputs: list[dict]) -> bool:
    return is_slow(code) and any(line.startswith(LEFT_OUT) for output in outputs for line in "".join(output.get("text", "")).splitlines())


def without_bars(outputs: list[dict]) -> list[dict]:
    "Outputs without progress bars, which were for those who waited, and without this machine's folder in warnings."
    kept = []
    for output in outputs:
        if output.get("name") == "stderr":
            lines = re.split(r"[\r\n]+", "".join(output["text"]).replace(f"{ROOT}/", ""))
            output = output | {"text": "\n".join(line for line in lines if line.strip() and not re.search(r"\d+% ?\|", line))}
        kept += [output] if output.get("text", "bars") else []
    return kept


def keep(path: Path, made: dict) -> str:
    "Put the outputs of a notebook that was run in place of the kept ones, those of cells that were left out aside; what was done, in words."
    notebook, outputs, skipped = load(path), {}, set()
    for cell, code, new in code_cells(made):
        skipped |= {cell} if left_out(code, new) else set()
        outputs[cell] = [{k: None if k == "execution_count" else v for k, v in output.items()} for output in without_bars(without_widgets(new))]
    for cell in notebook["cells"]:
        if cell["id"] in outputs.keys() - skipped:
            cell["outputs"] = keep_texts(outputs[cell["id"]], cell["outputs"])
    notebook["metadata"].pop("widgets", None)
    size = shrink(notebook)
    mark(notebook, outputs.keys() - skipped)
    mark(notebook, skipped & {cell for cell, _ in stale(notebook)}, UNKNOWN)
    save(path, notebook)
    return f"{len(outputs) - len(skipped)} cells run, {len(skipped)} left out, {size:,} bytes"


def run(path: Path) -> tuple[float, str, bool]:
    "Run a notebook beside where it lies: seconds, what was done or went wrong, and whether it went wrong."
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as place:
        command = [sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute", "--output-dir", place, "--output", path.name, path]
        done = subprocess.run(command, cwd=path.parent, env={"OMP_NUM_THREADS": "1", **os.environ}, capture_output=True, text=True)
        bad = done.returncode != 0
        said = done.stderr[-2000:] if bad else keep(path, load(Path(place) / path.name))
    return time.perf_counter() - start, said, bad


def main(words: list[str]):
    paths = [path for path in (ROOT / "nbs").glob("*.ipynb") if not words or any(word in path.name for word in words)]
    start, failed = time.perf_counter(), []
    with ThreadPoolExecutor(WORKERS) as pool:
        jobs = {pool.submit(run, path): path.stem for path in sorted(paths, key=lambda path: (-minutes(path), path.name))}
        for k, job in enumerate(as_completed(jobs), 1):
            seconds, said, bad = job.result()
            failed += [jobs[job]] if bad else []
            print(f"[{k}/{len(jobs)}] {seconds:5.0f} s  {jobs[job]}  {'FAILED: ' if bad else ''}{said}", flush=True)
    print(f"{len(jobs)} notebooks in {(time.perf_counter() - start) / 60:.1f} minutes; failed: {', '.join(failed) or 'none'}")
    sys.exit(bool(failed) or not jobs)


if __name__ == "__main__":
    main(sys.argv[1:])
