"""Networks for the inverse of the reassigned spectrogram, beside other ways: trains them and writes every curve and figure.

    SPECGEN_DATA=... python benchmarks/reassignment_networks.py [--only PART,PART] [--seeds 3] [--threads 1] [--updates 1] [--out F]

Reads `librispeech/*.flac` under SPECGEN_DATA: one utterance of each of 251 speakers, at 16 kHz as they are. Every fifth speaker by file name, 51 in all, is
never trained on. A clip is the middle 4 s of an utterance, or all of a shorter one. The parts:
- stacked, unrolled: the source's first two networks on the 200 clips; one to two minutes of one core a seed.
- deeper, and three variants: the third on two clips of an eighth or a 32nd of a second, as it was and without dropout; under a minute a seed.
- affine: the least squares solution that each of these networks could reach at best in eval mode; for two clips, what training mode could reach at best.
- frames: the fourth network, on eight sentences of `speech/*.wav`, tested on two; about ten minutes. --out holds its checkpoint, so that the same call
  continues.
- others: the methods that are not trained, on the unseen clips.
- seconds: the time of every method; run it alone on a quiet machine.
Every part keeps the rows of the other parts. In `results/`: `reassignment_networks.csv` holds curves of the first seed and means over the seeds,
`reassignment_seeds.csv` the figures of every seed, `reassignment_utterances.csv` the power of every utterance and the errors on the unseen ones (first seed),
`reassignment_examples.csv` 50 ms of sound of every network. Training losses and errors on the training clips are those of the last report, at most a twentieth
of the updates before the end. --updates scales the length of the trainings.
"""
import argparse
import csv
import heapq
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

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
FOLDER = Path(os.environ.get("SPECGEN_DATA", "data")) / "librispeech"
CORPUS = {"frames": "sentences"}  # of the methods that are not measured on LibriSpeech
PIECE, SHOWN = 2000, 800  # samples: an eighth of a second that the third network learns, 50 ms that are kept of every network's sound


class Recipe(NamedTuple):
    "How one of the source's networks is trained."

    kind: type
    arrange: Callable  # of the features
    center: bool
    samples: int | None  # of each of two clips; None = all clips, whole
    dropout: float
    lr: float
    updates: int
    passes: int = 128  # clips an update


