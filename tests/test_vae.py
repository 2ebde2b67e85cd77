"Edges of the variational autoencoders."
import json
from dataclasses import replace

import pytest
import torch
from torch import distributions as D

from specgen import vae
from made_up import noise, two_classes

from specgen.audio import LogSTFT, SpecgenError, read, write
from specgen.classifier import Classifier
from specgen.evaluation import Judge
from specgen.training import load_model
from specgen.vae import (
    LIKELIHOODS,
    VAE,
    Mixture,
    MixtureVAE,
    StandardNormal,
    VAEConfig,
    active,
    evidence,
    fit_vae,
    kl_per_latent,
    log_normal,
    negative_elbo,
    sound_scores,
    start_linear,
    vae_scores,
    zero_phase,
)

STFT = LogSTFT(sample_rate=8000, n_fft=64, hop_length=32, n_bins=32, floor=1e-2)
MODEL = dict(channels=(8, 16), strides=((2, 2), (2, 2)), latents=4)
TINY = dict(stft=None, model=MODEL, training=dict(epochs=3, batch_size=16, lr=3e-3))
CONFIG = VAEConfig((32, 16), (-4.0, 4.0), **MODEL, classes=["low", "high"], representation=STFT.to_dict())


def toy():
    return two_classes(STFT, 32, 16, 48, 16)


def built(**changes):
    "An untrained model that isn't all zeros."
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = vae.vae(**{**vars(CONFIG), **changes}).eval()
    return start_linear(model, toy().specs)


@pytest.mark.parametrize("shape, strides", [((256, 64), ((4, 4), (2, 2), (2, 2), (2, 1))), ((32, 16), ((2, 2), (2, 1))), ((12, 10), ((3, 5),))])
def test_shapes_return(shape, strides):
    model = VAE(VAEConfig(shape, (-9.0, 9.0), channels=(8,) * len(strides), strides=strides, latents=5)).eval()
    mean, log_var = model.encode(noise(3, *shape))
    assert mean.shape == log_var.shape == (3, 5) and model.decode(mean).shape == (3, *shape)


@pytest.mark.parametrize("name", vae.PRESETS)
def test_presets_build(name):
    preset = vae.PRESETS[name]
    r = LogSTFT(**preset["stft"])
    for prior, settings in vae.PRIORS.items():
        model = vae.vae(shape=(r.n_bins, vae.N_FRAMES), span=(0.0, 1.0), n_classes=10 * (prior == "conditional"), **{**preset["model"], **settings})
        assert isinstance(model, MixtureVAE if settings else VAE) and model.sample(1).shape == (1, r.n_bins, vae.N_FRAMES)


def test_pictures_of_another_size_are_told():
    with pytest.raises(SpecgenError, match="multiple of 4"):
        VAE(replace(CONFIG, shape=(30, 16)))
    for x in (noise(2, 16, 32), noise(32, 16)):
        with pytest.raises(SpecgenError, match=r"wants \(N, 32, 16\)"):
            built().reconstruct(x)


def test_closed_kl_is_that_of_torch_and_of_samples():
    mean, log_var = noise(4, 3), noise(4, 3, seed=1)
    peer = D.kl_divergence(D.Normal(mean, (0.5 * log_var).exp()), D.Normal(0.0, 1.0))
    assert torch.allclose(kl_per_latent(mean, log_var), peer, atol=1e-5)
    z = mean + (0.5 * log_var).exp() * noise(100_000, 4, 3, seed=2)
    told = torch.stack([log_normal(z[:, i], mean[i], log_var[i]) - StandardNormal(3).log_prob(z[:, i]) for i in range(4)], 1).mean(0)
    assert torch.allclose(told, StandardNormal(3).kl(mean, log_var, None), atol=0.05)


