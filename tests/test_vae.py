"Edges of the variational autoencoders."
import json
from dataclasses import replace

import pytest
import torch
from fakes import fake_evaluator
from made_up import noise, two_classes

from specgen import vae
from specgen.audio import write_audio
from specgen.classifier import Classifier
from specgen.core import SpecgenError, seeded
from specgen.datasets import load_recordings
from specgen.models import Preset, fit_recordings
from specgen.priors import Mixture, StandardNormal
from specgen.spectrogram import LogSTFT
from specgen.vae import LIKELIHOODS, PRIORS, VAE, active_latents, evidence, negative_elbo, sound_scores, vae_scores, zero_phase

STFT = LogSTFT(sample_rate=8000, n_fft=64, hop_length=32, n_bins=32, floor=1e-2)
MODEL = dict(channels=(8, 16), strides=((2, 2), (2, 2)), latents=4)
TINY = Preset(model=MODEL, training=dict(epochs=3, batch_size=16, lr=3e-3, ema=0.99))
CONFIG = dict(shape=(32, 16), span=(-4.0, 4.0), **MODEL, classes=["low", "high"], representation=STFT.to_dict())


def toy():
    return two_classes(STFT, 32, 16, 48, 16)


def built(**changes):
    "An untrained model that isn't all zeros."
    with seeded(0):
        model = VAE(**{**CONFIG, **changes}).eval()
    return model.start_linear(toy().spectrograms)


@pytest.mark.parametrize("shape, strides", [((256, 64), ((4, 4), (2, 2), (2, 2), (2, 1))), ((32, 16), ((2, 2), (2, 1))), ((12, 10), ((3, 5),))])
@pytest.mark.parametrize("plain", [False, True])
def test_shapes_return(shape, strides, plain):
    model = VAE(shape, (-9.0, 9.0), channels=(8,) * len(strides), strides=strides, latents=5, plain=plain).eval()
    mean, log_var = model.encode(noise(3, *shape))
    assert mean.shape == log_var.shape == (3, 5) and model.decode(mean).shape == (3, *shape)


def test_a_model_knows_its_temperature(tmp_path):
    model = built(temperature=0.5)
    assert torch.equal(model.sample(3, seed=0), model.sample(3, temperature=0.5, seed=0))
    assert not torch.equal(model.sample(3, seed=0), model.sample(3, temperature=1.0, seed=0)) and built().temperature == 1.0
    model.save_pretrained(tmp_path)
    assert VAE.from_pretrained(tmp_path).temperature == 0.5


def test_what_is_almost_silent_is_silent():
    z = noise(3, 4)
    plain, silent = (built(silence_db=db).decode(z) for db in (0.0, 6.0))
    low, margin = CONFIG["span"][0], 6 / STFT.decibels
    assert torch.equal(silent, torch.where(plain < low + margin, low, plain)) and built().silence == 0


@pytest.mark.parametrize("name", VAE.presets)
def test_presets_build(name):
    preset = VAE.preset(name)
    r = LogSTFT(**preset.dataset["stft"])
    for prior, settings in PRIORS.items():
        model = VAE((r.n_bins, 64), (0.0, 1.0), n_classes=10 * (prior == "conditional"), **{**preset.model, **settings})
        assert isinstance(model.prior, Mixture if settings else StandardNormal) and model.sample(1).shape == (1, r.n_bins, 64)


def test_the_source_preset_is_the_sources():
    source = VAE.preset("source")
    assert source.dataset == dict(stft=dict(sample_rate=22050, n_fft=512, hop_length=256, n_bins=256, floor=1e-5), minmax=True)
    assert source.model["channels"] == (512, 256, 128, 64, 32) and source.model["latents"] == 128 and source.model["plain"]
    assert source.model["strides"] == ((2, 2), (2, 2), (2, 2), (2, 2), (2, 1))
    assert source.training == dict(epochs=150, batch_size=64, lr=5e-4, ema=None)
    with seeded(0):
        model = VAE((256, 64), (0.0, 1.0), **{**source.model, "channels": (8, 8, 8, 8, 8)})
    x, y = torch.rand(2, 256, 64), torch.rand(2, 256, 64)
    constant = model.log_likelihood(x, x)
    torch.testing.assert_close(model.log_likelihood(x, y) - constant, -1e6 * (x - y).square().mean((1, 2)), rtol=1e-3, atol=1.0)
    assert not model.log_scale.requires_grad


def test_every_file_by_its_own_minimum_and_maximum(sounds):
    data = VAE.prepare(load_recordings(sounds), preset=VAE.preset("quick").changed(dataset=dict(minmax=True)))
    assert torch.equal(data.spectrograms.amin((1, 2)), torch.zeros(24)) and torch.allclose(data.spectrograms.amax((1, 2)), torch.ones(24))


