"""Spoken digits in few steps: solvers and time grids without training, then reflow, distillation and MeanFlow, heard as sounds by evaluation classifiers.

    SPECGEN_DATA=... python benchmarks/few_step.py --flow runs/digits/model --evaluator runs/evaluator [--samples 300] [--paths 6000] [--out runs/few_step]

`--flow` is a saved `DigitGenerator`, trained on FSDD's official split; `--evaluator` a saved `SoundEvaluator` of the same split. The guidance is the one whose
sounds have the smallest Fréchet distance to the training clips under the first classifier alone; each time grid is the one whose latents come nearest to those
of 64 midpoint steps. Neither looks at a held-out clip. Then, for every seed, the trainings, and every row: latents to spectrograms, to sound by Griffin-Lim, to
16-bit wavs, read again. Everything is kept under --out and taken up again from there; the table is results/few_step.csv. A `call` is one pass of a latent
through the network: two for an evaluation with guidance.
"""
import argparse
import time
from itertools import chain
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from specgen.augmentation import augment_dataset
from specgen.core import atomic, read_json, write_json, write_table
from specgen.datasets import load_recordings
from specgen.few_step import StepNetwork, distill, flow_paths, mean_flow, power_times, reflow, straightness
from specgen.filtering import filter_recordings
from specgen.flow_matching import VelocityNetwork, integrate
from specgen.pipeline import DigitGenerator
from specgen.sound_evaluation import SoundDataset, SoundEvaluator
from specgen.spectrogram_dataset import SpectrogramDataset

RESULTS = Path(__file__).parent / "results" / "few_step.csv"
SCORES = ("n", "label_accuracy", "frechet_distance", "kernel_distance", "diversity", "least_diversity", "memorisation", "level", "silence")
SOLVERS = [("euler", 1), ("euler", 2), ("euler", 4), ("adams", 4), ("adams", 8), ("midpoint", 2), ("midpoint", 4)]
GUIDANCES = (1.0, 1.15, 1.25, 1.5, 2.0)
POWERS = (0.7, 1.0, 1.3, 1.6, 2.0)
BLANK = dict.fromkeys(("method", "steps", "power", "evaluations", "calls", "seed", "guidance", "latent_error", "straightness", "train_seconds"), "")
TRAINED = ("reflow", "distillation", "MeanFlow")


def once(path, make, *args):
    "A tensor, or what a JSON file can hold, that is made only once."
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".json":
        if not path.exists():
            write_json(path, make(*args))
        return read_json(path)
    if not path.exists():
        with atomic(path) as temporary:
            save_file({"x": make(*args).contiguous()}, temporary)
    return load_file(path)["x"]


def ends(flow, labels, guidance, seed, steps, method):
    return flow.sample(labels, guidance=guidance, seed=seed, steps=steps, method=method)


def choose_guidance(generator, evaluator, real):
    "The guidance whose 300 sounds are nearest to the training clips (Fréchet distance) under the first classifier alone."
    asked, found = torch.arange(300) % 10, {}
    for guidance in GUIDANCES:
        drawn = ends(generator.flow, asked, guidance, 99, power_times(8, 1.3), "midpoint")
        found[guidance] = row_scores(drawn, asked, generator, evaluator, real)[0]["frechet_distance"]
    return {"guidance": min(found, key=found.get), "distances": found}


def choose_powers(flow, guidance):
    "For each solver and number of steps the power whose ends are nearest to those of 64 midpoint steps."
    asked, best = torch.arange(100) % 10, {}
    true = ends(flow, asked, guidance, 98, 64, "midpoint")
    for method, steps in SOLVERS:
        errors = {p: rms(ends(flow, asked, guidance, 98, power_times(steps, p), method), true) for p in (POWERS if steps > 1 else (1.0,))}
        best[f"{method} {steps}"] = min(errors, key=errors.get)
        print(method, steps, {p: round(e, 4) for p, e in errors.items()}, flush=True)
    return best


def rms(a, b):
    return (a - b).square().mean().sqrt().item()


def train_one(method, generator, dataset, guidance, seed, args):
    "A student, and the processor's seconds that its training took."
    out, flow, in_turn = args.out / f"{method}_{seed}", generator.flow, torch.arange(args.paths) % 10
    if (out / "seconds.json").exists():
        kind = VelocityNetwork if method == "reflow" else StepNetwork
        return kind.from_pretrained(out / "model"), read_json(out / "seconds.json")
    how, start = dict(preset=args.preset, seed=seed, out=out, progress=args.progress), time.process_time()
    if method == "MeanFlow":
        copies = augment_dataset(dataset).train
        student = mean_flow(flow, generator.autoencoder.encode(copies.spectrograms), copies.labels, guidance=guidance, **how)
    else:
        paths = once(args.out / f"paths_{seed}.safetensors", lambda: flow_paths(flow, in_turn, guidance=guidance, seed=seed))
        student = {"reflow": reflow, "distillation": distill}[method](flow, paths, in_turn, **how)
    student.save_pretrained(out / "model")
    return student, once(out / "seconds.json", lambda: round(time.process_time() - start))


