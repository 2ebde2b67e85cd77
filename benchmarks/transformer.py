"""The Audio Spectrogram Transformer in figures: filterbank features beside torchaudio's, five folds of ESC-10, and an ablation.

    python benchmarks/transformer.py --only features --threads 1       # equality and clips a second
    python benchmarks/transformer.py --only folds --folds 1            # reproduces one fold of benchmarks/results/ast_folds.csv
    python benchmarks/transformer.py --only folds --recipe patches
    python benchmarks/transformer.py --only ablation --folds 1         # the hybrid without one thing after the other
    python benchmarks/transformer.py --only ship                       # the best fold's weights in half precision into specgen/weights/ast_esc10

Every training is kept under --out and taken up again from there. Finished folds are entered into the tables under benchmarks/results, in place of older rows
of the same recipe, preset, fold and seed.
"""
import argparse
import csv
import json
from pathlib import Path

import torch
from common import machine, median_seconds
from safetensors.torch import load_file, save_file

from specgen.ast import HEARD, RECIPES, STEM, cross_validate, write_rows
from specgen.audio import Fbank, atomic, kaldi
from specgen.corpora import load

RESULTS = Path(__file__).parent / "results"
ROOT = Path(__file__).parents[1]


def kaldis(waveform):
    "(samples,) -> (128, frames)"
    return kaldi.fbank(waveform[None], num_mel_bins=128, sample_frequency=16000, htk_compat=True, use_energy=False, window_type="hamming", dither=0.0).T


def features(args):
    print(machine())
    clips = 0.1 * torch.randn(500, 16000, generator=torch.Generator().manual_seed(0))
    fbank = Fbank(window="hamming")
    difference = max((fbank.encode(part) - torch.stack([kaldis(w) for w in part])).abs().max().item() for part in clips.split(50))
    print(f"500 clips of 1 s of noise: largest difference to torchaudio.compliance.kaldi.fbank {difference:.1e}")
    try:
        real = load("esc10").waveforms(16000)[:100]
        print(f"100 clips of ESC-10: {max((fbank.encode(w) - kaldis(w)).abs().max().item() for w in real):.1e}")
    except ValueError as error:
        print(f"real clips left out: {error}")
    theirs = median_seconds(lambda: [kaldis(w) for w in clips])
    print(f"torchaudio.compliance.kaldi.fbank, clip by clip: {500 / theirs:5.0f} clips/s")
    for size in (1, 10, 50, 500):
        ours = median_seconds(lambda size=size: [fbank.encode(part) for part in clips.split(size)])
        print(f"Fbank, batches of {size:3d}:                       {500 / ours:5.0f} clips/s, {theirs / ours:.2f} times as fast")


def enter(path, rows, keys):
    "Enter rows into a table, in place of those with the same keys, sorted by them."
    known = list(csv.DictReader(path.open(encoding="utf-8"))) if path.exists() else []
    new = {tuple(str(row[key]) for key in keys): row for row in [*known, *rows]}
    write_rows(path, [new[key] for key in sorted(new)])


def folds(args):
    found = cross_validate(args.out / f"{args.recipe}_{args.seed}", corpus="esc10", folds=args.folds, recipe=args.recipe, preset=args.preset, seed=args.seed)
    enter(RESULTS / "ast_folds.csv", found.rows, ("recipe", "preset", "fold", "seed"))
    if args.recipe == "hybrid" and args.preset == "small":
        answers = (args.out / f"hybrid_{args.seed}" / "predictions.csv").open(encoding="utf-8")
        enter(RESULTS / "ast_predictions.csv", list(csv.DictReader(answers)), ("fold", "file"))
    for row in found.rows:
        print(f"{args.recipe}, fold {row['fold']}: {row['accuracy']:.1%} ({row['accuracy_ten_turns']:.1%} in ten turns), {row['cpu_seconds']} s of one core")
    print(f"{args.recipe}, {args.preset}: {found.summary}")