@pytest.mark.parametrize("rank, classes", [(0, 0), (2, 0), (0, 3), (1, 3)])
def test_mixture_density_is_that_of_torch(rank, classes):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        prior = Mixture(5, 4, rank, classes)
        for p in prior.parameters():
            torch.nn.init.normal_(p, std=0.6)
    z, labels = noise(7, 5), torch.arange(7) % max(classes, 1)

    def peer(k):
        cov = prior.factors[k] @ prior.factors[k].mT + torch.diag_embed((2 * prior.log_scales[k]).exp())
        return D.MixtureSameFamily(D.Categorical(logits=prior.logits[k]), D.MultivariateNormal(prior.means[k], cov))

    each = torch.stack([peer(k).log_prob(z) for k in range(prior.groups)], 1)
    assert torch.allclose(prior.log_prob(z, labels), each.gather(1, labels[:, None])[:, 0], atol=1e-3)
    assert torch.allclose(prior.log_prob(z), each.logsumexp(1) - torch.tensor(float(prior.groups)).log(), atol=1e-3)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.allclose(prior.log_prob(z, labels), each.gather(1, labels[:, None])[:, 0], atol=1e-3)
    drawn = prior.draw(torch.full((50_000,), prior.groups - 1), 1.0, torch.Generator().manual_seed(0))
    assert torch.allclose(drawn.mean(0), peer(prior.groups - 1).mean, atol=0.05)
    assert torch.allclose(drawn.var(0), peer(prior.groups - 1).variance, atol=0.15)
    one = prior.draw(torch.zeros(20, dtype=torch.long), 0.0, torch.Generator().manual_seed(0), component=2)
    assert torch.equal(one, prior.means[0, 2].detach().expand(20, 5))


def test_components_start_on_clusters_of_their_own_class():
    centres = torch.tensor([[0.0, 0.0], [8.0, 0.0], [0.0, 8.0], [8.0, 8.0]])
    latents, labels = centres.repeat(50, 1) + 0.2 * noise(200, 2), (torch.arange(200) % 4) // 2
    prior = Mixture(2, 2, 0, 2)
    prior.start(latents, labels)
    for k in (0, 1):
        found = prior.means[k].detach()
        assert torch.allclose(found[found[:, 0].argsort()], centres[2 * k : 2 * k + 2], atol=0.1)
        assert torch.allclose(prior.logits[k].softmax(0), torch.tensor([0.5, 0.5]))
    Mixture(2, 9).start(latents[:3], labels[:3])  # fewer clips than components


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_likelihoods_prefer_the_truth_and_stay_finite(name):
    span, x = (-1.0, 3.0), torch.linspace(-1, 3, 41)
    scores = torch.stack([LIKELIHOODS[name](x, torch.full_like(x, y), torch.tensor(-1.0), span) for y in x.tolist()])
    assert scores.isfinite().all() and (scores.argmax(0) - torch.arange(41)).abs().max() <= (1 if name == "logistic" else 0)
    assert LIKELIHOODS[name](torch.tensor(-1.0), torch.tensor(50.0), torch.tensor(-6.0), span).isfinite()


def test_a_model_of_any_kind_trains_and_the_same_seed_gives_the_same():
    data = toy()
    kinds = (("standard", {}), ("standard", dict(beta=None)), ("standard", dict(likelihood="bernoulli")), ("standard", dict(likelihood="logistic")),
             ("mixture", dict(components=3, rank=1)), ("mixture", dict(components=3, clusters=False)), ("conditional", dict(components=2)))
    for prior, changes in kinds:
        a, b = (fit_vae(data, preset=TINY, prior=prior, progress=False, **changes) for _ in range(2))
        assert all(torch.equal(u, v) for u, v in zip(a.state_dict().values(), b.state_dict().values(), strict=True))
        e = evidence(a, data.specs[data.test], data.labels[data.test])
        assert (e["bits"] != e["bits"]) == (changes.get("likelihood") == "bernoulli") and e["error"] > 0
    with pytest.raises(SpecgenError, match="standard, mixture, conditional"):
        fit_vae(data, prior="uniform")
    with pytest.raises(SpecgenError, match="quick, small, paper"):
        fit_vae(data, preset="huge")


def test_a_killed_training_continues_bit_for_bit(tmp_path, monkeypatch):
    how = dict(preset=TINY, prior="mixture", components=3, progress=False)
    whole, seen = fit_vae(toy(), **how), []

    def stop(model, *rest, **more):
        seen.append(model)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return evidence(model, *rest, **more)

    monkeypatch.setattr(vae, "evidence", stop)
    monkeypatch.setattr(vae, "TrainConfig", lambda *a, **k: replace(TRAIN(*a, **k), checkpoint_every=2))
    with pytest.raises(KeyboardInterrupt):
        fit_vae(toy(), folder=tmp_path, **how)
    resumed = fit_vae(toy(), folder=tmp_path, **how)
    assert (tmp_path / "checkpoint.safetensors").is_file()
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True))


TRAIN = vae.TrainConfig


