"""Autoencoders of spoken digits side by side: plain, standard at several weights of the KL, likelihoods, mixture priors, conditional, unseen speaker.

    SPECGEN_DATA=... python benchmarks/vae.py [--only standard,mixture] [--preset small] [--out runs/vae]

Every model is trained on FSDD's takes 5 to 49 and measured on takes 0 to 4; real clips are the first row. Columns: what both terms cost (nats a spectrogram;
bits a value, to a precision of 1 dB), the error of the reconstructed level (dB), active latents; how many of the test clips are heard rightly in
reconstructed spectrograms, in sound made from them by phase retrieval and with zero phase, and how far (dB) both sounds' magnitudes are from the
spectrograms'; of 1,000 samples how many the evaluation classifier is sure of (probability at least 0.9), in how many it hears the digit asked for, their
Fréchet distance and diversity. `unseen` is trained without one speaker and measured on all of that speaker's clips (the evaluation classifier has trained on
most of them). `--heard` scores the conditional model's sounds instead, written to 16-bit wavs and read again, by the classifiers of
`specgen.sound_evaluation`: with and without silence where it is almost silent, at temperature 1 and at the largest one at which the first classifier
hears 98 % of other samples rightly; the table goes to results/vae_sounds.csv. `--shipped` takes the shipped model for it. `--left_out` draws from three
trainings of it with silence and the lower temperature, and with one of them left out: results/vae_left_out.csv. Trainings and scores are kept under
--out and taken up again from there; so the same command, stopped and started, ends with the whole table: of `small`, results/vae_models.csv.
Seconds are of this process's CPU time.
"""
import argparse
import math
import time
from dataclasses import replace
from pathlib import Path

import torch

from common import seed_means

from specgen.core import read_json, write_json, write_table
from specgen.datasets import load_recordings
from specgen.evaluation import Evaluator, label_accuracy
from specgen.sound_evaluation import SoundDataset, SoundEvaluator
from specgen.vae import VAE, sound_scores, vae_scores, zero_phase

MODELS = {
    "standard": {},
    "mixture": dict(prior="mixture"),
    "conditional": dict(prior="conditional"),
    "unseen": {},
    "10 components from clusters": dict(prior="mixture", components=10, rank=0),
    "beta 10": dict(beta=10.0),
    "beta 100": dict(beta=100.0),
    "plain autoencoder": dict(beta=None),
    "256 components from clusters": dict(prior="mixture", components=256, rank=2),
    "2 components from zero, bernoulli": dict(prior="mixture", components=2, rank=0, likelihood="bernoulli", clusters=False),
    "10 components from zero": dict(prior="mixture", components=10, rank=0, clusters=False),
}
UNSEEN, RESULTS = "theo", Path(__file__).parent / "results"


def real_row(data, evaluator):
    "Held-out clips, and the sound made from their own spectrograms."
    x, labels = data.test.tensors
    probs, scores = evaluator.predict_proba(x), evaluator.score(x, labels, reference=data.train)
    return {"model": "real, held out", "recon_accuracy": label_accuracy(probs, labels), **sound_row(x, labels, data.representation, evaluator),
            "confidence": (probs.amax(1) >= 0.9).float().mean().item(),
            **{key: scores[key] for key in ("n", "frechet_distance", "kernel_distance", "diversity")}}


def sound_row(specs, labels, r, evaluator):
    "What both ways back to sound make of spectrograms."
    good, zero = (sound_scores(s, specs, r, evaluator, labels) for s in (r.decode(specs), zero_phase(specs, r)))
    return {"heard": good["heard"], "heard_zero": zero["heard"], "convergence": good["convergence"], "convergence_zero": zero["convergence"]}


def model_row(title, how, data, evaluator, args):
    "Train a model or take it up, save it, measure it; what was measured is kept."
    folder, start = args.out / f"{args.preset}_{title.replace(' ', '_').replace(',', '')}_{args.seed}", time.process_time()
    kept = folder / f"scores_{args.temperature:g}.json"
    if kept.is_file():
        return read_json(kept)
    model = VAE.fit(data, preset=args.preset, seed=args.seed, out=folder / "training", progress=args.progress, **how)
    if not (folder / "config.json").is_file():
        print(f"{title}: trained in {time.process_time() - start:.0f} s of CPU time", flush=True)
    model.save_pretrained(folder)
    x, labels = data.test.tensors
    scores = vae_scores(model, data, evaluator, temperature=args.temperature, seed=args.seed)
    if how.get("beta", 1.0) is None:
        scores |= {"kl": math.nan, "bits": math.nan}  # it was never asked for a distribution
    row = {"model": title, "beta": how.get("beta", 1.0), **scores, **sound_row(model.reconstruct(x), labels, data.representation, evaluator)}
    write_json(kept, row)
    return row


SOUND_COLUMNS = ("name", "classifier", "n", "label_accuracy", "frechet_distance", "kernel_distance", "diversity", "least_diversity", "memorisation",
                 "classes", "voices", "peak", "level", "silence")


def listeners(args):
    "Recordings, the same as they are heard, and the evaluation classifiers that learnt from their training clips."
    recordings = load_recordings("fsdd")
    sounds = SoundDataset.prepare(recordings)
    return recordings, sounds, SoundEvaluator.fit(sounds, out=args.out / "evaluator_sounds", progress=args.progress)


