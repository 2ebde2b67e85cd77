"""Vocoders in one run each, from the same mels: on unseen voices, and on held-out digits; trains the ones that ship.

    python benchmarks/vocoder.py --voices [--threads 1]          # remakes results/vocoder_voices.csv, about ten minutes of one core
    python benchmarks/vocoder.py [--threads 1]                   # the digits' vocoder beside phase retrieval
    python benchmarks/vocoder.py --voices --models A,B           # prints the same rows for saved vocoders
    python benchmarks/vocoder.py --train FOLDER --preset small   # or speech16k, speech22k: into FOLDER/model

Needs the packages of `pip install specgen[vocoder]` and, where `SPECGEN_DATA` points, FSDD (or a network) for the digits; `librispeech/` (one flac for each
speaker, named speaker-chapter-utterance), `speech/` (LJ*.wav are of LJSpeech, the others of LibriTTS) and `hifigan_v3/` for the voices. A training continues
where it was interrupted.
"""
import argparse
import copy
import math
import os
import statistics
import time
from dataclasses import replace
from pathlib import Path

import librosa
import torch
from torch.nn import functional as F

from common import machine, median_seconds

from specgen.audio import read_audio, resample
from specgen.core import write_table
from specgen.datasets import load_recordings
from specgen.models import MELS_8K, WaveformDataset
from specgen.phase import phase_retrieval
from specgen.spectral_vocoder import SpectralVocoder
from specgen.spectrogram import Representation, log_mels, mel_loss
from specgen.vocoder import PUBLISHED, HiFiGAN, HiFiGANGenerator, speech_scores

DATA, RESULTS = Path(os.environ.get("SPECGEN_DATA", "data")), Path(__file__).parent / "results"
SECONDS = 3  # of every voice
SHIPPED = ("specgen/vocoder-speech22k", "specgen/vocoder-speech16k")


def methods(vocoder):
    "Name -> a function from a spectrogram and a length to sound."
    mels = vocoder.representation

    def retrieve(method, n_iter):
        return lambda spec, n: phase_retrieval(mels.from_log(mels.denormalize(spec)), method=method, n_iter=n_iter, length=n, **mels.stft_settings)

    def peer(spec, n):
        mag = mels.from_log(mels.denormalize(spec)).numpy()
        return torch.from_numpy(librosa.griffinlim(mag, n_iter=60, n_fft=mels.n_fft, hop_length=mels.hop_length, length=n, random_state=0))

    return {
        "librosa.griffinlim, 60 iterations": peer,
        "Griffin-Lim, 60 iterations": retrieve("gla", 60),
        "Griffin-Lim, 32 iterations": retrieve("gla", 32),
        "PGHI": retrieve("pghi", 0),
        "PGHI + Griffin-Lim, 32 iterations": retrieve("pghi+gla", 32),
        "the vocoder that ships": lambda spec, n: vocoder.to_audio(spec, length=n),
    }


def compare(vocoder, strings):
    mels, rate = vocoder.representation, vocoder.representation.sample_rate
    lines = [torch.cat(words) for words in strings[:10]]
    sounds = {"clips": torch.cat(lines)[: 20 * rate].split(rate), "strings": lines}
    print(f"\n{len(strings)} strings of ten held-out digits; speed, one by one, on 20 clips of 1 s and on 10 strings of {len(lines[0]) / rate:.1f} s")
    print(f"  {'':36s}  PESQ   STOI    mel  x real time: clips  strings   of Griffin-Lim 60: clips  strings")
    rows = {}
    for name, to_audio in methods(vocoder).items():
        scores = []
        for words in strings:
            made = [to_audio(mels.encode(w), len(w)) for w in words]
            distance = sum(mel_loss(w[None], m[None], mels).item() for w, m in zip(words, made, strict=True)) / len(words)
            scores.append({**speech_scores(words, made, rate), "mel": distance})
        mean = {key: statistics.mean(row[key] for row in scores) for key in scores[0]}
        rows[name] = mean
        for kind, parts in sounds.items():
            specs = [(mels.encode(x), len(x)) for x in parts]
            rows[name][kind] = sum(map(len, parts)) / rate / median_seconds(lambda to_audio=to_audio, specs=specs: [to_audio(*spec) for spec in specs])
    for name, row in rows.items():
        ratios = [row[kind] / rows["Griffin-Lim, 60 iterations"][kind] for kind in sounds]
        quality = f"{row['pesq']:.3f}  {row['stoi']:.3f}  {row['mel']:.3f}"
        print(f"  {name:36s} {quality}  {row['clips']:18.0f}  {row['strings']:7.0f}  {ratios[0]:24.1f}  {ratios[1]:7.1f}")


