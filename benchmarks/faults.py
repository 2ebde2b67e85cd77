"""Every command under faults of the operating system: `python benchmarks/faults.py [words]`, as root on Linux, where it can mount small file systems.

A command has to end in one line with a way out and exit code 2, or to do its work. Each case is a fork of one process that has everything imported; words pick
commands and faults. `--write` keeps the verdicts in results/faults.csv.
"""
import ctypes
import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # a process with threads can't be forked

import torch

from specgen import exact_inverse, pipeline, plot, report, scoreboard, spectral_vocoder  # noqa: F401
from specgen.audio import write_audio
from specgen.cli import main
from specgen.core import read_table, write_table

SECONDS = 240  # longest case
NOWHERE = "/proc/nowhere"  # can't be made, by root neither
TRAIN = ["--preset", "quick", "--dataset"]


def commands(place: Path) -> dict[str, list]:
    "Every command; OUT stands for where it writes, IN for the file or folder that it reads."
    words, esc, wav = place / "in" / "words", place / "in" / "esc", place / "in" / "words" / "hum" / "0.wav"
    return {
        "run": ["run", *TRAIN, words, "--out", "OUT"], "generate": ["generate", "01", "--steps", 1, "--out", "OUT"],
        "classify fit": ["classify", "fit", *TRAIN, words, "--out", "OUT"],
        "classify predict": ["classify", "predict", words, "--model", place / "in" / "model", "--out", "OUT"],
        "classify evaluate": ["classify", "evaluate", "--dataset", words, "--model", place / "in" / "model"],
        "transformer cv": ["transformer", "cv", *TRAIN, esc, "--folds", "1,2", "--out", "OUT"], "transformer predict": ["transformer", "predict", wav],
        "gan fit": ["gan", "fit", *TRAIN, words, "--out", "OUT"], "gan sample": ["gan", "sample", "--n", 2, "--out", "OUT"],
        "vae fit": ["vae", "fit", *TRAIN, words, "--out", "OUT"], "vae sample": ["vae", "sample", "--n", 2, "--out", "OUT"],
        "vae reconstruct": ["vae", "reconstruct", wav, "--out", "OUT"], "vae interpolate": ["vae", "interpolate", wav, wav, "--steps", 2, "--out", "OUT"],
        "score": ["score", *TRAIN, words, "--methods", "vae", "--seeds", 0, "--sounds", 2, "--out", "OUT"],
        "reassign": ["reassign", wav, "OUT.npz"], "invert": ["invert", place / "in" / "features.npz", "OUT.wav"],
    }


FAULTS = ("disk full", "disk nearly full", "no permission", "in the way", "below a file", "read-only", "input closed", "weights closed", "config closed",
          "input gone", "folder gone", "memory", "damaged state", "no home", "other user", "no temporary files", "tilde")
SPOILT = ("[]", "{}", "", "half")  # what stands in every state file of a run: one in turn


def prepare(place: Path):
    "The recordings, a trained classifier, features, and the file systems."
    for i in range(12):
        t = torch.arange(4000) / 8000
        write_audio(place / f"in/words/hum/{i}.wav", 0.5 * torch.sin(2 * torch.pi * (200 + 10 * i) * t), 8000)
        write_audio(place / f"in/words/hiss/{i}.wav", 0.1 * torch.randn(4000, generator=torch.Generator().manual_seed(i)), 8000)
    rows = []
    for fold in (1, 2):
        for kind in range(2):
            for take in "ABC":
                name = f"{fold}-{kind}{fold}-{take}-{kind}.wav"
                write_audio(place / "in/esc/audio" / name, 0.1 * torch.randn(8000, generator=torch.Generator().manual_seed(len(rows))), 8000)
                rows.append(dict(filename=name, fold=fold, target=kind, category=f"kind{kind}", esc10=False, src_file=f"{kind}{fold}", take=take))
    write_table(place / "in/esc/meta/esc50.csv", rows)
    os.environ["SPECGEN_CACHE"] = str(place / "cache")
    quiet(["classify", "fit", *TRAIN, place / "in/words", "--out", place / "in/model"], place / "log")
    quiet(["reassign", place / "in/words/hum/0.wav", place / "in/features.npz"], place / "log")
    subprocess.run(["chmod", "-R", "a+rX", place], check=True)
    for name, options in {"full": "size=4k", "nearly": "size=48k", "ro": "size=1m"}.items():
        (place / name).mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place / name], check=True)
    (place / "full/filled").write_bytes(b"x" * 4096)
    subprocess.run(["mount", "-o", "remount,ro", place / "ro"], check=True)
    (place / "file").write_text("mine")
    (place / "closed").mkdir(0o555)