def conditional(recordings, args, seed):
    "The conditional model of a seed, trained or taken up."
    folder, how = args.out / f"{args.preset}_conditional_{seed}", dict(preset=args.preset, seed=seed, progress=args.progress, prior="conditional")
    return VAE.fit(VAE.prepare(recordings, preset=args.preset), out=folder / "training", **how)


def heard(args):
    "What evaluation classifiers of sounds hear in what the conditional model draws."
    recordings, sounds, evaluator = listeners(args)
    kind = next(iter(evaluator.classifiers))
    model = VAE.from_pretrained("specgen/vae-digits") if args.shipped else conditional(recordings, args, args.seed)

    def drawn(n, temperature, seed):
        asked = torch.arange(n) % len(sounds.classes)
        return sounds.hear(model.to_audio(model.sample(asked, temperature=temperature, seed=seed)), asked, model.representation.sample_rate)

    right = {t: evaluator.classifiers[kind].evaluate(drawn(args.tuning, t, args.seed + 1000))["accuracy"] for t in (1.0, 0.8, 0.6, 0.4)}
    best = next((t for t, accuracy in right.items() if accuracy >= 0.98), max(right, key=right.get))
    print("label accuracy by temperature,", kind, {t: round(a, 3) for t, a in right.items()}, "->", best, flush=True)
    test, silence, n = VAE.prepare(recordings, preset=args.preset).test, model.silence, len(sounds.test)
    rows = {"real, held out": sounds.test, "reconstructed": sounds.hear(model.to_audio(model.reconstruct(test.spectrograms)), test.labels, sounds.sample_rate)}
    rows |= {f"silence, temperature {t:g}": drawn(n, t, args.seed) for t in sorted({1.0, best}, reverse=True)}
    model.silence = 0.0
    rows["without silence, temperature 1"] = drawn(n, 1.0, args.seed)
    model.silence = silence
    write_table(RESULTS / "vae_sounds.csv", [{key: row[key] for key in SOUND_COLUMNS} for row in evaluator.score_table(rows, sounds)])


def left_out(args):
    "What each step of drawing is worth: all of them, and all but one, from three trainings."
    recordings, sounds, evaluator = listeners(args)
    runs, asked = [], torch.arange(len(sounds.test)) % len(sounds.classes)
    for seed in range(3):
        model = conditional(recordings, args, seed)
        silence, low = model.silence, model.temperature
        steps = {"all steps": (silence, low), "without silence": (0.0, low), "without lower temperature": (silence, 1.0)}
        for title, (model.silence, temperature) in steps.items():
            made = sounds.hear(model.to_audio(model.sample(asked, temperature=temperature, seed=seed)), asked, model.representation.sample_rate)
            runs += [{"preset": title, "seed": seed, "classifier": kind, **row} for kind, row in evaluator.score(made, reference=sounds).items()]
    rows = seed_means(runs)
    write_table(RESULTS / "vae_left_out.csv", rows)
    for row in rows:
        print(*(f"{v:.3f}" if isinstance(v, float) else f"{v!s:28}" for v in row.values()))


COLUMNS = ["model", "beta", "kl", "bits", "error", "active", "recon_accuracy", "heard", "heard_zero", "convergence", "convergence_zero", "confidence",
           "class_accuracy", "n", "frechet_distance", "kernel_distance", "diversity"]


def show(row):
    "One line of a Markdown table."
    cells = [row.get(key, "") for key in COLUMNS]
    print("| " + " | ".join(f"{v:.3f}" if isinstance(v, float) else str(v) for v in cells) + " |", flush=True)


def main(args):
    if args.heard or args.left_out:
        return heard(args) if args.heard else left_out(args)
    data = VAE.prepare(load_recordings("fsdd"), preset=args.preset)
    unseen = replace(data, is_test=torch.tensor([speaker == UNSEEN for speaker in data.speakers]))
    evaluator = Evaluator.fit(data, seed=args.seed, out=args.out / "evaluator", progress=args.progress)
    print(f"evaluation classifier: {evaluator.accuracy:.1%} of {len(data.test)} held-out clips, {len(data.train)} training clips")
    print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|")
    rows = [real_row(data, evaluator)]
    show(rows[0])
    for title in args.only or MODELS:
        rows.append(model_row(title, MODELS[title], unseen if title == "unseen" else data, evaluator, args))
        show(rows[-1])
        write_table(RESULTS / "vae_models.csv" if args.preset == "small" and not args.only else args.out / f"table_{args.preset}.csv", rows, COLUMNS)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=lambda text: text.split(","), help=f"which, with commas between: {', '.join(MODELS)}")
    parser.add_argument("--preset", default="small", choices=["quick", "small", "source"])
    parser.add_argument("--heard", action="store_true", help="score the conditional model's sounds")
    parser.add_argument("--left_out", action="store_true", help="score its sounds with one step of drawing left out")
    parser.add_argument("--shipped", action="store_true", help="the shipped model's")
    parser.add_argument("--tuning", type=int, default=200, help="samples that temperatures are tried with")
    parser.add_argument("--temperature", type=float, default=1.0, help="of the samples; 1 is the prior itself")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="torch threads")
    parser.add_argument("--progress", action="store_true", help="show bars")
    parser.add_argument("--out", type=Path, default=Path("runs/vae"), help="where the trainings are kept")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    main(args)
