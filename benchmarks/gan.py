"""What an evaluation classifier hears in the conditional GAN's spectrograms: the source's method, every step beyond it, all steps together; ESC-10 and digits.

    SPECGEN_DATA=... python benchmarks/gan.py [--only source,final,digits,steps] [--preset small] [--out runs/gan]

ESC-10 trains on folds 1 to 4; the evaluation classifier learns the same clips (the preset for sounds of `specgen.classifier`) and is itself measured on all
five folds (`--folds`). `source` is the source's method at the preset's width: 100 epochs at its learning rate; `final` has all steps. FSDD trains on
takes 5 to 49; `steps` trains a small model there for a short time (preset quick, `--short` epochs) with one step more each time, all but the last.
Real clips, heard by the same classifier, are the first rows of each table. Every training is kept under --out and taken up again from there; so the same
command, stopped and started, ends with the whole tables, which are also written to results/gan_*.csv.
"""
import argparse
from pathlib import Path

import torch

from specgen.core import write_table
from specgen.datasets import load_recordings
from specgen.evaluation import Evaluator
from specgen.gan import GAN, GAN_STEPS, HEARD, SPOKEN, at_step

RESULTS = Path(__file__).parent / "results"
COLUMNS = ("label_accuracy", "frechet_distance", "inception_score", "diversity", "least_diversity", "nearest_neighbour_distance")


def sounds_evaluator(recordings, args):
    "An evaluation classifier of the GAN's spectrograms of sounds, trained on folds 1 to 4; prints its accuracy on every fold asked for."
    rows, evaluator = [], None
    for fold in args.folds:
        data = GAN.prepare(recordings, preset=args.preset, by="fold", test=fold)
        fitted = Evaluator.fit(data, preset=args.preset, seed=args.seed, out=args.out / f"evaluator_{args.preset}_fold{fold}", progress=args.progress)
        rows.append({"fold": fold, "accuracy": fitted.accuracy})
        print(f"evaluation classifier, ESC-10 fold {fold}: {fitted.accuracy:.1%}", flush=True)
        evaluator = fitted if fold == 5 else evaluator
    mean = sum(row["accuracy"] for row in rows) / len(rows)
    print(f"evaluation classifier, mean of {len(rows)} folds: {mean:.1%}", flush=True)
    write_table(RESULTS / "gan_judge.csv", [*rows, {"fold": "mean", "accuracy": mean}])
    evaluator.save_pretrained(args.out / "evaluator_sounds")
    return evaluator


def compare(title, data, evaluator, presets, args):
    "Train what is asked for, and score it beside real clips."
    asked, rows, path, known = torch.arange(args.samples) % len(data.classes), [], RESULTS / f"gan_{title}.csv", data.train
    print(f"\n{title}: evaluation classifier {evaluator.accuracy:.1%} on held-out clips, {len(known)} training clips, {args.samples} samples")
    print("| " + " | ".join(["", "epochs", "n", *COLUMNS]) + " |\n" + "|---" * (len(COLUMNS) + 3) + "|")

    def row(method, epochs, made, labels):
        scores = evaluator.score(made, labels, reference=known)
        rows.append({"recipe": method, "epochs": epochs, "n": scores["n"], **{key: scores[key] for key in COLUMNS}})
        print("| " + " | ".join(f"{v:.3f}" if isinstance(v, float) else str(v) for v in rows[-1].values()) + " |", flush=True)
        write_table(path, rows)

    row("real, training", "", *known.tensors)
    row("real, held out", "", *data.test.tensors)
    for method, preset in presets.items():
        folder = args.out / f"{title}_{args.preset}_{method.strip('+ ').replace(' ', '_')}_{args.seed}"
        model = GAN.fit(data, preset=preset, seed=args.seed, out=folder, progress=args.progress)
        model.save_pretrained(folder)
        row(method, preset.training["epochs"], model.sample(asked, truncation=args.truncation, seed=args.seed), asked)


def main(args):
    if {"source", "final"} & set(args.only):
        recordings, final = load_recordings("esc10"), GAN.preset(args.preset, "sounds")
        evaluator, data = sounds_evaluator(recordings, args), GAN.prepare(recordings, preset=args.preset, by="fold", test=5)
        width, channels = final.model["width"], final.model["max_channels"]
        presets = {"source": HEARD(width, channels, epochs=100, batch_size=32, lr=2e-4), "progressive growing": final}
        wanted = {method: preset for part, (method, preset) in zip(("source", "final"), presets.items(), strict=True) if part in args.only}
        compare("sounds", data, evaluator, wanted, args)
    if {"digits", "steps"} & set(args.only):
        data = GAN.prepare(load_recordings("fsdd"), preset=args.preset)
        evaluator = Evaluator.fit(data, seed=args.seed, out=args.out / "evaluator_digits", progress=args.progress)
        if "digits" in args.only:
            compare("words", data, evaluator, {"averaged weights": GAN.preset(args.preset, "words")}, args)
        if "steps" in args.only:
            plain = SPOKEN(8, 32, epochs=args.short, batch_size=32, lr=1e-3)
            compare("steps", data, evaluator, {step: at_step(plain, step) for step in list(GAN_STEPS)[:-1]}, args)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=lambda text: text.split(","), default=["source", "final", "digits", "steps"], help="which, with commas between")
    parser.add_argument("--preset", default="small", choices=["quick", "small", "paper"])
    parser.add_argument("--short", type=int, default=8, help="epochs of each step's training")
    parser.add_argument("--folds", type=lambda text: [int(k) for k in text.split(",")], default=[1, 2, 3, 4, 5],
                        help="the evaluation classifier is measured on; 5 is needed")
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--truncation", type=float, default=1.0, help="of the noise; 1 is as in training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="torch threads")
    parser.add_argument("--progress", action="store_true", help="show bars")
    parser.add_argument("--out", type=Path, default=Path("runs/gan"), help="where the trainings are kept")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    main(args)
