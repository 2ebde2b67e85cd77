"""Ideas for the Audio Spectrogram Transformer of notebook 25, each over ESC-10's five folds: results/ast_ideas.csv.

    SPECGEN_DATA=... python benchmarks/transformer_ideas.py --only pretrained,distilled,three [--folds 1,2,3,4,5] [--seed 0] [--threads 1]

All have the preset `small` (240 epochs) and one change. No test fold is seen before it is scored.

`pretrained`: masked spectrogram modelling first (He et al. 2022; Gong et al. 2022): 60 % of the 32 x 16 patches are blanked, and a linear layer on the tokens
tells what was there. It sees pieces of 5 s of LibriSpeech, of FSDD's digits one after the other, and the training folds of ESC-10; --steps of 32.
`distilled`: the targets are half the labels' proportions, half the mean answer of the trainings of `small` under runs/ast (of the same fold, so none has
seen its test clips) to the same mixed and warped clips (Hinton et al. 2015).
`three`: every clip is mixed with another, and the mixture with a third.
`together` trains nothing: the mean answer of all these transformers, of those of benchmarks/transformer.py, and of the convolutional networks that
benchmarks/classifier.py keeps, for each fold: results/ast_together.csv. Nobody is left out or weighed by what it scores.
"""
import argparse
import os
import time
from pathlib import Path

import torch
from classifier import fitted
from common import enter
from torch import nn
from torch.nn import functional as F

from specgen.audio import read_audio
from specgen.audio_transformer import AST, encode_whole, epochs_config, start_model
from specgen.augmentation import energy_mixup
from specgen.classifier import Classifier
from specgen.core import read_json, write_json
from specgen.datasets import load_recordings
from specgen.training import TrainConfig, train

RESULTS, PATCH = Path(__file__).parent / "results", (32, 16)
SMALL = AST.preset("small")


class Masked(nn.Module):
    "An AST that tells what was in blanked patches of spectrograms (N, 128, frames)."

    def __init__(self, model: AST):
        super().__init__()
        self.model, self.tell = model, nn.Linear(model.embedding.pos_embed.shape[-1], PATCH[0] * PATCH[1])

    def forward(self, x):
        x = self.model.embedding(x)
        for block in self.model.blocks:
            x = block(x)
        return self.tell(self.model.norm(x))


def masked_loss(masked, batch, generator):
    "Mean squared error of the blanked patches, each by its own mean and deviation."
    settings = {name: SMALL.augment[name] for name in ("roll", "gain_db", "tilt_db")}
    x, _ = masked.model.augment_batch(batch[0], batch[0], generator, **settings)
    rows, columns = x.shape[1] // PATCH[0], -(-x.shape[2] // PATCH[1])
    whole = F.pad(x, (0, columns * PATCH[1] - x.shape[2]), mode="replicate")
    patches = F.unfold(whole[:, None], PATCH, stride=PATCH).mT
    blank = torch.rand(len(x), rows * columns, generator=generator, device=x.device) < 0.6
    spread = blank.unflatten(1, (rows, columns)).repeat_interleave(PATCH[0], 1).repeat_interleave(PATCH[1], 2)[..., : x.shape[2]]
    told = masked(x.masked_fill(spread, 0.0)).float()
    target = (patches - patches.mean(-1, keepdim=True)) / (patches.std(-1, keepdim=True) + 0.05)
    return (told - target).square().mean(-1)[blank].mean()


def pieces(representation, n_frames):
    "LibriSpeech and FSDD's digits in pieces of 5 s: spectrograms (N, 128, frames)."
    root, rate = Path(os.environ["SPECGEN_DATA"]), representation.sample_rate
    speech = torch.cat([read_audio(path, rate)[0] for path in sorted((root / "librispeech").glob("*.flac"))])
    digits = torch.cat(list(load_recordings("fsdd").waveforms(rate)))
    return torch.stack([encode_whole(clip, representation)[:, :n_frames] for part in (speech, digits) for clip in part.unfold(0, 5 * rate, 5 * rate)])


def pretrained(data, folder, args):
    "The network of a fold after masked spectrogram modelling, and what goes on from there."
    start = folder.parent / f"masked_{folder.name}"
    if not (start / "config.json").is_file():
        own = data.train.spectrograms
        everything = torch.cat([data.representation.normalize(pieces(data.representation, own.shape[-1])), own.repeat(2, 1, 1)])
        masked = Masked(start_model(data, SMALL, args.seed).to(memory_format=torch.channels_last))
        config = TrainConfig(steps=args.steps, batch_size=32, lr=1e-3, weight_decay=0.05, grad_clip=2.0, warmup=100, log_every=100, seed=args.seed)
        history = train(masked, (everything,), masked_loss, config, out=start, progress=False)
        print(f"masked patches of {len(everything)} spectrograms: error {history.rows[0]['loss']:.3f} -> {history.rows[-1]['loss']:.3f}", flush=True)
        masked.model.save_pretrained(start)
    return SMALL.changed(model=dict(start=str(start))), None


