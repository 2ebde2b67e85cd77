"""Every model and what surrounds them on a second device, without any GPU: the pretend one, which refuses to mix with the CPU as CUDA does.

What is computed there has to be what is computed here, to lie where the caller's tensors lie, and to be the same for the same seed.
"""
import importlib
import pkgutil
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import cache, partial
from typing import NamedTuple

import numpy as np
import pytest
import torch
from fakes import fake_evaluator
from made_up import noise, two_classes
from pretend import DEVICE, NAME, PRETENDING, pretend_device
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import specgen
from specgen import augmentation, exact_inverse, plot
from specgen.audio import peak_normalize, read_audio, resample, trim_silence, write_audio
from specgen.audio_transformer import AST
from specgen.autoencoder import Autoencoder
from specgen.classifier import Classifier, submit
from specgen.cli import main
from specgen.core import read_table, write_table
from specgen.evaluation import Evaluator, cross_validate, diversity, floor_rows, frechet_distance, hold_out_clips, nearest_neighbour_distance
from specgen.few_step import StepNetwork, distill, distill_loss, mean_flow, mean_flow_loss, reflow, reflow_loss
from specgen.filtering import adaptive_hop_stft, out_of_fold
from specgen.flow_matching import FlowMatcher, VelocityNetwork, integrate
from specgen.gan import GAN, SCENES, at_step, gan_preset
from specgen.models import Model, Preset, WaveformDataset, fit_recordings, save_samples
from specgen.pipeline import DigitGenerator, run_pipeline
from specgen.sound_evaluation import KINDS as LISTENERS, SoundClassifier, SoundDataset, SoundEvaluator
from specgen.reassignment import reassigned_spectrogram
from specgen.spectral_vocoder import SpectralVocoder
from specgen.spectrogram import Fbank, HiFiGANMel, LogMel, LogSTFT, SpectrogramLayer, mel_loss, rmse_db
from specgen.spectrogram_dataset import SpectrogramDataset, encode_waveforms, pad_or_crop, standardize
from specgen.stft import stft_loss
from specgen.training import TrainConfig, train
from specgen.vae import VAE, evidence, sound_scores, vae_scores, zero_phase
from specgen.vocoder import HiFiGAN

STFT = LogSTFT(sample_rate=8000, n_fft=64, hop_length=32, n_bins=32, floor=1e-2)
MELS = LogMel(sample_rate=8000, n_fft=128, hop_length=20, n_mels=16, power=1.0)
GRID = LogSTFT(sample_rate=8000, n_fft=512, hop_length=128, n_bins=256, floor=1e-2, mean=-2.0, std=1.5)
FBANK = Fbank(window="hamming", pool=2, mean=-6.0, std=9.0)
QUIET = dict(progress=False, precision="fp32")
HERE = torch.device("cpu")
PLACES = HERE, DEVICE
pytestmark = pytest.mark.skipif(PRETENDING, reason="it pretends by itself")
every_place = pytest.mark.parametrize("place", PLACES, ids=("here", "there"))


def moved(x, device):
    "Data, or part of it, on a device."
    if isinstance(x, (SoundDataset, WaveformDataset)):
        return replace(x, waveforms=moved(x.waveforms, device))
    return type(x)(moved(part, device) for part in x) if isinstance(x, (tuple, list)) else x.to(device)


def assert_same(a, b, at=None, tolerance=1e-4):
    "Nested results agree; if it is said where, the tensors of the first are there."
    if isinstance(a, torch.Tensor):
        assert at is None or a.device == at
        torch.testing.assert_close(a.cpu(), b.cpu(), rtol=tolerance, atol=tolerance, equal_nan=True)
    elif isinstance(a, dict):
        assert list(a) == list(b)
        assert_same(list(a.values()), list(b.values()), at, tolerance)
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y, at, tolerance)
    else:
        assert a == pytest.approx(b, rel=tolerance, abs=tolerance, nan_ok=True) if isinstance(a, float) else a == b


def all_there(model, device=DEVICE) -> bool:
    "Whether weights and statistics are on a device, and none is hidden where `Module.to` doesn't find it."
    hidden = [name for module in model.modules() for name, value in vars(module).items() if torch.is_tensor(value)]
    return not hidden and {t.device for t in (*model.parameters(), *model.buffers())} == {device}


# ---- the device itself