def published():
    print("\npublished generators, one second at 22.05 kHz")
    for name, config in PUBLISHED.items():
        model, mels = HiFiGANGenerator(config).eval(), torch.randn(1, 80, 86)
        with torch.no_grad():
            print(f"  {name}  {86 * 256 / 22050 / median_seconds(lambda model=model, mels=mels: model(mels), 3):6.1f} x real time")


def librispeech():
    "Part -> the recordings of its speakers, in the order of their numbers: every twelfth is a test speaker, every twelfth validates."
    paths = sorted((DATA / "librispeech").glob("*.flac"), key=lambda path: int(path.name.split("-")[0]))
    parts = {"test": paths[::12], "validation": paths[6::12]}
    return {**parts, "training": [path for path in paths if path not in parts["test"] + parts["validation"]]}


def speaker(path):
    return path.name.split("-")[0]


def middle(wave, rate):
    "Three seconds after the first half second; the last three, or the whole, of a shorter recording."
    first = max(0, min(rate // 2, len(wave) - SECONDS * rate))
    return wave[first : first + SECONDS * rate]


def datasets(rate):
    "Name -> waveforms. The published HiFi-GAN learnt LJSpeech's voice; none of the others was learnt by anything here."
    sentences = sorted((DATA / "speech").glob("*.wav"))
    return {
        "LibriSpeech": [middle(read_audio(path, rate)[0], rate) for path in librispeech()["test"]],
        "LJSpeech": [middle(read_audio(path, rate)[0], rate) for path in sentences if path.name.startswith("LJ")],
        "LibriTTS": [middle(read_audio(path, rate)[0], rate) for path in sentences if not path.name.startswith("LJ")],
    }


def griffin_lim(mels, spec, n, n_iter=32):
    "From random phases; HiFi-GAN's frames lie half a hop further on."
    shift = 0 if mels.n_frames(0) else mels.hop_length // 2
    spec = F.pad(spec, (1, 1), value=math.log(mels.floor)) if shift else spec
    return phase_retrieval(mels.from_log(spec), method="gla", n_iter=n_iter, length=n + shift, **mels.stft_settings)[shift:]


def without_network(vocoder):
    "The same phases and refinements from what the mels say, without what was learnt."
    bare = copy.deepcopy(vocoder)
    for p in bare.head[1].parameters():
        torch.nn.init.zeros_(p)
    return bare


def with_true_magnitudes(vocoder, mels):
    "Its phases and refinements from the recording's own magnitudes."
    def to_audio(wave, spec):
        known = copy.copy(vocoder)  # shares the weights
        known.log_magnitudes = lambda _: mels.magnitude(wave).clamp(min=mels.floor).log()[None]
        return known.to_audio(spec, representation=mels, length=len(wave))

    return to_audio


def ways(vocoder, mels, hifigan=None):
    "Name -> (a function from a waveform and its mels to sound, the model or None, whether it is timed)."
    plain = lambda model: lambda wave, spec: model.to_audio(spec, representation=mels, length=len(wave))  # noqa: E731
    rows = {
        "Griffin-Lim, 32 iterations": (lambda wave, spec: griffin_lim(mels, spec, len(wave)), None, True),
        "PGHI": (lambda wave, spec: mels.decode(spec, n_iter=0, length=len(wave)), None, True),
        "PGHI + Griffin-Lim, 32 iterations": (lambda wave, spec: mels.decode(spec, length=len(wave)), None, True),
        "spectral vocoder": (plain(vocoder), vocoder, True),
        "spectral vocoder, without its network": (plain(without_network(vocoder)), None, False),
        "true magnitudes, locked phases": (with_true_magnitudes(vocoder, mels), None, False),
    }
    if hifigan:
        rows["HiFi-GAN V3"] = plain(hifigan), hifigan, True
    return rows


def scored(waves, made, mels):
    "PESQ and STOI at 16 kHz and the log-mel distance, each a list with a number for every clip."
    heard = [[resample(sound, mels.sample_rate, 16000) for sound in pair] for pair in zip(waves, made, strict=True)]
    scores = [speech_scores([real], [sound], 16000) for real, sound in heard]
    distances = [(log_mels(real, mels) - log_mels(sound, mels)).abs().mean().item() for real, sound in zip(waves, made, strict=True)]
    return {"pesq": [s["pesq"] for s in scores], "stoi": [s["stoi"] for s in scores], "mel_distance": distances}


def speeds(rows, mels, waves, repeats=3):
    "Name -> seconds of sound made in a second of processor time: medians over repeats in which the methods take turns. The mels are computed beforehand."
    seconds, pairs = {name: [] for name, (_, _, timed) in rows.items() if timed}, [(wave, mels.encode(wave)) for wave in waves]
    for _ in range(repeats + 1):
        for name in seconds:
            start = time.process_time()
            for wave, spec in pairs:
                rows[name][0](wave, spec)
            seconds[name].append(time.process_time() - start)
    return {name: sum(map(len, waves)) / mels.sample_rate / statistics.median(s[1:]) for name, s in seconds.items()}


def voices(names):
    "Every method on every dataset: rows of results/vocoder_voices.csv."
    table, v3 = [], HiFiGAN.from_pretrained(DATA / "hifigan_v3")
    for name in names:
        vocoder = SpectralVocoder.from_pretrained(name)
        mels, known = replace(vocoder.representation, mean=0.0, std=1.0), {*vocoder.voices["speakers"], *vocoder.voices["validation"]}
        assert not known & {speaker(path) for path in librispeech()["test"]}, "a test speaker was trained on"
        rows = ways(vocoder, mels, v3 if mels.sample_rate == v3.representation.sample_rate else None)
        sets = datasets(mels.sample_rate)
        speed = speeds(rows, mels, sets["LibriSpeech"][:3])
        for corpus, waves in sets.items():
            for method, (to_audio, model, timed) in rows.items():
                if not timed and corpus != "LibriSpeech":
                    continue
                scores = scored(waves, [to_audio(wave, mels.encode(wave)) for wave in waves], mels)
                row = {"corpus": corpus, "sample_rate": mels.sample_rate, "method": method, "clips": len(waves)}
                row |= {key: round(statistics.mean(values), 4) for key, values in scores.items()} | {"pesq_spread": round(statistics.stdev(scores["pesq"]), 4)}
                row |= {"speed": round(speed[method], 1) if method in speed else "", "weights": sum(p.numel() for p in model.parameters()) if model else 0}
                table.append(row)
                print("  ".join(str(value) for value in row.values()), flush=True)
    return table


def train(preset, folder, seed):
    "Train a vocoder that ships: on FSDD's training recordings but take 5, or on LibriSpeech's training speakers."
    mels = Representation.from_dict(SpectralVocoder.preset(preset).dataset["representation"])
    if preset == "small":
        recordings = load_recordings("fsdd")
        recordings = recordings.subset(recordings.split("official")[0])
        waves, held = recordings.waveforms(mels.sample_rate), [recording.take == 5 for recording in recordings]
        named = {"corpus": "fsdd", "speakers": sorted(set(recordings.speakers))}
    else:
        parts = librispeech()
        paths = [*parts["training"], *parts["validation"]]
        waves, held = [read_audio(path, mels.sample_rate)[0] for path in paths], [path in parts["validation"] for path in paths]
        named = {"corpus": "LibriSpeech train-clean-100", "speakers": [*map(speaker, parts["training"])], "validation": [*map(speaker, parts["validation"])]}
    dataset = WaveformDataset(waves, mels, torch.tensor(held), named)
    dataset.representation = mels.fit(dataset.train.waveforms)
    SpectralVocoder.fit(dataset, preset=preset, seed=seed, out=folder).half().save_pretrained(folder / "model")


def digits():
    "The vocoder of spoken digits beside phase retrieval, on held-out recordings of its speakers."
    recordings, strings = load_recordings("fsdd"), {}
    test = recordings.subset(recordings.split("official")[1])
    for recording, waveform in zip(test, test.waveforms(MELS_8K.sample_rate), strict=True):
        strings.setdefault((recording.speaker, recording.take), []).append(waveform)
    compare(SpectralVocoder.from_pretrained("specgen/vocoder-digits"), list(strings.values()))
    published()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--voices", action="store_true", help="the table of unseen voices")
    parser.add_argument("--train", metavar="FOLDER", type=Path, help="train a vocoder that ships, into FOLDER/model")
    parser.add_argument("--preset", default="small", help="of --train: small (digits), speech16k or speech22k")
    parser.add_argument("--seed", type=int, default=0, help="of --train")
    parser.add_argument("--models", type=lambda text: text.split(","), help="saved vocoders for --voices, with commas between; without it those that ship")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print(machine())
    if given.train:
        train(given.preset, given.train, given.seed)
    elif given.models:
        voices(given.models)
    elif given.voices:
        write_table(RESULTS / "vocoder_voices.csv", voices(SHIPPED))
    else:
        digits()
