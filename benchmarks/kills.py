"""Kill commands at random moments until they end, and compare: `python benchmarks/kills.py [kills]`. On Linux; each try is a fork of one process."""
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # a process with threads can't be forked

import torch

from specgen import pipeline  # noqa: F401
from specgen.audio import write_audio
from specgen.cli import main

COMMANDS = {"gan fit": ["gan", "fit"], "vae fit": ["vae", "fit"], "classify fit": ["classify", "fit"]}
COMPARED = ("model.safetensors", "config.json", "scores.json", "skipped.csv")


def begin(words: list[str]) -> int:
    "Start a command in a fork; its process number."
    if not (child := os.fork()):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        try:
            main(words)
        except BaseException:
            os._exit(1)
        os._exit(0)
    return child


def ended(child: int) -> bool:
    "Whether a process was killed; raises where it failed by itself."
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL), code
    return code == 0


def leftovers(out: Path) -> list[str]:
    return [str(p.relative_to(out)) for p in out.rglob(".*") if p.name != ".lock"]


def measure(kills: int, seed: int = 0):
    draw, place, done, same, games, swept = random.Random(seed), Path(tempfile.mkdtemp()), 0, 0, 0, 0
    os.environ["SPECGEN_CACHE"] = str(place / "cache")
    for i in range(8):
        t = torch.arange(4000) / 8000
        write_audio(place / f"in/hum/{i}.wav", 0.5 * torch.sin(2 * torch.pi * (200 + 10 * i) * t), 8000)
        write_audio(place / f"in/hiss/{i}.wav", 0.1 * torch.randn(4000, generator=torch.Generator().manual_seed(i)), 8000)
    whole = {}
    while done < kills:
        name = list(COMMANDS)[games % len(COMMANDS)]
        words = [*COMMANDS[name], "--preset", "quick", "--dataset", str(place / "in"), "--out"]
        if name not in whole:
            start = time.perf_counter()
            assert ended(begin([*words, str(place / name)]))
            whole[name] = time.perf_counter() - start
        out, mine = place / f"killed {games}", 0
        while True:
            child = begin([*words, str(out)])
            wait = draw.uniform(0, whole[name])
            start = time.perf_counter()
            while time.perf_counter() - start < wait and not os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                time.sleep(0.005)
            if mine < 12:
                os.kill(child, signal.SIGKILL)
            if ended(child):
                break
            mine, done, swept = mine + 1, done + 1, swept + len(leftovers(out) if out.exists() else [])
        games += 1
        equal = all((out / file).read_bytes() == (place / name / file).read_bytes() for file in COMPARED if (place / name / file).exists())
        same += equal
        print(f"{name:14} {mine:2} kills: {'identical' if equal else 'DIFFERENT'}, left behind: {leftovers(out) or 'nothing'}", flush=True)
        shutil.rmtree(out)
    print(f"{done} kills in {games} trainings, {same} of {games} ended bit-identical; {swept} leftovers seen after kills, all swept")
    shutil.rmtree(place)


if __name__ == "__main__":
    measure(int(sys.argv[1]) if len(sys.argv) > 1 else 40)