def untrained(flow, guidance, powers, args):
    "The rows without training: what is written of each, the network, and the options of `ends`."
    per = 1 if guidance == 1 else 2
    for seed in args.seeds:
        yield dict(method="flow, euler", steps=50, power=1.0, evaluations=50, calls=50 * per, seed=seed), flow, (guidance, 1000 + seed, 50, "euler")
    for method, steps in SOLVERS:
        n, seed, even = steps * (2 if method == "midpoint" else 1), args.seeds[0], (1.0,) if method == "euler" else ()
        for power in dict.fromkeys((*even, powers[f"{method} {steps}"])):
            about = dict(method=f"flow, {method}", steps=steps, power=power, evaluations=n, calls=n * per, seed=seed)
            yield about, flow, (guidance, 1000 + seed, power_times(steps, power), method)


def trained(generator, dataset, guidance, args):
    "The rows of the trained networks, likewise."
    for seed in args.seeds:
        for method in args.only:
            student, seconds = train_one(method, generator, dataset, guidance, seed, args)
            for steps in (4, 2, 1):
                about = dict(method=method, steps=steps, power=1.0, evaluations=steps, calls=steps, seed=seed, train_seconds=seconds)
                yield about, student if type(student) is VelocityNetwork else student.for_steps(steps), (1, 1000 + seed, steps, "euler")


def straight(flow, guidance):
    "Of the paths of 100 latents."
    labels = torch.arange(100) % 10
    noise = torch.randn(100, *flow.shape, generator=torch.Generator().manual_seed(97))
    return round(straightness(torch.stack([x for _, x in integrate(flow.velocity(labels, guidance), noise, 32, "midpoint")])), 4)


def row_scores(drawn, asked, generator, evaluator, real):
    "The scores of latents as sounds, under every classifier."
    sounds = real.hear(generator.to_audio(generator.autoencoder.decode(drawn)), asked, generator.representation.sample_rate)
    return rounded(evaluator.score_table({"": sounds}, real, show=False))


def rounded(rows):
    return [{key: round(value, 4) if isinstance(value, float) else value for key, value in row.items() if key in ("classifier", *SCORES)} for row in rows]


def main(args):
    generator, recordings = DigitGenerator.from_pretrained(args.flow), load_recordings("fsdd")
    if not (args.out / "dataset" / "spectrograms.safetensors").exists():
        filter_recordings(recordings, *recordings.split(), out=args.out / "dataset", progress=args.progress)
    dataset = SpectrogramDataset.load(args.out / "dataset")
    real, flow = SoundDataset.prepare(recordings), generator.flow
    evaluator, asked = SoundEvaluator.from_pretrained(args.evaluator), torch.arange(args.samples) % 10
    keep_parts(generator, args.out)
    guidance = once(args.out / "guidance.json", choose_guidance, generator, evaluator, real)["guidance"]
    powers = once(args.out / "powers.json", choose_powers, flow, guidance)
    held = {"real, held out": real.test, "real, held out, from its latents": again(generator, dataset, real)}
    table = [{**BLANK, "method": name, **row} for name, clips in held.items() for row in rounded(evaluator.score_table({"": clips}, real, show=False))]
    settings = chain(untrained(flow, guidance, powers, args), trained(generator, dataset, guidance, args))
    for about, network, how in settings:
        name = "{method}_{steps}_{power}_{seed}".format(**about).replace(", ", "_")
        drawn = once(args.out / "latents" / f"{name}.safetensors", ends, network, asked, *how)
        fifty = load_file(args.out / "latents" / f"flow_euler_50_1.0_{about['seed']}.safetensors")["x"]
        about |= {"guidance": guidance, "latent_error": round(rms(drawn, fifty), 4)}
        if about["steps"] == (4 if about["method"] == "reflow" else 50):
            about["straightness"] = once(args.out / "straight" / f"{name}.json", straight, network, how[0])
        rows = once(args.out / "scores" / f"{name}.json", row_scores, drawn, asked, generator, evaluator, real)
        table += [{**BLANK, **about, **row} for row in rows]
        print(name, [(row["classifier"], row["label_accuracy"], row["frechet_distance"]) for row in rows], flush=True)
        write_table(RESULTS, table)


def keep_parts(generator, out):
    "What the notebook draws and plays with."
    generator.flow.save_pretrained(out / "flow")
    generator.autoencoder.save_pretrained(out / "autoencoder")
    write_json(out / "representation.json", generator.representation.to_dict())


def again(generator, dataset, real):
    "The held-out clips through the autoencoder and back to sound: what any latent can sound like."
    test = dataset.test
    return real.hear(generator.to_audio(generator.autoencoder.reconstruct(test.spectrograms)), test.labels, generator.representation.sample_rate)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flow", type=Path, required=True, help="folder of a DigitGenerator")
    parser.add_argument("--evaluator", type=Path, required=True, help="folder of a SoundEvaluator")
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(TRAINED), help=f"of {','.join(TRAINED)}")
    parser.add_argument("--samples", type=int, default=300, help="sounds of every row; FSDD holds out 300")
    parser.add_argument("--paths", type=int, default=6000, help="of the flow, that are learnt from")
    parser.add_argument("--preset", default="small")
    parser.add_argument("--seeds", type=lambda text: [int(k) for k in text.split(",")], default=[0, 1, 2])
    parser.add_argument("--progress", action="store_true", help="show bars")
    parser.add_argument("--out", type=Path, default=Path("runs/few_step"), help="where everything is kept")
    main(parser.parse_args())