def test_the_terms_of_the_loss_add_up():
    model, batch = built(), (toy().specs[:8], toy().labels[:8])
    values = [negative_elbo(model, batch, torch.Generator().manual_seed(0), beta=beta) for beta in (0.0, 1.0, 3.0)]
    kl = values[0][1]["kl"] / 512
    assert torch.allclose(values[1][0] - values[0][0], kl, atol=1e-5) and torch.allclose(values[2][0] - values[0][0], 3 * kl, atol=1e-5)
    plain = negative_elbo(model, batch, None, beta=None)[0]
    assert torch.allclose(plain, (model.reconstruct(batch[0]) - batch[0]).square().mean(), atol=1e-6)


def test_samples_depend_on_seed_and_label_alone():
    model = built(components=2, n_classes=2)
    with torch.no_grad():
        model.prior.means[1] += 3
    rng = [torch.Generator().manual_seed(k) for k in (0, 0, 1)]
    a, b, c = (model.sample([0, 1, 1], generator=g) for g in rng)
    assert torch.equal(a, b) and not torch.allclose(a, c) and torch.equal(model.sample(4), model.sample([0, 1, 0, 1]))
    assert torch.allclose(*model.sample([1, 1], component=0, temperature=0.0)) and not torch.allclose(*model.sample([0, 1], component=0, temperature=0.0))
    for labels in ([2], [-1], [], [0.5], 0):
        with pytest.raises(SpecgenError):
            model.sample(labels)
    with pytest.raises(SpecgenError, match="has 2, the first is 0"):
        model.sample(2, component=2)
    with pytest.raises(SpecgenError, match="knows no classes"):
        built().sample([0, 1])


def test_a_walk_begins_and_ends_at_the_reconstructions():
    model, (a, b) = built(), toy().specs[:2]
    walk = model.interpolate(a, b, 5)
    assert torch.allclose(walk[[0, -1]], model.reconstruct(torch.stack([a, b])), atol=1e-5)
    assert torch.allclose(walk[2], walk[[0, -1]].mean(0), atol=1e-4)  # all is linear before training
    with pytest.raises(SpecgenError, match="at least 2"):
        model.interpolate(a, b, 1)


def test_saved_and_loaded(tmp_path):
    plain, mixture = built(), built(components=2, rank=1)
    for name, model, kind in (("plain", plain, VAE), ("mixture", mixture, MixtureVAE)):
        model.save_pretrained(tmp_path / name)
        for loaded in (vae.load_vae(tmp_path / name), kind.from_pretrained(tmp_path / name).eval()):
            assert type(loaded) is kind and torch.equal(loaded.sample(3), model.sample(3)) and loaded.representation == STFT
    with pytest.raises(SpecgenError, match="MixtureVAE"):
        VAE.from_pretrained(tmp_path / "mixture")
    with pytest.raises(SpecgenError, match="at least 1"):
        MixtureVAE.from_pretrained(tmp_path / "plain")
    with pytest.raises(SpecgenError, match="another model"):
        load_model(Classifier, tmp_path / "plain")
    settings = json.loads((tmp_path / "plain/config.json").read_text())
    (tmp_path / "plain/config.json").write_text(json.dumps({**settings, "latents": 5}))
    with pytest.raises(SpecgenError, match="damaged"):
        vae.load_vae(tmp_path / "plain")
    with pytest.raises(SpecgenError, match="no saved model"):
        vae.load_vae("whales")


def test_scores_have_all_columns():
    data, judge = toy(), Judge(Classifier(2, (4, 8), stem=(2, 2)), 0.5)
    for model in (built(), built(components=2, n_classes=2)):
        scores = vae_scores(model, data, judge, n=20)
        assert {"kl", "bits", "error", "active", "returned", "confident", "asked", "fid", "diversity"} == set(scores)
        assert (scores["asked"] == scores["asked"]) == bool(model.config.n_classes)
    means = torch.stack([noise(50), 0.05 * noise(50, seed=1), torch.zeros(50)], 1)
    assert active(means) == 1


def test_zero_phase_is_far_worse_than_phase_retrieval():
    r = LogSTFT(sample_rate=8000, n_fft=256, hop_length=64, n_bins=128, floor=1e-2)
    t = torch.arange(4096) / 8000
    sounds = torch.stack([torch.sin(2 * torch.pi * (300 * k + 400 * t) * t) for k in (1, 2)])
    pictures, judge = r.encode(sounds), Judge(Classifier(2, (4, 8), stem=(2, 2)), 0.5)
    good, bad = (sound_scores(s, pictures, r, judge, torch.tensor([0, 1]))["convergence"] for s in (r.decode(pictures), zero_phase(pictures, r)))
    assert good < bad - 15


