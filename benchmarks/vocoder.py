"""The shipped vocoder beside phase retrieval, in one run: quality on held-out digits and speed on clips and on whole strings, from the same mels.

    python benchmarks/vocoder.py [--threads 1] [--train FOLDER]

Needs FSDD (`SPECGEN_DATA`, or a network) and the packages of `pip install specgen[vocoder]`. With `--train` it trains the shipped vocoder anew instead; the
folder continues where it was interrupted.
"""
import argparse
import statistics
from pathlib import Path

import librosa
import torch

from common import machine, median_seconds

from specgen.datasets import load_recordings
from specgen.models import MELS_8K, WaveformDataset
from specgen.phase import phase_retrieval
from specgen.spectral_vocoder import SpectralVocoder
from specgen.spectrogram import mel_loss
from specgen.vocoder import PUBLISHED, HiFiGANGenerator, speech_scores


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


def train(recordings, folder):
    "On the training recordings; take 5 validates."
    dataset = WaveformDataset(recordings.waveforms(MELS_8K.sample_rate), MELS_8K, torch.tensor([recording.take == 5 for recording in recordings]))
    dataset.representation = MELS_8K.fit(dataset.train.waveforms)
    SpectralVocoder.fit(dataset, out=folder).half().save_pretrained(folder / "model")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--train", metavar="FOLDER", type=Path, help="train the vocoder that ships, into FOLDER/model")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print(machine())
    recordings = load_recordings("fsdd")
    train_index, test_index = recordings.split("official")
    if given.train:
        train(recordings.subset(train_index), given.train)
    else:
        test, strings = recordings.subset(test_index), {}
        for recording, waveform in zip(test, test.waveforms(MELS_8K.sample_rate), strict=True):
            strings.setdefault((recording.speaker, recording.take), []).append(waveform)
        compare(SpectralVocoder.from_pretrained("specgen/vocoder-digits"), list(strings.values()))
        published()
