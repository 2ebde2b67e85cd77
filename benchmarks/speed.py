"""Speed against the peers, every job in one run: `make bench`, at most twenty minutes on two quiet cores.

    [SPECGEN_DATA=...] python benchmarks/speed.py [--only log_mel,hifi_gan] [--threads 1,2] [--out results/speed.csv] [--seconds 8] [--compare] [--small]
    python benchmarks/speed.py --device cuda --threads 1 --out benchmarks/results/speed_gpu.csv       # what runs on the device, beside peers there

A process for each job (`speed_jobs.py`) and number of threads times the job's works by turns, after a call that doesn't count. Memory that is freed stays with
the process, for all methods alike: to ask the system for it again would be most of the time of some. A row is one job, method and
number of threads: median seconds of a call, the rate, and the ratio to its peer: the median over the rounds of the peer's seconds by its own, so that a
load which comes and goes weighs on both. Results go to benchmarks/results/speed.csv; with --only, in place of the same rows. --compare prints the ratios
beside those of the table that was there, and the largest difference. --small runs everything once, on little: a check that it runs, no measurement.
"""
import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "speed.csv"
WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000"}  # of threads, as the command line sets it
COLUMNS = ("job", "method", "threads", "seconds", "spread", "rate", "unit", "ratio", "peer", "goal", "met", "note", "machine")


def rounds_of(job, small, budget=8, finish=lambda: None):
    """Seconds of every work in every round; each second round goes backwards. Rounds end with the budget of seconds, if they are enough by then.
    `finish` waits for what a device still computes."""
    seconds, names = {name: [] for name in job.works}, list(job.works)
    for name in names if job.warm else ():
        job.works[name]()
        finish()
    least, most = (1, 1) if small else job.rounds
    start, n = time.perf_counter(), 0
    while n < least or n < most and (time.perf_counter() - start) * (n + 1) / n < budget:
        for name in names[:: -1 if n % 2 else 1]:
            tick = time.perf_counter()
            own = job.works[name]()
            finish()
            seconds[name].append(own if isinstance(own, float) else time.perf_counter() - tick)
        n += 1
    for name, choices in job.best.items():
        seconds[name] = seconds[min(choices, key=lambda choice: statistics.median(seconds[choice]))]
    return seconds


def rows_of(job, seconds, threads, machine):
    "The job's rows of the table."
    rows = []
    for name, own in seconds.items():
        median, amount = statistics.median(own), job.much(job.best.get(name, [name])[0])
        peer, goal = job.peers.get(name, ("", None))
        row = dict(job=job.name, method=name, threads=threads, seconds=f"{median:.4g}", spread=f"{(max(own) - min(own)) / median:.2f}",
                   rate=f"{amount / median:.4g}", unit=job.unit, peer=peer, machine=machine, note=job.notes[name]() if name in job.notes else "")
        if peer:
            others = [amount] * len(own) if peer == "real time" else seconds[peer]
            ratio = round(statistics.median(other / mine for other, mine in zip(others, own, strict=True)), 2)
            row |= dict(ratio=f"{ratio:.2f}", goal=goal or "", met="" if goal is None else "yes" if ratio >= goal else "no")
        rows.append(row)
    return rows


def measure(only, threads, small, budget, out, device):
    "Time the jobs in this process, and write their rows."
    import torch
    from common import machine
    from speed_jobs import JOBS, corpus

    from specgen.core import write_table

    torch.set_num_threads(threads)
    rows, device = [], torch.device(device)
    wait = getattr(torch, device.type).synchronize
    finish, where = (lambda: None, machine()) if device.type == "cpu" else (wait, f"{torch.cuda.get_device_name(device)}, {machine()}")
    with tempfile.TemporaryDirectory() as scratch:
        for make in JOBS:
            if make.__name__ in only:
                tick = time.perf_counter()
                torch.manual_seed(0)
                job = make(small, threads, device, *([Path(scratch)] if make is corpus else []))
                rows += rows_of(job, rounds_of(job, small, budget, finish), threads, where)
                print(f"{threads} threads, {job.name}: {time.perf_counter() - tick:.0f} s", file=sys.stderr, flush=True)
                write_table(out, rows, COLUMNS)