X = noise(3, 4)
REFUSED = {  # by CUDA too, with a RuntimeError, or a TypeError where NumPy is asked
    "operands": lambda x: x + X,
    "operands the other way round": lambda x: X * x,
    "a product": lambda x: x @ X.T,
    "a change in place": lambda x: X.add_(x),
    "a number changed in place": lambda x: torch.zeros(()).add_(x.sum()),
    "two numbers": lambda x: x.lerp(torch.tensor(1.0), torch.tensor(0.5)),
    "where": lambda x: torch.where(x > 0, X, 0.0),
    "cat": lambda x: torch.cat([x, X]),
    "a stacked number": lambda x: torch.stack([x[0, 0], torch.tensor(1.0)]),
    "an index from there": lambda x: X[torch.tensor([0], device=x.device)],
    "gather": lambda x: x.gather(0, torch.tensor([[0]])),
    "index_select": lambda x: X.index_select(0, torch.tensor([0], device=x.device)),
    "put several": lambda x: x.__setitem__(x > 0, X[0]),
    "a layer's weights": lambda x: nn.Linear(4, 2)(x),
    "a layer's input": lambda x: nn.Linear(4, 2).to(NAME)(X),
    "a layer's statistics": lambda x: F.batch_norm(x, torch.zeros(4), torch.ones(4)),
    "labels": lambda x: F.cross_entropy(x, torch.tensor([0, 1, 2])),
    "embedding": lambda x: F.embedding(torch.tensor([0]), x),
    "a window": lambda x: torch.stft(x.flatten(), 4, 2, window=torch.ones(4), return_complex=True),
    "a grid": lambda x: F.grid_sample(x[None, None], torch.zeros(1, 2, 2, 2), align_corners=True),
    "to NumPy": lambda x: x.numpy(),
    "by NumPy": np.asarray,
    "noise of a generator from here": lambda x: torch.randn(3, device=x.device, generator=torch.Generator()),
    "noise of a generator from there": lambda x: torch.randn(3, generator=torch.Generator(NAME)),
    "choices of a generator from here": lambda x: x.abs().multinomial(1, generator=torch.Generator()),
    "noise in place of a generator from here": lambda x: x.normal_(generator=torch.Generator()),
}


def untouched_by_autocast(x):
    with torch.autocast(x.device.type, enabled=False):
        return x @ x.T


ALLOWED = {  # by CUDA too
    "a number": lambda x: x * torch.tensor(2.0),
    "a number in where": lambda x: torch.where(x > 0, x, torch.tensor(0.0)),
    "a number to fill with": lambda x: x.masked_fill(x > 0, torch.tensor(1.0)),
    "a number to put": lambda x: x.clone().index_put_((torch.tensor([1]),), torch.tensor(5.0)),
    "indices": lambda x: x[torch.tensor([2, 0])],
    "a mask": lambda x: x[torch.tensor([True, False, True])],
    "a list": lambda x: x[[0, 2]],
    "a copy": lambda x: x.clone().copy_(X),
    "numbers": lambda x: x + torch.tensor([1.0, 2.0, 3.0, 4.0], device=x.device) + x.new_tensor([1.0, 2.0, 3.0, 4.0]),
    "an array": lambda x: x + torch.as_tensor(np.ones(4, np.float32), device=x.device),
    "a move": lambda x: X.to(x) + x,
    "autocast": untouched_by_autocast,
    "views in place": lambda x: x.clone().t_().squeeze_()[1:],
    "answers": lambda x: x.flatten()[0] * (x.sum().item() + float(x[0, 0]) + x.tolist()[0][1] + len(x[x > 0])),
}


@pytest.mark.parametrize("what", REFUSED)
def test_the_device_refuses_what_cuda_refuses(what):
    with pretend_device(), pytest.raises((RuntimeError, TypeError), match="on the CPU|on cpu|generator|numpy"):
        REFUSED[what](X.to(NAME))


@pytest.mark.parametrize("what", ALLOWED)
def test_the_device_allows_what_cuda_allows(what):
    with pretend_device():
        assert_same(ALLOWED[what](X.to(NAME)), ALLOWED[what](X), DEVICE)


def test_a_module_is_moved_as_on_cuda():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    weights, wanted = list(model.parameters()), model.eval()(X).detach()
    with pretend_device():
        assert all(a is b for a, b in zip(weights, model.to(NAME).parameters(), strict=True)) and all_there(model)
        twin = deepcopy(model)
        twin[0].weight.data.zero_()
        assert_same(model(X.to(NAME)), wanted, DEVICE)
        twin.load_state_dict({key: t.cpu() for key, t in model.state_dict().items()})
        assert_same(twin(X.to(NAME)), wanted, DEVICE)
        model(X.to(NAME)).sum().backward()
        assert all(w.grad.device == DEVICE for w in weights)
        assert all_there(model.cpu(), HERE) and all(type(w) is nn.Parameter and w.grad.device == HERE for w in weights)
    assert torch.equal(model(X), wanted)


class Careless(Model):
    "A model with every mistake that a CPU forgives."

    def __init__(self):
        super().__init__()
        self.layer, self.mean = nn.Linear(4, 4), torch.ones(4)

    def normalized(self, x):
        return self.layer(x) - self.mean  # statistics that are no buffer

    def numbered(self, x):
        return self.layer(x) * torch.arange(4)

    def shuffled(self, x):
        return self.layer(x).take_along_dim(torch.tensor([[3, 2, 1, 0]]), 1)

    def noisy(self, x):
        return self.layer(x) + torch.randn(x.shape)

    def seeded(self, x):
        return self.layer(x) + torch.randn(x.shape, device=x.device, generator=torch.Generator().manual_seed(0))

    def rounded(self, x):
        return torch.from_numpy(self.layer(x).detach().numpy().round())


