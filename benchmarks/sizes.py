"""The largest memory and the processor time of what is long or many: one step a process, watched from outside.

    SPECGEN_DATA=... python benchmarks/sizes.py [--only filter,phase] [--root runs/standins/audiomnist] [--out runs/sizes]

`filter` takes the stand-in of AudioMNIST that `benchmarks/standins.py` makes. Memory is the proportional set size of the step's process and its children
(Linux, /proc/PID/smaps_rollup), twice a second; processor seconds are those of all of them. `results/sizes.csv` has a row for each step: `before_gb`
was measured when the table was asked for, `to_reach_gb` was asked for, `file_gb` is the part of the largest memory that is files mapped into it,
which the system may drop.
"""
import argparse
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
from common import enter, machine, memory, processor_seconds

RESULTS = Path(__file__).parent / "results"
HOUR, RATE = 3600, 16_000


def filtered(args):
    "30,000 recordings at 48 kHz become spectrograms; nothing is in the cache."
    from specgen.datasets import load_recordings
    from specgen.filtering import filter_recordings

    kept = filter_recordings(load_recordings("audiomnist", args.root), preset="small", out=args.out / "filtered")
    return f"{len(kept):,} spectrograms, {kept.spectrograms.nbytes / 1e9:.2f} GB"


def noise(n, seed=0):
    "Noise (n,) that swells and falls four times a second."
    import torch

    swell = 1.2 + torch.sin(torch.arange(n) * (8 * torch.pi / RATE))
    return (0.1 * swell * torch.randn(n, generator=torch.Generator().manual_seed(seed))).clamp(-1, 1)


def retrieved(args):
    "Phase retrieval of an hour's magnitudes."
    import torch

    from specgen.phase import phase_retrieval
    from specgen.stft import stft

    magnitudes = torch.empty(257, HOUR * RATE // 128)
    for k, part in enumerate(magnitudes.split(7500, 1)):
        part.copy_(stft(noise(128 * 7499 + 512, k), n_fft=512, hop_length=128, center=False).abs())
    sound = phase_retrieval(magnitudes, n_fft=512, hop_length=128)
    return f"{tuple(magnitudes.shape)} magnitudes, {magnitudes.nbytes / 1e9:.2f} GB -> {len(sound):,} samples"


def write_hour(folder):
    "An hour of sound as a 16-bit wav."
    import soundfile

    with soundfile.SoundFile(folder / "hour.wav", "w", RATE, 1, "PCM_16") as file:
        for k in range(60):
            file.write(noise(HOUR // 60 * RATE, k).numpy())
    return str(folder / "hour.wav")


def command(*words):
    "A command of specgen; what it answers is the exit code."
    from specgen.cli import main

    try:
        return f"exit code {main(list(map(str, words))) or 0}"
    except SystemExit as end:
        return f"exit code {end.code}"


def reassigned(args):
    "`specgen reassign`."
    return command("reassign", write_hour(args.out), args.out / "hour.npz")


def transformed(args):
    "`specgen transformer predict` by the transformer that ships."
    return command("transformer", "predict", "specgen/ast-esc10", write_hour(args.out))


def make_spectrograms(n, folder):
    "Write a dataset (n, 256, 24) of noise, if it isn't there."
    import torch

    from specgen.filtering import choose_geometry
    from specgen.spectrogram_dataset import SpectrogramDataset

    if not (folder / "spectrograms.safetensors").is_file():
        values = torch.randn(n, 256, 24, generator=torch.Generator().manual_seed(0))
        SpectrogramDataset(values, torch.arange(n) % 10, list("0123456789"), choose_geometry([0.4])).save(folder)


def augmented(args):
    "20,000 spectrograms become 100,000."
    from specgen.augmentation import augment_dataset
    from specgen.spectrogram_dataset import SpectrogramDataset

    made = augment_dataset(SpectrogramDataset.load(args.out / "20000"))
    return f"{len(made):,} spectrograms, {made.spectrograms.nbytes / 1e9:.2f} GB"


def autoencoded(args):
    "The autoencoder of the preset `small`, which has no steps but its start."
    from specgen.autoencoder import Autoencoder
    from specgen.spectrogram_dataset import SpectrogramDataset

    dataset = SpectrogramDataset.load(args.out / "100000")
    Autoencoder.fit(dataset, preset="small", progress=False)
    return f"{len(dataset):,} spectrograms, {dataset.spectrograms.nbytes / 1e9:.2f} GB"


MADE = {"augment": 20_000, "autoencoder": 100_000}  # spectrograms that are made before, by another process
STEPS = {  # what it is, the function, GB before, GB to reach
    "filter": ("filter 30,000 AudioMNIST-like clips", filtered, 4.14, 1.12),
    "augment": ("augment 20,000 spectrograms to 100,000", augmented, 5.1, 2.96),
    "autoencoder": ("autoencoder start on 100,000 spectrograms", autoencoded, 6.3, 3.46),
    "reassign": ("reassign 1 h at 16 kHz", reassigned, 9.0, 2.0),
    "phase": ("phase retrieval of 1 h at 16 kHz, n_fft 512, hop 128", retrieved, 9.0, 2.0),
    "transformer": ("transformer predict 1 h", transformed, 3.65, 1.0),
}


def watch(words, env):
    "Run a Python program; its output, seconds, processor seconds, largest memory, and the part of that which is files."
    start, spent, most = time.time(), {}, (0, 0)
    with psutil.Popen([sys.executable, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env) as process:
        while process.poll() is None:
            with suppress(psutil.Error):
                most, cpu = max(most, memory(process.pid)), processor_seconds(process.pid, spent)
            time.sleep(0.5)
        return process.stdout.read().strip(), time.time() - start, cpu, *most


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(STEPS), help="which, with commas between")
    parser.add_argument("--root", type=Path, default=Path("runs/standins/audiomnist"), help="of the stand-in")
    parser.add_argument("--out", type=Path, default=Path("runs/sizes"), help="of what is made meanwhile; a new folder, or the filter isn't run again")
    parser.add_argument("--table", type=Path, default=RESULTS / "sizes.csv", help="that the rows are entered into")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    parser.add_argument("--make", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.make:
        make_spectrograms(args.make, args.out / str(args.make))
    elif args.inside:
        print(STEPS[args.inside][1](args))
    else:
        measure(args)


def measure(args):
    "Every step that is asked for."
    print(machine())
    for name in args.only.split(","):
        title, _, before, aim = STEPS[name]
        if name in MADE:
            subprocess.run([sys.executable, __file__, "--make", str(MADE[name]), "--out", args.out], check=True)
        env = {**os.environ, "SPECGEN_CACHE": str(args.out.absolute() / "cache")} if name == "filter" else None
        said, seconds, cpu, most, files = watch([__file__, "--inside", name, "--root", args.root, "--out", args.out], env)
        row = dict(step=title, before_gb=before, now_gb=f"{most / 1e9:.2f}", file_gb=f"{files / 1e9:.2f}", to_reach_gb=aim,
                   cpu_seconds=round(cpu), seconds=round(seconds), said="; ".join(said.splitlines()[-2:]))
        enter(args.table, [row], ("step",))
        print(row)


if __name__ == "__main__":
    main()
