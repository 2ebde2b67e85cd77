"""The jobs of `benchmarks/speed.py`: each a function that makes a `Job`, with its peers set up to do the same work on the same input.

A device is where torch computes; librosa, kaldi-native-fbank and the peers that call them are on the processor in any case.

No data is needed: sounds are made up. Phase retrieval and the exact inverse take recordings (fsdd/recordings, speech) where `SPECGEN_DATA` names them.
"""
import math
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import librosa
import numpy as np
import soundfile
import torch
from torch.nn import functional as F

from specgen.audio import import_torchaudio, read_audio
from specgen.audio_transformer import AST
from specgen.batch_inverse import invert_batch
from specgen.classifier import Classifier, classification_loss
from specgen.core import read_table
from specgen.datasets import load_recordings
from specgen.exact_inverse import invert
from specgen.few_step import StepNetwork
from specgen.flow_matching import FlowMatcher, VelocityNetwork
from specgen.frame_solver import mse_up_to_sign
from specgen.phase import phase_retrieval, spectral_convergence
from specgen.pipeline import DigitGenerator
from specgen.reassignment import reassigned_spectrogram, synthetic_voice
from specgen.spectrogram import Fbank, LogMel
from specgen.stft import stft
from specgen.training import TrainConfig, train
from specgen.vocoder import PUBLISHED, HiFiGANGenerator

torchaudio = import_torchaudio()  # before the packages below, which import it as it comes
REAL_TIME = "real time"


@dataclass
class Job:
    "Works to be timed by turns."

    name: str
    unit: str  # of what a call of a work does, so many:
    amount: float | dict[str, float]  # for all works, or for each
    works: dict[str, Callable]  # by method; one that measures itself returns seconds
    peers: dict[str, tuple[str, float | None]] = field(default_factory=dict)  # method -> the method (or REAL_TIME) that it is compared with, and the goal
    best: dict[str, list[str]] = field(default_factory=dict)  # a method's name -> methods of which the fastest stands for it
    notes: dict[str, Callable] = field(default_factory=dict)  # method -> what is said of its result, after the timing
    rounds: tuple[int, int] = (5, 25)  # least and most of them
    warm: bool = True  # call every work once before

    def much(self, method: str) -> float:
        return self.amount[method] if isinstance(self.amount, dict) else self.amount


def compared(one, other):
    return difference(one(), other())


def made_up(n, samples, seed=0):
    "Noise shaped like speech: (n, samples), peak 1."
    sound = torch.cumsum(torch.randn(n, samples, generator=torch.Generator().manual_seed(seed)), 1)
    return sound / sound.abs().amax(1, keepdim=True)


def difference(a, b):
    return f"largest difference {(torch.as_tensor(a).cpu() - torch.as_tensor(b).cpu()).abs().max().item():.0e}"


def log_mel(small, threads, device):
    n = 20 if small else 200
    clips, mel = made_up(n, 16000).to(device), dict(n_fft=400, hop_length=160, n_mels=64)
    theirs, ours = torchaudio.transforms.MelSpectrogram(16000, **mel).to(device), LogMel.librosa(sample_rate=16000, **mel).encode
    batches = {"single": 1, "batch 50": 50, "batch 200": 200}
    batched = lambda encode, size: lambda: [encode(part) for part in (clips.split(size) if size > 1 else clips)]  # noqa: E731
    works = {"librosa, single": lambda: [librosa.feature.melspectrogram(y=x, sr=16000, **mel) for x in clips.cpu().numpy()]}
    for name, size in batches.items():
        works |= {f"torchaudio, {name}": batched(theirs, size), f"specgen, {name}": batched(ours, size)}
    best = {f"{who}, best batch": [f"{who}, {name}" for name in batches] for who in ("torchaudio", "specgen")}
    best["specgen, best batch, beside librosa"] = best["specgen, best batch"]
    peers = {f"specgen, {name}": (f"torchaudio, {name}", None) for name in batches}
    peers |= {"specgen, best batch": ("torchaudio, best batch", 1.3), "specgen, best batch, beside librosa": ("librosa, single", 4.0)}
    return Job("log-mel, 1 s at 16 kHz", "clips", n, works, peers, best, {"specgen, best batch": lambda: "with the logarithm, which torchaudio's has not"})


