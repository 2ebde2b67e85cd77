"""Spectrograms and phase retrieval against their peers, in one run: features (clips a second), memory, and spectral convergence beside time.

    python benchmarks/audio.py [--threads 2] [--only features | memory | phase]

Prints medians over (interleaved) repeats and ratios to librosa or torchaudio, and names the machine. No data needed: the clips are noise shaped like speech,
except for phase retrieval, which reads FSDD where `SPECGEN_DATA` points and is left out without it.
"""
import argparse
import os
import resource
import statistics
import time
from pathlib import Path

import librosa
import numpy as np
import torch

from common import machine, median_seconds

from specgen.audio import import_torchaudio, read_audio
from specgen.phase import griffin_lim, phase_retrieval, spectral_convergence
from specgen.spectrogram import Fbank, LogMel
from specgen.stft import stft

torchaudio = import_torchaudio()
kaldi = torchaudio.compliance.kaldi


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


def memory(minutes=60):
    "Peak memory that the filterbank of a long recording takes, beside the recording and the spectrogram themselves."
    sound = torch.zeros(minutes * 60 * 16000)
    sound[::7] = 0.1
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    spec = Fbank().encode(sound)
    seconds = time.perf_counter() - start
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"\nFbank of {minutes} minutes at 16 kHz: {seconds:.1f} s, {grown:.0f} MB more than before; the spectrogram alone has {spec.nbytes / 2**20:.0f} MB")


def phases(n_clips=100, repeats=5):
    root = os.environ.get("SPECGEN_DATA")
    paths = sorted(Path(root).glob("fsdd/recordings/*.wav")) if root else []
    if not paths:
        print("\nphase retrieval: left out, SPECGEN_DATA names no folder with fsdd/recordings")
        return
    settings = dict(n_fft=512, hop_length=128)
    clips = [read_audio(p)[0] for p in paths[:: len(paths) // n_clips][:n_clips]]
    mags = [stft(x, **settings).abs() for x in clips]

    def peer(mag, length, n_iter):
        return torch.from_numpy(librosa.griffinlim(mag.numpy(), n_iter=n_iter, length=length, random_state=0, **settings))

    def zero(mag, length, n_iter):
        return griffin_lim(mag, n_iter=n_iter, phase=torch.zeros_like(mag), length=length, **settings)

    def ours(method):
        return lambda mag, length, n_iter: phase_retrieval(mag, method=method, n_iter=n_iter, length=length, **settings)

    methods = {"librosa.griffinlim": (peer, 32, 60), "zero phase": (zero, 0), "phase_retrieval gla": (ours("gla"), 32, 60),
               "phase_retrieval pghi": (ours("pghi"), 0), "phase_retrieval pghi+gla": (ours("pghi+gla"), 10, 14, 16, 20, 32, 60, 80, 100, 200)}
    rows = {f"{name}, {n}": (method, n) for name, (method, *counts) in methods.items() for n in counts}
    seconds, decibels = {name: [] for name in rows}, {}
    for _ in range(repeats + 1):  # the first round warms up
        for name, (method, n_iter) in rows.items():
            start = time.perf_counter()
            sounds = [method(mag, len(x), n_iter) for mag, x in zip(mags, clips, strict=True)]
            seconds[name].append(time.perf_counter() - start)
            decibels[name] = [spectral_convergence(m, s, **settings).item() for m, s in zip(mags, sounds, strict=True)]
    seconds = {name: statistics.median(each[1:]) for name, each in seconds.items()}
    base = seconds["librosa.griffinlim, 32"]
    print(f"\nphase retrieval of {n_clips} FSDD clips one by one, n_fft 512, hop 128, Hann; method and iterations, spectral convergence, time")
    for name in rows:
        mean, median = np.mean(decibels[name]), np.median(decibels[name])
        print(f"  {name:32s} mean {mean:6.1f} dB, median {median:6.1f} dB  {seconds[name]:6.2f} s  1/{base / seconds[name]:.1f} of librosa's at 32")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="torch threads")
    parser.add_argument("--only", choices=("features", "memory", "phase"), help="leave out the other parts")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(machine())
    for name, work in {"memory": memory, "features": features, "phase": phases}.items():
        if args.only in (None, name):
            work()
