"""The exact inverse of the reassigned spectrogram, and the forward transform beside librosa's: every figure in one run.

    SPECGEN_DATA=... python benchmarks/reassignment.py [--quick] [--threads 2] [--only exact,float32,settings,hops,speed,forward]

Reads `speech/*.wav` (resampled to 16 kHz, first 4 s) and `fsdd/recordings` under SPECGEN_DATA. Errors are after alignment of the one global sign, over
the samples that the frames cover. --quick takes two sentences and two digits.
"""
import argparse
import os
import resource
import statistics
import time
import warnings
from pathlib import Path

import librosa
import numpy as np
import torch

from common import machine

from specgen.audio import read_audio
from specgen.exact_inverse import invert
from specgen.frame_solver import mse_up_to_sign
from specgen.reassignment import reassigned_spectrogram

NETWORKS = dict(n_fft=80, hop_length=20, window="hamming", center=False)


def features(y, sr, ref_power=1e-6, dtype=np.float64, **settings):
    "librosa's own features."
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parts = librosa.reassigned_spectrogram(y, sr=sr, ref_power=ref_power, fill_nan=True, clip=False, **settings)
    return [part.astype(dtype) for part in parts]


def score(y, sr, ref_power=1e-6, dtype=np.float64, **settings):
    "Mean square error under the better sign, SNR in dB, seconds, and the result of one inversion."
    parts = features(y, sr, ref_power, dtype, **settings)
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        x, result = invert(*parts, sr=sr, ref_power=ref_power, **settings)
    seconds, y = time.perf_counter() - start, y[: len(x)]
    mse = mse_up_to_sign(x, y)
    return mse, 10 * np.log10(np.mean(y**2) / max(mse, 1e-300)), seconds, result


def table(name, clips, sr, goal, **settings):
    "Print how many clips reach the goal (a function of mse and snr), and the worst and middle ones."
    rows = [score(y, sr, **settings) for y in clips]
    mse, snr, seconds = ([row[i] for row in rows] for i in range(3))
    reached, trusted = sum(goal(m, s) for m, s in zip(mse, snr, strict=True)), sum(row[3].trusted for row in rows)
    wrong = sum(row[3].trusted and s < 40 for row, s in zip(rows, snr, strict=True))
    speed = statistics.median(len(y) / sr / t for y, t in zip(clips, seconds, strict=True))
    print(f"  {name:46s}{reached:3d} of {len(clips)}   MSE median {statistics.median(mse):.1e} worst {max(mse):.1e}   SNR median {statistics.median(snr):4.0f} "
          f"worst {min(snr):4.0f} dB   trusted {trusted}, of them wrong {wrong}   {speed:5.2f} x real time", flush=True)
    return rows


def forward(repeats=15):
    "Clips of 2 s a second, librosa and torch."
    clips = torch.randn(16, 32000, generator=torch.Generator().manual_seed(0)) * 0.1
    settings = dict(sr=16000, n_fft=80, hop_length=20, window="hamming", fill_nan=True)
    work = {"librosa, float32, clip by clip": lambda: [librosa.reassigned_spectrogram(y, **settings) for y in clips.numpy()]}
    work["librosa, float32, one batch"] = lambda: librosa.reassigned_spectrogram(clips.numpy(), **settings)
    for dtype in (torch.float32, torch.float64):
        work[f"torch, {dtype}"] = lambda dtype=dtype: reassigned_spectrogram(clips.to(dtype), **settings)
    seconds = {name: [] for name in work}
    for i in range(repeats + 1):
        for name, job in work.items():
            start = time.perf_counter()
            job()
            if i:
                seconds[name].append(time.perf_counter() - start)
    base = statistics.median(seconds["librosa, float32, clip by clip"])
    for name, values in seconds.items():
        print(f"  {name:46s}{16 / statistics.median(values):8.0f} clips/s   {base / statistics.median(values):5.2f} x librosa")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of the inverse and of torch")
    parser.add_argument("--quick", action="store_true", help="two sentences, two digits")
    parser.add_argument("--only", default="exact,float32,settings,hops,speed,forward", help="parts to run, with commas between")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    parts, root, n = options.only.split(","), Path(os.environ["SPECGEN_DATA"]), 2 if options.quick else 10
    print(machine())
    speech = [read_audio(p, 16000)[0][:64000].double().numpy() for p in sorted((root / "speech").glob("*.wav"))[:n]]
    digits = [read_audio(p)[0].double().numpy() for p in sorted((root / "fsdd/recordings").glob("*.wav"))[7::300][:n]]
    invert(*features(speech[0][:8000], 16000, **NETWORKS), sr=16000, **NETWORKS)  # compiles
    if "exact" in parts:
        print("1. MSE <= 1e-20, first 4 s of each sentence, n_fft 80, hop 20, Hamming, float64")
        for center in (False, True):
            for ref_power in (1e-6, 0.0):
                settings = {**NETWORKS, "center": center, "ref_power": ref_power}
                table(f"center={center}, ref_power={ref_power:g}", speech, 16000, lambda m, s: m <= 1e-20, **settings)
    if "float32" in parts:
        print("2. MSE <= 1e-9 from float32 features")
        table("float32", speech, 16000, lambda m, s: m <= 1e-9, dtype=np.float32, **NETWORKS)
    if "settings" in parts:
        print("3. SNR >= 80 dB at other settings")
        for window in ("hann", "hamming"):
            for n_fft in (80, 256, 512):
                settings = dict(n_fft=n_fft, hop_length=n_fft // 4, window=window)
                table(f"FSDD 8 kHz, n_fft {n_fft}, hop {n_fft // 4}, {window}", digits, 8000, lambda m, s: s >= 80, **settings)
            for n_fft in (256, 512):
                settings = dict(n_fft=n_fft, hop_length=n_fft // 4, window=window)
                table(f"speech 16 kHz, n_fft {n_fft}, hop {n_fft // 4}, {window}", speech, 16000, lambda m, s: s >= 80, **settings)
    if "hops" in parts:
        print("3. where it stops: FSDD, n_fft 80, Hamming, SNR >= 80 dB against the hop")
        for hop in (10, 20, 40, 50, 60, 65, 70, 75):
            table(f"hop {hop}", digits, 8000, lambda m, s: s >= 80, n_fft=80, hop_length=hop, window="hamming")
    if "speed" in parts:
        print("4. speed at n_fft 80, hop 20 (real time = 1)")
        for threads in (1, options.threads):
            torch.set_num_threads(threads)
            table(f"{threads} threads, sentences of 4 s", speech, 16000, lambda m, s: m <= 1e-12, **NETWORKS)
        long = np.resize(np.concatenate(speech), 300 * 16000)
        for seconds in (4, 16, 64, 300):
            table(f"{seconds} s", [long[: 16000 * seconds]], 16000, lambda m, s: m <= 1e-12, **NETWORKS)
        print(f"  largest memory of the process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")
    if "forward" in parts:
        print("5. forward transform, 16 clips of 2 s")
        forward()
