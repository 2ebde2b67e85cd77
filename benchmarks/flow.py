"""Velocity networks side by side: what they cost, and how near what they draw comes to recordings.

    SPECGEN_DATA=... python benchmarks/flow.py [--data digits,fsdd] [--only "mlp; mlp 768"] [--seeds 0,1,2] [--out runs/flow]
    SPECGEN_DATA=... python benchmarks/flow.py --sounds [--out runs/flow]
    SPECGEN_DATA=... python benchmarks/flow.py --iterations [--out runs/flow]

All learn the same latents: of the linear autoencoder, of the filtered and augmented training clips. Rows: held-out recordings of known voices, then each
network and seed under several guidances. Every row is scored on as many clips as the recordings are, by two evaluation classifiers of different seeds:
`tuning`, by which guidance, sizes and steps were chosen, and `report`, by which nothing was. Seconds are of this process's CPU time, one thread: of the
training, and of drawing 500 latents. What was trained and measured is kept under --out; benchmarks/results/flow_sizes.csv is written from all of it.

--sounds: the model that ships, as sound, under evaluation classifiers of three kinds (notebook 15), at several guidances: benchmarks/results/flow_sounds.csv.
Its guidance is chosen by the first of them, `mel`; the other two were seen before that choice was final.

--iterations: the same model under the same classifiers, by the iterations of phase retrieval that its words get: benchmarks/results/flow_iterations.csv.
"""
import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from specgen import flow_matching
from specgen.augmentation import augment_dataset
from specgen.autoencoder import Autoencoder
from specgen.core import read_json, write_json, write_table
from specgen.datasets import load_recordings
from specgen.evaluation import Evaluator, floor_rows
from specgen.filtering import filter_recordings
from specgen.flow_matching import FlowMatcher, VelocityNetwork
from specgen.pipeline import SHIPPED, DigitGenerator, with_floor
from specgen.sound_evaluation import SoundDataset, SoundEvaluator
from specgen.training import TrainConfig, train

RESULTS, SOUNDS, ITERATIONS = (Path(__file__).parent / "results" / f"flow_{name}.csv" for name in ("sizes", "sounds", "iterations"))
RATE = 8000  # hertz, of what the model says
SEEDS = {"tuning": 7, "report": 1}  # of the evaluation classifiers
SEEDS_OF_NOISE = (11, 12, 13)
MLP = dict(size=dict(width=384, hidden=576, depth=2))
FAST = dict(lr=2e-3, warmup=30)
NETWORKS = {  # settings of the network, of its training, and the loss
    "mlp": (MLP, dict(steps=3000, ema=0.998, **FAST), {}),
    "unet 64-128-192, embedding 768": (dict(network="unet", size=dict(channels=(64, 128, 192)), embedding=768), dict(steps=600, ema=0.99, **FAST), {}),
    "unet 32-64-128": (dict(network="unet", size=dict(channels=(32, 64, 128)), embedding=128), dict(steps=600, ema=0.99, **FAST), {}),
    "mlp 768": (dict(size=dict(width=768, hidden=1536, depth=4), embedding=192), dict(steps=1000, ema=0.995, lr=1e-3, warmup=30), {}),
    "tokens": (dict(network="tokens", size=dict(width=192, depth=4)), dict(steps=600, ema=0.99, **FAST), {}),
    "mlp, 600 steps": (MLP, dict(steps=600, ema=0.99, **FAST), {}),
    "mlp, stratified times": (MLP, dict(steps=3000, ema=0.998, **FAST), dict(times="stratified")),
    "mlp, logit-normal times": (MLP, dict(steps=3000, ema=0.998, **FAST), dict(times="logit-normal")),
    "mlp, guidance in the target": (MLP, dict(steps=3000, ema=0.998, **FAST), dict(inside=0.25)),
}
GUIDANCES = (1.0, 1.25, 1.5)


class TokenBlock(nn.Module):
    "Self-attention and two linear layers, scaled and shifted by time and class (Peebles & Xie 2023): (N, tokens, width) -> the same."

    def __init__(self, width, embedding, heads=4):
        super().__init__()
        self.film, self.heads = nn.Linear(embedding, 6 * width), heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)

    def forward(self, x, e):
        a, b, c, d, f, g = self.film(e)[:, None].chunk(6, 2)
        h = F.layer_norm(x, x.shape[2:]) * (1 + a) + b
        q, k, v = self.qkv(h).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x = x + c * self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        h = F.layer_norm(x, x.shape[2:]) * (1 + d) + f
        return x + g * self.down(F.gelu(self.up(h)))


