"What every benchmark needs: the machine's name, and a median time."
import os
import platform
import statistics
import time
from pathlib import Path

import torch


def machine():
    "One line: processor, cores, torch, threads, load."
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    name = names[0] if names else platform.processor()
    return f"{name}, {os.cpu_count()} cores, torch {torch.__version__}, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}"


def median_seconds(work, repeats=7):
    "Median seconds of calls after a first one that doesn't count."
    work()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)
