"""Autoencoders of spoken digits side by side: plain, standard at several weights of the KL, likelihoods, mixture priors, conditional, unseen speaker.

    SPECGEN_DATA=... python benchmarks/vae.py [--only standard,mixture] [--preset small] [--out runs/vae]

Every model is trained on FSDD's takes 5 to 49 and measured on takes 0 to 4; real clips are the first row. Columns: what both terms cost (nats a picture;
bits a value, to a precision of 1 dB), the error of the reconstructed level (dB), active latents; how many of the test clips the judge hears rightly in
reconstructed pictures, in sound made from them by phase retrieval and with zero phase, and how far (dB) both sounds' magnitudes are from the pictures';
of 1,000 samples how many the judge is sure of (probability at least 0.9), in how many it hears the digit asked for, their FID and diversity. `unseen`
is trained without one speaker and measured on all of that speaker's clips (the judge has trained on most of them). Trainings and scores are kept under --out
and taken up again from there; so the same command, stopped and started, ends with the whole table. Seconds are of this process's CPU time.
"""
import argparse
import csv
import json
import math
import time
from pathlib import Path

import torch

from specgen.audio import atomic
from specgen.corpora import load, split
from specgen.evaluation import diversity, fid, label_accuracy
from specgen.vae import PRESETS, fit_judge, fit_vae, frame_corpus, sound_scores, vae_scores, zero_phase

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
UNSEEN = "theo"


def real_row(pictures, judge):
    "Held-out clips, and the sound made from their own pictures."
    x, labels = pictures.specs[pictures.test], pictures.labels[pictures.test]
    probs, known, own = judge.hear(x.mT), judge.features(pictures.specs[pictures.train].mT), judge.features(x.mT)
    return {"model": "real, held out", "returned": label_accuracy(probs, labels), **sound_row(x, labels, pictures.representation, judge),
            "confident": (probs.amax(1) >= 0.9).float().mean().item(), "fid": fid(known, own), "diversity": diversity(own, labels)}


def sound_row(pictures, labels, r, judge):
    "What both ways back to sound make of pictures."
    good, zero = (sound_scores(s, pictures, r, judge, labels) for s in (r.decode(pictures), zero_phase(pictures, r)))
    return {"heard": good["heard"], "heard_zero": zero["heard"], "convergence": good["convergence"], "convergence_zero": zero["convergence"]}


def model_row(title, how, pictures, judge, args):
    "Train a model or take it up, save it, measure it; what was measured is kept."
    folder, start = args.out / f"{args.preset}_{title.replace(' ', '_').replace(',', '')}_{args.seed}", time.process_time()
    kept = folder / f"scores_{args.temperature:g}.json"
    if kept.is_file():
        return json.loads(kept.read_text())
    model = fit_vae(pictures, preset=args.preset, seed=args.seed, folder=folder / "training", progress=args.progress, **how)
    if not (folder / "config.json").is_file():
        print(f"{title}: trained in {time.process_time() - start:.0f} s of CPU time", flush=True)
    model.save_pretrained(folder)
    x, labels = pictures.specs[pictures.test], pictures.labels[pictures.test]
    scores = vae_scores(model, pictures, judge, temperature=args.temperature, seed=args.seed)
    if how.get("beta", 1.0) is None:
        scores |= {"kl": math.nan, "bits": math.nan}  # it was never asked for a distribution
    row = {"model": title, "beta": how.get("beta", 1.0), **scores, **sound_row(model.reconstruct(x), labels, pictures.representation, judge)}
    with atomic(kept) as temporary:
        temporary.write_text(json.dumps(row))
    return row


COLUMNS = ("model", "beta", "kl", "bits", "error", "active", "returned", "heard", "heard_zero", "convergence", "convergence_zero", "confident", "asked",
           "fid", "diversity")


def show(row):
    "One line of a Markdown table."
    cells = [row.get(key, "") for key in COLUMNS]
    print("| " + " | ".join(f"{v:.3f}" if isinstance(v, float) else str(v) for v in cells) + " |", flush=True)


def main(args):
    corpus = load("fsdd")
    pictures = frame_corpus(corpus, PRESETS[args.preset]["stft"])
    others, own = split(corpus, "speaker", test=UNSEEN)
    judge = fit_judge(pictures, seed=args.seed, folder=args.out / "judge", progress=args.progress)
    print(f"judge: {judge.accuracy:.1%} of {len(pictures.test)} held-out clips, {len(pictures.train)} training clips")
    print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|")
    rows = [real_row(pictures, judge)]
    show(rows[0])
    for title in args.only or MODELS:
        data = pictures._replace(train=others, test=own) if title == "unseen" else pictures
        rows.append(model_row(title, MODELS[title], data, judge, args))
        show(rows[-1])
        with atomic(args.out / f"table_{args.preset}.csv") as temporary, open(temporary, "w", newline="") as file:
            table = csv.DictWriter(file, COLUMNS)
            table.writeheader()
            table.writerows(rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=lambda text: text.split(","), help=f"which, with commas between: {', '.join(MODELS)}")
    parser.add_argument("--preset", default="small", choices=["quick", "small", "paper"])
    parser.add_argument("--temperature", type=float, default=1.0, help="of the samples; 1 is the prior itself")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="torch threads")
    parser.add_argument("--progress", action="store_true", help="show bars")
    parser.add_argument("--out", type=Path, default=Path("runs/vae"), help="where the trainings are kept")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    main(args)