def flow_as_it_was(x):
    "Noise on the CPU, labels and weights on the device: how the flow was sampled once."
    flow = VelocityNetwork(2, "unet", dict(channels=(8, 8, 8)), embedding=16).to(x.device)
    return list(integrate(flow.velocity(torch.tensor([0, 1])), torch.randn(2, *flow.shape), 2))[-1][1]


@pytest.mark.parametrize("mistake", ["normalized", "numbered", "shuffled", "noisy", "seeded", "rounded", flow_as_it_was])
def test_mistakes_that_a_cpu_forgives_are_seen(mistake):
    model = Careless()
    call = mistake if callable(mistake) else getattr(model, mistake)
    call(X)
    with pretend_device():
        assert not all_there(model.to(NAME))
        with pytest.raises((RuntimeError, TypeError)):
            call(X.to(NAME))


# ---- the models, each at its smallest


class Row(NamedTuple):
    "A model, how it is trained, and what it is asked."

    kind: type[Model]
    data: Callable  # () -> what `fit` takes first
    preset: Preset
    questions: dict = {}  # name: (model, spectrograms) -> answer
    own: dict = {}  # options of its `fit`
    draws: dict | None = None  # options of its `sample`, if it has one
    classes: int = 2  # that can be asked for; 0 = only a number of samples


def asked(*names, **settings):
    "Questions that are methods of a model."
    return {name: lambda model, x, name=name: getattr(model, name)(x, **settings) for name in names}


CHANGES = dict(warp=dict(voice=0.15, tempo=0.2, frames=3), roll=True, tilt_db=4.0, depth_db=48.0, mask=(6, 8), mix=True, gain_db=6.0, smoothing=0.02)
EPOCH = dict(epochs=1, batch_size=8, lr=1e-3, log_every=1)
TWO_STEPS = dict(steps=2, batch_size=6, lr=1e-3, ema=0.9, log_every=1)
CLASSIFIER = Preset(Classifier.preset("words/quick").dataset, dict(channels=(8, 8), stem=(2, 2), bands=2), {**EPOCH, "ema": 0.9, "warmup": 1}, CHANGES)
VAE_PRESET = Preset({}, dict(channels=(8, 16), strides=((2, 2), (2, 2)), latents=4), {**EPOCH, "ema": 0.9})
GAN_SOURCE = gan_preset({}, SCENES, 8, 16, **EPOCH).changed(model=dict(noise=8))
GAN_GROWN = at_step(GAN_SOURCE, "+ progressive growing").changed(training=dict(progressive=(1.0,)))
STEM = dict(stem=((8, (4, 4)), (16, (2, 2))), embed_dim=16, depth=1, num_heads=2, n_cls_tokens=0)
AST_PRESET = replace(AST.preset("quick").changed(training=EPOCH), model=STEM)
VOCODED = dict(representation=MELS.to_dict(), segment=64)
HIFIGAN_SIZES = dict(upsample_initial_channel=16, upsample_rates=(5, 4), upsample_kernel_sizes=(11, 8), resblock="2", resblock_kernel_sizes=(3,),
                     resblock_dilation_sizes=((1, 2),), divisor=32)
UNET = Preset({}, dict(network="unet", size=dict(channels=(8, 8, 8)), embedding=16), TWO_STEPS)
MLP = Preset({}, dict(size=dict(width=16, hidden=16, depth=2), embedding=16), TWO_STEPS)
AUTOENCODER = Preset({}, dict(channels=8, blocks=(1, 1)), TWO_STEPS, dict(limits=(3, 1)))
BANDS = partial(two_classes, MELS, 16, 32, 16, 6)
STRIPS = partial(two_classes, STFT, 32, 16, 16, 6)
PRIORS = {"standard": ({}, 0), "mixture": (dict(components=3, rank=2), 0), "conditional": (dict(components=2, rank=1), 2)}


def waveforms():
    return WaveformDataset(list(0.1 * noise(3, 900)), MELS, torch.arange(3) == 2)