def quiet(words: list, log: Path) -> int:
    "The exit code of a command in a fork that leaves what it prints in a file."
    if not (child := os.fork()):
        signal.alarm(SECONDS)
        with open(log, "w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        try:
            main([str(word) for word in words])
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def under(fault: str, words: list, place: Path, log: Path) -> int | None:
    "A command's exit code under a fault; None where the fault can't meet it."
    case = Path(tempfile.mkdtemp(dir=place))
    os.chmod(case, 0o777)
    outs = {"disk full": place / "full/o", "disk nearly full": place / "nearly/o", "no permission": place / "closed/o", "below a file": place / "file/o",
            "read-only": place / "ro/o"}
    out = outs.get(fault, case / "o")
    writes = [str(word) for word in words if str(word).startswith("OUT")]
    if (fault in outs or fault in ("in the way", "folder gone", "tilde")) and not writes or fault == "damaged state" and "--preset" not in words:
        return None
    if fault in ("weights closed", "config closed") and ("--preset" in words or words[0] in ("reassign", "invert")):
        return None
    if fault == "input gone" and not any(str(word).startswith(str(place / "in/")) for word in words):
        return None
    log.write_text("")
    log.chmod(0o666)
    shown = "~/o" if fault == "tilde" else str(out)
    words = [str(word).replace("OUT", shown) if str(word).startswith("OUT") else word for word in words]
    if fault == "damaged state":
        quiet(words, log)
        spoil(out)
    if fault == "in the way":
        target = Path(writes[0].replace("OUT", str(out)))
        target.write_text("mine") if "--out" in words and words[:2] != ["classify", "predict"] else (target / "x").mkdir(parents=True)
    if not (child := os.fork()):
        words = apart(fault, place, words, out)
        os._exit(quiet(words, log))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if fault == "tilde" and code == 0 and not list(case.iterdir()):
        log.write_text("Traceback: nothing lies in the home folder")
    for left in (place / "nearly").iterdir():
        shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink()
    shutil.rmtree(case, ignore_errors=True)
    return code


def spoil(out: Path):
    "Damage every state file of a finished run."
    files = sorted(p for p in out.rglob("*") if p.suffix in (".json", ".safetensors", ".csv") and p.is_file())
    for file, word in zip(files, SPOILT * len(files), strict=False):
        raw = file.read_bytes()
        file.write_bytes(raw[: len(raw) // 2] if word == "half" or file.suffix != ".json" else word.encode())


def covered(folder: Path, place: Path, change):
    "Put a changed copy in a folder's place, for this process alone."
    copy = Path(tempfile.mkdtemp(dir=place))
    shutil.copytree(folder, copy / "w")
    for file in (copy / "w").rglob("*"):
        change(file)
    os.chmod(copy, 0o755)
    subprocess.run(["mount", "--bind", copy / "w", folder], check=True)


def closed(*suffixes: str):
    return lambda file: file.chmod(0) if file.name.endswith(suffixes) else None


def read_only(folder: Path, *kept: Path):
    "Make a folder read-only for this process, but not those below it that are kept."
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/mnt"], check=True)
    spare = [Path(tempfile.mkdtemp(dir="/mnt")) for _ in kept]
    for here, there in zip(kept, spare, strict=True):
        subprocess.run(["mount", "--rbind", here, there], check=True)
    subprocess.run(["mount", "--bind", folder, folder], check=True)
    subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)
    for here, there in zip(kept, spare, strict=True):
        subprocess.run(["mount", "--rbind", there, here], check=True)


def apart(fault: str, place: Path, words: list, out: Path) -> list:
    "Bring a fault upon this process; the words of its command."
    package = Path(pipeline.__file__).parent
    ctypes.CDLL(None).unshare(0x00020000)  # a mount namespace of its own
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    if fault == "input closed":
        covered(place / "in", place, closed(".wav", ".npz"))
    elif fault == "input gone":
        words = [str(word).replace(str(place / "in"), str(place / "gone")) for word in words]
    elif fault in ("weights closed", "config closed"):
        for folder in (place / "in/model", package / "weights"):
            covered(folder, place, closed("model.safetensors" if fault == "weights closed" else "config.json"))
    elif fault in ("no home", "other user"):
        read_only(package)
        for name in ("HOME", "XDG_CACHE_HOME", "SPECGEN_CACHE", "NUMBA_CACHE_DIR", "MPLCONFIGDIR"):
            os.environ.pop(name, None)
        os.environ["HOME"] = NOWHERE
    elif fault == "no temporary files":
        os.environ["TMPDIR"], tempfile.tempdir = NOWHERE, None
        os.chdir(place / "ro")
        for folder in (Path("/var/tmp"), Path("/tmp")):
            read_only(folder, *[place] * place.is_relative_to(folder))
    elif fault == "tilde":
        os.environ["HOME"] = str(out.parent)
    elif fault == "memory":
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (24 << 20),) * 2)
    elif fault == "folder gone" and not os.fork():
        signal.alarm(SECONDS)
        while not out.exists():
            time.sleep(0.01)
        time.sleep(0.3)
        shutil.rmtree(out, ignore_errors=True)
        os._exit(0)
    if fault == "other user":  # who may read everything: this Python may be of a closed home
        libc = ctypes.CDLL(None)
        libc.prctl(8, 1, 0, 0, 0)  # capabilities are kept
        os.setgroups([])
        os.setgid(4242)
        os.setuid(4242)
        libc.capset(struct.pack("Ii", 0x20080522, 0), struct.pack("6I", 4, 4, 0, 0, 0, 0))
    if fault in ("no permission", "input closed", "weights closed", "config closed"):
        ctypes.CDLL(None).capset(struct.pack("Ii", 0x20080522, 0), bytes(24))  # root without its privileges obeys the files' modes
    return words


