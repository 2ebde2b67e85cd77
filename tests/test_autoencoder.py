"Edges of the autoencoder that would drown its notebook's story."
import pytest
import torch
from made_up import noise

from specgen import autoencoder
from specgen.autoencoder import Autoencoder, pca_procrustes
from specgen.core import SpecgenError
from specgen.models import Preset
from specgen.spectrogram import LogSTFT
from specgen.spectrogram_dataset import SpectrogramDataset

GRID = LogSTFT(sample_rate=8000, n_fft=512, hop_length=128, n_bins=256)
SIZE = (256, 24)  # (freq, time)
NETWORKS = Preset(model=dict(channels=8, blocks=(1, 1)), training=dict(steps=3, batch_size=8), augment=dict(limits=(3, 1)))


def dataset(spectrograms):
    return SpectrogramDataset(spectrograms, torch.zeros(len(spectrograms), dtype=torch.long), ["a"], GRID)


@pytest.mark.parametrize("n", [3, 60])
def test_fewer_spectrograms_than_numbers_in_a_latent(n):
    x = noise(n, 24, 256)
    code, centre = pca_procrustes(x)
    flat = x.flatten(1) - centre
    assert code.shape == (384, 6144)
    assert torch.allclose(flat @ code.T @ code, flat, atol=1e-3)


def test_the_components_of_many_spectrograms_are_those_of_some(monkeypatch):
    x = noise(60, 24, 256)
    few = pca_procrustes(x[::3])
    monkeypatch.setattr(autoencoder, "MOST", 20)
    assert all(torch.equal(a, b) for a, b in zip(pca_procrustes(x), few, strict=True))


def test_spectrograms_that_are_all_the_same():
    x = noise(1, *SIZE).repeat(8, 1, 1)
    model = Autoencoder.fit(dataset(x), preset="quick", progress=False)
    assert model.encode(x).isfinite().all() and model.reconstruct(x).isfinite().all()


@pytest.mark.parametrize("preset", ["small", NETWORKS])
def test_same_seed_same_autoencoder_whatever_the_global_state(preset):
    data = dataset(noise(40, *SIZE))
    first = Autoencoder.fit(data, preset=preset, seed=1, progress=False).state_dict()
    torch.manual_seed(99)
    state = torch.get_rng_state()
    second = Autoencoder.fit(data, preset=preset, seed=1, progress=False).state_dict()
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert torch.equal(state, torch.get_rng_state())


def test_in_batches_and_from_disk(tmp_path):
    model, x = Autoencoder(8, (1, 1)).eval(), noise(260, *SIZE)
    latents = model.encode(x)
    assert latents.shape == (260, 6, 64) and not latents.requires_grad
    assert torch.allclose(latents[255:], model.encode(x[255:]), atol=1e-5)
    model.save_pretrained(tmp_path)
    assert torch.equal(Autoencoder.from_pretrained(tmp_path).decode(latents), model.decode(latents))


def test_predictions_leave_the_callers_mode_and_random_state():
    model, x = Autoencoder(8, (1, 1)).train(), noise(4, *SIZE)
    state = torch.get_rng_state()
    model.reconstruct(x)
    assert model.training and torch.equal(state, torch.get_rng_state())


def test_networks_are_trained_and_the_linear_map_stays():
    data = dataset(noise(20, *SIZE))
    linear, trained = (Autoencoder.fit(data, preset=preset, progress=False) for preset in ("small", NETWORKS))
    assert torch.equal(linear.code, trained.code) and not list(linear.parameters())
    assert not torch.equal(linear.reconstruct(data.spectrograms), trained.reconstruct(data.spectrograms))


@pytest.mark.parametrize("shape", [(256, 24), (2, 24, 256), (2, 255, 24)])
def test_spectrograms_of_another_size(shape):
    with pytest.raises(SpecgenError, match="256, 24"):
        Autoencoder(8, (1, 1)).encode(torch.zeros(shape))
    if len(shape) == 3:
        with pytest.raises(SpecgenError, match="256, 24"):
            Autoencoder.fit(dataset(torch.zeros(shape)), preset="quick", progress=False)


def test_unknown_preset():
    with pytest.raises(SpecgenError, match="huge"):
        Autoencoder.fit(dataset(noise(4, *SIZE)), preset="huge", progress=False)
