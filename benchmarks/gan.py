"""What evaluation classifiers hear in the conditional GAN's sounds: its representation, ESC-10, spoken digits, each step left out, and HiFi-GAN's mels.

    SPECGEN_DATA=... python benchmarks/gan.py [--only ceiling,sounds,words,left_out,speech,ear,source] [--preset small] [--out runs/gan]

Everything is scored on sounds that were written to 16-bit wavs and read again, by the three classifiers of `specgen.sound_evaluation`. ESC-10 trains on folds
1 to 4, FSDD on takes 5 to 49. `ceiling` brings real held-out clips to spectrograms of several kinds and back. `sounds` and `words` train the preset's model;
one truncation is the largest at which the first classifier alone hears 98 % of other sounds rightly. `left_out` trains a small model for a short time with
every step but one, three seeds each. `speech` trains on HiFi-GAN's 80 mels and is heard through the published HiFi-GAN and through phase retrieval.
`ear` asks the shipped transformer, which learnt from
ESC-10's folds 2 to 5 and never had a part in this, about the shipped model's sounds, beside the recordings of fold 1.
`source` trains the source's settings on ESC-10 to their end.
`--shipped` takes the shipped models instead of training, `--before` scores a saved model beside. Every training is kept under --out and taken up again from
there; tables go to results/gan_*.csv.
"""
import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from common import curve, enter, seed_means

from specgen.audio import peak_normalize, write_audio
from specgen.audio_transformer import AST
from specgen.core import read_json, write_json, write_table
from specgen.datasets import load_recordings
from specgen.gan import GAN, GAN_STEPS, SHARP, SPOKEN, at_step, without
from specgen.models import MELS_8K
from specgen.phase import phase_retrieval
from specgen.sound_evaluation import SoundDataset, SoundEvaluator
from specgen.spectrogram import LogMel
from specgen.spectrogram_dataset import encode_recordings
from specgen.vocoder import HiFiGAN

RESULTS = Path(__file__).parent / "results"
SPLIT = {"esc10": dict(by="fold", test=5), "fsdd": dict(by="official")}
COLUMNS = ("n", "label_accuracy", "frechet_distance", "kernel_distance", "diversity", "least_diversity", "memorisation", "classes", "peak", "level", "silence")
TRUNCATIONS = (1.0, 0.8, 0.6, 0.5, 0.4)


def listeners(name, args):
    "Recordings, the same as they are heard, and the evaluation classifiers that learnt from their training clips."
    recordings = load_recordings(name)
    sounds = SoundDataset.prepare(recordings, **SPLIT[name])
    evaluator = SoundEvaluator.fit(sounds, disjoint=name == "fsdd", out=args.out / f"evaluator_{name}", progress=args.progress)
    print(f"\n{name}: right on held-out recordings:", ", ".join(f"{kind} {a:.1%}" for kind, a in evaluator.accuracy.items()), flush=True)
    return recordings, sounds, evaluator


def full_scale(sounds):
    "Sounds (N, samples) within [-1, 1]: what is louder is turned down."
    return sounds / sounds.abs().amax(-1, keepdim=True).clamp(min=1)


def score(rows, sounds, evaluator, path, n=None, **more):
    "Score sounds by name, print them, and add them to a table."
    known = [{**row, **more} for row in evaluator.score_table(rows, sounds, n)]
    kept = [{key: row[key] for key in ("name", "classifier", *COLUMNS, *more)} for row in known]
    write_table(path, [*score.kept.setdefault(path, []), *kept])
    score.kept[path] += kept
    return known


score.kept = {}


def ceiling(args):
    "Real held-out clips to spectrograms and back."
    blunt = LogMel(sample_rate=16000, n_fft=1024, hop_length=160, n_mels=128, power=1.0)
    esc = {"FFT 1,024, standardised": (blunt, 60.0, True), "FFT 512, one scale": (SHARP, None, False),
           "FFT 512, 60 dB": (replace(SHARP, floor=1e-3), None, False), "FFT 512, standardised": (replace(SHARP, floor=1e-5), 60.0, True)}
    words = {"standardised": (MELS_8K, 60.0, True), "one scale": (MELS_8K, 60.0, False)}
    for name, kinds, n_frames in (("esc10", esc, 512), ("fsdd", words, 64)):
        recordings, sounds, evaluator = listeners(name, args)
        held, rows = sounds.test, {"originals": sounds.test}
        for title, (representation, depth, alone) in kinds.items():
            data = encode_recordings(recordings, representation, n_frames, depth_db=depth, alone=alone, **SPLIT[name]).test
            if len(rows) == 1:
                clips = torch.stack([peak_normalize(x) for x in held.waveforms])
                settings = representation.stft_settings
                rows["magnitudes"] = sounds.hear(full_scale(phase_retrieval(representation.magnitude(clips), **settings)), held.labels, held.sample_rate)
            rows[title] = sounds.hear(full_scale(data.to_audio()), data.labels, representation.sample_rate)
        score(rows, sounds, evaluator, RESULTS / "gan_ceiling.csv", corpus=name)


