"""Networks for the inverse of the reassigned spectrogram, beside other ways: trains them and writes every curve and figure.

    SPECGEN_DATA=... python benchmarks/reassignment_networks.py [--only stacked,unrolled,deeper,frames,others,seconds] [--threads 1] [--updates 1] [--out F]

Reads `speech/*.wav` under SPECGEN_DATA at 16 kHz, without their mean: eight sentences train, the first 4 s of two are unseen. The source's three networks take
about a minute of one core each, the fourth ten minutes. Figures go to `results/reassignment_networks.csv`, 50 ms of sound of every network to
`results/reassignment_examples.csv`; parts that are not run keep their rows. --updates scales the length of the trainings; --out holds the fourth network's
checkpoint, so that the same call continues. `seconds` times every method anew: run it alone on a quiet machine.
"""
import argparse
import csv
import heapq
import os
import time
import warnings
from pathlib import Path

import numpy as np
import torch

from specgen.audio import read_audio
from specgen.core import atomic, seeded
from specgen.exact_inverse import invert, join
from specgen.frame_solver import levenberg_marquardt, make_equations, mse_up_to_sign
from specgen.phase import griffin_lim, spectral_convergence
from specgen.reassignment import (
    DeeperUnrolledNet, FrameNet, Framing, StackedNet, UnrolledNet,
    frame_norms, offsets, outer_product_loss, reassigned_spectrogram, stack_features, unroll_features,
)
from specgen.stft import istft, stft
from specgen.training import TrainConfig, train

PLACE = dict(sr=16000, n_fft=80, hop_length=20)
STFT = dict(n_fft=80, hop_length=20, window="hamming")
RESULTS = Path(__file__).parent / "results"
PIECE = 2000  # samples: an eighth of a second
NETWORKS = {  # class, arrangement of the features, center, only a couple of clips, learning rate, updates
    "stacked": (StackedNet, stack_features, True, False, 3e-3, 500),
    "unrolled": (UnrolledNet, unroll_features, False, False, 3e-3, 500),
    "deeper": (DeeperUnrolledNet, unroll_features, False, True, 1e-3, 800),
}


def sentences():
    "Eight training sentences, and the first 4 s of two unseen ones (2, samples); float32."
    sounds = [read_audio(p, 16000)[0] for p in sorted((Path(os.environ["SPECGEN_DATA"]) / "speech").glob("*.wav"))]
    sounds = [y - y.mean() for y in sounds]
    return [y for i, y in enumerate(sounds) if i % 5 != 1], torch.stack([y[:64000] for y in sounds[1::5]])


def features(y, center=False, **options):
    return reassigned_spectrogram(y, **PLACE, window="hamming", center=center, fill_nan=True, clip=False, **options)