def sounds():
    "Two classes, the last six held out, of two speakers."
    i = torch.arange(22)
    return SoundDataset(0.1 * noise(22, 1600), i % 2, ["low", "high"], 8000, "words", torch.zeros(22, 3), i > 15, [("ann", "bob")[k & 1] for k in i // 2])


def sound_row(kind: str) -> Row:
    size = SoundClassifier.presets[f"{kind}/words/quick"]
    channels = (8, 8, 8, 8)[: len(size.model.get("channels", (0,) * 4))]
    small = size.changed(model=dict(channels=channels), training={**EPOCH, "warmup": 1})
    return Row(SoundClassifier, sounds, small, asked("predict_proba", "predict", "embed"), dict(kind=kind))


def latents():
    return noise(8, 6, 64), torch.arange(8) % 2


def vae_row(prior: str) -> Row:
    own, classes = PRIORS[prior]
    questions = {
        **asked("embed", "reconstruct", "encode"), **asked("to_audio", n_iter=1), "interpolate": lambda model, x: model.interpolate(x[0], x[1], 3),
        "decode": lambda model, x: [model.decode(model.embed(x)), model.decoder_mean(z=model.embed(x))],
        "likelihood": lambda model, x: model.log_likelihood(x, model.reconstruct(x)), "prior": lambda model, x: model.prior.log_prob(model.embed(x))}
    return Row(VAE, STRIPS, VAE_PRESET, questions, dict(prior=prior, **own), {}, classes)


ROWS = {
    "classifier": Row(Classifier, BANDS, CLASSIFIER, asked("predict_proba", "predict", "embed")),
    "transformer": Row(AST, partial(two_classes, FBANK, 128, 24, 16, 6), AST_PRESET, {
        **asked("predict_proba", "predict", "attention_rollout"),
        "adapt": lambda model, x: model.adapt(n_frames=30, representation=FBANK).predict_proba(x)}),
    **{f"sound classifier, {kind}": sound_row(kind) for kind in LISTENERS},
    **{f"VAE, {prior} prior": vae_row(prior) for prior in PRIORS},
    "GAN, source": Row(GAN, BANDS, GAN_SOURCE, asked("to_audio"), draws={}),
    "GAN, grown": Row(GAN, BANDS, GAN_GROWN, asked("to_audio"), draws={}),
    "spectral vocoder": Row(SpectralVocoder, waveforms, Preset(VOCODED, dict(channels=8, hidden=8, blocks=1), TWO_STEPS),
                            asked("to_audio", "log_magnitudes")),
    "HiFi-GAN": Row(HiFiGAN, waveforms, Preset(VOCODED, HIFIGAN_SIZES, {**TWO_STEPS, "grad_clip": None}), asked("to_audio")),
    "linear autoencoder": Row(Autoencoder, partial(two_classes, GRID, 256, 24, 8, 4), Preset(), asked("encode", "reconstruct")),
    "autoencoder": Row(Autoencoder, partial(two_classes, GRID, 256, 24, 8, 4), AUTOENCODER, {
        **asked("encode", "reconstruct"), "decode": lambda model, x: model.decode(F.avg_pool2d(x.mT, 4))}),
    "flow, U-Net": Row(VelocityNetwork, latents, UNET, own=dict(n_classes=2), draws=dict(steps=2, method="heun")),
    "flow, MLP": Row(VelocityNetwork, latents, MLP, own=dict(n_classes=2), draws=dict(steps=2)),
    "few steps": Row(StepNetwork, latents, MLP, own=dict(n_classes=2), draws=dict(steps=2)),
    "digits": Row(DigitGenerator, partial(two_classes, GRID, 256, 24, 6, 4), Preset({}, dict(steps=2, n_iter=1), dict(preset="tiny")), {
        **asked("to_audio"), "reconstruct": lambda model, x: model.autoencoder.reconstruct(x)}, draws={}),
}
every_model = pytest.mark.parametrize("name", ROWS)


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    "The smallest sizes under a name, for what trains several models; float32 everywhere."
    monkeypatch.setattr("specgen.models.native_bf16", lambda device: False)
    for kind, preset in ((Classifier, CLASSIFIER), (Autoencoder, AUTOENCODER), (VelocityNetwork, MLP)):
        monkeypatch.setitem(kind.presets, "tiny", preset)


def fitted(row: Row, data, device):
    return row.kind.fit(*(data if isinstance(data, tuple) else (data,)), preset=row.preset, device=device, **QUIET, **row.own)


@cache
def trained(name: str) -> Model:
    "Trained on the CPU."
    return fitted(ROWS[name], ROWS[name].data(), "cpu")


def inputs(row: Row) -> torch.Tensor:
    "What the model is asked about, on the CPU."
    data = row.data()
    if isinstance(data, SoundDataset):
        return data.waveforms[:3]
    return noise(2, 16, 9) if isinstance(data, WaveformDataset) else data[0][:3] if isinstance(data, tuple) else data.spectrograms[:3]


def test_no_model_is_left_out():
    for module in pkgutil.iter_modules(specgen.__path__):
        importlib.import_module(f"specgen.{module.name}")
    waiting, found = [Model], set()
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        found |= {kind} if kind.__module__.startswith("specgen.") and hasattr(kind, "fit") else set()
    assert found == {row.kind for row in ROWS.values()}


@every_model
@every_place  # of the training data
def test_a_model_is_trained_there_as_here(name, place):
    row, here = ROWS[name], trained(name).state_dict()
    with pretend_device():
        model = fitted(row, moved(row.data(), place), NAME)
        assert all_there(model) and model.device == DEVICE and not model.training
        there = {key: t.cpu() for key, t in model.state_dict().items()}
    errors = torch.cat([(there[key].double() - t.double()).abs().flatten() for key, t in here.items()])
    assert there.keys() == here.keys() and errors.mean() < 1e-5  # a step is 1e-3 long


@every_model
def test_a_model_answers_there_as_here(name, tmp_path):
    row, here, x = ROWS[name], trained(name), inputs(ROWS[name])
    here.save_pretrained(tmp_path / "here")
    with pretend_device():
        there = row.kind.from_pretrained(tmp_path / "here", device=NAME)
        assert all_there(there)
        for question in row.questions.values():
            wanted = question(here, x)
            for place in PLACES:
                assert_same(question(there, x.to(place)), wanted, place)
        there.save_pretrained(tmp_path / "there")
        assert all_there(there.to("cpu"), HERE)
    again = row.kind.from_pretrained(tmp_path / "there")
    assert all(torch.equal(again.state_dict()[key], t) for key, t in here.state_dict().items())


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.draws is not None])
def test_the_same_seed_draws_the_same_there(name):
    row, here = ROWS[name], trained(name)
    with pretend_device():
        draw, labels, wanted = partial(deepcopy(here).to(NAME).sample, **row.draws), torch.arange(4) % 2, here.sample(4, seed=3, **row.draws)
        assert_same(draw(4, seed=3), wanted, HERE)
        for place in PLACES:  # of the generator, of the labels
            assert_same(draw(4, generator=torch.Generator(place).manual_seed(3)), wanted, HERE)
            if row.classes:
                assert_same(draw(labels.to(place), seed=3), wanted, place)
                assert_same(draw(labels.to(NAME), generator=torch.Generator(place).manual_seed(3)), wanted, DEVICE)
        assert not torch.equal(draw(4), draw(4))