def trained(name, preset, folder, args, seed=0):
    "A model of a preset, trained or taken up, and saved; prints the minutes of processor time."
    start = time.process_time()
    model = GAN.fit(GAN.prepare(load_recordings(name), preset=preset, **SPLIT[name]), preset=preset, seed=seed, out=args.out / folder, progress=args.progress)
    model.save_pretrained(args.out / folder)
    print(f"{folder}: {(time.process_time() - start) / 60:.1f} minutes", flush=True)
    return model


def drawn(model, sounds, n, seed, truncation=None, vocoder=None):
    "Sounds of a model as they are heard."
    asked = torch.arange(n) % len(sounds.classes)
    return sounds.hear(model.to_audio(model.sample(asked, truncation=truncation, seed=seed), vocoder), asked, model.representation.sample_rate)


def generated(name, title, args):
    "Train, or take what ships; choose a truncation by the first classifier on sounds of another seed; score. All rows of a number of sounds compare."
    _, sounds, evaluator = listeners(name, args)
    shipped = {"sounds": "specgen/gan-esc10", "words": "specgen/gan-digits"}[title]
    folder = f"{title}_{args.preset}_{args.seed}"
    model = GAN.from_pretrained(shipped) if args.shipped else trained(name, GAN.preset(args.preset, title), folder, args, args.seed)
    kind = next(iter(evaluator.classifiers))
    right = {t: evaluator.classifiers[kind].evaluate(drawn(model, sounds, args.tuning, args.seed + 1000, t))["accuracy"] for t in TRUNCATIONS}
    best = next((t for t, accuracy in right.items() if accuracy >= 0.98), max(right, key=right.get))
    print("label accuracy by truncation,", kind, {t: round(a, 3) for t, a in right.items()}, "->", best)
    rows = {f"truncation {t:g}": drawn(model, sounds, args.samples, args.seed, t) for t in sorted({1.0, best}, reverse=True)}
    if args.before:
        before = GAN.from_pretrained(args.before)
        rows |= {f"before, truncation {t:g}": drawn(before, sounds, args.samples, args.seed, t) for t in sorted({1.0, best}, reverse=True)}
    path, real = RESULTS / f"gan_{title}.csv", {"real, training": sounds.train}
    score({"real, held out": sounds.test, **real, **rows}, sounds, evaluator, path)
    if args.samples > len(sounds.test):
        score({**real, **rows}, sounds, evaluator, path)


def left_out(args):
    "All steps, and all but one, three seeds each: a table of every run, and one of means and spreads."
    _, sounds, evaluator = listeners("fsdd", args)
    plain, runs = SPOKEN(8, 32, epochs=args.short, batch_size=32, lr=1e-3), []
    all_steps = at_step(plain, list(GAN_STEPS)[-1])
    presets = {"all steps": all_steps, **{f"without {step.strip('+ ')}": without(plain, step) for step in list(GAN_STEPS)[1:]}}
    for seed in range(3):
        for title, preset in presets.items():
            folder = f"left_out_{title.replace(' ', '_')}_{seed}"
            kept = args.out / folder / "scores.json"
            if not kept.is_file():
                heard = drawn(trained("fsdd", preset, folder, args, seed), sounds, args.tuning, seed)
                write_json(kept, evaluator.score(heard, reference=sounds))
            runs += [{"preset": title, "seed": seed, "classifier": kind, **{key: row[key] for key in COLUMNS[:5]}} for kind, row in read_json(kept).items()]
    rows = seed_means(runs)
    write_table(RESULTS / "gan_left_out.csv", rows)
    for row in rows:
        print(*(f"{v:.3f}" if isinstance(v, float) else f"{v!s:28}" for v in row.values()))


