"Edges of flow matching that would drown its notebook's story."
import pytest
import torch
from made_up import noise

from specgen.core import SpecgenError, seeded
from specgen.flow_matching import FlowMatcher, VelocityNetwork, integrate

LATENT = (6, 64)


SIZES = {"mlp": dict(width=32, hidden=48, depth=2), "unet": dict(channels=(16, 32, 64))}


@pytest.fixture(scope="module", params=SIZES)
def flow(request):
    with seeded(0):
        model = VelocityNetwork(3, request.param, SIZES[request.param]).eval()
        torch.nn.init.normal_((model.network.last if request.param == "mlp" else model.network.conv_out[2]).weight, std=0.1)
    return model


@pytest.mark.parametrize("labels", [[3], [-1], [], [0.5], [[0, 1]], [True]])
def test_labels_that_are_none(flow, labels):
    with pytest.raises(SpecgenError, match="class"):
        flow.sample(torch.tensor(labels), steps=1)


@pytest.mark.parametrize("settings, message", [(dict(steps=0), "0 steps"), (dict(steps=-3), "-3 steps"), (dict(method="rk4"), "euler")])
def test_settings_of_the_sampler_that_do_not_exist(flow, settings, message):
    with pytest.raises(SpecgenError, match=message):
        flow.sample(torch.tensor([0]), **settings)


def test_unknown_presets_and_networks():
    labels = torch.zeros(4, dtype=torch.long)
    with pytest.raises(SpecgenError, match="mlp, unet"):
        VelocityNetwork(network="gru")
    with pytest.raises(SpecgenError, match="huge"):
        VelocityNetwork.fit(noise(4, *LATENT), labels, preset="huge", progress=False)


@pytest.mark.parametrize("times", [[], [0], [0.0, 0.5], [0.2, 1.0], [0, 0.6, 0.5, 1], [0, 0.5, 0.5, 1]])
def test_times_that_do_not_rise_from_0_to_1(flow, times):
    with pytest.raises(SpecgenError, match="rise from 0 to 1"):
        flow.sample(torch.tensor([0]), steps=times)


@pytest.mark.parametrize("method", ["euler", "midpoint", "heun", "adams"])
def test_equal_steps_are_a_time_grid(method):
    start, velocity = torch.ones(1, 2, dtype=torch.float64), lambda x, t: (t - 0.3) * x
    for (t, x), (s, y) in zip(integrate(velocity, start, 4, method), integrate(velocity, start, [0, 0.25, 0.5, 0.75, 1], method), strict=True):
        assert t == s and torch.equal(x, y)


def test_adams_keeps_its_order_on_unequal_steps():
    start, velocity = torch.ones(1, 1, dtype=torch.float64), lambda x, t: x
    errors = [abs(list(integrate(velocity, start, [(i / n) ** 1.5 for i in range(n + 1)], "adams"))[-1][1].item() - torch.e) for n in (64, 128)]
    assert 3.5 < errors[0] / errors[1] < 4.5


@pytest.mark.parametrize("method", ["euler", "midpoint", "heun", "adams"])
def test_a_sample_does_not_depend_on_its_batch_or_neighbours(flow, method):
    labels = torch.arange(3).repeat(3)
    drawn = flow.sample(labels, steps=3, method=method, seed=0)
    assert torch.equal(drawn, flow.sample(labels.tolist(), steps=3, method=method, seed=0))
    assert torch.allclose(drawn, flow.sample(labels, steps=3, method=method, seed=0, batch_size=4), atol=0.05)
    assert not drawn.requires_grad and drawn.isfinite().all()


def test_a_seed_is_a_generator_and_neither_draws_anew(flow):
    drawn = flow.sample(6, steps=1, seed=5)
    assert torch.equal(drawn, flow.sample(6, steps=1, generator=torch.Generator().manual_seed(5)))
    assert not torch.equal(flow.sample(6, steps=1), flow.sample(6, steps=1))
    with pytest.raises(SpecgenError, match="give one of them"):
        flow.sample(6, generator=torch.Generator(), seed=5)


def test_sampling_leaves_the_callers_mode_and_random_state():
    with seeded(0):
        model = VelocityNetwork(3, **VelocityNetwork.preset("quick").model).train()
    state = torch.get_rng_state()
    model.sample(2, steps=1, seed=0)
    assert model.training and torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("method", ["euler", "midpoint", "heun", "adams"])
def test_a_constant_velocity_is_followed_exactly(method):
    *_, (t, x) = integrate(lambda x, t: torch.full_like(x, 2.0), torch.ones(3), 7, method)
    assert t == 1 and torch.allclose(x, torch.full((3,), 3.0))


def test_hidden_labels_and_the_loss_of_the_right_velocity():
    x1, labels, seen = noise(4000, 2), torch.zeros(4000, dtype=torch.long), []

    def exact(xt, t, shown):
        seen.append(shown)
        return (x1 - xt) / (1 - t[:, None])  # the velocity of xt = (1 - t) x0 + t x1, in terms of x1

    loss = FlowMatcher(n_classes=1).loss(exact, (x1, labels), torch.Generator().manual_seed(0))
    assert loss < 1e-3 and abs((seen[0] == 1).float().mean() - 0.1) < 0.02


def test_the_same_seed_gives_the_same_flow_and_continues_in_its_folder(tmp_path):
    latents, labels = noise(64, *LATENT), torch.arange(64) % 3
    first = VelocityNetwork.fit(latents, labels, n_classes=3, preset="quick", out=tmp_path, progress=False)
    again = VelocityNetwork.fit(latents, labels, n_classes=3, preset="quick", out=tmp_path, progress=False)
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True))
    with pytest.raises(SpecgenError, match="another"):
        VelocityNetwork.fit(latents, labels, n_classes=4, preset="quick", out=tmp_path, progress=False)
