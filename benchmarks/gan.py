"""What a judge hears in the conditional GAN's pictures: the source's recipe, every step beyond it, all steps together; ESC-10 and spoken digits.

    SPECGEN_DATA=... python benchmarks/gan.py [--only source,final,digits,steps] [--preset small] [--out runs/gan]

ESC-10 trains on folds 1 to 4; the judge is a classifier of the same clips (`specgen.classifier`, its recipe for sounds) and is itself measured on all
five folds (`--folds`). `source` is the source's recipe at the preset's width: 100 epochs at its learning rate; `final` has all steps. FSDD trains on
takes 5 to 49; `steps` trains a small model there for a short time (preset quick, `--short` epochs) with one step more each time, all but the last.
Real clips, heard by the same judge, are the first rows of each table. Every training is kept under --out and taken up again from there; so the same
command, stopped and started, ends with the whole tables, which are also written to results/gan_*.csv.
"""
import argparse
import csv
from dataclasses import replace
from pathlib import Path

import torch

from specgen import classifier
from specgen.audio import LogMel, atomic
from specgen.corpora import load
from specgen.evaluation import Judge, label_accuracy
from specgen.gan import RECIPES, STEPS, GANConfig, config_of, draw_corpus, fit_gan, gan_scores

RESULTS = Path(__file__).parent / "results"
COLUMNS = ("label_accuracy", "fid", "is", "diversity", "least_diversity", "nearest")


def sounds_judge(corpus, args):
    "A judge for the pictures of the GAN's recipe for sounds, trained on folds 1 to 4; prints its accuracy on every fold asked for."
    recipe, found, judge = RECIPES["sounds"], {}, None
    for fold in args.folds:
        model, probs, labels = classifier.classify(
            corpus, LogMel(**recipe["mels"], power=1.0), by="fold", test=fold, n_frames=recipe["n_frames"], preset=args.preset, seed=args.seed,
            recipe={**classifier.RECIPES["sounds"], "depth": recipe["depth"]}, folder=args.out / f"judge_{args.preset}_fold{fold}", progress=args.progress)
        found[fold] = label_accuracy(probs, labels)
        print(f"judge, ESC-10 fold {fold}: {found[fold]:.1%}", flush=True)
        judge = Judge(model, found[fold]) if fold == 5 else judge
    found["mean"] = sum(found.values()) / len(found)
    print(f"judge, mean of {len(found) - 1} folds: {found['mean']:.1%}", flush=True)
    with atomic(RESULTS / "gan_judge.csv") as temporary, open(temporary, "w", newline="") as file:
        csv.writer(file).writerows([("fold", "accuracy"), *found.items()])
    judge.save_pretrained(args.out / "judge_sounds")
    return judge


def table(path, rows):
    "Print the last row; write all."
    print("| " + " | ".join(f"{v:.3f}" if isinstance(v, float) else str(v) for v in rows[-1].values()) + " |", flush=True)
    with atomic(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def compare(title, name, pictures, judge, configs, args):
    "Train what is asked for, and score it beside real clips."
    real, labels = pictures.specs[pictures.train], pictures.labels[pictures.train]
    asked, rows, path = torch.arange(args.samples) % len(pictures.classes), [], RESULTS / f"gan_{title}.csv"
    print(f"\n{title}: judge {judge.accuracy:.1%} on held-out clips, {len(real)} training clips, {args.samples} samples")
    print("| " + " | ".join(["", "epochs", *COLUMNS]) + " |\n" + "|---" * (len(COLUMNS) + 2) + "|")

    def row(recipe, epochs, made, asked):
        scores = gan_scores(judge, made, asked, real, labels)
        rows.append({"recipe": recipe, "epochs": epochs, **{key: scores[key] for key in COLUMNS}})
        table(path, rows)

    row("real, training", "", real, labels)
    row("real, held out", "", pictures.specs[pictures.test], pictures.labels[pictures.test])
    for recipe, config in configs.items():
        folder = args.out / f"{title}_{args.preset}_{config.epochs}_{recipe.strip('+ ').replace(' ', '_')}_{args.seed}"
        model = fit_gan(pictures, config, disturb=RECIPES[name]["disturb"], seed=args.seed, folder=folder, save_every=max(1, config.epochs // 100),
                        progress=args.progress)
        model.save_pretrained(folder)
        row(recipe, config.epochs, model.sample(asked, truncation=args.truncation), asked)


def main(args):
    size = RECIPES["sounds"]["sizes"][args.preset]
    if {"source", "final"} & set(args.only):
        corpus = load("esc10")
        judge, pictures = sounds_judge(corpus, args), draw_corpus(corpus, recipe=RECIPES["sounds"], by="fold", test=5)
        configs = {"the source": GANConfig(width=size["width"], most=size["most"]), RECIPES["sounds"]["step"]: config_of(RECIPES["sounds"], args.preset)}
        wanted = {recipe: config for part, (recipe, config) in zip(("source", "final"), configs.items(), strict=True) if part in args.only}
        compare("sounds", "sounds", pictures, judge, wanted, args)
    if {"digits", "steps"} & set(args.only):
        pictures = draw_corpus(load("fsdd"), recipe=RECIPES["words"])
        parts = [(pictures.specs[i].mT, pictures.labels[i]) for i in (pictures.train, pictures.test)]
        judge = Judge.fit(*parts[0], heldout=parts[1], n_classes=10, seed=args.seed, folder=args.out / "judge_digits", progress=args.progress)
        if "digits" in args.only:
            compare("words", "words", pictures, judge, {RECIPES["words"]["step"]: config_of(RECIPES["words"], args.preset)}, args)
        if "steps" in args.only:
            short = {step: replace(config_of(RECIPES["words"], "quick", step), epochs=args.short) for step in list(STEPS)[:-1]}
            compare("steps", "words", pictures, judge, short, args)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=lambda text: text.split(","), default=["source", "final", "digits", "steps"], help="which, with commas between")
    parser.add_argument("--preset", default="small", choices=["quick", "small", "paper"])
    parser.add_argument("--short", type=int, default=8, help="epochs of each step's training")
    parser.add_argument("--folds", type=lambda text: [int(k) for k in text.split(",")], default=[1, 2, 3, 4, 5], help="the judge is measured on; 5 is needed")
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--truncation", type=float, default=1.0, help="of the noise; 1 is as in training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="torch threads")
    parser.add_argument("--progress", action="store_true", help="show bars")
    parser.add_argument("--out", type=Path, default=Path("runs/gan"), help="where the trainings are kept")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    main(args)
