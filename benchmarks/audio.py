"""The audio room against its peers, in one run: features (clips a second) and phase retrieval (spectral convergence and time).

    python benchmarks/audio.py [--threads 2]

Prints medians over repeats and ratios to librosa or torchaudio, and names the machine. No data needed: the clips are noise shaped like speech,
except for phase retrieval, which reads FSDD where `SPECGEN_DATA` points and is left out without it.
"""
import argparse
import os
import platform
import statistics
import time
from pathlib import Path

import librosa
import numpy as np
import torch

from specgen.audio import Fbank, LogMel, griffin_lim, kaldi, read, spectral_convergence, stft, torchaudio


def machine():
    "One line: processor, cores, torch."
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores, torch {torch.__version__}, {torch.get_num_threads()} threads"


def median_seconds(work, repeats=5):
    work()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def features(n_clips=200, batch=50):
    noise = torch.randn(n_clips, 16000, generator=torch.Generator().manual_seed(0))
    clips = torch.cumsum(noise, 1)
    clips = clips / clips.abs().amax(1, keepdim=True)
    mel = dict(n_fft=400, hop_length=160, n_mels=64)
    batched = lambda encode: [encode(clips[i : i + batch]) for i in range(0, n_clips, batch)]  # noqa: E731
    rows = {
        "librosa melspectrogram, per clip": lambda: [librosa.feature.melspectrogram(y=x, sr=16000, **mel) for x in clips.numpy()],
        f"torchaudio MelSpectrogram, batch {batch}": lambda: batched(torchaudio.transforms.MelSpectrogram(16000, **mel)),
        f"LogMel.librosa, batch {batch}": lambda: batched(LogMel.librosa(**mel).encode),
        "kaldi.fbank, per clip": lambda: [kaldi.fbank(x[None], num_mel_bins=128, window_type="hanning", dither=0.0) for x in clips],
        f"Fbank, batch {batch}": lambda: batched(Fbank().encode),
    }
    print(f"\nfeatures of {n_clips} clips of 1 s at 16 kHz")
    seconds = {name: median_seconds(work) for name, work in rows.items()}
    for name, value in seconds.items():
        peer = seconds["kaldi.fbank, per clip" if "bank" in name else "librosa melspectrogram, per clip"]
        print(f"  {name:40s}{n_clips / value:8.0f} clips/s  {peer / value:6.2f} x its peer")


def phase_retrieval(n_clips=100):
    root = os.environ.get("SPECGEN_DATA")
    paths = sorted(Path(root).glob("fsdd/recordings/*.wav")) if root else []
    if not paths:
        print("\nphase retrieval: left out, SPECGEN_DATA names no folder with fsdd/recordings")
        return
    settings = dict(n_fft=512, hop_length=128)
    clips = [read(p)[0] for p in paths[:: len(paths) // n_clips][:n_clips]]
    mags = [stft(x, **settings).abs() for x in clips]
    peer = lambda m, n, k: torch.from_numpy(librosa.griffinlim(m.numpy(), n_iter=k, length=n, random_state=0, **settings))  # noqa: E731
    rows = {f"librosa.griffinlim, {k} iterations": (lambda m, n, k=k: peer(m, n, k)) for k in (32, 60)}
    for k in (32, 60):
        rows[f"griffin_lim, {k} iterations"] = lambda m, n, k=k: griffin_lim(m, n_iter=k, length=n, **settings)
    print(f"\nphase retrieval of {n_clips} FSDD clips, n_fft 512, hop 128, Hann")
    base = None
    for name, method in rows.items():
        sounds = [method(m, len(x)) for m, x in zip(mags, clips, strict=True)]
        convergence = np.mean([spectral_convergence(m, s, **settings).item() for m, s in zip(mags, sounds, strict=True)])
        seconds = median_seconds(lambda method=method: [method(m, len(x)) for m, x in zip(mags, clips, strict=True)], 3)
        base = base or seconds
        print(f"  {name:40s}{convergence:7.1f} dB  {seconds / base:6.2f} of librosa's time at 32")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="torch threads")
    torch.set_num_threads(parser.parse_args().threads)
    print(machine())
    features()
    phase_retrieval()
