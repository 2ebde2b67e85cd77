"""AudioMNIST's 30,000 recordings through the whole pipeline, and ESC-50's 2,000 through the transformer's folds, on stand-ins of their layout and sizes.

    SPECGEN_DATA=... python benchmarks/standins.py [--only audiomnist,esc50,training] [--preset small] [--out runs/standins]

The stand-ins are made once under --out. `audiomnist`: FSDD's recordings at 48 kHz, in folders 01 ... 60 of 500 wavs; every speaker is one of FSDD's six at
another speed. `esc50`: ESC-10's clips as 44.1 kHz wavs, at five speeds for five classes each. Only their sizes are those of the real ones, so their scores
say nothing. The runs are watched from outside: proportional memory and processor time of all processes, once a second. `results/standins.csv` has, for each
stage of the pipeline and for the folds, seconds, processor seconds and the largest memory; `results/standins_left.csv` what the bar of the pipeline, and of a
training, said was left, and what was.
"""
import argparse
import re
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import soundfile as sf
import soxr
from common import enter, machine, memory, processor_seconds
from tqdm.auto import tqdm

from specgen.core import write_table
from specgen.datasets import load_recordings
from specgen.pipeline import STAGES

RESULTS = Path(__file__).parent / "results"


def make_audiomnist(root, speakers=60):
    "Write a folder of 10 digits x 50 takes for each speaker, 48 kHz, 16 bit; folders that are there stay."
    fsdd = load_recordings("fsdd")
    voices, clips = sorted(set(fsdd.speakers)), {}
    for item in fsdd:
        clips.setdefault((item.speaker, item.label), []).append(item.path)
    for k in tqdm(range(1, speakers + 1), "stand-in"):
        folder = root / "data" / f"{k:02d}"
        if folder.is_dir():
            continue
        part = folder.with_name(f".{folder.name}")
        part.mkdir(parents=True, exist_ok=True)
        speed = 0.8 + 0.4 * (k - 1) / max(1, speakers - 1)
        for digit in range(10):
            for take, path in enumerate(clips[voices[k % len(voices)], str(digit)]):
                y, rate = sf.read(path)
                sf.write(part / f"{digit}_{k:02d}_{take}.wav", soxr.resample(y, rate * speed, 48000), 48000)
        part.rename(folder)


def make_esc50(root):
    "Write `audio/` and `meta/esc50.csv`: 50 classes of 40 clips of 5 s, 44.1 kHz, 16 bit."
    rows = []
    (root / "audio").mkdir(parents=True, exist_ok=True)
    for item in tqdm(load_recordings("esc10"), "stand-in"):
        clip, target = item.path.stem.rsplit("-", 1)
        y = None
        for k in range(5):
            name = f"{clip}-{5 * int(target) + k}.wav"
            rows.append({"filename": name, "fold": item.fold, "target": 5 * int(target) + k, "category": f"{item.label}_{k}", "esc10": False,
                         "src_file": clip.split("-")[1], "take": clip.split("-")[2]})
            if (root / "audio" / name).is_file():
                continue
            y = sf.read(item.path, dtype="float32")[0] if y is None else y
            moved = soxr.resample(y, 44100 * (0.8 + 0.1 * k), 44100)
            sf.write(root / "audio" / name, np.resize(moved, 5 * 44100), 44100)
    write_table(root / "meta" / "esc50.csv", rows)


def watch(command, out):
    "Run a command of specgen; rows of seconds, processor seconds, bytes (of `memory`) of it and its children, and what its bar says."
    rows, start, spent, bar, command = [], time.time(), {}, BARS.get(command[0], "$^"), [Path(sys.executable).with_name("specgen"), *command]
    with (out / "output.txt").open("w") as file, psutil.Popen(list(map(str, command)), stdout=file, stderr=subprocess.STDOUT) as process:
        while process.poll() is None:
            with suppress(psutil.Error):
                rows.append((time.time(), processor_seconds(process.pid, spent), memory(process.pid)[0], last_word(out / "output.txt", bar)))
            time.sleep(1)
    if process.returncode:
        raise SystemExit(f"the run failed; {out / 'output.txt'} says why")
    return start, rows