def speech(args):
    "HiFi-GAN's mels, heard through it and through phase retrieval; held-out recordings the same way."
    recordings, sounds, evaluator = listeners("fsdd", args)
    model, vocoder = trained("fsdd", GAN.preset("hifigan", "words"), f"speech_{args.seed}", args, args.seed), HiFiGAN.from_pretrained(args.hifigan)
    held = GAN.prepare(recordings, preset="hifigan").test
    for way, voice in (("phase retrieval", None), ("HiFi-GAN", vocoder)):
        real = voice.to_audio(held.spectrograms, representation=held.representation) if voice else held.to_audio()
        rows = {f"real, {way}": sounds.hear(full_scale(real), held.labels, held.representation.sample_rate),
                f"drawn, {way}": drawn(model, sounds, args.samples, args.seed, vocoder=voice)}
        for row, heard in rows.items():
            score({row: heard}, sounds, evaluator, RESULTS / "gan_speech.csv")


def ear(args):
    "What the transformer names: recordings that it never met, and sounds of the shipped model and of one before."
    listener, recordings = AST.from_pretrained("specgen/ast-esc10"), load_recordings("esc10")
    held = recordings.subset(recordings.split("fold", test=1)[1])
    rows = {"real, fold 1": (held.waveforms(16000), held.labels)}
    asked = torch.arange(len(held)) % len(recordings.classes)
    for title, name in (("the model that ships", "specgen/gan-esc10"), ("before", args.before)):
        if name:
            model = GAN.from_pretrained(name)
            rows[title] = list(model.to_audio(model.sample(asked, seed=args.seed))), asked
    table = []
    for title, (sounds, labels) in rows.items():
        with tempfile.TemporaryDirectory() as folder:
            files = [write_audio(Path(folder) / f"{i}.wav", full_scale(x), 16000) for i, x in enumerate(sounds)]
            named = [row["classes"][0] for row in listener.predict_files(files)]
        right = [name == recordings.classes[k] for name, k in zip(named, labels.tolist(), strict=True)]
        table.append({"name": title, "classifier": "ast", "n": len(right), "label_accuracy": sum(right) / len(right)})
        print(table[-1], flush=True)
    write_table(RESULTS / "gan_ear.csv", table)


def source(args):
    "The source's settings to their end beside the model that ships; spectrograms and sounds of every epoch are in outputs_gan."
    _, sounds, evaluator = listeners("esc10", args)
    model, ours = trained("esc10", "source", "source_esc10", args, args.seed), GAN.from_pretrained("specgen/gan-esc10")
    rows = {"the source's settings": drawn(model, sounds, args.samples, args.seed), "ours": drawn(ours, sounds, args.samples, args.seed)}
    score({"real, held out": sounds.test, **rows}, sounds, evaluator, RESULTS / "gan_source.csv")
    score({"real, training": sounds.train, **rows}, sounds, evaluator, RESULTS / "gan_source.csv")
    rows = curve(f"gan {args.seed}", args.out / "source_esc10", ("generator", "discriminator", "d_accuracy"))
    enter(RESULTS / "source_curves.csv", rows, ("training", "step", "name"))


def main(args):
    for part in args.only or ("ceiling", "sounds", "words", "left_out", "speech", "ear", "source"):
        if part in ("sounds", "words"):
            generated({"sounds": "esc10", "words": "fsdd"}[part], part, args)
        else:
            {"ceiling": ceiling, "left_out": left_out, "speech": speech, "ear": ear, "source": source}[part](args)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=lambda text: text.split(","), help="which, with commas between; all without it")
    parser.add_argument("--preset", default="small", choices=["quick", "small", "paper"])
    parser.add_argument("--short", type=int, default=2, help="epochs at full size of the trainings of left_out")
    parser.add_argument("--samples", type=int, default=300, help="sounds of each row")
    parser.add_argument("--tuning", type=int, default=200, help="sounds that truncations are tried with, and of each run of left_out")
    parser.add_argument("--shipped", action="store_true", help="score the shipped models instead of training")
    parser.add_argument("--before", help="a saved model to score beside the new one")
    parser.add_argument("--hifigan", default="hifigan_v3", help="folder of the published HiFi-GAN")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="torch threads")
    parser.add_argument("--progress", action="store_true", help="show bars")
    parser.add_argument("--out", type=Path, default=Path("runs/gan"), help="where the trainings are kept")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    main(args)