def ablation(args):
    "The hybrid without one thing after the other, for fewer epochs."
    small = RECIPES["hybrid"]["sizes"]["small"]
    without = {
        "all of it": {},
        "mixing": dict(heard={**HEARD, "mix": False}),
        "turning": dict(heard={**HEARD, "turn": False}),
        "warp": dict(heard={**HEARD, "warp": None}),
        "gain and tilt": dict(heard={**HEARD, "gain": 0.0, "tilt": 0.0}),
        "masks": dict(heard={**HEARD, "mask": None}),
        "weight decay": dict(learnt={**RECIPES["hybrid"]["learnt"], "weight_decay": 0.0}),
        "averaged weights": dict(learnt={**RECIPES["hybrid"]["learnt"], "ema": None}),
        "three quarters of the epochs": dict(epochs=args.epochs // 4),
        "convolutions of step 1": dict(network={**small["network"], "stem": tuple(stage for stage in STEM if stage[1] != (1, 1))}),
        "convolutions": dict(network=RECIPES["patches"]["sizes"]["small"]["network"]),
    }
    for name, change in without.items():
        size = {"network": change.pop("network", small["network"]), "epochs": change.pop("epochs", args.epochs)}
        recipe = {**RECIPES["hybrid"], **change, "sizes": {"small": size}}
        out = args.out / f"without_{name.replace(' ', '_')}_{args.epochs}"
        found = cross_validate(out, corpus="esc10", folds=args.folds, recipe=recipe, seed=args.seed)
        enter(RESULTS / "ast_ablation.csv", [{"without": name, **{k: v for k, v in row.items() if k not in ("recipe", "preset")}} for row in found.rows],
              ("without", "fold", "seed"))
        print(f"without {name}: {found.summary}", flush=True)


CARD = """---
license: cc-by-4.0
library_name: specgen
tags: [audio-classification, environmental-sound, esc-10]
---
# ast_esc10

Names ten everyday sounds in clips of any length: chainsaw, clock tick, crackling fire, crying baby, dog, helicopter, rain, rooster, sea waves, sneezing.
`load_ast("esc10")` and `predict_files(files)` of `specgen.ast`, or `specgen ast predict FILES`. Half precision, {weights:.1f} million weights.

- **Model**: six convolutions, then two transformer blocks; `Features` of 128 Kaldi filterbanks (Hamming, 25 ms every 10 ms at 16 kHz), pairs of frames
  averaged. All settings are in config.json.
- **Corpus**: ESC-10, the part of ESC-50 (K. J. Piczak 2015) that is CC BY; clips from freesound.org. Trained on the folds other than {fold}, from scratch.
- **Recipe**: `hybrid` at the preset `small`, {epochs} epochs, seed {seed}; `python benchmarks/transformer.py --only folds --folds {fold}` repeats it.
- **Score**: {accuracy:.1%} of the {n_test} clips of fold {fold}. It is the best of the five folds, so this flatters: their mean is {mean:.2%}.
  The recipe was tried out on folds 1 and 2. All folds are in `benchmarks/results/ast_folds.csv` and notebook 13_ast.
- **Limits**: it knows these ten classes only and has no way to say "none of them"; its probabilities are not calibrated. Not for alarms or surveillance.
"""


def ship(args):
    "Half of the bits are enough."
    rows = [json.loads(path.read_text()) for path in sorted((args.out / f"hybrid_{args.seed}").glob("fold*/scores.json"))]
    best, mean = max(rows, key=lambda row: row["accuracy"]), sum(row["accuracy"] for row in rows) / len(rows)
    folder, target = args.out / f"hybrid_{args.seed}" / f"fold{best['fold']}", ROOT / "specgen" / "weights" / "ast_esc10"
    weights = {name: w.half() if w.is_floating_point() else w for name, w in load_file(folder / "model.safetensors").items()}
    with atomic(target / "model.safetensors") as temporary:
        save_file(weights, temporary)
    with atomic(target / "config.json") as temporary:
        temporary.write_bytes((folder / "config.json").read_bytes())
    with atomic(target / "README.md") as temporary:
        temporary.write_text(CARD.format(**{**best, "weights": best["weights"] / 1e6, "mean": mean}), encoding="utf-8")
    print(f"{target.relative_to(ROOT)}: fold {best['fold']}, {best['accuracy']:.1%}, {(target / 'model.safetensors').stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="features", help="features, folds, ablation, ship: with commas between")
    parser.add_argument("--folds", type=lambda text: tuple(map(int, text.split(","))), default=(1, 2, 3, 4, 5))
    parser.add_argument("--recipe", default="hybrid", help="hybrid, patches or source")
    parser.add_argument("--preset", default="small")
    parser.add_argument("--epochs", type=int, default=60, help="of the ablation")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--out", type=Path, default=Path("runs/ast"), help="where the trainings are kept")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for name in args.only.split(","):
        {"features": features, "folds": folds, "ablation": ablation, "ship": ship}[name](args)