class Tokens(nn.Module):
    "Latents (N, 6, 64) and embeddings (N, embedding) of time and class -> velocities, by attention between 16 patches of 6 x 4."

    def __init__(self, shape, embedding, width, depth):
        super().__init__()
        self.grid, self.first, self.last = shape[1] // 4, nn.Linear(4 * shape[0], width), nn.Linear(width, 4 * shape[0])
        self.place = nn.Parameter(0.02 * torch.randn(self.grid, width))
        self.blocks = nn.ModuleList(TokenBlock(width, embedding) for _ in range(depth))
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x, e):
        h = self.first(x.unflatten(2, (self.grid, 4)).transpose(1, 2).flatten(2)) + self.place
        for block in self.blocks:
            h = block(h, e)
        return self.last(F.layer_norm(h, h.shape[2:])).unflatten(2, (-1, 4)).transpose(1, 2).flatten(2)


flow_matching.NETWORKS["tokens"] = Tokens


@dataclass(frozen=True)
class Variant(FlowMatcher):
    "Flow matching with other times, or towards the guided velocity (Tang et al. 2025, model guidance)."

    times: str = "uniform"  # or 'stratified', 'logit-normal' (Esser et al. 2024, m = 0, s = 1)
    inside: float = 0.0  # guidance that is learnt, less 1

    def draw_times(self, n, generator):
        if self.times == "logit-normal":
            return torch.randn(n, generator=generator).sigmoid()
        t = torch.rand(n, generator=generator)
        return (torch.arange(n) + t) / n if self.times == "stratified" else t

    def loss(self, model, batch, generator):
        x1, labels = batch
        x0, t = torch.randn(x1.shape, generator=generator), self.draw_times(len(x1), generator)
        xt, ut = self.path(x0, x1, t)
        hidden = torch.rand(len(x1), generator=generator) < self.dropout
        shown = torch.where(hidden, self.n_classes, labels)
        v = model(xt, t, shown).float()
        if self.inside:
            with torch.no_grad():
                away = v - model(xt, t, torch.full_like(labels, self.n_classes)).float()
            ut = ut + self.inside * away * (~hidden)[:, None, None]
        return (v - ut).square().mean()


def prepared(name, out):
    "The dataset, the autoencoder, its latents with their labels, and both evaluation classifiers."
    data = with_floor(filter_recordings(load_recordings(name), out=out / "filter"), 0)
    copies, start = augment_dataset(data), time.process_time()
    autoencoder = Autoencoder.fit(copies, seed=2)
    print(f"{name}: autoencoder in {time.process_time() - start:.0f} s", flush=True)
    evaluators = {use: Evaluator.fit(copies, seed=seed, out=out / f"evaluator_{seed}", progress=False) for use, seed in SEEDS.items()}
    return data, autoencoder, (autoencoder.encode(copies.train.spectrograms), copies.train.labels), evaluators


def scored(evaluators, rows, data):
    "The scores of each row under both classifiers."
    found = {name: {} for name in rows}
    for use, evaluator in evaluators.items():
        for row in evaluator.score_table(rows, data, show=False):
            found[row["name"]] |= {"n": row["n"]}
            found[row["name"]] |= {f"{use}_{key}": round(row[key], 4) for key in
                                   ("label_accuracy", "frechet_distance", "kernel_distance", "diversity", "nearest_neighbour_distance")}
    return found


def trained(settings, training, loss, latents, n_classes, seed, folder):
    "A network, and the seconds that it took."
    start = time.process_time()
    torch.manual_seed(seed)
    model = VelocityNetwork(n_classes, **settings)
    config = TrainConfig(batch_size=128, seed=seed, checkpoint_every=500, **training)
    train(model, latents, Variant(n_classes, **loss).loss, config, out=folder, progress=False)
    if not (folder / "seconds.json").is_file():  # else it was trained before, and only read now
        write_json(folder / "seconds.json", round(time.process_time() - start, 1))
    return model, read_json(folder / "seconds.json")


