"What several benchmarks need: the machine's name, what another process uses, a median time, means over seeds, rows of tables, curves of trainings."
import csv
import os
import platform
import statistics
import time
from contextlib import suppress
from pathlib import Path

import psutil
import torch

from specgen.core import read_table, write_table


def machine():
    "One line: processor, cores, torch, threads, load."
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    name = names[0] if names else platform.processor()
    return f"{name}, {os.cpu_count()} cores, torch {torch.__version__}, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}"


def memory(pid):
    "Bytes of a process and its children: their proportional set sizes, and the part of those that is files (Linux)."
    total = files = 0
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        with suppress(psutil.Error, OSError, KeyError), open(f"/proc/{process.pid}/smaps_rollup") as file:
            sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in file if line.startswith("Pss")}
            total, files = total + sizes["Pss"], files + sizes["Pss_File"]
    return total, files


def processor_seconds(pid, spent):
    "Seconds that a process and its children have computed; `spent` keeps those of children that have ended."
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        with suppress(psutil.Error):
            spent[process.pid] = sum(process.cpu_times()[:2])
    return sum(spent.values())


def median_seconds(work, repeats=7):
    "Median seconds of calls after a first one that doesn't count."
    work()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def seed_means(runs, scores=("label_accuracy", "frechet_distance")):
    "Rows of presets, seeds and classifiers -> a row of each preset and classifier: mean and standard deviation of the scores over the seeds."
    groups = {}
    for run in runs:
        groups.setdefault((run["preset"], run["classifier"]), []).append(run)
    rows = []
    for (preset, kind), own in groups.items():
        spread = {f"{key}{name}": f([run[key] for run in own]) for key in scores for name, f in (("", statistics.mean), ("_spread", statistics.stdev))}
        rows.append({"preset": preset, "classifier": kind, "seeds": len(own), "n": own[0]["n"], **spread})
    return rows


def numbers_first(key):
    "Sorts numbers by their size, then words by the alphabet."
    return [(0, float(part), "") if part.replace(".", "", 1).isdigit() else (1, 0.0, part) for part in key]


def enter(path, rows, keys):
    "Enter rows into a table, in place of those with the same keys, sorted by them; its columns stay."
    known = read_table(path) if path.is_file() else []
    new = {tuple(str(row[key]) for key in keys): row for row in [*known, *rows]}
    columns = list((known or rows)[0])
    write_table(path, [{column: new[key][column] for column in columns} for key in sorted(new, key=numbers_first)], columns)


def curve(title, folder, columns):
    "Rows of a training's history: how each number went."
    with (folder / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{"training": title, "step": row["step"], "name": name, "value": f"{float(row[name]):.5g}"} for row in rows for name in columns if row.get(name)]
