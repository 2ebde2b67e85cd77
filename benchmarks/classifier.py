"""How well the classifier hears: FSDD's official split, each of its six speakers left out, ESC-10's five folds.

    SPECGEN_DATA=... python benchmarks/classifier.py [--only official,speakers,esc10] [--seeds 2] [--out runs/classifier]

Every fit is kept under --out and taken up again from there; delete a folder to train it anew. The recipe for words was chosen on the speakers
george, nicolas and theo, so the mean of the other three is printed too. The recipe for sounds was chosen on ESC-10's fold 1.
"""
import argparse
import statistics
from pathlib import Path

import torch

from specgen.classifier import classify
from specgen.corpora import load

TUNED = ("george", "nicolas", "theo")


def accuracy(corpus, folder, **how):
    "Percent of the test clips that are right."
    _, probs, labels = classify(corpus, folder=folder, progress=False, **how)
    return 100 * (probs.argmax(1) == labels).float().mean().item()


def spread(values):
    "Mean and standard deviation."
    return f"{statistics.mean(values):6.2f} ± {statistics.stdev(values) if len(values) > 1 else 0:.2f}"


def official(out, seeds):
    fsdd = load("fsdd")
    found = [accuracy(fsdd, out / f"official_{seed}", seed=seed) for seed in range(seeds)]
    print("FSDD, official split (takes 0 to 4), % by seed:", *(f"{a:.2f}" for a in found), flush=True)


def speakers(out, seeds):
    fsdd = load("fsdd")
    found = {}
    for speaker in sorted(set(fsdd.speakers)):
        found[speaker] = [accuracy(fsdd, out / f"{speaker}_{seed}", by="speaker", test=speaker, seed=seed) for seed in range(seeds)]
        print(f"FSDD, {speaker:9s} left out, % by seed:", *(f"{a:.2f}" for a in found[speaker]), flush=True)
    means = {speaker: statistics.mean(values) for speaker, values in found.items()}
    print("FSDD, mean of six speakers ± deviation between them:", spread(means.values()))
    print("  the three that the recipe was not chosen on:      ", spread([m for s, m in means.items() if s not in TUNED]))
    print("  mean of six by seed:", *(f"{statistics.mean(values):.2f}" for values in zip(*found.values(), strict=True)), flush=True)


def esc10(out, seeds):
    corpus = load("esc10")
    found = []
    for fold in range(1, 6):
        found.append([accuracy(corpus, out / f"fold{fold}_{seed}", by="fold", test=fold, seed=seed) for seed in range(seeds)])
        print(f"ESC-10, fold {fold}, % by seed:", *(f"{a:.1f}" for a in found[-1]), flush=True)
    print("ESC-10, mean of five folds ± deviation between them:", spread([statistics.mean(values) for values in found]))
    print("  mean of five by seed:", *(f"{statistics.mean(values):.2f}" for values in zip(*found, strict=True)), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="official,speakers,esc10", help="which of the three, with commas between")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="torch threads")
    parser.add_argument("--out", type=Path, default=Path("runs/classifier"), help="where the trainings are kept")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for name in args.only.split(","):
        {"official": official, "speakers": speakers, "esc10": esc10}[name](args.out, args.seeds)