def test_vocoders_score_there_as_here():
    for name in ("spectral vocoder", "HiFi-GAN"):
        data, here = ROWS[name].data(), trained(name)
        with pretend_device():
            there = deepcopy(here).to(NAME)
            for place in PLACES:
                assert_same(there.evaluate(moved(data, place)), here.evaluate(data))
            assert trained("GAN, source").to_audio(BANDS().spectrograms[:2].to(NAME), vocoder=there).device == DEVICE


def test_gradients_come_back_from_there():
    z = noise(3, 4)
    grads = []
    with pretend_device():
        for place in PLACES:  # of the model
            model, own = deepcopy(trained("VAE, standard prior")).to(place), z.clone().requires_grad_()
            model.decoder_mean(own).square().sum().backward()
            grads.append(own.grad)
    assert_same(*grads, HERE)


@pytest.mark.parametrize("method", [reflow, distill, mean_flow])
def test_few_steps_are_learnt_there_as_here(method):
    data = latents() if method is mean_flow else (noise(8, 5, 6, 64), torch.arange(8) % 2)
    how = dict(preset=Preset(training=TWO_STEPS), **QUIET)
    here = method(trained("flow, U-Net"), *data, device=HERE, **how).state_dict()
    with pretend_device():
        for place in PLACES:
            there = method(deepcopy(trained("flow, U-Net")).to(place), *moved(data, place), device=NAME, **how)
            errors = torch.cat([(t.cpu() - here[key]).abs().flatten() for key, t in there.state_dict().items()])
            assert all_there(there) and errors.mean() < 1e-5


class Follows(nn.Module):
    "A velocity that depends on everything it is given."

    def forward(self, x, t, labels, length=0.0):
        return x * (t + labels + length).view(-1, 1, 1)


MEAN_FLOW = partial(mean_flow_loss, velocity=Follows())


@pytest.mark.parametrize("loss, moments", [(FlowMatcher(2).loss, ()), (reflow_loss, (5,)), (distill_loss, (5,)), (MEAN_FLOW, ())])
def test_the_losses_of_a_flow_take_a_generator_of_another_device(loss, moments):
    data = noise(8, *moments, 6, 64)
    with pretend_device():
        values = [loss(Follows(), moved((data, torch.arange(8) % 2), place), generator=torch.Generator().manual_seed(0)) for place in PLACES]
    assert_same(values[1], values[0])


# ---- training


class Examples(torch.utils.data.Dataset):
    "Two tensors as a map-style dataset."

    def __init__(self, x, y):
        self.x, self.y = x, y

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return self.x[i], self.y[i]


INPUTS, TARGETS = noise(12, 4), noise(12, 2, seed=1)
FORMS = {"tuple": lambda x, y: (x, y), "dict": lambda x, y: {"x": x, "y": y}, "TensorDataset": TensorDataset, "Dataset": Examples,
         "DataLoader": lambda x, y: DataLoader(Examples(x, y), batch_size=6)}


def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.ReLU(), nn.Linear(8, 2))


def loss_fn(model, batch, generator):
    "A loss with noise of its own, drawn where the batch is, and with dropout."
    x, y = batch.values() if isinstance(batch, dict) else batch
    made = model(x + 0.1 * torch.randn(x.shape, generator=generator, device=x.device))
    return (made - y).square().mean(), {"error": (made - y).abs().mean()}


def rows_of(form, device, place, **settings):
    "The history of a short training, without its speed."
    model, config = network(), TrainConfig(**{**TWO_STEPS, "validate_every": 1, **settings})
    validate = lambda m: {"weight": m[0].weight.square().mean()}  # noqa: E731
    history = train(model, FORMS[form](INPUTS.to(place), TARGETS.to(place)), loss_fn, config, device=device, progress=False, validate=validate)
    assert all_there(model, device)
    return [{key: value for key, value in row.items() if key != "rate"} for row in history.rows]


