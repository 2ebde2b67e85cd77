"""The sources' own settings, trained as far as the time goes: the variational autoencoders, the Audio Spectrogram Transformer, and the digits pipeline.

    SPECGEN_DATA=... python benchmarks/source.py [--only vae,mixture,ours,transformer,flow] [--minutes 30] [--folds 1] [--seed 0] [--out runs/source]

The presets `source` take hours of two cores or minutes of a GPU. Every training stops after --minutes and goes on from its checkpoint at the next call; the
rows say how many epochs are done, what they cost, and what the rest would (`seconds`, `rest_seconds`: of this process's processor time on one thread, or of
the clock with a GPU, which `where` names). Curves go to results/source_curves.csv, figures to results/source_vae.csv, source_transformer.csv and
source_flow.csv, in place of older rows of the same training. The trainings compute in float32, as the sources did; `flow` in bfloat16 where there is some.

`vae` is the standard one: 256 x 64 at 22,050 Hz, every file scaled by its own lowest and highest value, 128 latents, 1e6 MSE + KL, batches of 64, 150 epochs.
`mixture` has a prior of two Gaussians that start near zero, 256 latents, a posterior with a whole covariance matrix, an independent Bernoulli decoder,
batches of 16, 15 epochs. Beside them, `ours`: the preset `small`. All learn from FSDD's takes 5 to 49. `words` are cut by energy from
LibriSpeech: recordings of unseen speakers. `distance` compares log-mels of a sound with those of the recording, dB.

`flow` is the pipeline's preset `source`: filter and augmentation of FSDD's takes, an autoencoder of 20,000 steps, then a hundred epochs of the U-Net in the
latents of the autoencoder as it stands, 50 Euler steps; beside recordings, their reconstructions, and the model that ships.
"""
import argparse
import math
import os
import signal
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import librosa
import torch
from common import curve, enter, machine
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from specgen.audio import peak_normalize, read_audio, resample
from specgen.audio_transformer import AST, start_model
from specgen.augmentation import augment_dataset, randn
from specgen.autoencoder import Autoencoder
from specgen.core import read_json, write_json, write_table
from specgen.datasets import load_recordings
from specgen.flow_matching import VelocityNetwork
from specgen.pipeline import SHIPPED, DigitGenerator
from specgen.sound_evaluation import SoundDataset, SoundEvaluator
from specgen.spectrogram import LogMel, rmse_db
from specgen.spectrogram_dataset import encode_waveforms
from specgen.training import train
from specgen.vae import VAE, train_config, untrained, zero_phase

RESULTS = Path(__file__).parent / "results"
MIXTURE = dict(components=2, rank=0, likelihood="bernoulli", latents=256)
HEARD = LogMel(sample_rate=8000, n_fft=256, hop_length=80, n_mels=64, floor=1e-4)  # what `distance` is measured with


