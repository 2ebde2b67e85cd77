"""AudioMNIST's 30,000 recordings through the whole pipeline, on a stand-in with its layout, sampling rate and sizes.

    SPECGEN_DATA=... python benchmarks/audiomnist.py [--speakers 60] [--preset small] [--out runs/audiomnist]

The stand-in is made once under --out: FSDD's recordings at 48 kHz, in folders 01 ... 60 of 500 wavs; every speaker is one of FSDD's six at another speed.
Only its sizes are AudioMNIST's, so its scores say nothing. The run is watched from outside: resident memory and processor time of all its processes,
twice a second. `results/audiomnist.csv` has, for each stage, seconds, processor seconds and the largest memory.
"""
import argparse
import re
import subprocess
import sys
import time
from pathlib import Path

import psutil
import soundfile as sf
import soxr
from common import machine
from tqdm.auto import tqdm

from specgen.core import write_table
from specgen.datasets import load_recordings
from specgen.pipeline import STAGES

RESULTS = Path(__file__).parent / "results"


def make(root, speakers):
    "Write `speakers` folders of 10 digits x 50 takes, 48 kHz, 16 bit; folders that are there stay."
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


def watch(command, out):
    "Run a command; rows of seconds, processor seconds and resident bytes of it and its children."
    rows, start, spent = [], time.time(), {}
    with (out / "output.txt").open("w") as file, psutil.Popen(command, stdout=file, stderr=subprocess.STDOUT) as process:
        while process.poll() is None:
            memory = 0
            for part in [process, *process.children(recursive=True)]:
                try:
                    memory, spent[part.pid] = memory + part.memory_info().rss, sum(part.cpu_times()[:2])
                except psutil.Error:
                    continue
            rows.append((time.time(), sum(spent.values()), memory))
            time.sleep(0.5)
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
    "What the bar said was left, against what was gone, in seconds: the last word of each ten percent."
    said = {int(share) // 10 * 10: (seconds(gone), seconds(left)) for share, gone, left in re.findall(r"(\d+)% \|[^|]*\| ([\d:]+) gone, ([\d:]+) left", text)}
    return [{"percent": share, "gone": gone, "left": left} for share, (gone, left) in sorted(said.items())]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speakers", type=int, default=60)
    parser.add_argument("--preset", default="small")
    parser.add_argument("--out", type=Path, default=Path("runs/audiomnist"), help="of the stand-in and the run")
    args = parser.parse_args()
    print(machine())
    make(args.out / "recordings", args.speakers)
    command = [Path(sys.executable).with_name("specgen"), "run", "--dataset", "audiomnist", "--root", args.out / "recordings", "--preset", args.preset]
    run = args.out / f"run_{args.preset}"
    start, rows = watch([*map(str, command), "--out", str(run)], args.out)
    table = stages(run, start, rows)
    for row in [*table, *promised((args.out / "output.txt").read_text())]:
        print(row)
    write_table(RESULTS / "audiomnist.csv", table)
    write_table(RESULTS / "audiomnist_left.csv", promised((args.out / "output.txt").read_text()))
