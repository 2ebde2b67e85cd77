"""How often the classifier is right: FSDD's official split, each of its six speakers left out, ESC-10's five folds.

    SPECGEN_DATA=... python benchmarks/classifier.py [--only official,speakers,esc10] [--seeds 2] [--out runs/classifier]

Every training is kept under --out and taken up again from there; delete a folder to train it anew. The presets for words were chosen on the speakers
george, nicolas and theo, so the mean of the other three is printed too. Those for sounds were chosen on ESC-10's fold 1. `--preset source` has the
settings of the source instead: mel spectrograms, convolutions, flatten, Adam, batches of 32, 30 epochs, no augmentation.
"""
import argparse
import statistics
from pathlib import Path

import torch
from common import machine

from specgen.classifier import Classifier
from specgen.datasets import load_recordings

TUNED = ("george", "nicolas", "theo")


def accuracies(recordings, folder, args, **split):
    "Percent of the test clips that are right, for each seed."
    dataset = Classifier.prepare(recordings, preset=args.preset, **split)
    trained = (Classifier.fit(dataset, preset=args.preset, out=f"{folder}_{seed}", seed=seed, progress=False) for seed in range(args.seeds))
    return [100 * model.evaluate(dataset)["accuracy"] for model in trained]


def spread(values):
    "Mean and standard deviation."
    return f"{statistics.mean(values):6.2f} ± {statistics.stdev(values) if len(values) > 1 else 0:.2f}"


def official(args):
    found = accuracies(load_recordings("fsdd"), args.out / "official", args)
    print("FSDD, official split (takes 0 to 4), % by seed:", *(f"{a:.2f}" for a in found), flush=True)


def speakers(args):
    fsdd = load_recordings("fsdd")
    found = {}
    for speaker in sorted(set(fsdd.speakers)):
        found[speaker] = accuracies(fsdd, args.out / speaker, args, by="speaker", test=speaker)
        print(f"FSDD, {speaker:9s} left out, % by seed:", *(f"{a:.2f}" for a in found[speaker]), flush=True)
    means = {speaker: statistics.mean(values) for speaker, values in found.items()}
    print("FSDD, mean of six speakers ± deviation between them:", spread(means.values()))
    print("  the three that the presets were not chosen on:    ", spread([m for s, m in means.items() if s not in TUNED]))
    print("  mean of six by seed:", *(f"{statistics.mean(values):.2f}" for values in zip(*found.values(), strict=True)), flush=True)


def esc10(args):
    recordings, found = load_recordings("esc10"), []
    for fold in range(1, 6):
        found.append(accuracies(recordings, args.out / f"fold{fold}", args, by="fold", test=fold))
        print(f"ESC-10, fold {fold}, % by seed:", *(f"{a:.1f}" for a in found[-1]), flush=True)
    means = [statistics.mean(values) for values in found]
    print("ESC-10, mean of five folds ± deviation between them:", spread(means))
    print("  the four that the presets were not chosen on:     ", spread(means[1:]))
    print("  mean of five by seed:", *(f"{statistics.mean(values):.2f}" for values in zip(*found, strict=True)), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="official,speakers,esc10", help="which of the three, with commas between")
    parser.add_argument("--preset", default="small", choices=["quick", "small", "source"])
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="torch threads")
    parser.add_argument("--out", type=Path, default=Path("runs/classifier"), help="where the trainings are kept")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(machine())
    for name in args.only.split(","):
        {"official": official, "speakers": speakers, "esc10": esc10}[name](args)