def memory(name):
    "MB of this process: VmRSS now, or VmHWM, the most since it was last set back; where the system doesn't tell, the most ever."
    status = Path("/proc/self/status")
    lines = [line.split() for line in status.read_text().splitlines()] if status.is_file() else []
    return next((int(line[1]) / 1024 for line in lines if line[0] == f"{name}:"), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def prepare(who, folder, threads):
    "Prepare a dataset; print the seconds, and by how many MB the memory's peak rose."
    os.environ["SPECGEN_CACHE"] = tempfile.mkdtemp(dir=folder.parent)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, list(os.sched_getaffinity(0))[:threads])
    from speed_jobs import librosa_corpus

    from specgen.datasets import load_recordings
    from specgen.filtering import filter_recordings

    paths = sorted(folder.glob("*/*.wav"))
    librosa_corpus(paths[:1])  # librosa imports late
    if Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM back to VmRSS
    before, tick = memory("VmRSS"), time.perf_counter()
    if who.startswith("librosa"):
        specs = librosa_corpus(paths, stretched=who == "librosa")
    else:
        recordings = load_recordings(folder)
        specs = filter_recordings(recordings, range(len(recordings)), [], drop=0).spectrograms
    seconds = time.perf_counter() - tick
    assert tuple(specs.shape[1:]) == (256, 24)
    print(seconds, memory("VmHWM") - before)


def run(threads, job, arguments, part):
    "Measure a job in a process of its own, which sees so many threads from its start."
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    kept = dict.fromkeys(("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"), "10000000000")  # bytes; of glibc, others ignore it
    command = [sys.executable, __file__, "--measure", "--threads", str(threads), "--only", job, "--out", str(part)]
    command += ["--seconds", str(arguments.seconds), "--device", arguments.device, *["--small"] * arguments.small]
    subprocess.run(command, check=True, env={**os.environ, **dict.fromkeys(names, str(threads)), **kept, **WAITING})


def show(rows):
    "Print the table."
    for job in dict.fromkeys(row["job"] for row in rows):
        print(f"\n{job}")
        for row in (row for row in rows if row["job"] == job):
            versus = f"{row['ratio']:>8} x {row['peer']}" if row["peer"] else ""
            goal = f"  (goal {row['goal']}: {'met' if row['met'] == 'yes' else 'not met'})" if row["goal"] else ""
            rate = f"{float(row['rate']):>10.1f} {row['unit']}/s"
            print(f"  {row['threads']} thread{'s' if row['threads'] != '1' else ' '} {row['method']:50}{rate}{versus}{goal}  {row['note']}")


def compare(before, rows):
    "Print the ratios of two runs, and by how much they differ at most."
    old, worst = {key(row): row["ratio"] for row in before}, (0.0, ())
    print("\nratios: before, now")
    for row in rows:
        if row["ratio"] and old.get(key(row)):
            a, b = float(old[key(row)]), float(row["ratio"])
            worst = max(worst, (abs(b / a - 1), key(row)))
            print(f"  {row['job']}, {row['method']}, {row['threads']} threads: {a:.2f}, {b:.2f}")
    if worst[1]:
        print(f"largest difference: {worst[0]:.0%}, {', '.join(worst[1])}")


def key(row):
    return row["job"], row["method"], str(row["threads"])


def bench(arguments):
    "Every job by every number of threads, into one table."
    from speed_jobs import JOBS

    from specgen.core import read_table, write_table

    known = [job.__name__ for job in JOBS if arguments.device == "cpu" or job.__name__ != "corpus"]
    before, rows, tick = read_table(RESULTS) if RESULTS.is_file() else [], [], time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        for threads, job in product(arguments.threads.split(","), [name for name in arguments.only.split(",") if name] or known):
            part = Path(folder) / f"{job}_{threads}.csv"
            run(int(threads), job, arguments, part)
            rows += read_table(part)
    if not os.environ.get("SPECGEN_DATA"):
        print("SPECGEN_DATA names no folder of recordings: phase retrieval and the exact inverse took made-up ones")
    print(rows[0]["machine"])
    show(rows)
    print(f"\n{(time.perf_counter() - tick) / 60:.1f} minutes; {sum(row['met'] == 'yes' for row in rows)} of {sum(row['met'] != '' for row in rows)} goals met")
    if arguments.compare:
        compare(before, rows)
    elif not arguments.small or arguments.out != RESULTS:
        new = {key(row) for row in rows}
        kept = [row for row in before if arguments.only and arguments.out == RESULTS and key(row) not in new]
        write_table(arguments.out, kept + rows, COLUMNS)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="names of jobs, functions of speed_jobs.py")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--device", default="cpu", help="where torch computes: cpu, cuda")
    parser.add_argument("--compare", action="store_true", help="beside the table that is there, which stays")
    parser.add_argument("--seconds", type=float, default=8, help="for the rounds of a job")
    parser.add_argument("--small", action="store_true", help="once, on little")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--prepare", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.prepare:
        prepare(args.prepare[0], Path(args.prepare[1]), int(args.threads))
    elif args.measure:
        measure([name for name in args.only.split(",") if name], int(args.threads), args.small, args.seconds, args.out, args.device)
    else:
        bench(args)