def stages(run, start, rows):
    "A row for each stage: from the end of the one before to its own."
    table, before = [], start
    for name in STAGES:
        end = (run / name / "done.json").stat().st_mtime if (run / name / "done.json").is_file() else rows[-1][0]
        own = [row for row in rows if before <= row[0] <= end] or rows[-1:]
        table.append({"stage": name, "seconds": round(end - before, 1), "cpu_seconds": round(own[-1][1] - own[0][1], 1),
                      "largest_gb": round(max(row[2] for row in own) / 1e9, 2)})
        before = end
    return table


def seconds(clock):
    "Seconds of '1:02:03' or '02:03'."
    return sum(int(part) * 60**i for i, part in enumerate(reversed(clock.split(":"))))


BARS = {"run": r"([\d:]+) gone, ([\d:]+) left", "classify": r"classifier:[^\r]*\[([\d:]+)<([\d:]+),"}  # gone and left, by command


def last_word(path, bar):
    "What a bar last said was gone and left, in seconds; None when it hasn't said anything."
    said = re.findall(bar, path.read_text(encoding="utf-8", errors="replace")[-1000:])
    return tuple(map(seconds, said[-1])) if said else None


def promised(run, words):
    """What the bar said was left, and what was: at every tenth of the time, until 0.95 of it.

    `words`: (seconds since 1970, what `last_word` found then); the last one is the end.
    """
    words = [(at, word) for at, word in words if word]
    begin, end, rows = words[0][0] - words[0][1][0], words[-1][0], []
    for share in (0.02, 0.05, *(k / 10 for k in range(1, 10)), 0.95):
        at, (_, left) = next(word for word in words if word[0] - begin >= share * (end - begin))
        rows.append({"run": run, "done": share, "gone": round(at - begin), "said_left": left, "left": round(end - at), "ratio": round(left / (end - at), 2)})
    return rows


def enter_promises(run, rows):
    "Into the table of what bars said."
    left = promised(run, [(at, word) for at, _, _, word in rows])
    enter(RESULTS / "standins_left.csv", left, ("run", "done"))
    for row in left:
        print(row)


def audiomnist(args):
    "The pipeline, stage by stage."
    make_audiomnist(args.out / "audiomnist")
    run = args.out / f"run_{args.preset}"
    command = ["run", "--dataset", "audiomnist", "--root", args.out / "audiomnist", "--preset", args.preset, "--out", run]
    start, rows = watch(command, args.out)
    table = stages(run, start, rows)
    enter_promises(f"run, AudioMNIST, {args.preset}", rows)
    return [{"dataset": "audiomnist", "recordings": 30_000, "preset": args.preset, **row} for row in table]


def esc50(args):
    "Five folds of the transformer."
    make_esc50(args.out / "esc50")
    start, rows = watch(["transformer", "cv", "--dataset", "esc50", "--root", args.out / "esc50", "--preset", "quick", "--out", args.out / "folds"], args.out)
    print((args.out / "output.txt").read_text()[-200:])
    return [{"dataset": "esc50", "recordings": 2000, "preset": "quick", "stage": "five folds", "seconds": round(rows[-1][0] - start, 1),
             "cpu_seconds": round(rows[-1][1], 1), "largest_gb": round(max(row[2] for row in rows) / 1e9, 2)}]


def training(args):
    "One training: the classifier of FSDD, preset `words/small`."
    start, rows = watch(["classify", "fit", "--dataset", "fsdd", "--preset", "small", "--out", args.out / "classifier"], args.out)
    enter_promises("classify fit, FSDD, small", [row for row in rows if row[3]])
    return []


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="audiomnist,esc50,training", help="which, with commas between")
    parser.add_argument("--preset", default="small", help="of the pipeline")
    parser.add_argument("--out", type=Path, default=Path("runs/standins"), help="of the stand-ins and the runs; a finished run is not run again")
    args = parser.parse_args()
    print(machine())
    for name in args.only.split(","):
        rows = {"audiomnist": audiomnist, "esc50": esc50, "training": training}[name](args)
        enter(RESULTS / "standins.csv", rows, ("dataset", "stage"))
        for row in rows:
            print(row)