def distilled(data, folder, args):
    "Softened targets by the trainings of the same fold."
    teachers = [AST.from_pretrained(path.parent) for path in sorted(args.teachers.glob(f"small_*/{folder.name}/config.json"))]
    print(f"{len(teachers)} teachers", flush=True)

    def loss(model, batch, generator):
        settings = {name: value for name, value in SMALL.augment.items() if name != "smoothing"}
        x, proportions = model.augment_batch(batch[0], F.one_hot(batch[1], model.n_classes).float(), generator, **settings)
        with torch.no_grad():
            said = torch.stack([teacher(x).float().softmax(-1) for teacher in teachers]).mean(0)
        return F.cross_entropy(model(x).float(), (proportions + said) / 2)

    return SMALL, loss


def three(data, folder, args):
    "A third clip in every mixture."
    settings = {name: value for name, value in SMALL.augment.items() if name != "smoothing"}

    def loss(model, batch, generator):
        r, targets = model.representation, F.one_hot(batch[1], model.n_classes).float()
        energies, targets = energy_mixup(r.denormalize(batch[0]).exp(), targets, generator)
        x = r.normalize(energies.clamp(min=r.floor).log())
        x, targets = model.augment_batch(x, targets, generator, **settings)
        return F.cross_entropy(model(x).float(), targets, label_smoothing=SMALL.augment["smoothing"])

    return SMALL, loss


def fit(data, preset, loss, folder, seed):
    "As `AST.fit`, with a loss of its own."
    if loss is None:
        return AST.fit(data, preset=preset, out=folder, seed=seed, progress=False)
    model = start_model(data, preset, seed).to(memory_format=torch.channels_last)
    train(model, data.train, loss, epochs_config(len(data.train), **preset.training, seed=seed), out=folder, title="AST", progress=False)
    return model


def score(name, fold, seed, model, data, seconds):
    row = {"idea": name, "fold": fold, "seed": seed, **model.evaluate(data), "accuracy_ten_shifts": model.evaluate(data, n_shifts=10)["accuracy"],
           "cpu_seconds": seconds}
    enter(RESULTS / "ast_ideas.csv", [row], ("idea", "fold", "seed"))
    print(row, flush=True)


def together(recordings, args):
    "The mean answer of every training at hand."
    for fold in args.folds:
        data, small = AST.prepare(recordings, preset=SMALL, by="fold", test=fold), Classifier.prepare(recordings, preset="small", by="fold", test=fold)
        kept = sorted(path.parent for root in (args.teachers, args.out) for path in root.glob(f"*_*/fold{fold}/config.json"))
        networks = [fitted(small, "small", folder, int(folder.name[-1]))[0] for folder in sorted(args.classifiers.glob(f"fold{fold}_small_*"))]
        (x, labels), (y, same) = data.test.tensors, small.test.tensors
        assert torch.equal(labels, same)
        answers = {"transformers": torch.stack([AST.from_pretrained(path).predict_proba(x) for path in kept]),
                   "networks": torch.stack([network.predict_proba(y) for network in networks])}
        answers["all"] = torch.cat(list(answers.values()))
        right = {name: (each.mean(0).argmax(1) == labels).float().mean().item() for name, each in answers.items()}
        single = (answers["all"].argmax(-1) == labels).float().mean().item()
        row = {"fold": fold, "n": len(labels), "transformers": len(kept), "networks": len(networks), "mean_of_each": single,
               **{f"accuracy_{name}": value for name, value in right.items()}}
        enter(RESULTS / "ast_together.csv", [row], ("fold",))
        print(row, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="pretrained,distilled,three", help="which, with commas between; together")
    parser.add_argument("--folds", type=lambda text: tuple(map(int, text.split(","))), default=(1, 2, 3, 4, 5))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=2000, help="of the masked spectrogram modelling")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--out", type=Path, default=Path("runs/ast_ideas"), help="where the trainings are kept")
    parser.add_argument("--teachers", type=Path, default=Path("runs/ast"), help="where benchmarks/transformer.py keeps its trainings")
    parser.add_argument("--classifiers", type=Path, default=Path("runs/classifier"), help="where benchmarks/classifier.py keeps its trainings")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    recordings = load_recordings("esc10")
    for name in args.only.split(","):
        if name == "together":
            together(recordings, args)
            continue
        for fold in args.folds:
            data = AST.prepare(recordings, preset=SMALL, by="fold", test=fold)
            folder, started = args.out / f"{name}_{args.seed}" / f"fold{fold}", time.process_time()
            preset, loss = {"pretrained": pretrained, "distilled": distilled, "three": three}[name](data, folder, args)
            model = fit(data, preset, loss, folder, args.seed)
            if not (folder / "config.json").is_file():
                model.save_pretrained(folder)
                write_json(folder / "seconds.json", round(time.process_time() - started))
            score(name, fold, args.seed, model, data, read_json(folder / "seconds.json"))