def example(y, arrange, center):
    "What a network gets, float32, and the samples that it writes."
    x = arrange(*features(y.double(), center, pad_mode="wrap")).float()
    return x, y[..., : 20 * ((x.shape[-1] - 1) if center else x.shape[-1] // 20)]


def snr(output, target):
    "Decibels under the better sign, of each clip or frame."
    error = torch.minimum(((output - target) ** 2).sum(-1), ((output + target) ** 2).sum(-1))
    return 10 * torch.log10((target**2).sum(-1) / error)


def score(output, target):
    "The figures of one method on the unseen clips."
    return {
        "unseen": ((output - target) ** 2).mean().item(),
        "turned": ((output + target) ** 2).mean().item(),
        "unseen silence": (target**2).mean().item(),
        "snr": snr(output, target).mean().item(),
        "convergence": spectral_convergence(stft(target, **STFT).abs(), output, **STFT).mean().item(),
        "energy": ((output**2).sum() / (target**2).sum()).item(),
    }


def fit(net, clips, unseen, lr, updates, report=20):
    """The source's recipe: AdamW with amsgrad, no decay, one clip at a time, 128 clips an update, the rate halved when the loss stalls.

    Yields the update, the training loss since the last report, and the errors without dropout."""
    optimizer = torch.optim.AdamW(net.parameters(), lr, weight_decay=0.0, amsgrad=True)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=3)
    order, losses = torch.cat([torch.randperm(len(clips[0])) for _ in range(updates * 128 // len(clips[0]) + 1)]), []
    for update in range(1, updates + 1):
        for i in order[(update - 1) * 128 : update * 128].tolist():
            loss = torch.nn.functional.mse_loss(net(clips[0][i : i + 1]), clips[1][i : i + 1])
            (loss / 128).backward()
            losses.append(loss.item())
        optimizer.step()
        optimizer.zero_grad()
        if update % report == 0:
            net.eval()
            with torch.no_grad():
                errors = [torch.nn.functional.mse_loss(net(x), y).item() for x, y in (clips, unseen)]
            net.train()
            plateau.step(np.mean(losses))
            yield update, np.mean(losses), *errors
            losses = []


def run_network(name, sounds, unseen, scale):
    "Train one of the source's three: its rows, and its 50 ms."
    kind, arrange, center, few, lr, updates = NETWORKS[name]
    pieces = [y[: len(y) // PIECE * PIECE].view(-1, PIECE) for y in sounds]
    clips, test = example(torch.cat([p[8:9] for p in pieces[:2]] if few else pieces), arrange, center), example(unseen, arrange, center)
    with seeded(0):
        net, rows, start = kind(), [], time.perf_counter()
        for update, loss, seen, new in fit(net, clips, test, lr, max(20, int(updates * scale))):
            rows += [(name, "curve", update, "loss", loss), (name, "curve", update, "train", seen), (name, "curve", update, "unseen", new)]
            print(f"{name} {update:5d}  loss {loss:.2e}  train {seen:.2e}  unseen {new:.2e}  {time.perf_counter() - start:.0f} s", flush=True)
    net.eval()
    with torch.no_grad():
        output, here = net(test[0]), net(example(pieces[0][8:9], arrange, center)[0])
    table = {"loss": loss, "train": seen, "silence": (clips[1] ** 2).mean().item(), **score(output, test[1])}
    return rows + [(name, "table", 0, key, value) for key, value in table.items()], {"train": here[0, 400:1200], "unseen": output[0, 16400:17200]}


def frame_loss(net, batch, generator):
    "Loss on the middle one of five frames; batch: (stretches of 160 samples,)."
    return outer_product_loss(net, batch[0][:, 40:120] * torch.hamming_window(80), offsets(*features(batch[0]), **PLACE, center=False))


def guess(net, y):
    "The frames of a clip, windowed and up to a sign, and the sound that they join to."
    parts = features(y.double())
    x = torch.nn.functional.pad(offsets(*parts, **PLACE, center=False).float(), (2, 2), "replicate").unfold(-1, 5, 1).movedim(2, 0)
    frames = net.predict_frames(x).double() * frame_norms(parts[2])[:, None]
    eqs = make_equations(*[v.numpy() for v in parts], Framing(16000, 80, 20, 80, "hamming", False), ref_power=1e-6, precision=None)
    sound, _ = join(eqs, (frames / torch.hamming_window(80)).numpy(), np.zeros(len(frames), int))
    return frames.float(), torch.from_numpy(sound).float(), eqs


def arrivals(eqs, truth, start, n_frames, tries=100):
    "Share of places at which the exact solver ends at the truth; `start` is a guess of the whole sound, or None for random starts."
    rng, found, hop = np.random.default_rng(0), 0, eqs.tables.hop
    places = rng.choice(np.flatnonzero(eqs.masked[: 1 - n_frames or None] < 0.15), tries, replace=False)
    for f in places:
        rows, unit = np.arange(f, f + n_frames), eqs.scale[f : f + n_frames].max()
        ratio, n, o = ((eqs.scale[rows] / unit) ** 2)[:, None, None], 80 + (n_frames - 1) * hop, f * hop
        x = rng.standard_normal(n) * 1.5 / 80 * np.sqrt(eqs.target[f, 0].sum()) if start is None else start[o : o + n] / unit
        levenberg_marquardt(x, eqs.target[rows] * ratio, eqs.soft_weight(rows) / ratio, eqs.tables, 0, n, 100, 1e-2, 1e-12)
        wanted = truth[o : o + n] / unit
        found += np.sqrt(mse_up_to_sign(x, wanted)) < 1e-2 * np.sqrt(np.mean(wanted**2))
    return found / tries


def together(output, target):
    "Decibels of all rows as one, each under its better sign."
    power = (target**2).sum(-1)
    return (10 * torch.log10(power.sum() / (power * 10 ** (-snr(output, target) / 10)).sum())).item()


def overlap(frames):
    "Windowed frames, added with the window as weight and without a thought for signs."
    window, size = torch.hamming_window(80), (1, (len(frames) - 1) * 20 + 80)
    total, weight = (torch.nn.functional.fold(v.T[None], size, (1, 80), stride=(1, 20)) for v in (frames * window, (window**2).expand_as(frames)))
    return (total / weight).flatten()


def score_frames(net, clips):
    "Figures of the fourth network on clips of one length; their sounds, and their equations."
    table, parts = {}, [guess(net, y) for y in clips]
    frames, sounds, e = torch.cat([p[0] for p in parts]), torch.stack([p[1] for p in parts]), [p[2] for p in parts]
    wanted, clips = torch.cat([y.unfold(0, 80, 20) * torch.hamming_window(80) for y in clips]), clips[:, : sounds.shape[1]]
    sounds = sounds * (sounds * clips).sum(1, keepdim=True).sign()
    told = (frames * (frames * wanted).sum(1, keepdim=True).sign()).chunk(len(clips))
    table["told snr"] = snr(torch.stack([overlap(f) for f in told]), clips).mean().item()
    loud = (wanted**2).sum(1) > 8e-5
    table["frame snr"], table["middle frame snr"] = together(frames[loud], wanted[loud]), snr(frames, wanted)[loud].median().item()
    table["local snr"] = together(*(v.unfold(1, 1600, 1600).flatten(0, 1) for v in (sounds, clips)))
    return table | score(sounds, clips), sounds, e


def run_frames(name, sounds, unseen, scale, out):
    "Train the fourth network: its rows, and its 50 ms."
    stretches = torch.cat([y.unfold(0, 160, 4) for y in sounds])
    stretches = stretches[(stretches[:, 40:120] ** 2).mean(1) > 1e-6]
    watched = {"seen": torch.cat([y[16000:32000] for y in sounds]), "unseen": unseen.flatten()}
    start, steps = time.perf_counter(), max(20, int(6000 * scale))

    def validate(net):
        numbers = {part: frame_loss(net, (y.unfold(0, 160, 20),), None).item() for part, y in watched.items()}
        print(name, {k: round(v, 3) for k, v in numbers.items()}, f"{time.perf_counter() - start:.0f} s", flush=True)
        return numbers

    with seeded(0):
        net, every = FrameNet(), max(20, steps // 20)
    config = TrainConfig(steps, batch_size=512, warmup=50, validate_every=every, checkpoint_every=every, log_every=min(50, every))
    history = train(net, (stretches,), frame_loss, config, out=out, validate=validate, progress=False)
    rows = [(name, "curve", step, key.removeprefix("val_"), v) for key in ("loss", "val_seen", "val_unseen") for step, v in zip(*history[key], strict=True)]
    seen, seen_sounds, _ = score_frames(net, torch.stack([y[:64000] for y in sounds]))
    table, new_sounds, e = score_frames(net, unseen)
    table |= {f"train {key}": value for key, value in seen.items() if "snr" in key} | {"train": seen["unseen"], "silence": seen["unseen silence"]}
    for n_frames in (1, 3):
        for start, guesses in (("random", [None, None]), ("guess", new_sounds.double().numpy())):
            table[f"arrive {n_frames} {start}"] = np.mean([arrivals(*case, n_frames) for case in zip(e, unseen.double().numpy(), guesses, strict=True)])
    rows += [(name, "table", 0, key, float(value)) for key, value in table.items()]
    return rows, {"train": seen_sounds[0, 16400:17200], "unseen": new_sounds[0, 16400:17200]}


def integrate(freqs, times, mags):
    "Phases (bins, frames) from their true gradients, spread from the loudest bins outwards as in phase gradient heap integration (Prusa et al. 2017)."
    bins, frames = mags.shape
    along, across = 2 * np.pi * 20 / 16000 * freqs, -2 * np.pi / 80 * (39.5 + 16000 * (times - np.arange(frames) * 20 / 16000))
    phase, open_ = np.random.default_rng(0).uniform(-np.pi, np.pi, mags.shape), mags > 1e-3
    for first in np.argsort(-mags, axis=None):
        k, t = divmod(int(first), frames)
        if not open_[k, t]:
            continue
        phase[k, t], open_[k, t], heap = 0.0, False, [(-mags[k, t], k, t)]
        while heap:
            _, k, t = heapq.heappop(heap)
            for i, j in ((k, t - 1), (k, t + 1), (k - 1, t), (k + 1, t)):
                if 0 <= i < bins and 0 <= j < frames and open_[i, j]:
                    step = (along[k, t] + along[i, j]) / 2 * (j - t) + (across[k, t] + across[i, j]) / 2 * (i - k)
                    phase[i, j], open_[i, j] = phase[k, t] + step, False
                    heapq.heappush(heap, (-mags[i, j], i, j))
    return phase


def by_gradients(y):
    "The sound of integrated phases, and the same with every phase turned by a right angle."
    freqs, times, mags = features(y.double(), center=True)
    spectrum = torch.polar(mags, torch.from_numpy(integrate(freqs.numpy(), times.numpy(), mags.numpy())))
    return istft(torch.stack([spectrum, 1j * spectrum]), **STFT, length=len(y)).float()


def by_griffin_lim(y):
    return griffin_lim(stft(y, **STFT).abs(), **STFT, n_iter=300, length=len(y))


def by_exact(y):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sound, _ = invert(*features(y.double()), **PLACE, window="hamming", center=False)
    return torch.nn.functional.pad(sound, (0, len(y) - len(sound))).double()


def run_others(unseen):
    "Figures of the methods that are not trained."
    turned, names = torch.stack([by_gradients(y) for y in unseen]), {"griffin-lim": by_griffin_lim, "exact": by_exact}
    outputs = {"gradients": turned[:, 0], **{name: torch.stack([method(y) for y in unseen]) for name, method in names.items()}}
    rows = []
    for name, output in outputs.items():
        output = output * (output * unseen).sum(1, keepdim=True).sign()
        table = score(output, unseen.to(output.dtype))
        if name == "gradients":
            angles = torch.linspace(0, np.pi, 181)[:, None, None]
            table["snr at the best global phase"] = snr(angles.cos() * turned[:, 0] + angles.sin() * turned[:, 1], unseen).amax(0).mean().item()
        rows += [(name, "table", 0, key, value) for key, value in table.items()]
        print(name, {k: float(f"{v:.3g}") for k, v in table.items()}, flush=True)
    return rows


def run_seconds(unseen):
    "Seconds for a second of sound, features and all, of every method; weights do not change the time."
    nets = {name: kind().eval() for name, (kind, *_) in NETWORKS.items()}
    work = {name: lambda y, name=name: nets[name](example(y[None], *NETWORKS[name][1:3])[0]) for name in NETWORKS}
    net = FrameNet()
    work |= {"frames": lambda y: guess(net, y), "griffin-lim": by_griffin_lim, "gradients": by_gradients, "exact": by_exact}
    rows = []
    for name, method in work.items():
        method(unseen[0, :8000])
        with torch.no_grad():
            start = time.perf_counter()
            for y in unseen:
                method(y)
        rows.append((name, "seconds", 0, "seconds", (time.perf_counter() - start) / unseen.numel() * 16000))
        print(name, f"{rows[-1][-1]:.3f} s a second", flush=True)
    return rows


def load(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def save(path, rows):
    with atomic(path) as temporary, temporary.open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def keep(name, rows, sounds, unseen, train_clip):
    "Put the new rows in place of the old ones of this part, and the sounds in their columns."
    path, header = RESULTS / "reassignment_networks.csv", ("method", "kind", "step", "name", "value")
    seconds = name == "seconds"
    fresh = {row[0] for row in rows}
    old = [r for r in load(path) if seconds != (r["kind"] == "seconds") or r["method"] not in fresh] if path.exists() else []
    new = [dict(zip(header, (*row[:-1], f"{row[-1]:.5g}"), strict=True)) for row in rows]
    save(path, old + new)
    if sounds:
        path = RESULTS / "reassignment_examples.csv"
        wanted = {"target train": train_clip[16400:17200], "target unseen": unseen[0, 16400:17200]}
        wanted |= {f"{name} {part}": sound for part, sound in sounds.items()}
        columns = [[f"{v:.4f}" for v in sound.tolist()] for sound in wanted.values()]
        new = [dict(zip(wanted, values, strict=True)) for values in zip(*columns, strict=True)]
        save(path, [a | b for a, b in zip(load(path), new, strict=True)] if path.exists() else new)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="stacked,unrolled,deeper,frames,others,seconds", help="parts to run, with commas between")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--updates", type=float, default=1.0, help="scales the length of the trainings")
    parser.add_argument("--out", type=Path, help="for the fourth network's checkpoint; the same one again continues")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    sounds, unseen = sentences()
    for name in options.only.split(","):
        if name in ("others", "seconds"):
            rows, examples = (run_others if name == "others" else run_seconds)(unseen), {}
        elif name == "frames":
            rows, examples = run_frames(name, sounds, unseen, options.updates, options.out)
        else:
            rows, examples = run_network(name, sounds, unseen, options.updates)
        keep(name, rows, examples, unseen, sounds[0])