def fbank(small, threads, device):
    import kaldi_native_fbank as knf

    n = 10 if small else 100
    clips, options = made_up(n, 16000).to(device), knf.FbankOptions()
    options.frame_opts.dither, options.frame_opts.window_type, options.mel_opts.num_bins = 0.0, "hanning", 80
    settings = dict(num_mel_bins=80, window_type="hanning", dither=0.0)

    def native(x):
        computer = knf.OnlineFbank(options)
        computer.accept_waveform(16000, x)
        computer.input_finished()
        return np.stack([computer.get_frame(i) for i in range(computer.num_frames_ready)])

    ours = Fbank(n_mels=80, window="hann")
    kaldi = torchaudio.compliance.kaldi.fbank
    works = {
        "compliance.kaldi, single": lambda: [kaldi(x[None], **settings) for x in clips],
        "kaldi-native-fbank, single": lambda: [native(x) for x in clips.cpu().numpy()],
        "specgen, single": lambda: [ours.encode(x) for x in clips],
        "specgen, batch 50": lambda: [ours.encode(part) for part in clips.split(50)],
    }
    best = {"specgen, best": ["specgen, single", "specgen, batch 50"]}
    best["specgen, best, beside kaldi-native-fbank"] = best["specgen, best"]
    peers = {"specgen, best": ("compliance.kaldi, single", 1.5), "specgen, best, beside kaldi-native-fbank": ("kaldi-native-fbank, single", 3.0)}
    mine = ours.encode(clips[0]).mT
    notes = {"specgen, best": lambda: difference(mine, kaldi(clips[:1], **settings))}
    notes["specgen, best, beside kaldi-native-fbank"] = lambda: difference(mine, native(clips[0].cpu().numpy()))
    return Job("Kaldi filterbank of 80 bands, 1 s at 16 kHz", "clips", n, works, peers, best, notes)


def reassigned(small, threads, device):
    n, settings = 4 if small else 16, dict(sr=16000, n_fft=80, hop_length=20, window="hamming", center=False, fill_nan=True)
    clips = np.stack([synthetic_voice(16000, 2.0, seed) for seed in range(n)])

    def theirs(clips):
        with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
            return [librosa.reassigned_spectrogram(x, **settings) for x in clips]

    works, peers, notes = {}, {}, {}
    for name, goal, x in (("float32", 3.0, clips.astype(np.float32)), ("float64", 1.5, clips)):
        works |= {f"librosa, {name}": partial(theirs, x), f"specgen, {name}": partial(reassigned_spectrogram, torch.from_numpy(x).to(device), **settings)}
        peers[f"specgen, {name}"] = f"librosa, {name}", goal if threads == 1 else None
    ours = works["specgen, float64"]
    notes["specgen, float64"] = lambda: difference(ours()[0][0], theirs(clips[:1])[0][0]) + " Hz"
    return Job("reassigned spectrogram, 2 s at 16 kHz", "clips", n, works, peers, notes=notes)


