"""AudioMNIST's 30,000 recordings through the whole pipeline, and ESC-50's 2,000 through the transformer's folds, on stand-ins of their layout and sizes.

    SPECGEN_DATA=... python benchmarks/standins.py [--only audiomnist,esc50] [--preset small] [--out runs/standins]

The stand-ins are made once under --out. `audiomnist`: FSDD's recordings at 48 kHz, in folders 01 ... 60 of 500 wavs; every speaker is one of FSDD's six at
another speed. `esc50`: ESC-10's clips as 44.1 kHz wavs, at five speeds for five classes each. Only their sizes are those of the real ones, so their scores
say nothing. The runs are watched from outside: proportional memory and processor time of all processes, once a second. `results/standins.csv` has, for each
stage of the pipeline and for the folds, seconds, processor seconds and the largest memory; `results/standins_left.csv` what the bar said was left.
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
    "Run a command of specgen; rows of seconds, processor seconds and bytes (of `memory`) of it and its children."
    rows, start, spent, command = [], time.time(), {}, [Path(sys.executable).with_name("specgen"), *command]
    with (out / "output.txt").open("w") as file, psutil.Popen(list(map(str, command)), stdout=file, stderr=subprocess.STDOUT) as process:
        while process.poll() is None:
            with suppress(psutil.Error):
                rows.append((time.time(), processor_seconds(process.pid, spent), memory(process.pid)[0]))
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


def promised(text):
    """What the bar said was left, and what was: the first word after each twentieth of the time.

    The bar's last word is taken for the end.
    """
    said = [(seconds(gone), seconds(left)) for gone, left in re.findall(r"%\|? ?\|[^|]*\| (?:\d+/\d+ \[)?([\d:]+)(?: gone, |<)([\d:]+)", text)]
    end, rows = said[-1][0], []
    for twentieth in range(1, 20):
        gone, left = next(word for word in said if 20 * word[0] >= twentieth * end)
        rows.append({"percent": round(100 * gone / end), "gone": gone, "said_left": left, "left": end - gone, "ratio": round(left / max(1, end - gone), 2)})
    return rows


def audiomnist(args):
    "The pipeline, stage by stage."
    make_audiomnist(args.out / "audiomnist")
    run = args.out / f"run_{args.preset}"
    command = ["run", "--dataset", "audiomnist", "--root", args.out / "audiomnist", "--preset", args.preset, "--out", run]
    start, rows = watch(command, args.out)
    table, left = stages(run, start, rows), promised((args.out / "output.txt").read_text())
    write_table(RESULTS / "standins_left.csv", left)
    for row in left:
        print(row)
    return [{"dataset": "audiomnist", "recordings": 30_000, "preset": args.preset, **row} for row in table]


def esc50(args):
    "Five folds of the transformer."
    make_esc50(args.out / "esc50")
    start, rows = watch(["transformer", "cv", "--dataset", "esc50", "--root", args.out / "esc50", "--preset", "quick", "--out", args.out / "folds"], args.out)
    print((args.out / "output.txt").read_text()[-200:])
    return [{"dataset": "esc50", "recordings": 2000, "preset": "quick", "stage": "five folds", "seconds": round(rows[-1][0] - start, 1),
             "cpu_seconds": round(rows[-1][1], 1), "largest_gb": round(max(row[2] for row in rows) / 1e9, 2)}]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="audiomnist,esc50", help="which, with commas between")
    parser.add_argument("--preset", default="small", help="of the pipeline")
    parser.add_argument("--out", type=Path, default=Path("runs/standins"), help="of the stand-ins and the runs; a finished run is not run again")
    args = parser.parse_args()
    print(machine())
    for name in args.only.split(","):
        rows = {"audiomnist": audiomnist, "esc50": esc50}[name](args)
        enter(RESULTS / "standins.csv", rows, ("dataset", "stage"))
        for row in rows:
            print(row)
