"""The exact inverse of the reassigned spectrogram, and the forward transform beside librosa's: every figure in one run.

    SPECGEN_DATA=... python benchmarks/reassignment.py [--quick] [--threads 2] [--only exact,float32,settings,hops,speed,forward,survey,noise,torch]

Reads `speech/*.wav` (resampled to 16 kHz, first 4 s) and `fsdd/recordings` under SPECGEN_DATA. Errors are after alignment of the one global sign, over
the samples that the frames cover. --quick takes two sentences and two digits. survey and noise write their tables to `results/inverse_*.csv`; they take
LibriSpeech utterances and made-up chords, a second each, and measure processor seconds on one thread. torch takes four seconds of each of many
LibriSpeech speakers by `invert_batch`, one by one and as batches, beside `invert` on the same clips, with the operators that one call starts; on a GPU:

    SPECGEN_DATA=... python benchmarks/reassignment.py --only torch --device cuda --batches 1,16,128
"""
import argparse
import csv
import multiprocessing
import os
import resource
import statistics
import time
import warnings
from pathlib import Path
from unittest.mock import patch

import librosa
import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from common import enter, machine

from specgen import batch_inverse, batch_solver
from specgen.audio import read_audio
from specgen.batch_inverse import invert_batch
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


def chords(seconds, sr=16000, seed=0):
    "A music-like sound: three chords of decaying harmonics, from a seed."
    rng, t, sound = np.random.default_rng(seed), np.arange(int(seconds * sr)) / sr, 0
    for start in np.linspace(0, seconds, 3, endpoint=False):
        for note in rng.choice([220.0, 261.6, 329.6, 392.0, 440.0], 3, replace=False):
            since, pitch = t - start, note * (1 + 0.002 * rng.standard_normal())
            tones = sum(np.sin(2 * np.pi * k * pitch * since + rng.uniform(0, 6)) / k**1.5 for k in range(1, 15))
            sound = sound + np.where(since > 0, tones * (1 - np.exp(-since / 0.01)) * np.exp(-since / 0.3), 0)
    return 0.1 * sound + 1e-4 * rng.standard_normal(len(t))


def inverted(y, parts, settings):
    "The sound of features of y, its SNR in dB, the result, and processor seconds on one thread."
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        x, result = invert(*parts, sr=16000, workers=1, length=len(y), **settings)
    return x, 10 * np.log10(np.mean(y**2) / max(mse_up_to_sign(x, y), 1e-300)), result, time.process_time() - start