def test_spectrograms_of_another_size_are_told():
    with pytest.raises(SpecgenError, match="multiple of 4"):
        VAE(**{**CONFIG, "shape": (30, 16)})
    for x in (noise(2, 16, 32), noise(32, 16)):
        with pytest.raises(SpecgenError, match=r"wants \(N, 32, 16\)"):
            built().reconstruct(x)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_likelihoods_prefer_the_truth_and_stay_finite(name):
    span, x = (-1.0, 3.0), torch.linspace(-1, 3, 41)
    scores = torch.stack([LIKELIHOODS[name](x, torch.full_like(x, y), torch.tensor(-1.0), span) for y in x.tolist()])
    assert scores.isfinite().all() and (scores.argmax(0) - torch.arange(41)).abs().max() <= (1 if name == "logistic" else 0)
    assert LIKELIHOODS[name](torch.tensor(-1.0), torch.tensor(50.0), torch.tensor(-6.0), span).isfinite()


@pytest.mark.parametrize("prior, changes", [
    ("standard", {}), ("standard", dict(beta=None)), ("standard", dict(likelihood="bernoulli")), ("standard", dict(likelihood="logistic")),
    ("mixture", dict(components=3, rank=1)), ("mixture", dict(components=3, clusters=False)), ("conditional", dict(components=2)),
])
def test_a_model_of_any_kind_trains_and_the_same_seed_gives_the_same(prior, changes):
    data = toy()
    a, b = (VAE.fit(data, preset=TINY, prior=prior, progress=False, **changes) for _ in range(2))
    assert all(torch.equal(u, v) for u, v in zip(a.state_dict().values(), b.state_dict().values(), strict=True))
    e = evidence(a, *data.test.tensors)
    assert (e["bits"] != e["bits"]) == (changes.get("likelihood") == "bernoulli") and e["error"] > 0


@pytest.mark.parametrize("wrong, match", [
    (dict(prior="uniform"), "standard, mixture, conditional"), (dict(preset="huge"), "quick, small, source"),
    (dict(likelihood="poisson"), "gaussian, logistic"),
])
def test_unknown_names(wrong, match):
    with pytest.raises(SpecgenError, match=match):
        VAE.fit(toy(), **{"preset": TINY, **wrong})


def test_a_killed_training_continues_bit_for_bit(tmp_path, monkeypatch):
    how = dict(preset=TINY, prior="mixture", components=3, progress=False)
    whole, seen, config = VAE.fit(toy(), **how), [], vae.TrainConfig

    def stop(model, *rest, **more):
        seen.append(model)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return evidence(model, *rest, **more)

    monkeypatch.setattr(vae, "evidence", stop)
    monkeypatch.setattr(vae, "TrainConfig", lambda *a, **k: replace(config(*a, **k), checkpoint_every=2))
    with pytest.raises(KeyboardInterrupt):
        VAE.fit(toy(), out=tmp_path, **how)
    resumed = VAE.fit(toy(), out=tmp_path, **how)
    assert (tmp_path / "checkpoint.safetensors").is_file()
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True))


def test_the_terms_of_the_loss_add_up():
    model, batch = built(), tuple(t[:8] for t in toy().tensors)
    values = [negative_elbo(model, batch, torch.Generator().manual_seed(0), beta=beta) for beta in (0.0, 1.0, 3.0)]
    kl = values[0][1]["kl"] / 512
    assert torch.allclose(values[1][0] - values[0][0], kl, atol=1e-5) and torch.allclose(values[2][0] - values[0][0], 3 * kl, atol=1e-5)
    plain = negative_elbo(model, batch, None, beta=None)[0]
    assert torch.allclose(plain, (model.reconstruct(batch[0]) - batch[0]).square().mean(), atol=1e-6)


def test_samples_depend_on_seed_and_label_alone():
    model = built(components=2, n_classes=2)
    with torch.no_grad():
        model.prior.means[1] += 3
    a, b, c = (model.sample([0, 1, 1], seed=k) for k in (0, 0, 1))
    assert torch.equal(a, b) and not torch.allclose(a, c) and torch.equal(model.sample(4, seed=0), model.sample([0, 1, 0, 1], seed=0))
    assert not torch.equal(model.sample(2), model.sample(2))
    assert torch.allclose(*model.sample([1, 1], component=0, temperature=0.0)) and not torch.allclose(*model.sample([0, 1], component=0, temperature=0.0))
    for labels in ([2], [-1], [], [0.5], 0):
        with pytest.raises(SpecgenError):
            model.sample(labels)
    with pytest.raises(SpecgenError, match="has 2, the first is 0"):
        model.sample(2, component=2)
    with pytest.raises(SpecgenError, match="knows no classes"):
        built().sample([0, 1])
    assert model.classes == ["low", "high"] and built().classes == []


def test_an_interpolation_begins_and_ends_at_the_reconstructions():
    model, (a, b) = built(), toy().spectrograms[:2]
    strip = model.interpolate(a, b, 5)
    assert torch.allclose(strip[[0, -1]], model.reconstruct(torch.stack([a, b])), atol=1e-5)
    assert torch.allclose(strip[2], strip[[0, -1]].mean(0), atol=1e-4)  # all is linear before training
    with pytest.raises(SpecgenError, match="at least 2"):
        model.interpolate(a, b, 1)


