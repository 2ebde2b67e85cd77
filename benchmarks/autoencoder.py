"""From 24 x 256 to 6 x 64: what each step of the autoencoder's ladder keeps of recordings that it never met, and what it costs.

    SPECGEN_DATA=... python benchmarks/autoencoder.py [--seeds 0,1,2]

FSDD, filtered and augmented; learnt from takes 5 to 49, measured on takes 0 to 4: the error in decibels. The seed is that of the randomised decomposition
and of the networks' training. Seconds are of this process's CPU time, one thread. The table is benchmarks/results/autoencoder_ladder.csv; rows that it has
are not measured again.
"""
import argparse
import time
from pathlib import Path

import torch
from torch.nn import functional as F

from specgen.augmentation import augment_dataset
from specgen.autoencoder import FRAMES_BINS, LATENT, PATCH, SHIFT, Autoencoder
from specgen.core import read_table, write_table
from specgen.datasets import load_recordings
from specgen.filtering import filter_recordings
from specgen.models import Preset
from specgen.spectrogram import rmse_db

RESULTS = Path(__file__).parent / "results" / "autoencoder_ladder.csv"
NETWORKS = Preset(model=dict(channels=64, blocks=(1, 3)), training=dict(steps=500, batch_size=64, lr=3e-3, warmup=20), augment=SHIFT)


def means(known, x, seed):
    "The mean of every patch, and back by interpolation."
    return F.interpolate(F.avg_pool2d(x, PATCH)[:, None], size=FRAMES_BINS[::-1], mode="bilinear")[:, 0], 0


def separable(known, x, seed):
    "The best linear map of each axis."
    centre = known.spectrograms.mean(0)
    z = known.spectrograms - centre
    tall = torch.linalg.eigh(torch.einsum("nft,ngt->fg", z, z))[1][:, -LATENT[1] :]
    wide = torch.linalg.eigh(torch.einsum("nft,nfu->tu", z, z))[1][:, -LATENT[0] :]
    return tall @ (tall.T @ (x - centre) @ wide) @ wide.T + centre, tall.numel() + wide.numel()


def components(known, x, seed):
    "The best linear map, by the exact decomposition."
    flat = known.spectrograms.flatten(1)
    centre = flat.mean(0)
    best = torch.linalg.eigh((flat - centre).T @ (flat - centre))[1][:, -LATENT[0] * LATENT[1] :]
    return ((x.flatten(1) - centre) @ best @ best.T + centre).view(x.shape), best.numel()


def rotated(known, x, seed, preset="small"):
    "The best linear map by the randomised decomposition, rotated to a small spectrogram: the presets `quick` and `small`."
    model = Autoencoder.fit(known, preset=preset, seed=seed, progress=False)
    return model.reconstruct(x), model.code.numel() + sum(p.numel() for p in model.parameters())


def networks(known, x, seed):
    "The same with two trained networks."
    return rotated(known, x, seed, NETWORKS)


LADDER = {"means of patches": (means, False), "separable": (separable, False), "principal components": (components, False),
          "rotated components": (rotated, True), "with trained networks": (networks, True)}  # and whether it has a seed


def main(args):
    data = filter_recordings(load_recordings("fsdd"), out=args.out)
    known, x = augment_dataset(data.train), data.test.spectrograms
    rows = read_table(RESULTS) if RESULTS.exists() else []
    for title, (rung, seeded) in LADDER.items():
        for seed in args.seeds if seeded else args.seeds[:1]:
            if any((row["step"], row["seed"]) == (title, str(seed)) for row in rows):
                continue
            start = time.process_time()
            back, numbers = rung(known, x, seed)
            seconds = time.process_time() - start
            error = rmse_db(x, back, data.representation)
            about = {"step": title, "seed": seed, "numbers": numbers, "n": len(x)}
            rows.append({**about, "seconds": round(seconds, 1), "error_db": round(error, 4)})
            print(rows[-1], flush=True)
            write_table(RESULTS, rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=lambda text: [int(s) for s in text.split(",")], default=[0, 1, 2], help="with commas between")
    parser.add_argument("--out", type=Path, default=Path("runs/flow/fsdd/filter"), help="where the filtered recordings are kept")
    torch.set_num_threads(1)
    main(parser.parse_args())