THIRD = Recipe(DeeperUnrolledNet, unroll_features, False, PIECE, 0.8, 1e-3, 780)
SURE = dict(dropout=0.0, updates=12_000, passes=2)  # without dropout, 128 passes over two clips have the gradient of 2
NETWORKS = {
    "stacked": Recipe(StackedNet, stack_features, True, None, 0.3, 3e-3, 150),
    "unrolled": Recipe(UnrolledNet, unroll_features, False, None, 0.3, 3e-3, 400),
    "deeper": THIRD,
    "deeper no dropout": THIRD._replace(**SURE),
    "deeper short": THIRD._replace(samples=PIECE // 4),
    "deeper short no dropout": THIRD._replace(samples=PIECE // 4, **SURE),
}


def utterances():
    "Names and sounds, float32, of all speakers."
    files = sorted(FOLDER.glob("*.flac"))
    return [p.stem for p in files], [read_audio(p, 16000)[0] for p in files]


def sentences():
    "Eight training sentences of the fourth network, and the first 4 s of two unseen ones; without their mean."
    sounds = [read_audio(p, 16000)[0] for p in sorted((FOLDER.parent / "speech").glob("*.wav"))]
    sounds = [y - y.mean() for y in sounds]
    return [y for i, y in enumerate(sounds) if i % 5 != 1], [y[:64000] for y in sounds[1::5]]


def middle(y, samples):
    start = max(0, len(y) - samples) // 2
    return y[start : start + samples]


def split(items):
    "What belongs to the training speakers, and to those never trained on."
    return [v for i, v in enumerate(items) if i % 5], items[::5]


def typical(y):
    "First sample of the eighth of a second that is most nearly as loud as the clip."
    pieces = y[: len(y) // PIECE * PIECE].view(-1, PIECE)
    return PIECE * int((pieces.square().mean(1) / y.square().mean()).log().abs().argmin())


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
    "The figures of one method on one unseen clip."
    return {
        "unseen": ((output - target) ** 2).mean().item(),
        "turned": ((output + target) ** 2).mean().item(),
        "unseen silence": (target**2).mean().item(),
        "snr": snr(output, target).item(),
        "convergence": spectral_convergence(stft(target, **STFT).abs(), output, **STFT).item(),
        "energy": ((output**2).sum() / (target**2).sum()).item(),
    }


def means(tables):
    return {key: float(np.mean([t[key] for t in tables])) for key in tables[0]}


def errors(net, clips):
    "Mean square error of every clip, without dropout."
    net.eval()
    with torch.no_grad():
        found = [torch.nn.functional.mse_loss(net(x), y).item() for x, y in clips]
    net.train()
    return np.array(found)


def fit(net, clips, recipe, updates, report):
    """The source's recipe: AdamW with amsgrad, no decay, one clip at a time, 128 clips an update, the rate halved when the loss stalls.

    Yields the update and the training loss since the last report."""
    optimizer = torch.optim.AdamW(net.parameters(), recipe.lr, weight_decay=0.0, amsgrad=True)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=3)
    order, losses = [], []
    for update in range(1, updates + 1):
        while len(order) < recipe.passes:
            order += torch.randperm(len(clips)).tolist()
        for x, y in (clips[order.pop()] for _ in range(recipe.passes)):
            loss = torch.nn.functional.mse_loss(net(x), y)
            (loss / recipe.passes).backward()
            losses.append(loss.item())
        optimizer.step()
        optimizer.zero_grad()
        if update % report == 0:
            plateau.step(np.mean(losses))
            yield update, np.mean(losses)
            losses = []


def prepare(recipe, sounds, unseen):
    "What a network learns from, and what it is tested on."
    if recipe.samples:
        sounds = [y[typical(y) :][: recipe.samples] for y in sounds[:2]]
    return tuple([example(y[None], recipe.arrange, recipe.center) for y in part] for part in (sounds, unseen))


def run_network(name, sounds, unseen, scale, seed):
    "Train one of the source's networks: its curve, figures, and outputs."
    recipe = NETWORKS[name]
    clips, test = prepare(recipe, sounds, unseen)
    updates, curve, seconds = max(20, int(recipe.updates * scale)), [], 0.0
    report = max(1, updates // (60 if recipe.samples else 20))
    with seeded(seed):
        net, start = recipe.kind(dropout=recipe.dropout), time.process_time()
        for update, loss in fit(net, clips, recipe, updates, report):
            seconds += time.process_time() - start
            seen, new = errors(net, clips).mean(), errors(net, test).mean()
            curve += [(name, "curve", update, "loss", loss), (name, "curve", update, "train", seen), (name, "curve", update, "unseen", new)]
            print(f"{name}, seed {seed} {update:5d}  loss {loss:.2e}  train {seen:.2e}  unseen {new:.2e}  {seconds:.0f} s", flush=True)
            start = time.process_time()
    net.eval()
    with torch.no_grad():
        outputs = [net(x)[0] for x, _ in test]
        here = net(clips[0][0])[0]
    table = {"loss": loss, "train": seen, "silence": np.mean([y.square().mean() for _, y in clips]), "updates": updates, "cpu seconds": seconds}
    return curve, table | means([score(o, y[0]) for o, (_, y) in zip(outputs, test, strict=True)]), here, outputs, errors(net, test)


def run_seeds(name, sounds, unseen, scale, seeds):
    "Train a network from several seeds. Rows, rows of every seed, 50 ms, errors of the first seed."
    runs = [run_network(name, sounds, unseen, scale, seed) for seed in range(seeds)]
    curve, _, here, outputs, found = runs[0]
    rows = curve + [(name, "table", 0, key, value) for key, value in means([run[1] for run in runs]).items()]
    each = [(name, seed, key, value) for seed, run in enumerate(runs) for key, value in run[1].items()]
    at = 0 if NETWORKS[name].samples else typical(sounds[0])
    new = outputs[0][typical(unseen[0]) :]
    shown = {} if len(here) < PIECE - 100 else {"train": here[at + 400 :][:SHOWN], "unseen": new[400:][:SHOWN]}
    return rows, each, shown, {} if NETWORKS[name].samples else {name: found}


def inputs(net, x):
    "What each output step of a network sees: (steps, weights of a channel), float64."
    first = net.layers[0]
    return torch.nn.functional.unfold(x, first.kernel_size, stride=first.stride)[0].T.double()


def best_affine(net, clips, others):
    "Errors, on the clips and on others, of the affine map from what a step sees to its 20 samples that has the least square error on the clips."
    x, y = (torch.cat(part) for part in zip(*[(inputs(net, x), y.double().view(-1, 20)) for x, y in clips], strict=True))
    centre, size, offset = x.mean(0), x.std(0).clamp(min=1e-12), y.mean(0)
    x = (x - centre) / size
    many = len(x) > 10_000  # then the normal equations are accurate enough
    weights = torch.linalg.lstsq(*((x.T @ x, x.T @ (y - offset)) if many else (x, y - offset)), rcond=1e-12, driver="gelsd").solution

    def error(x, y):
        return ((inputs(net, x) - centre) / size @ weights + offset - y.double().view(-1, 20)).square().mean().item()

    return [np.mean([error(*clip) for clip in part]) for part in (clips, others)]


def run_affine(sounds, unseen):
    "The best affine map behind each network; behind the third, for clips of several lengths."
    rows = []
    for name in ("stacked", "unrolled"):
        recipe = NETWORKS[name]
        clips, test = prepare(recipe, sounds, unseen)
        found = dict(zip(("train", "unseen"), best_affine(recipe.kind(), clips, test), strict=True))
        found |= {key: np.mean([y.square().mean() for _, y in part]) for key, part in (("silence", clips), ("unseen silence", test))}
        rows += [(f"affine {name}", "bound", 0, key, value) for key, value in found.items()]
        print(name, {key: f"{value:.3e}" for key, value in found.items()}, flush=True)
    for samples in (500, 1000, 2000, 8000, 32000):
        clips = [example(y[min(typical(y), len(y) - samples) :][None, :samples], unroll_features, False) for y in sounds[:2]]
        steps = torch.stack([y.view(-1, 20).mean(0) for _, y in clips])  # normalised by its own statistics, each clip has the same mean step
        found = best_affine(DeeperUnrolledNet(), clips, clips)[0], np.mean([y.square().mean() for _, y in clips]), (steps - steps.mean(0)).square().mean()
        rows += [("affine deeper", "bound", samples, key, float(value)) for key, value in zip(("train", "silence", "training mode"), found, strict=True)]
        print(samples, found, flush=True)
    return rows


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
    "Figures of the fourth network; its sounds, and the equations of every clip."
    parts, window = [guess(net, y) for y in clips], torch.hamming_window(80)
    frames, e = torch.cat([p[0] for p in parts]), [p[2] for p in parts]
    wanted = torch.cat([y.unfold(0, 80, 20) * window for y in clips])
    clips = [y[: len(p[1])] for y, p in zip(clips, parts, strict=True)]
    sounds = [p[1] * (p[1] @ y).sign() for y, p in zip(clips, parts, strict=True)]
    told = (frames * (frames * wanted).sum(1, keepdim=True).sign()).split([len(p[0]) for p in parts])
    table = {"told snr": float(np.mean([snr(overlap(f), y).item() for f, y in zip(told, clips, strict=True)]))}
    loud = (wanted**2).sum(1) > 8e-5
    table["frame snr"], table["middle frame snr"] = together(frames[loud], wanted[loud]), snr(frames, wanted)[loud].median().item()
    table["local snr"] = together(*(torch.cat([v.unfold(0, 1600, 1600) for v in part]) for part in (sounds, clips)))
    return table | means([score(*pair) for pair in zip(sounds, clips, strict=True)]), sounds, e


def run_frames(name, sounds, unseen, scale, out):
    "Train the fourth network: its rows, and its 50 ms."
    stretches = torch.cat([y.unfold(0, 160, 4) for y in sounds])
    stretches = stretches[(stretches[:, 40:120] ** 2).mean(1) > 1e-6]
    watched = {"seen": torch.cat([y[16000:32000] for y in sounds]), "unseen": torch.cat(unseen)}
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
    seen, seen_sounds, _ = score_frames(net, [y[:64000] for y in sounds])
    table, new_sounds, e = score_frames(net, unseen)
    table |= {f"train {key}": value for key, value in seen.items() if "snr" in key} | {"train": seen["unseen"], "silence": seen["unseen silence"]}
    for n_frames in (1, 3):
        for guessed in (False, True):
            some = zip(e, unseen, new_sounds, strict=True)
            found = [arrivals(q, y.double().numpy(), x.double().numpy() if guessed else None, n_frames) for q, y, x in some]
            table[f"arrive {n_frames} {'guess' if guessed else 'random'}"] = np.mean(found)
    rows += [(name, "table", 0, key, float(value)) for key, value in table.items()]
    shown = {"train": seen_sounds[0], "unseen": new_sounds[0], "target train": sounds[0], "target unseen": unseen[0]}
    return rows, {part: y[16400:][:SHOWN] for part, y in shown.items()}


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
    sound, _ = invert(*features(y.double()), **PLACE, window="hamming", center=False)
    return torch.nn.functional.pad(sound, (0, len(y) - len(sound))).double()


def run_others(unseen):
    "Figures of the methods that are not trained, and their errors on every clip."
    rows, found = [], {}
    for name, method in {"gradients": by_gradients, "griffin-lim": by_griffin_lim, "exact": by_exact}.items():
        tables, best, warned = [], [], []
        for y in unseen:
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                output = method(y)
            warned.append(len(told))
            if name == "gradients":
                angles = torch.linspace(0, np.pi, 181)[:, None]
                best.append(snr(angles.cos() * output[0] + angles.sin() * output[1], y).max().item())
                output = output[0]
            tables.append(score(output * (output @ y.to(output.dtype)).sign(), y.to(output.dtype)))
        table = means(tables) | ({"snr at the best global phase": np.mean(best)} if best else {})
        table |= {"worst": max(t["unseen"] for t in tables)}
        rows += [(name, "table", 0, key, value) for key, value in table.items()]
        found |= {name: [t["unseen"] for t in tables]} | ({"exact warned": warned} if name == "exact" else {})
        print(name, {k: float(f"{v:.3g}") for k, v in table.items()}, flush=True)
    return rows, found


def run_seconds(unseen):
    "Seconds for a second of sound, features and all, of every method, on four clips; weights do not change the time."
    nets, unseen = {name: NETWORKS[name].kind().eval() for name in ("stacked", "unrolled", "deeper")}, unseen[:4]
    work = {name: lambda y, name=name: nets[name](example(y[None], NETWORKS[name].arrange, NETWORKS[name].center)[0]) for name in nets}
    net = FrameNet()
    work |= {"frames": lambda y: guess(net, y), "griffin-lim": by_griffin_lim, "gradients": by_gradients, "exact": by_exact}
    rows = []
    for name, method in work.items():
        method(unseen[0][:8000])
        with torch.no_grad():
            start = time.perf_counter()
            for y in unseen:
                method(y)
        rows.append((name, "seconds", 0, "seconds", (time.perf_counter() - start) / sum(map(len, unseen)) * 16000))
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


def keep_rows(table, header, rows, replaces):
    "Put new rows in place of the old ones that `replaces` names."
    path = RESULTS / f"reassignment_{table}.csv"
    old = [r for r in load(path) if not replaces(r)] if path.exists() else []
    save(path, old + [dict(zip(header, (*row[:-1], f"{row[-1]:.5g}", CORPUS.get(row[0], "librispeech")), strict=True)) for row in rows])


def keep_columns(table, columns):
    "Put new columns in place of the old ones of the same names."
    path = RESULTS / f"reassignment_{table}.csv"
    new = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    save(path, [a | b for a, b in zip(load(path), new, strict=True)] if path.exists() else new)


def keep_utterances(found, names, whole):
    "The power of every utterance, and a method's error on every unseen one."
    clips = [middle(y, 64000) for y in whole]
    columns = {"utterance": names, "unseen": [int(i % 5 == 0) for i in range(len(names))]}
    columns |= {key: [f"{y.square().mean():.4e}" for y in part] for key, part in (("power", whole), ("clip power", clips))}
    columns |= {method: ["" if i % 5 else f"{values[i // 5]:.4e}" for i in range(len(names))] for method, values in found.items()}
    keep_columns("utterances", columns)


def run_part(name, options, names, whole):
    "Run one part, and keep what it found."
    sounds, unseen = split([middle(y, 64000) for y in whole])
    each, shown, found = [], {}, {}
    if name == "frames":
        rows, shown = run_frames(name, *sentences(), options.updates, options.out)
    elif name == "others":
        rows, found = run_others(unseen)
    elif name in ("affine", "seconds"):
        rows = run_affine(sounds, unseen) if name == "affine" else run_seconds(unseen)
    else:
        rows, each, shown, found = run_seeds(name, sounds, unseen, options.updates, options.seeds)
    fresh = {row[0] for row in rows}
    keep_rows("networks", ("method", "kind", "step", "name", "value", "corpus"), rows,
              lambda r: r["method"] in fresh and (r["kind"] == "seconds") == (name == "seconds"))
    if each:
        keep_rows("seeds", ("method", "seed", "name", "value", "corpus"), each, lambda r: r["method"] in fresh)
    if found:
        keep_utterances(found, names, whole)
    if shown:
        wanted = {f"target {part}": y[typical(y) + 400 :][:SHOWN] for part, y in (("train", sounds[0]), ("unseen", unseen[0]))}
        columns = {key: [f"{v:.4f}" for v in y.tolist()] for key, y in (wanted | {f"{name} {part}": y for part, y in shown.items()}).items()}
        keep_columns("examples", columns)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=f"{','.join(NETWORKS)},affine,frames,others,seconds", help="parts to run, with commas between")
    parser.add_argument("--seeds", type=int, default=3, help="of the source's networks")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--updates", type=float, default=1.0, help="scales the length of the trainings")
    parser.add_argument("--out", type=Path, help="for the fourth network's checkpoint; the same one again continues")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    everything = utterances()
    for name in options.only.split(","):
        run_part(name, options, *everything)