def write_table(name, rows):
    "Rows (dictionaries) as results/inverse_{name}.csv."
    with (Path(__file__).parent / f"results/inverse_{name}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def survey_row(y, settings, dtype, sender):
    "One inversion, its row's numbers into a pipe."
    _, snr, result, used = inverted(y, features(y, 16000, dtype=dtype, **settings), settings)
    sender.send(dict(snr_db=round(snr, 1), solved=round(result.solved, 3), trusted=int(result.trusted), seconds=round(used / len(y) * 16000, 2)))


def limited(limit, job, *args):
    "What a job sends, or a row without an answer when it takes longer than `limit` seconds."
    receiver, sender = multiprocessing.Pipe(False)
    process = multiprocessing.get_context("fork").Process(target=job, args=(*args, sender))
    process.start()
    answered = receiver.poll(limit)
    row = receiver.recv() if answered else dict(snr_db=float("nan"), solved=0.0, trusted=0, seconds=limit)
    process.kill()
    process.join()
    return row


def survey(clips, limit, sizes):
    "Success, SNR and processor seconds: three windows at four hops a frame, Hamming at others too; no number for what was stopped at the limit."
    path, keys = Path(__file__).parent / "results/inverse_survey.csv", ("n_fft", "window", "hop", "features", "signal")
    for n_fft in sizes:
        for name in ("hann", "hamming", "gaussian"):
            window = ("gaussian", n_fft / 8) if name == "gaussian" else name
            for share in (8, 4, 2) if n_fft <= 256 and name == "hamming" else (4,):
                for signal, y in clips.items():
                    y, settings = y[: int(16000 * (0.6 if n_fft > 512 else 1))], dict(n_fft=n_fft, hop_length=n_fft // share, window=window)
                    for dtype in (np.float64, np.float32) if share == 4 and name != "gaussian" else (np.float64,):
                        row = dict(signal=signal, n_fft=n_fft, window=name, hop=n_fft // share, features=np.dtype(dtype).name)
                        row |= limited(limit, survey_row, y, settings, dtype)
                        print("  ", *row.values(), flush=True)
                        enter(path, [row], keys)


def with_noise(parts, decibels, n_fft, hop):
    "Features with noise of that SNR on the offsets (their power-weighted root mean square) and on every magnitude; and its standard deviations."
    (f, t, m), rng, share = parts, np.random.default_rng(0), 10 ** (-decibels / 20)
    df, dt = f - np.arange(len(f))[:, None] * 16000 / n_fft, t - np.arange(f.shape[1]) * hop / 16000
    hertz, late = (share * np.sqrt(np.average(d**2, weights=m**2)) for d in (df, dt))
    noisy = [f + hertz * rng.standard_normal(f.shape), t + late * rng.standard_normal(f.shape), np.abs(m * (1 + share * rng.standard_normal(f.shape)))]
    return noisy, (float(hertz), float(late), share)


def noise(clips):
    "The closest sound at 20 to 80 dB of noise on the features: its SNR, that of its frames up to their signs, and what it says of itself."
    rows = []
    for n_fft, window in ((80, "hamming"), (256, "hann")):
        settings = dict(n_fft=n_fft, hop_length=n_fft // 4, window=window)
        for signal, y in clips.items():
            for decibels in (80, 60, 40, 30, 20):
                parts, precision = with_noise(features(y, 16000, **settings), decibels, n_fft, n_fft // 4)
                x, snr, result, used = inverted(y, parts, settings | dict(precision=precision))
                a, b = (np.lib.stride_tricks.sliding_window_view(np.pad(v, n_fft // 2), n_fft)[:: n_fft // 4] for v in (y, x))
                wrong = np.minimum(((a - b) ** 2).sum(1), ((a + b) ** 2).sum(1))
                true, said = 10 * np.log10(np.maximum((a**2).sum(1), 1e-30) / np.maximum(wrong, 1e-30)), result.confidence[: len(a)]
                rows.append(dict(signal=signal, n_fft=n_fft, window=window, noise_db=decibels, snr_db=round(snr, 1), frame_median_db=round(np.median(true), 1),
                                 frame_tenth_db=round(np.percentile(true, 10), 1), said_median_db=round(np.median(said), 1),
                                 correlation=round(np.corrcoef(said, true[: len(said)])[0, 1], 2),
                                 within_6_db=round(np.mean(np.abs(said - true[: len(said)]) < 6), 2), seconds=round(used / len(y) * 16000, 2)))
                print("  ", *rows[-1].values(), flush=True)
                write_table("noise", rows)


class Operators(TorchDispatchMode):
    "Counts the operators that are started."

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += not function.is_view  # a view starts nothing
        return function(*args, **kwargs or {})


def count_operators(batch):
    "How many operators the call starts, its tensors in parts as large as on a GPU."
    parts_of = [patch.object(module, "part_bytes", lambda x: 2_000_000_000) for module in (batch_solver, batch_inverse)]
    with parts_of[0], parts_of[1], Operators() as operators:
        batch()
    return operators.count


def torch_row(clips, device, threads):
    "Clips as one batch: SNR, success, times real time, processor seconds a second of sound, on a CPU operators; and the same clips by `invert`, one by one."
    torch.set_num_threads(threads)
    settings, seconds = dict(n_fft=80, hop_length=20, window="hamming"), sum(map(len, clips)) / 16000
    parts, lengths = [features(y, 16000, **settings) for y in clips], [len(y) for y in clips]
    on = [[torch.from_numpy(v).to(device) for v in part] for part in parts]

    def batch():
        answers, results = invert_batch(*zip(*on, strict=True), sr=16000, **settings, lengths=lengths, device=device)
        return [x.cpu().numpy() for x in answers], results

    tick, used = time.perf_counter(), time.process_time()
    answers, results = batch()
    wall, used, tick = time.perf_counter() - tick, time.process_time() - used, time.process_time()
    others = [invert(*part, sr=16000, **settings, workers=threads, length=n)[0] for part, n in zip(parts, lengths, strict=True)]
    numpy_used = time.process_time() - tick
    operators = count_operators(batch) if torch.device(device).type == "cpu" else ""
    snr = [10 * np.log10(np.mean(y**2) / max(mse_up_to_sign(x, y), 1e-300)) for x, y in zip(answers, clips, strict=True)]
    apart = [10 * np.log10(np.mean(y**2) / max(mse_up_to_sign(x, y), 1e-300)) for x, y in zip(answers, others, strict=True)]
    return dict(device=str(device), threads=threads, clips=len(clips), seconds=round(seconds, 1), trusted=sum(r.trusted for r in results),
                snr_median_db=round(statistics.median(snr), 1), snr_worst_db=round(min(snr), 1), against_invert_worst_db=round(min(apart), 1),
                times_real_time=round(seconds / wall, 2), cpu_s_per_s=round(used / seconds, 3), invert_cpu_s_per_s=round(numpy_used / seconds, 3),
                operators=operators)


def batches(device, sizes, threads):
    "Many sounds at once on a device, as results/inverse_torch.csv."
    files = sorted((Path(os.environ["SPECGEN_DATA"]) / "librispeech").glob("*.flac"))
    sounds = [read_audio(path, 16000)[0].double().numpy() for path in files[3::4]]
    clips = [part for k in (16000, 80000, 144000) for y in sounds if len(part := y[k : k + 64000]) == 64000]
    path, keys = Path(__file__).parent / "results/inverse_torch.csv", ("device", "threads", "clips")
    torch_row(clips[:1], device, threads)  # compiles, warms up
    for size in sizes:
        row = torch_row(clips[:size], device, threads)
        print("  ", *(f"{name} {value}" for name, value in row.items()), sep="  ", flush=True)
        enter(path, [row], keys)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of the inverse and of torch")
    parser.add_argument("--quick", action="store_true", help="two sentences, two digits")
    parser.add_argument("--only", default="exact,float32,settings,hops,speed,forward,survey,noise", help="parts to run, with commas between")
    parser.add_argument("--sizes", default="80,256,512,1024", help="survey: frame lengths, with commas between")
    parser.add_argument("--limit", type=float, default=600.0, help="survey: seconds that an inversion may take")
    parser.add_argument("--device", default="cpu", help="torch: where batches are solved")
    parser.add_argument("--batches", default="1,16", help="torch: clips at once, with commas between")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    parts, root, n = options.only.split(","), Path(os.environ["SPECGEN_DATA"]), 2 if options.quick else 10
    print(machine())
    if "torch" in parts:
        print("7. many sounds at once, four seconds of each speaker")
        batches(options.device, [int(n) for n in options.batches.split(",")], options.threads)
        parts.remove("torch")
    if not parts:
        raise SystemExit
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
    if {"survey", "noise"} & set(parts):
        files = sorted((root / "librispeech").glob("*.flac"))
        crops = {f"speech {k}": read_audio(files[k], 16000)[0][16000:32000].double().numpy() for k in (0, 100)}
        crops |= {"chords": chords(1.0)}
        if "survey" in parts:
            print("6. survey, a second of each signal")
            survey(crops, options.limit, [int(n) for n in options.sizes.split(",")])
        if "noise" in parts:
            print("6. noise, a second of each signal")
            noise(crops)