def test_predictions_leave_the_callers_mode_and_random_state():
    model, x = built().train(), toy().spectrograms
    state = torch.get_rng_state()
    for done in (model.reconstruct(x), model.sample(2, seed=0), model.to_audio(x[:1])):
        assert not done.requires_grad
    assert model.training and torch.equal(state, torch.get_rng_state())


def test_saved_and_loaded(tmp_path):
    for name, model in (("gaussian", built()), ("mixture", built(components=2, rank=1))):
        model.save_pretrained(tmp_path / name)
        loaded = VAE.from_pretrained(tmp_path / name)
        assert torch.equal(loaded.sample(3, seed=0), model.sample(3, seed=0)) and loaded.representation == STFT
    with pytest.raises(SpecgenError, match="another model"):
        Classifier.from_pretrained(tmp_path / "gaussian")
    settings = json.loads((tmp_path / "gaussian/config.json").read_text())
    (tmp_path / "gaussian/config.json").write_text(json.dumps({**settings, "latents": 5}))
    with pytest.raises(SpecgenError, match="damaged"):
        VAE.from_pretrained(tmp_path / "gaussian")


def test_scores_have_all_columns():
    data, evaluator = toy(), fake_evaluator(n_classes=2)
    for model in (built(), built(components=2, n_classes=2)):
        scores = vae_scores(model, data, evaluator, n=20)
        columns = "kl bits error active recon_accuracy class_accuracy confidence n frechet_distance kernel_distance diversity"
        assert set(scores) == set(columns.split()) and scores["n"] == 20
        assert (scores["class_accuracy"] == scores["class_accuracy"]) == bool(model.n_classes)
    means = torch.stack([noise(50), 0.05 * noise(50, seed=1), torch.zeros(50)], 1)
    assert active_latents(means) == 1


def test_zero_phase_is_far_worse_than_phase_retrieval():
    r = LogSTFT(sample_rate=8000, n_fft=256, hop_length=64, n_bins=128, floor=1e-2)
    t = torch.arange(4096) / 8000
    sounds = torch.stack([torch.sin(2 * torch.pi * (300 * k + 400 * t) * t) for k in (1, 2)])
    specs, evaluator = r.encode(sounds), fake_evaluator(n_classes=2)
    good, bad = (sound_scores(s, specs, r, evaluator, torch.tensor([0, 1]))["convergence"] for s in (r.decode(specs), zero_phase(specs, r)))
    assert good < bad - 15


@pytest.fixture(scope="module")
def model_folder(sounds, tmp_path_factory):
    place = tmp_path_factory.mktemp("model") / "vae"
    fit_recordings(VAE, sounds, out=place, preset="quick", prior="conditional", progress=False)
    return place


def test_a_folder_is_not_trained_twice_with_other_settings(sounds, model_folder, tmp_path):
    assert {"config.json", "model.safetensors", "skipped.csv", "run.json"} <= {p.name for p in model_folder.iterdir()}
    with pytest.raises(SpecgenError, match="beta"):
        fit_recordings(VAE, sounds, out=model_folder, preset="quick", prior="conditional", beta=2.0, progress=False)
    for wrong in (dict(preset="huge"), dict(prior="uniform"), dict(by="moon")):
        with pytest.raises(SpecgenError):
            fit_recordings(VAE, sounds, out=tmp_path / "x", progress=False, **wrong)
        assert not (tmp_path / "x").exists()


def test_files_become_spectrograms(sounds, model_folder, tmp_path):
    model = VAE.from_pretrained(model_folder)
    specs = model.encode_files([sounds / "hum", sounds / "hiss/3.wav"])
    assert specs.shape == (13, 128, 64) and model.to_audio(model.reconstruct(specs)).shape == (13, 63 * 96)
    write_audio(tmp_path / "other.flac", torch.sin(torch.arange(12000) * 0.05), 44100)  # another rate and format
    assert model.encode_files([tmp_path / "other.flac"]).shape == (1, 128, 64)


def test_bad_files_are_told(model_folder, tmp_path):
    write_audio(tmp_path / "long.wav", torch.sin(torch.arange(16000) * 0.3), 8000)
    write_audio(tmp_path / "silent.wav", torch.zeros(4000), 8000)
    (tmp_path / "text.wav").write_text("no sound")
    (tmp_path / "empty").mkdir()
    model = VAE.from_pretrained(model_folder)
    for name, match in (("long.wav", "2.00 s.*longer than the model's 0.76 s"), ("silent.wav", "silent"), ("text.wav", "cannot be read"),
                        ("missing.wav", "no such file"), ("empty", "no recordings")):
        with pytest.raises(SpecgenError, match=match):
            model.encode_files([tmp_path / name])


def test_the_one_that_ships_speaks_when_asked():
    model = VAE.from_pretrained("specgen/vae-digits")
    drawn = model.sample([3, 3, 7], seed=0)
    assert drawn.shape == (3, *model.shape) and not torch.allclose(drawn[0], drawn[1])
    assert 0.01 < model.to_audio(drawn).abs().max() <= 1