@pytest.mark.parametrize("form", FORMS)
def test_any_form_of_data_is_trained_on_there(form):
    with pretend_device():
        for place in PLACES:
            assert_same(rows_of(form, DEVICE, place), rows_of(form, HERE, HERE), tolerance=1e-5)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_and_loss_scaling_there(precision):
    with pretend_device():  # whose autocast rounds nothing
        assert_same(rows_of("tuple", DEVICE, HERE, precision=precision), rows_of("tuple", HERE, HERE, precision="fp32"), tolerance=1e-4)


def test_a_training_that_was_stopped_goes_on_there(tmp_path):
    config, calls, here = TrainConfig(**{**TWO_STEPS, "steps": 4, "checkpoint_every": 1}), [], network()

    def stopped(model, batch, generator):
        calls.append(1)
        if len(calls) == 3:
            raise KeyError("stop")
        return loss_fn(model, batch, generator)

    train(here, (INPUTS, TARGETS), loss_fn, config, device="cpu", progress=False)
    with pretend_device():
        there, how = network(), dict(out=tmp_path, device=NAME, progress=False)
        with pytest.raises(KeyError):
            train(network(), (INPUTS, TARGETS), stopped, config, **how)
        train(there, moved((INPUTS, TARGETS), DEVICE), stopped, config, **how)  # the same data, wherever it lies
        assert len(calls) == 5 and all_there(there)
        assert_same(dict(there.state_dict()), dict(here.state_dict()), DEVICE, tolerance=1e-5)
    assert [row["step"] for row in read_table(tmp_path / "history.csv")] == ["1", "2", "3", "4"]


# ---- what surrounds the models

KINDS = {
    "LogSTFT": STFT,
    "LogMel, librosa": LogMel.librosa(sample_rate=8000, n_fft=256, hop_length=64, n_mels=16),
    "LogMel, torchaudio": LogMel.torchaudio(sample_rate=8000, n_fft=256, hop_length=64, n_mels=16),
    "Fbank": Fbank(sample_rate=8000, n_fft=256, hop_length=80, win_length=200, n_mels=16, pool=2),
    "HiFiGANMel": HiFiGANMel(sample_rate=8000, n_fft=256, hop_length=64, f_max=None, n_mels=16),
}


@pytest.mark.parametrize("kind", KINDS)
def test_representations(kind):
    r, x = KINDS[kind], 0.3 * noise(2, 2000)
    spec = r.encode(x)
    wanted = r.decode(spec, n_iter=1, generator=torch.Generator().manual_seed(1))
    with pretend_device():
        far = x.to(NAME)
        assert_same([r.encode(far), SpectrogramLayer(r).to(NAME)(far)], [spec, spec], DEVICE)
        for place in PLACES:  # of the generator
            assert_same(r.decode(spec.to(NAME), n_iter=1, generator=torch.Generator(place).manual_seed(1)), wanted, DEVICE)
        assert r.fit([*far]) == r.fit([*x]) and rmse_db(spec.to(NAME), spec, r) == rmse_db(spec, spec.to(NAME), r) == 0
        if isinstance(r, LogMel):
            assert_same([mel_loss(far, 2 * far, r), stft_loss(far, 2 * far)], [mel_loss(x, 2 * x, r), stft_loss(x, 2 * x)], DEVICE)


PARTS = {
    "train": lambda d: d.train, "test": lambda d: d.test, "numbers": lambda d: d.select([3, 1]), "mask": lambda d: d.select(d.labels == 1),
    "mask from here": lambda d: d.select(BANDS().labels == 1), "none": lambda d: d.select([]), "copies": lambda d: augmentation.augment_dataset(d.train),
    "held out": hold_out_clips, "floor": lambda d: floor_rows(d)["held out, seen speakers"],
}


def test_datasets(tmp_path):
    data = replace(BANDS(), speakers=["ann", "bob"] * 11, paths=[f"{i}.wav" for i in range(22)])
    sound = data.select([0, 1]).to_audio(n_iter=1)
    with pretend_device():
        far = data.to(NAME)
        assert far.device == far.labels.device == far.is_test.device == DEVICE and far.digest() == data.digest()
        for part in PARTS.values():
            assert_same(part(far).tensors, part(data).tensors, DEVICE)
            assert part(far).is_test.device == DEVICE and part(far).speakers == part(data).speakers
        for batch, wanted in zip(DataLoader(far, batch_size=8), DataLoader(data, batch_size=8), strict=True):
            assert_same(batch, wanted, DEVICE)
        assert SpectrogramDataset.load(far.save(tmp_path)).digest() == far.to("cpu").digest() == data.digest()
        assert_same(far.select([0, 1]).to_audio(n_iter=1), sound, DEVICE)
        for place in PLACES:
            assert_same(data.to_audio(data.spectrograms[:2].to(place), n_iter=1), sound, place)