def network_rows(name, title, seed, parts, out):
    "One network and seed at every guidance; kept."
    folder = out / name / f"{title} {seed}".replace(" ", "_").replace(",", "")
    if not (folder / "rows.json").is_file():
        data, autoencoder, latents, evaluators = parts
        settings, training, loss = NETWORKS[title]
        model, seconds = trained(settings, training, loss, latents, len(data.classes), seed, folder)
        asked, drawn, start = torch.arange(500) % len(data.classes), {}, time.process_time()
        floor, real = next(iter(floor_rows(data).items()))
        rows = {"real": real}
        for guidance in GUIDANCES:
            drawn[guidance] = round(time.process_time() - start, 2)
            rows[guidance] = autoencoder.decode(model.sample(asked, steps=20, guidance=guidance, seed=seed + 4)), asked
            drawn[guidance], start = round(time.process_time() - start, 2), time.process_time()
        about = dict(dataset=name, network=title, seed=seed, parameters=sum(p.numel() for p in model.parameters()), steps=training["steps"], seconds=seconds)
        table = scored(evaluators, rows, data)
        write_json(folder / "rows.json", [dict(dataset=name, network=floor, seed="", **table.pop("real"))] +
                   [{**about, "guidance": g, "drawing_seconds": drawn[g], **row} for g, row in table.items()])
    return read_json(folder / "rows.json")


def listeners(recordings, out):
    "FSDD's sounds, and what listens to them."
    place, heard = out / "sounds" / "evaluator", SoundDataset.prepare(recordings)
    if not (place / "evaluator.json").is_file():
        SoundEvaluator.fit(heard, out=out / "sounds" / "trainings", progress=False).save_pretrained(place)
    return heard, SoundEvaluator.from_pretrained(place)


def iterations(out):
    "Score the words of the model that ships, turned into sound by more and more iterations."
    (heard, evaluator), generator = listeners(load_recordings("fsdd"), out), DigitGenerator.from_pretrained(SHIPPED)
    asked, table = torch.arange(280) % len(generator.classes), []
    for seed in SEEDS_OF_NOISE:
        spectrograms = generator.sample(asked, seed=seed)
        rows = {n: heard.hear(generator.to_audio(spectrograms, n_iter=n), asked, RATE) for n in (3, 5, 10, 20, 30, 60, 120)}
        table += [{"iterations": row.pop("name"), "seed": seed, **row} for row in evaluator.score_table(rows, heard, n=280, show=False)]
    columns = ("iterations", "seed", "classifier", "label_accuracy", "frechet_distance", "kernel_distance")
    write_table(ITERATIONS, [{name: row[name] for name in columns} for row in table])


def sounds(out):
    "Score the model that ships by what is heard, beside recordings and what its representation makes of them."
    recordings, generator = load_recordings("fsdd"), DigitGenerator.from_pretrained(SHIPPED)
    (heard, evaluator), real = listeners(recordings, out), filter_recordings(recordings, out=out / "fsdd" / "filter").test
    back = generator.autoencoder.reconstruct(real.spectrograms)
    rows = {"recordings": heard.test, "their spectrograms": heard.hear(generator.to_audio(real.spectrograms), real.labels, RATE),
            "after the autoencoder": heard.hear(generator.to_audio(back), real.labels, RATE)}
    asked = torch.arange(280) % len(generator.classes)
    for guidance in (1.0, 1.25, 1.5, 1.75, 2.0):
        rows[f"guidance {guidance}"] = heard.hear(generator.to_audio(generator.sample(asked, guidance=guidance, seed=11)), asked, RATE)
        print(f"guidance {guidance}", flush=True)
    write_table(SOUNDS, evaluator.score_table(rows, heard, n=len(real)))


def main(args):
    if args.sounds or args.iterations:
        return (sounds if args.sounds else iterations)(args.out)
    for name in args.data:
        parts = None
        for title in args.only or NETWORKS:
            for seed in args.seeds:
                if parts is None:
                    parts = prepared(name, args.out / name)
                for row in network_rows(name, title, seed, parts, args.out):
                    print(" ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    rows = [row for path in sorted(args.out.glob("*/*/rows.json")) for row in read_json(path)]
    rows = [row for i, row in enumerate(rows) if row not in rows[:i]]
    write_table(RESULTS, rows, list(dict.fromkeys(key for row in sorted(rows, key=len, reverse=True) for key in row)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=lambda text: text.split(","), default=["fsdd"], help="datasets, with commas between")
    parser.add_argument("--only", type=lambda text: text.split("; "), help=f"which, with '; ' between: {'; '.join(NETWORKS)}")
    parser.add_argument("--seeds", type=lambda text: [int(s) for s in text.split(",")], default=[0, 1, 2], help="with commas between")
    parser.add_argument("--out", type=Path, default=Path("runs/flow"), help="where everything is kept")
    parser.add_argument("--sounds", action="store_true", help="score the model that ships as sound")
    parser.add_argument("--iterations", action="store_true", help="score it by the iterations of phase retrieval")
    torch.set_num_threads(1)
    main(parser.parse_args())