def verdict(code: int | None, said: str) -> str:
    "What became of a command: done, one line, or what it must not do."
    if code is None:
        return ""
    if code == -signal.SIGALRM:
        return "still at work"
    if "Traceback" in said:
        return "TRACEBACK"
    lines = [line for line in said.splitlines() if line.startswith(("specgen: ", "Error: "))]
    if code == 0:
        return "done"
    if code != 2 or len(lines) != 1:
        return f"EXIT {code}, {len(lines)} LINES"
    return "one line" if "; " in lines[0] else "NO WAY OUT"


def measure(picked: list[str]) -> dict[tuple[str, str], str]:
    "The verdict of every command under every fault; words pick some of either."
    place = Path(tempfile.mkdtemp(prefix="faults-"))
    os.chmod(place, 0o755)
    found, faults = {}, [fault for fault in FAULTS if fault in picked] or FAULTS
    try:
        prepare(place)
        known = commands(place)
        for name in [name for name in known if name in picked] or known:
            for fault in faults:
                start, log = time.perf_counter(), place / "log"
                code = under(fault, known[name], place, log)
                said = log.read_text(errors="replace") if code is not None else ""
                found[name, fault] = verdict(code, said)
                last = (said.strip().splitlines() or [""])[-1] if found[name, fault] != "done" else ""
                print(f"{name:20} {fault:18} {found[name, fault]:12} {time.perf_counter() - start:5.1f} s  {last[:300]}", flush=True)
    finally:
        for name in ("full", "nearly", "ro"):
            subprocess.run(["umount", place / name], check=False)
        shutil.rmtree(place, ignore_errors=True)
    print(", ".join(f"{n} {word}" for word, n in Counter(found.values()).most_common() if word))
    return found


def keep(found: dict[tuple[str, str], str]):
    "Put verdicts into the table, in which those of other cases stay."
    path = Path(__file__).parent / "results" / "faults.csv"
    old = {row["command"]: row for row in read_table(path)} if path.exists() else {}
    rows = [{"command": name} | {fault: found.get((name, fault), old.get(name, {}).get(fault, "")) for fault in FAULTS} for name in commands(path)]
    write_table(path, rows)


if __name__ == "__main__":
    verdicts = measure([word for word in sys.argv[1:] if word != "--write"])
    if "--write" in sys.argv:
        keep(verdicts)