WAVEFORMS = {
    "resample": lambda x: resample(x, 8000, 4000), "peak_normalize": peak_normalize, "trim_silence": lambda x: trim_silence(x, 8000),
    "crop": lambda x: pad_or_crop(x, 700), "pad": lambda x: pad_or_crop(x, 4000), "clips": lambda x: encode_waveforms([x, 0.5 * x], MELS, 40, depth_db=40.0),
    "trimmed clips": lambda x: encode_waveforms([x], MELS, 40, trim=True), "fitted": lambda x: adaptive_hop_stft(x, GRID),
    "segments": lambda x: augmentation.random_segment(augmentation.make_segments([x, x], 500), 300, torch.Generator().manual_seed(0)),
    "zero phase": lambda x: zero_phase(STFT.encode(x), STFT), "reassigned": lambda x: reassigned_spectrogram(x.double(), sr=8000, n_fft=64),
    "reassigned, relative": lambda x: reassigned_spectrogram(x, sr=8000, n_fft=64, ref_power=lambda power: 1e-4 * power.amax(), fill_nan=True),
}


@pytest.mark.parametrize("name", WAVEFORMS)
def test_waveforms(name):
    x = 0.3 * noise(3000)
    with pretend_device():
        assert_same(WAVEFORMS[name](x.to(NAME)), WAVEFORMS[name](x), DEVICE)


def test_an_inversion_returns_to_the_device(monkeypatch):
    monkeypatch.setattr(exact_inverse, "invert_arrays", lambda *arrays, **how: (arrays[2][0], exact_inverse.Inversion(0.0, 1.0, 1, 1, "")))
    with pretend_device():
        sound, _ = exact_inverse.invert(*reassigned_spectrogram(noise(400).to(NAME), sr=8000, n_fft=64), sr=8000, n_fft=64, hop_length=16)
        assert sound.device == DEVICE


CHANGED = {
    "random_shift": augmentation.random_shift, "time_roll": augmentation.time_roll, "random_eq": lambda x, g: augmentation.random_eq(x, g, 0.3),
    "spec_augment": lambda x, g: augmentation.spec_augment(x, g, (3, 3)), "mixup": lambda x, g: augmentation.mixup(x, g, 0.5),
    "energy_mixup": lambda x, g: augmentation.energy_mixup(x.exp(), F.one_hot(torch.arange(len(x), device=x.device) % 2).float(), g),
    "vtlp_time_warp": lambda x, g: augmentation.vtlp_time_warp(x, g, hertz=MELS.frequencies, voice=0.1, tempo=0.1, frames=2),
    "distort": lambda x, g: augmentation.distort(x.flatten(1), g, sample_rate=400),
    "augment": lambda x, g: augmentation.augment(x, g, tilt=0.3, depth=3.0, mask=(3, 3)), "standardize": lambda x, g: standardize(x, 3.0),
    **{name: lambda x, g, name=name: getattr(augmentation, name)(x) for name in ("up_forward", "down_back", "faster", "slower")},
}


@pytest.mark.parametrize("name", CHANGED)
def test_augmentation(name):
    x = BANDS().spectrograms
    wanted = CHANGED[name](x, torch.Generator().manual_seed(1))
    with pretend_device():
        for place in PLACES:  # of the generator
            assert_same(CHANGED[name](x.to(NAME), torch.Generator(place).manual_seed(1)), wanted, DEVICE)
        CHANGED[name](x.to(NAME), None)


def test_evaluation(tmp_path):
    data, clips = BANDS(), BANDS().test.tensors
    here = Evaluator.fit(data, preset="tiny", device="cpu", **QUIET)
    score, table = here.score(*clips, reference=data), here.score_table({"a": clips, "b": clips}, data, show=False)
    with pretend_device():
        fit = Evaluator.fit(data.to(NAME), preset="tiny", device=NAME, **QUIET)
        fit.save_pretrained(tmp_path)
        assert all_there(fit.classifier) and fit.accuracy == here.accuracy
        for place, other in (PLACES, PLACES[::-1]):  # of what is scored, of the reference
            there, reference = Evaluator.from_pretrained(tmp_path, device=NAME), data.to(other)
            assert_same(there.score(*moved(clips, place), reference=reference), score)
            assert_same(there.score_table({"a": data.to(place).test, "b": moved(clips, place)}, reference, show=False), table)
        assert_same(out_of_fold(data.to(NAME), preset="tiny", device=NAME), out_of_fold(data, preset="tiny", device=HERE), DEVICE)


def test_evaluation_of_sounds(tmp_path):
    data = sounds()
    here = SoundEvaluator({kind: trained(f"sound classifier, {kind}") for kind in LISTENERS}, dict.fromkeys(LISTENERS, 1.0))
    score, agreement = here.score(data.test, reference=data), here.agreement(data)
    here.save_pretrained(tmp_path)
    with pretend_device():
        there = SoundEvaluator.from_pretrained(tmp_path, device=NAME)
        assert all(all_there(model) for model in there.classifiers.values())
        for place, other in (PLACES, PLACES[::-1]):  # of what is scored, of the reference
            clips, reference = moved(data.test, place), moved(data, other)
            assert_same(there.score(clips, reference=reference), score)
            assert_same(there.agreement(moved(data, place)), agreement)
        assert data.hear(data.waveforms.to(NAME), data.labels.to(NAME), 8000).waveforms.device == HERE