class WholeCovariance(nn.Module):
    "An encoder whose last layer tells the means of posteriors and the lower triangles of their covariances' roots: features (N, F) -> (N, L + L (L + 1) / 2)."

    def __init__(self, features: int, latents: int):
        super().__init__()
        self.latents, self.tell = latents, nn.Linear(features, latents + latents * (latents + 1) // 2)

    def forward(self, x):
        "Means and the logarithms of the marginal variances, side by side as `VAE.encode` reads them."
        mean, root = self.posterior(x)
        return torch.cat([mean, root.square().sum(-1).log()], 1)

    def posterior(self, x):
        "Means (N, L) and roots (N, L, L) of covariances."
        mean, numbers = self.tell(x).float().tensor_split([self.latents], 1)
        rows, columns = torch.tril_indices(self.latents, self.latents, device=x.device)
        root = numbers.new_zeros(len(x), self.latents, self.latents)
        root[:, rows, columns] = torch.where(rows == columns, F.softplus(numbers) + 1e-5, numbers)
        return mean, root


def whole_loss(model, batch, generator):
    "The negative evidence lower bound, nats a value, of one sample of posteriors with whole covariances."
    x, labels = batch
    mean, root = model.encoder[-1].posterior(model.encoder[:-1](x[:, None]).float())
    noise = randn(mean.shape, generator, mean.device)
    z = mean + (root @ noise[..., None])[..., 0]
    posterior = -0.5 * (noise.square() + math.log(2 * math.pi)).sum(1) - root.diagonal(dim1=1, dim2=2).log().sum(1)
    kl, y = posterior - model.prior.log_prob(z), model.decoder_mean(z)
    loss = (kl - model.log_likelihood(x, y)).mean() / math.prod(model.shape)
    return loss, {"kl": kl.mean(), "error": (y.detach() - x).square().mean()}


def untrained_mixture(data, preset, seed):
    "The source's mixture model."
    model = untrained(data, preset, "mixture", False, seed, MIXTURE)
    torch.manual_seed(seed)
    model.encoder[-1] = WholeCovariance(model.encoder[-1].in_features, model.latents)
    return model


@torch.no_grad()
def whole_evidence(model, x, labels, seed=0):
    "As `vae.evidence`, of posteriors with whole covariances; no bits, since a Bernoulli likelihood of grey values is no density."
    generator = torch.Generator().manual_seed(seed)
    device = next(model.parameters()).device
    kl = sum(len(part) * whole_loss(model, (part.to(device), labels), generator)[1]["kl"].item() for part in x.split(50)) / len(x)
    return {"kl": kl, "error": rmse_db(x, model.reconstruct(x), model.representation)}


def for_minutes(folder, minutes, work):
    "Call `work`, which trains with checkpoints in a folder, and stop it after some minutes. Returns the seconds of all calls so far."
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    kept, start = folder / "seconds.json", clock()
    if not minutes and (folder / "checkpoint.safetensors").is_file():
        return read_json(kept)["seconds"]
    timer = threading.Timer(60 * minutes, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.daemon = True
    timer.start()
    try:
        work()
    except KeyboardInterrupt:
        print(f"{folder}: stopped after {minutes} minutes", flush=True)
    timer.cancel()
    seconds = clock() - start + (read_json(kept)["seconds"] if kept.is_file() else 0)
    write_json(kept, {"seconds": seconds})
    return seconds


def weights_so_far(model, folder):
    "The model with the weights of a checkpoint, on the processor, in eval mode; its steps, and the steps of the whole training."
    with safe_open(folder / "checkpoint.safetensors", "pt") as file:
        model.load_state_dict({name.removeprefix("model."): file.get_tensor(name) for name in file.keys() if name.startswith("model.")})
        record = file.metadata()["record"]
    done, steps = (int(record.split(f'"{name}": ')[1].split(",")[0].rstrip("}")) for name in ("step", "steps"))
    return model.cpu().eval(), done, steps


def costs(done, steps, per_epoch, seconds):
    rest = seconds / max(done, 1) * (steps - done)
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else "one thread"
    return {"epochs": round(done / per_epoch, 2), "of": round(steps / per_epoch), "seconds": round(seconds), "rest_seconds": round(rest), "where": where}


def words(n=30):
    "One word-like stretch of each of the first utterances of LibriSpeech: between two pauses, 0.25 to 0.7 s."
    found = []
    for path in sorted((Path(os.environ["SPECGEN_DATA"]) / "librispeech").glob("*.flac")):
        y = read_audio(path, 16000)[0]
        spans = [y[a:b] for a, b in librosa.effects.split(y.numpy(), top_db=30, frame_length=512, hop_length=128) if 4000 <= b - a <= 11200]
        found += [peak_normalize(spans[0])] if spans else []
        if len(found) == n:
            break
    return found


def distance(sounds, recordings):
    "Root mean square difference of log-mels, dB: sounds and recordings (N, samples) at 8 kHz."
    n = min(sounds.shape[-1], recordings.shape[-1])
    return rmse_db(*(HEARD.encode(torch.stack([peak_normalize(v) for v in part[:, :n]])) for part in (recordings, sounds)), HEARD)


def scaled(x, model):
    "Every spectrogram to [0, 1] by its own lowest and highest value, where the model reads such ones."
    low, high = (getattr(x, end)((1, 2), keepdim=True) for end in ("amin", "amax"))
    return (x - low) / (high - low) if model.span == (0.0, 1.0) else x


def vae_rows(name, model, data, listeners, folder):
    "How a model reconstructs held-out digits and words of unseen speakers, as sounds with zero phase and by phase retrieval; one of each stays in the folder."
    (x, labels), r, (sounds, evaluator) = data.test.tensors, model.representation, listeners
    given = [resample(w, 16000, r.sample_rate) for w in words()]
    strange = scaled(encode_waveforms(given, replace(r, mean=0.0, std=1.0) if model.span == (0.0, 1.0) else r, model.shape[1], peak=False), model)
    again, strange_again = model.reconstruct(x), model.reconstruct(strange)
    errors = {"n": len(x), "error_db": rmse_db(x, again, r), "words": len(strange), "words_error_db": rmse_db(strange, strange_again, r)}
    pictures = {"digit": x[275], "digit_back": again[275], "word": strange[1], "word_back": strange_again[1]}
    rows, examples = [], {name: spec.contiguous() for name, spec in pictures.items()}
    for way, back in {"zero phase": zero_phase, "phase retrieval": lambda specs, r: r.decode(specs)}.items():
        made, there, here = back(again, r), resample(back(strange_again, r), r.sample_rate, 8000), resample(r.decode(strange), r.sample_rate, 8000)
        heard = sounds.hear(made / made.abs().amax(-1, keepdim=True).clamp(min=1), labels, r.sample_rate)
        right = {kind: classifier.evaluate(heard)["accuracy"] for kind, classifier in evaluator.classifiers.items()}
        rows.append({"model": name, "sound": way, **errors, **right, "words_distance_db": distance(there, here)})
        examples |= {f"digit, {way}": peak_normalize(resample(made[275], r.sample_rate, 8000)), f"word, {way}": peak_normalize(there[1])}
    save_file(examples, folder / "examples.safetensors")
    return rows


def vae(args, title):
    "One of the source's models as far as it goes, or ours."
    recordings, preset = load_recordings("fsdd"), VAE.preset("small" if title == "ours" else "source")
    if title == "mixture":
        preset = preset.changed(training=dict(batch_size=16, epochs=15))
    data, folder = VAE.prepare(recordings, preset=preset), args.out / ("small_0" if title == "ours" else f"{title}_{args.seed}")
    model = untrained_mixture(data, preset, args.seed) if title == "mixture" else untrained(data, preset, "standard", True, args.seed, {})

    def work():
        if title != "mixture":
            return VAE.fit(data, preset=preset, out=folder, seed=args.seed, precision="fp32", progress=False)
        config, validate = train_config(preset, len(data.train), args.seed, "fp32"), lambda model: whole_evidence(model, *data.test.tensors)
        return train(model, data.train, whole_loss, config, out=folder, validate=validate, title="mixture", progress=False)

    seconds = for_minutes(folder, args.minutes, work)
    sounds = SoundDataset.prepare(recordings)
    listeners = sounds, SoundEvaluator.fit(sounds, out=args.classifiers, progress=False)
    model, done, steps = weights_so_far(model, folder)
    cost = costs(done, steps, -(-len(data.train) // preset.training["batch_size"]), seconds)
    rows = [{**row, **cost} for row in vae_rows(title, model, data, listeners, folder)]
    enter(RESULTS / "source_vae.csv", rows, ("model", "sound"))
    enter(RESULTS / "source_curves.csv", curve(f"{title} {args.seed}", folder, ("loss", "kl", "error", "val_kl", "val_error")), ("training", "step", "name"))
    for row in rows:
        print(row)


def transformer(args):
    "The source's transformer on some folds of ESC-10, as far as it goes."
    recordings, preset = load_recordings("esc10"), AST.preset("source")
    for fold in args.folds:
        data, folder = AST.prepare(recordings, preset=preset, by="fold", test=fold), args.out / f"transformer_{fold}_{args.seed}"
        how = dict(out=folder, preset=preset, seed=args.seed, precision="fp32", progress=False)
        seconds = for_minutes(folder, args.minutes, lambda data=data, how=how: AST.fit(data, **how))
        model, done, steps = weights_so_far(start_model(data, preset, args.seed), folder)
        cost = costs(done, steps, len(data.train) / preset.training["batch_size"], seconds)
        row = {"model": "source", "fold": fold, "seed": args.seed, **model.evaluate(data), **cost}
        enter(RESULTS / "source_transformer.csv", [row], ("model", "fold", "seed"))
        rows = curve(f"transformer {fold} {args.seed}", folder, ("loss", "accuracy", "val_accuracy"))
        enter(RESULTS / "source_curves.csv", rows, ("training", "step", "name"))
        print(row, flush=True)


def flow(args):
    "The digits pipeline with the preset `source`: first its autoencoder, then its U-Net, each as far as it goes; scored as sound."
    recordings, out, size = load_recordings("fsdd"), args.out / f"flow_{args.seed}", VelocityNetwork.preset("source")
    dataset = DigitGenerator.prepare(recordings, preset="source")
    copies, how = augment_dataset(dataset), dict(progress=False, precision="auto")
    known = copies.train
    place, work = out / "autoencoder", partial(Autoencoder.fit, copies, preset="source", seed=args.seed + 2, **how)
    seconds = for_minutes(place, args.minutes, lambda: work(out=place))
    start = Autoencoder(**Autoencoder.preset("source").model).start_linear(known.spectrograms, args.seed + 2)
    autoencoder, done, steps = weights_so_far(start, place)
    autoencoder.standardize_latents(known.spectrograms)
    per_epoch, place = math.ceil(len(known) / 256), out / f"unet_{done}"
    cost = {"autoencoder": costs(done, steps, per_epoch, seconds)}
    size = size.changed(training=dict(steps=100 * per_epoch))
    latents, work = autoencoder.encode(known.spectrograms), partial(VelocityNetwork.fit, n_classes=len(dataset.classes), preset=size, seed=args.seed + 3, **how)
    seconds = for_minutes(place, args.minutes, lambda: work(latents, known.labels, out=place))
    network, done, steps = weights_so_far(VelocityNetwork(n_classes=len(dataset.classes), **size.model), place)
    cost["U-Net"] = costs(done, steps, per_epoch, seconds)
    model, ours = DigitGenerator.join(network, autoencoder, dataset, **DigitGenerator.preset("source").model), DigitGenerator.from_pretrained(SHIPPED)
    about = {"the source's settings": {f"{part} {key}": value for part, row in cost.items() for key, value in row.items()}}
    back = autoencoder.reconstruct(dataset.test.spectrograms)
    about["recordings, the source's autoencoder"] = {"error_db": rmse_db(dataset.test.spectrograms, back, dataset.representation)}
    flow_rows(recordings, args, about, {"the source's settings": model, "the model that ships": ours}, model.to_audio(back), dataset.test.labels)
    for title, folder in (("autoencoder", out / "autoencoder"), ("flow", place)):
        enter(RESULTS / "source_curves.csv", curve(f"{title} {args.seed}", folder, ("loss", "val_loss")), ("training", "step", "name"))


def flow_rows(recordings, args, about, models, back, labels):
    "Score recordings, their reconstructions and what the models say, as many of each."
    sounds = SoundDataset.prepare(recordings)
    evaluator = SoundEvaluator.fit(sounds, out=args.classifiers, progress=False)
    rows, asked = {"recordings": sounds.test, "recordings, the source's autoencoder": sounds.hear(back, labels, 8000)}, torch.arange(len(labels)) % 10
    for name, model in models.items():
        rows[name] = sounds.hear(model.to_audio(model.sample(asked, seed=11)), asked, model.representation.sample_rate)
    found = {name: {"model": name, "n": len(labels), **about.get(name, {})} for name in rows}
    for row in evaluator.score_table(rows, sounds, n=len(labels)):
        found[row["name"]] |= {f"{row['classifier']} {score}": row[score] for score in ("label_accuracy", "frechet_distance", "memorisation", "diversity")}
    columns = list(dict.fromkeys(column for row in found.values() for column in row))
    write_table(RESULTS / "source_flow.csv", list(found.values()), columns)
    print(found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="vae,mixture,ours,transformer,flow", help="which, with commas between")
    parser.add_argument("--minutes", type=float, default=30, help="of every training in this call; 0 scores what there is")
    parser.add_argument("--folds", type=lambda text: tuple(map(int, text.split(","))), default=(1, 2, 3, 4, 5), help="of the transformer")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--out", type=Path, default=Path("runs/source"), help="where the trainings are kept")
    parser.add_argument("--classifiers", type=Path, default=Path("runs/vae/evaluator_sounds"), help="where the evaluation classifiers of benchmarks/vae.py are")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts background jobs that ignore it
    print(machine())
    for name in args.only.split(","):
        {"transformer": transformer, "flow": flow}.get(name, partial(vae, title=name))(args)