def test_clips_are_trimmed_levelled_and_cut():
    sound = torch.cat([torch.zeros(2000), 0.2 * torch.sin(torch.arange(4000) * 0.5), torch.zeros(1000)])
    own = vae.spoken(sound, 8000)
    assert 3900 < len(own) < 4400 and own.abs().max() == pytest.approx(1)
    short = vae.spoken(sound, 8000, 2000)
    assert len(short) == 2000 and torch.equal(short[:1900], own[:1900]) and short[-1] == 0


@pytest.fixture(scope="module")
def model_folder(sounds, tmp_path_factory):
    place = tmp_path_factory.mktemp("model")
    vae.fit_model(place, train=sounds, preset="quick", prior="conditional", progress=False)
    return place


def test_a_folder_is_not_trained_twice_with_other_settings(sounds, model_folder, tmp_path):
    assert {"config.json", "model.safetensors", "skipped.csv", "fit.json"} <= {p.name for p in model_folder.iterdir()}
    with pytest.raises(SpecgenError, match="other recordings or settings"):
        vae.fit_model(model_folder, train=sounds, preset="quick", prior="conditional", beta=2.0, progress=False)
    for wrong in (dict(), dict(train=sounds, corpus="digits")):
        with pytest.raises(SpecgenError, match="either"):
            vae.fit_model(tmp_path / "x", **wrong)
    for wrong in (dict(preset="huge"), dict(prior="uniform"), dict(by="moon")):
        with pytest.raises(SpecgenError):
            vae.fit_model(tmp_path / "x", train=sounds, **wrong)
    assert not (tmp_path / "x").exists()


def test_from_files_to_files(sounds, model_folder, tmp_path):
    back = vae.reconstruct_files([sounds / "hum", sounds / "hiss/3.wav"], model_folder, tmp_path / "back")
    assert len(back) == 14 and back[-1].name == "pictures.png" and back[0].name == "0_000.wav" and all(p.is_file() for p in back)
    other = tmp_path / "other.flac"
    write(other, torch.sin(torch.arange(12000) * 0.05), 44100)  # another rate and format
    assert vae.reconstruct_files([other], model_folder, tmp_path / "rate")[0].name == "other_000.wav"
    new = vae.sample_files(model_folder, tmp_path / "new", n=3, label="hum")
    assert [p.name for p in new] == ["hum_000.wav", "hum_001.wav", "hum_002.wav", "pictures.png"]
    first = new[0].read_bytes()
    assert vae.sample_files(model_folder, tmp_path / "new", n=3, label="hum")[0].read_bytes() == first
    assert vae.sample_files(model_folder, tmp_path / "new", n=3, label="hum", seed=1)[0].read_bytes() != first
    walk = vae.walk_files(sounds / "hum/0.wav", sounds / "hiss/0.wav", model_folder, tmp_path / "walk", steps=3)
    assert walk[-1].name == "walk.wav" and len(read(walk[-1])[0]) == 3 * 63 * 96


def test_bad_files_are_told(model_folder, tmp_path):
    write(tmp_path / "long.wav", torch.sin(torch.arange(16000) * 0.3), 8000)
    write(tmp_path / "silent.wav", torch.zeros(4000), 8000)
    (tmp_path / "text.wav").write_text("no sound")
    (tmp_path / "empty").mkdir()
    for name, match in (("long.wav", "2.00 s.*longer than the model's 0.76 s"), ("silent.wav", "silent"), ("text.wav", "cannot be read"),
                        ("missing.wav", "no such file"), ("empty", "no recordings")):
        with pytest.raises(SpecgenError, match=match):
            vae.reconstruct_files([tmp_path / name], model_folder, tmp_path / "out")
    for wrong, match in ((dict(label="bark"), "hiss, hum"), (dict(n=0), "at least 1")):
        with pytest.raises(SpecgenError, match=match):
            vae.sample_files(model_folder, tmp_path / "out", **wrong)
    assert not (tmp_path / "out").exists()


def test_the_one_that_ships_speaks_when_asked():
    model = vae.load_vae()
    pictures = model.sample([3, 3, 7])
    assert pictures.shape == (3, *model.config.shape) and not torch.allclose(pictures[0], pictures[1])
    assert model.representation.decode(pictures).abs().max() > 0.01