def test_distances():
    x, labels = noise(12, 5), torch.arange(12) % 2
    with pretend_device():
        far = x.to(NAME)
        assert frechet_distance(far, x[:6]) == frechet_distance(x, far[:6]) == frechet_distance(x, x[:6])
        assert diversity(far, labels) == diversity(far, labels.to(NAME)) == diversity(x, labels.to(NAME)) == diversity(x, labels)
        assert_same(nearest_neighbour_distance(far, far[:5]), nearest_neighbour_distance(x, x[:5]), DEVICE)


def test_scores_of_autoencoders():
    data, evaluator, x = STRIPS(), fake_evaluator(n_classes=2), STRIPS().spectrograms[:3]
    for prior in PRIORS:
        here = trained(f"VAE, {prior} prior")
        with pretend_device():
            there = deepcopy(here).to(NAME)
            for place in PLACES:
                assert_same(evidence(there, *moved(data.test.tensors, place)), evidence(here, *data.test.tensors))
                assert_same(vae_scores(there, data.to(place), evaluator, n=6), vae_scores(here, data, evaluator, n=6))
    with pretend_device():
        sounds = here.to_audio(x, n_iter=1)
        assert_same(sound_scores(*moved((sounds, x), DEVICE), STFT, evaluator, data.labels[:3]), sound_scores(sounds, x, STFT, evaluator, data.labels[:3]))


def test_figures_and_files(tmp_path):
    data = BANDS()
    with pretend_device():
        far = data.to(NAME)
        plot.show_specs(far.spectrograms[:2], representation=MELS)
        plot.show_waveform(far.spectrograms[0, 0], 8000)
        plot.player(far.spectrograms[0, 0], 8000)
        plot.latent_scatter(far.spectrograms.flatten(1), far.labels, far.classes)
        assert_same(plot.confusion_matrix(far.labels, far.labels, 2), plot.confusion_matrix(data.labels, data.labels, 2))
        written = save_samples(tmp_path, ["a", "b"], 0.1 * far.spectrograms[:2, 0], 8000, spectrograms=far.spectrograms[:2], representation=MELS, joined=True)
        assert len(written) == 4 and all(path.stat().st_size for path in written)
    plot.plt.close("all")


# ---- from recordings to a model and a page


@pytest.fixture(scope="module")
def tones(tmp_path_factory):
    "Two words: low and high tones, eight takes of each."
    root = tmp_path_factory.mktemp("tones")
    for name, hertz in (("low", 300), ("high", 1900)):
        for take in range(8):
            t = torch.arange(3000 + 40 * take) / 8000
            write_audio(root / name / f"{take}.wav", 0.3 * torch.sin(2 * torch.pi * (hertz + 20 * take) * t), 8000)
    return root


def test_recordings_in_model_out(tones, tmp_path):
    files, fit = sorted(tones.rglob("*.wav")), partial(fit_recordings, Classifier, tones, out=tmp_path / "run", preset="tiny", by="stratified", **QUIET)
    with pretend_device():
        assert all_there(fit(device=NAME))
        model = fit(device=NAME)  # which is found finished
        assert all_there(model) and submit(tones, model, tmp_path / "out.csv", progress=False).n_predicted == 16
        assert_same(model.predict_files(files), Classifier.from_pretrained(tmp_path / "run").predict_files(files))


def test_folds(tones, tmp_path):
    rows, sounds = [], tmp_path / "esc" / "audio"
    sounds.mkdir(parents=True)
    for target, word in enumerate(("low", "high")):
        for take in range(6):
            rows.append(dict(filename=f"{word}{take}.wav", fold=1 + take % 2, target=target, category=word, esc10=True, src_file=f"{word}{take}", take="A"))
            (sounds / rows[-1]["filename"]).write_bytes((tones / word / f"{take}.wav").read_bytes())
    write_table(tmp_path / "esc" / "meta" / "esc50.csv", rows)
    how = dict(root=tmp_path / "esc", folds=(1, 2), preset="tiny", **QUIET)
    here = cross_validate(Classifier, "esc50", out=tmp_path / "here", device="cpu", **how)
    with pretend_device():
        there = cross_validate(Classifier, "esc50", out=tmp_path / "there", device=NAME, **how)
    assert_same(there.confusion, here.confusion)
    assert_same([row["loss"] for row in there.rows], [row["loss"] for row in here.rows])


def test_recordings_in_page_out(tones, tmp_path, monkeypatch):
    for kind in (Classifier, Autoencoder, VelocityNetwork):
        monkeypatch.setitem(kind.presets, "quick", kind.presets["tiny"])
    speak = ["generate", "low,high", "--model", str(tmp_path / "run")]
    with pretend_device():
        scores = run_pipeline(tones, preset="quick", out=tmp_path / "run", device=NAME, **QUIET)
        assert len({row["n"] for row in scores["rows"].values()}) == 1 and f"{DEVICE}, " in (tmp_path / "run" / "report.html").read_text()
        main([*speak, "--out", str(tmp_path / "there"), "--device", NAME])
    main([*speak, "--out", str(tmp_path / "here"), "--device", "cpu"])
    here, there = (read_audio(tmp_path / place / "joined.wav")[0] for place in ("here", "there"))
    assert here.any() and (here - there).abs().max() < 1e-3
