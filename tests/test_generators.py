"Edges of the autoencoder and of flow matching that would drown their notebooks' story."

import pytest
import torch

from made_up import noise

from specgen.audio import SpecgenError
from specgen.autoencoder import LATENT, PICTURE, Autoencoder, fit_autoencoder, linear_code
from specgen.flow_matching import PRESETS, UNet, fit_flow, integrate, sample


@pytest.fixture(scope="module")
def unet():
    torch.manual_seed(0)
    model = UNet(3, **PRESETS["quick"]["model"]).eval()
    torch.nn.init.normal_(model.leave[2].weight, std=0.1)
    return model


@pytest.mark.parametrize("n", [3, 60])
def test_fewer_pictures_than_numbers_in_a_latent(n):
    pictures = noise(n, *PICTURE)
    code, centre = linear_code(pictures)
    flat = pictures.flatten(1) - centre
    assert code.shape == (384, 6144)
    assert torch.allclose(flat @ code.T @ code, flat, atol=1e-3)


def test_pictures_that_are_all_the_same():
    pictures = noise(1, *PICTURE).repeat(8, 1, 1)
    model = fit_autoencoder(pictures, preset="quick", progress=False)
    assert model.encode(pictures).isfinite().all()
    assert model.decode(model.encode(pictures)).isfinite().all()


def test_same_seed_same_autoencoder_whatever_the_global_state():
    pictures = noise(40, *PICTURE)
    first = fit_autoencoder(pictures, preset="quick", seed=1, progress=False).state_dict()
    torch.manual_seed(99)
    state = torch.get_rng_state()
    second = fit_autoencoder(pictures, preset="quick", seed=1, progress=False).state_dict()
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert torch.equal(state, torch.get_rng_state())


def test_autoencoder_in_batches_and_from_disk(tmp_path):
    model, pictures = Autoencoder(8, (1, 1)).eval(), noise(260, *PICTURE)
    latents = model.encode(pictures)
    assert latents.shape == (260, *LATENT) and not latents.requires_grad
    assert torch.allclose(latents[255:], model.encode(pictures[255:]), atol=1e-5)
    model.save_pretrained(tmp_path)
    assert torch.equal(Autoencoder.from_pretrained(tmp_path).decode(latents), model.decode(latents))


@pytest.mark.parametrize("shape", [(24, 256), (2, 256, 24), (2, 24, 255), (2, 1, 24, 256)])
def test_pictures_of_another_size(shape):
    with pytest.raises(SpecgenError, match="24, 256"):
        fit_autoencoder(torch.zeros(shape), preset="quick", progress=False)


@pytest.mark.parametrize("labels", [[3], [-1], [], [0.5], [[0, 1]], [True]])
def test_labels_that_are_none(unet, labels):
    with pytest.raises(SpecgenError, match="class"):
        sample(unet, torch.tensor(labels), steps=1)


@pytest.mark.parametrize("settings", [dict(steps=0), dict(steps=-3), dict(method="rk4")])
def test_settings_of_the_sampler_that_do_not_exist(unet, settings):
    with pytest.raises(SpecgenError, match="euler"):
        sample(unet, torch.tensor([0]), **settings)


def test_unknown_presets_and_other_latents():
    labels = torch.zeros(4, dtype=torch.long)
    with pytest.raises(SpecgenError, match="huge"):
        fit_autoencoder(noise(4, *PICTURE), preset="huge", progress=False)
    with pytest.raises(SpecgenError, match="huge"):
        fit_flow(noise(4, *LATENT), labels, preset="huge", progress=False)
    with pytest.raises(SpecgenError, match="6, 64"):
        fit_flow(noise(4, 64, 6), labels, preset="quick", progress=False)


@pytest.mark.parametrize("method", ["euler", "midpoint", "heun"])
def test_a_sample_does_not_depend_on_its_batch_or_neighbours(unet, method):
    labels = torch.arange(3).repeat(3)
    drawn = sample(unet, labels, steps=3, method=method)
    assert torch.equal(drawn, sample(unet, labels.tolist(), steps=3, method=method))
    assert torch.allclose(drawn, sample(unet, labels, steps=3, method=method, batch_size=4), atol=0.05)
    assert not drawn.requires_grad and drawn.isfinite().all()


@pytest.mark.parametrize("method", ["euler", "midpoint", "heun"])
def test_a_constant_velocity_is_followed_exactly(method):
    *_, (t, x) = integrate(lambda x, t: torch.full_like(x, 2.0), torch.ones(3), 7, method)
    assert t == 1 and torch.allclose(x, torch.full((3,), 3.0))


def test_flow_is_the_same_from_the_same_seed_and_continues_in_its_folder(tmp_path):
    latents, labels = noise(64, *LATENT), torch.arange(64) % 3
    first = fit_flow(latents, labels, n_classes=3, preset="quick", folder=tmp_path, progress=False)
    again = fit_flow(latents, labels, n_classes=3, preset="quick", folder=tmp_path, progress=False)
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True))
    with pytest.raises(SpecgenError, match="another"):
        fit_flow(latents, labels, n_classes=4, preset="quick", folder=tmp_path, progress=False)