def phases(small, threads, device):
    n, settings, root = 4 if small else 40, dict(n_fft=512, hop_length=128), os.environ.get("SPECGEN_DATA")
    paths = sorted(Path(root).glob("fsdd/recordings/*.wav")) if root else []
    if paths:
        clips = [read_audio(p)[0] for p in paths[:: len(paths) // n][:n]]
    else:
        clips = load_recordings("digits").subset(range(0, 40 * n, 40)).waveforms(8000)
    mags = [stft(x.to(device), **settings).abs() for x in clips]
    peer = lambda mag, length: torch.from_numpy(librosa.griffinlim(mag.cpu().numpy(), n_iter=32, length=length, random_state=0, **settings))  # noqa: E731
    ways = {"librosa.griffinlim, 32 iterations": peer, "specgen, gradients alone": partial(phase_retrieval, method="pghi")}
    ways |= {f"specgen, gradients and {n_iter} iterations": partial(phase_retrieval, n_iter=n_iter) for n_iter in (10, 32, 60, 80, 140)}
    ways = {name: way if way is peer else lambda mag, length, way=way: way(mag, length=length, **settings) for name, way in ways.items()}
    works = {name: lambda way=way: [way(mag, len(x)) for mag, x in zip(mags, clips, strict=True)] for name, way in ways.items()}
    reached = lambda work: np.mean([spectral_convergence(m, y.to(device), **settings).item() for m, y in zip(mags, work(), strict=True)])  # noqa: E731
    level = {name: float(reached(work)) for name, work in works.items()}
    enough = next((name for name in ways if level[name] <= -35), list(ways)[-1])  # the fewest iterations
    peers = {name: (list(ways)[0], 2.0 if name == enough else None) for name in list(ways)[1:]}
    notes = {name: lambda name=name: f"{level[name]:.1f} dB" + (" (wanted: -35 dB)" if name == enough else "") for name in works}
    return Job(f"phase retrieval, {'FSDD' if paths else 'synthetic digits'}", "clips", n, works, peers, notes=notes)


def batched_inverse(features, sound, settings, device, clips):
    "The exact inverse on a device, where many clips go at once; each begins at another place of the features, so that no two are the same."
    frequencies, times, magnitudes = features
    cut = [(frequencies[:, k:], times[:, k:] - k * settings["hop_length"] / settings["sr"], magnitudes[:, k:]) for k in range(clips)]
    parts, ends = tuple(zip(*[[torch.from_numpy(part).to(device) for part in clip] for clip in cut], strict=True)), []
    works = {f"specgen, {clips} clips at once": lambda: ends.append(invert_batch(*parts, **settings)[0])}
    error = lambda: max(mse_up_to_sign(y.cpu().numpy(), sound[settings["hop_length"] * k :][: len(y)]) for k, y in enumerate(ends[-1]))  # noqa: E731
    notes, peers = {name: lambda: f"mean square error {error():.0e} at most" for name in works}, {name: (REAL_TIME, 50.0) for name in works}
    return Job("exact inverse, in a batch", "s of sound", clips * len(sound) / 16000, works, peers, notes=notes, rounds=(2, 5))


def exact_inverse(small, threads, device):
    root, settings = os.environ.get("SPECGEN_DATA"), dict(sr=16000, n_fft=80, hop_length=20, window="hamming", center=False)
    path, seconds = next(iter(sorted(Path(root or "-").glob("speech/*.wav"))), None), 1 if small else 4
    sound = read_audio(path, 16000)[0].double().numpy()[: 16000 * seconds] if path else synthetic_voice(16000, seconds)
    features = [part.numpy() for part in reassigned_spectrogram(torch.from_numpy(sound), **settings, fill_nan=True, clip=False)]
    if device.type != "cpu":
        return batched_inverse(features, sound, settings, device, 2 if small else 64)
    work, answers = partial(invert, *features, **settings, workers=threads, progress=False), []
    name = f"specgen, {threads} worker{'s' * (threads > 1)}"
    works = {name: lambda: answers.append(work()[0])}
    notes = {name: lambda: f"mean square error {mse_up_to_sign(answers[-1], sound[: len(answers[-1])]):.0e}"}
    peers = {name: (REAL_TIME, 6.0 if threads == 2 else None)}
    return Job(f"exact inverse, {'speech' if path else 'made-up voice'}", "s of sound", len(sound) / 16000, works, peers, notes=notes)


def plain_generator(state, config, x):
    "HiFi-GAN's generator by `conv1d` alone, of the second kind of residual blocks."
    conv = lambda name, x, d=1: F.conv1d(  # noqa: E731
        x, state[f"{name}.weight"], state[f"{name}.bias"], dilation=d, padding=d * (state[f"{name}.weight"].shape[-1] - 1) // 2)
    x, n = conv("conv_pre", x), len(config.resblock_dilation_sizes)
    for i, (rate, kernel) in enumerate(zip(config.upsample_rates, config.upsample_kernel_sizes, strict=True)):
        x, total = F.conv_transpose1d(F.leaky_relu(x, 0.1), state[f"ups.{i}.weight"], state[f"ups.{i}.bias"], rate, (kernel - rate) // 2), 0
        for k, dilations in enumerate(config.resblock_dilation_sizes):
            y = x
            for j, d in enumerate(dilations):
                y = y + conv(f"resblocks.{n * i + k}.convs.{j}", F.leaky_relu(y, 0.1), d)
            total = total + y
        x = total / n
    return torch.tanh(conv("conv_post", F.leaky_relu(x, 0.01)))[:, 0]


def hifi_gan(small, threads, device):
    generator = HiFiGANGenerator(PUBLISHED["v3"]).eval().requires_grad_(False).to(device)
    for p in generator.parameters():
        torch.nn.init.normal_(p, std=0.03)
    state, works, amount, peers, notes = generator.state_dict(), {}, {}, {}, {}
    for frames in (86,) if small else (86, 861):
        mels, seconds = torch.randn(1, 80, frames).to(device), round(frames * 256 / 22050)
        plain, ours = f"conv1d, {seconds} s", f"specgen, {seconds} s"
        works |= {plain: partial(plain_generator, state, generator.config, mels), ours: partial(generator, mels)}
        amount |= dict.fromkeys((plain, ours), frames * 256 / 22050)
        peers |= {plain: (REAL_TIME, None), ours: (REAL_TIME, 20.0 if threads == 1 else None)}
        notes[ours] = partial(compared, works[plain], works[ours])
    return Job("HiFi-GAN V3, 22,050 Hz", "s of sound", amount, works, peers, notes=notes)


def write_corpus(folder, n):
    "Made-up words (0.4 to 0.7 s between silences, 16-bit, 48 kHz) in ten folders of classes."
    rng = np.random.default_rng(0)
    for i in range(n):
        word = synthetic_voice(48000, float(rng.uniform(0.4, 0.7)), i)
        place = folder / str(i % 10) / f"{i}.wav"
        place.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(place, np.concatenate([np.zeros(4800), word / np.abs(word).max() * 0.7, np.zeros(4800)]), 48000)


def librosa_corpus(paths, stretched=True):
    "The usual loop: load, trim, normalise, stretch to one duration at the same pitch, transform; or a hop of its own for each clip instead."
    specs, hop = [], 134
    for path in paths:
        y = librosa.util.normalize(librosa.effects.trim(librosa.load(path, sr=8000)[0])[0])
        if stretched:
            y = librosa.effects.time_stretch(y, rate=len(y) / (24 * hop), n_fft=512)
        spec = np.abs(librosa.stft(y, n_fft=512, hop_length=hop if stretched else max(1, len(y) // 24)))[:256, :24]
        specs.append(np.log(np.maximum(librosa.util.fix_length(spec, size=24), 0.01)))
    specs = np.stack(specs)
    return (specs - specs.mean()) / specs.std()


def prepared(folder, who, threads):
    "Seconds and MB that a process of its own takes, with an empty cache, on so many cores; without its imports."
    command = [sys.executable, str(Path(__file__).with_name("speed.py")), "--prepare", who, str(folder), "--threads", str(threads)]
    seconds, megabytes = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-2:]
    return float(seconds), float(megabytes)


def corpus(small, threads, device, scratch):
    sizes, peaks = (20, 40) if small else (200, 800), {}
    for n in sizes:
        write_corpus(scratch / f"{n}", n)

    def work(who, n):
        seconds, peaks[f"{who}, {n} files"] = prepared(scratch / f"{n}", who, threads)
        return seconds

    names = {f"{who}, {n} files": (who, n) for who in ("librosa", "specgen") for n in sizes}
    names[f"librosa, a hop for each clip, {sizes[0]} files"] = "librosa, a hop for each clip", sizes[0]
    peers = {f"specgen, {n} files": (f"librosa, {n} files", 8.0 if threads == 2 else None) for n in sizes}
    notes = {name: lambda name=name: f"{peaks[name]:.0f} MB more than at its start" for name in names}
    return Job("corpus of 48 kHz words to 24 x 256", "files", {name: n for name, (_, n) in names.items()},
               {name: partial(work, *args) for name, args in names.items()}, peers, notes=notes, rounds=(3, 5), warm=False)


class PaddedUNet(torch.nn.Module):
    "The U-Net of diffusers for latents (N, 6, 64): two rows are added, which its three levels need, and taken away."

    def __init__(self, channels=(48, 96, 192)):
        super().__init__()
        from diffusers import UNet2DModel

        self.unet = UNet2DModel(
            sample_size=(8, 64), in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=channels, num_class_embeds=11, norm_num_groups=8,
            down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"))

    def forward(self, x, t, labels):
        return self.unet(F.pad(x[:, None], (0, 0, 1, 1)), 1000 * t, class_labels=labels).sample[:, 0, 1:-1]


def stepper(model, loss, batches):
    "A function that takes one training step of AdamW, with the next of the batches, and the losses that it saw."
    optimizer, losses = torch.optim.AdamW(model.parameters(), lr=1e-3), []

    def step():
        optimizer.zero_grad()
        value = loss(model, batches[len(losses) % len(batches)], torch.Generator().manual_seed(len(losses)))
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(value.item())

    return step, losses


def unet_step(small, threads, device):
    torch.manual_seed(0)
    size = 4 if small else 32
    models = {"diffusers UNet2DModel": PaddedUNet(), "specgen": VelocityNetwork(10, "unet", dict(channels=(64, 128, 256)), 768)}
    weights = {name: sum(p.numel() for p in model.parameters()) for name, model in models.items()}
    assert abs(math.log(weights["specgen"] / weights["diffusers UNet2DModel"])) < 0.03
    rng = torch.Generator().manual_seed(0)
    prototypes = torch.randn(10, 6, 64, generator=rng)
    labels = torch.randint(0, 10, (8, size), generator=rng)
    batches = [((0.8 * prototypes[y] + 0.6 * torch.randn(size, 6, 64, generator=rng)).to(device), y.to(device)) for y in labels]
    steps = {name: stepper(model.to(device), FlowMatcher(10).loss, batches) for name, model in models.items()}
    works = {name: step for name, (step, _) in steps.items()}
    told = lambda name, losses: f"{weights[name] / 1e6:.2f} M weights, loss {np.mean(losses[-3:]):.3f} after {len(losses)} steps"  # noqa: E731
    notes = {name: partial(told, name, losses) for name, (_, losses) in steps.items()}
    return Job(f"U-Net training step, batch {size}", "latents", size, works, {"specgen": ("diffusers UNet2DModel", 2.0)}, notes=notes)


FEW = 5  # iterations of phase retrieval, which cost little in what evaluation classifiers hear


def heard_alike(few, many):
    "Fréchet distances of words with few and with many iterations, by the first evaluation classifier, means over seeds of the noise."
    rows = [row for row in read_table(Path(__file__).parent / "results" / "flow_iterations.csv") if row["classifier"] == "mel"]
    distance = {n: np.mean([float(row["frechet_distance"]) for row in rows if row["iterations"] == str(n)]) for n in (few, many)}
    return f"Fréchet distance {distance[few]:.2f}; {distance[many]:.2f} with {many} iterations"


def ten_digits(small, threads, device):
    model = DigitGenerator.from_pretrained("specgen/flow-digits").to(device)
    labels, student = model.labels("0123456789"), StepNetwork.begin(model.flow).eval().for_steps(1)
    draw = {
        "50 Euler steps": partial(model.flow.sample, labels, steps=50),
        "specgen, 20 Euler steps": partial(model.flow.sample, labels, steps=20),
        "specgen, 8 Adams-Bashforth steps": partial(model.flow.sample, labels, steps=8, method="adams"),
        "specgen, 1 step of a step network": partial(student.sample, labels, steps=1, guidance=1),
    }
    works = {name: lambda way=way: model.to_audio(model.autoencoder.decode(way(seed=0))) for name, way in draw.items()}
    fewer, step = f"1 step, {FEW} iterations of phase retrieval", draw["specgen, 1 step of a step network"]
    works[f"specgen, {fewer}"] = lambda: model.to_audio(model.autoencoder.decode(step(seed=0)), n_iter=FEW)
    peers = {name: ("50 Euler steps", 10.0 if fewer in name else None) for name in list(works)[1:]}
    works |= {f"{name}, latents alone": lambda way=way: way(seed=0) for name, way in draw.items()}
    peers |= {f"{name}, latents alone": ("50 Euler steps, latents alone", None) for name in list(draw)[1:]}
    return Job("ten digits, end to end", "words", 10, works, peers, notes={f"specgen, {fewer}": partial(heard_alike, FEW, model.n_iter)})


def transformer(small, threads, device):
    from transformers import ASTConfig, ASTForAudioClassification
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    n = 2 if small else 8
    sizes = dict(hidden_size=192, num_hidden_layers=6, num_attention_heads=3, intermediate_size=768, num_mel_bins=128, max_length=256)
    torch.manual_seed(0)
    theirs = ASTForAudioClassification(ASTConfig(**sizes, num_labels=10, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0))
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        ours = AST.from_pretrained(folder).to(device)
    x, y, theirs = torch.randn(n, 128, 256).to(device), torch.arange(n).to(device), theirs.to(device)
    calls = {"transformers ASTModel": lambda x: theirs(x.mT).logits, "specgen": ours}
    same = difference(*(call(x).detach() for call in calls.values()))
    works = {f"{name}, forward": torch.no_grad()(partial(call, x)) for name, call in calls.items()}
    for (name, call), model in zip(calls.items(), (theirs, ours), strict=True):
        works[f"{name}, training step"] = stepper(model, lambda _, batch, rng, call=call: F.cross_entropy(call(batch[0]), batch[1]), [(x, y)])[0]
    peers = {f"specgen, {what}": (f"transformers ASTModel, {what}", 1.0) for what in ("forward", "training step")}
    return Job(f"transformer of 128 bands x 256 frames, batch {n}", "spectrograms", n, works, peers, notes={"specgen, forward": lambda: same})


def classifier(small, threads, device):
    n, size, steps = 256, 64, 4 if small else 24
    x, y = torch.randn(n, 48, 64), torch.arange(n) % 10
    mels = LogMel(n_mels=48)
    models = [Classifier(classes=list("0123456789"), representation=mels.to_dict(), size=(48, 64)) for _ in range(2)]

    def plain():
        model, loader = models[0].train().to(device), torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), size, shuffle=True)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(steps * size // n):
            for batch, labels in loader:
                loss = F.cross_entropy(model(batch.to(device)), labels.to(device))
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                schedule.step()

    config = TrainConfig(steps, batch_size=size, precision="fp32")
    loss = partial(classification_loss, n_classes=10, representation=mels)
    works = {"plain torch": plain, "specgen": partial(train, models[1], (x, y), loss, config, device=device, progress=False)}
    return Job(f"classifier, {steps} training steps and their batches", "spectrograms", steps * size, works, {"specgen": ("plain torch", 1.0)})


def length_curve(small, threads, device):
    "How the cost grows with the length of a sound."
    works, amount = {}, {}
    for seconds in (1, 10) if small else (1, 10, 60, 300):
        sound, name = made_up(1, 16000 * seconds)[0].to(device), f"{seconds} s"
        works |= {f"log-mel, {name}": partial(LogMel(sample_rate=16000, n_fft=400, hop_length=160, n_mels=64).encode, sound)}
        works |= {f"reassigned, {name}": partial(reassigned_spectrogram, sound, sr=16000, n_fft=80, hop_length=20, window="hamming", center=False)}
        amount |= {f"log-mel, {name}": seconds, f"reassigned, {name}": seconds}
    return Job("over length, 16 kHz", "s of sound", amount, works)


def batch_curve(small, threads, device):
    "How the cost of a spectrogram, and of a network's call, grows with the batch."
    works, amount, network = {}, {}, VelocityNetwork(10, "unet", dict(channels=(64, 128, 256)), 768).eval().requires_grad_(False).to(device)
    for n in (1, 4) if small else (1, 4, 16, 64):
        clips, x = made_up(n, 16000).to(device), torch.randn(n, 6, 64).to(device)
        works |= {f"log-mel, {n}": partial(LogMel(sample_rate=16000, n_fft=400, hop_length=160, n_mels=64).encode, clips)}
        works |= {f"U-Net, {n}": partial(network, x, torch.full((n,), 0.5, device=device), torch.zeros(n, dtype=torch.long, device=device))}
        amount |= {f"log-mel, {n}": n, f"U-Net, {n}": n}
    return Job("over batch", "items", amount, works)


JOBS = (log_mel, fbank, reassigned, phases, exact_inverse, hifi_gan, corpus, unet_step, ten_digits, transformer, classifier, length_curve, batch_curve)
