"Edges of few-step sampling that would drown its notebook's story."
from copy import deepcopy

import pytest
import torch
from made_up import noise

from specgen.core import SpecgenError, seeded
from specgen.few_step import StepNetwork, distill, flow_paths, mean_flow, power_times, reflow, straightness
from specgen.flow_matching import VelocityNetwork
from specgen.models import Preset

TINY = Preset(training=dict(steps=3, batch_size=4, lr=1e-3, log_every=1))
QUIET = dict(preset=TINY, progress=False, device="cpu", precision="fp32")
LATENTS, PATHS, LABELS = noise(6, 6, 64), noise(6, 5, 6, 64), torch.arange(6) % 3


@pytest.fixture(scope="module")
def flow():
    with seeded(0):
        model = VelocityNetwork(3, size=dict(width=32, hidden=48, depth=2), embedding=16).eval()
        torch.nn.init.normal_(model.network.last.weight, std=0.1)
    return model


def learn(method, flow, **settings):
    return method(flow, LATENTS if method is mean_flow else PATHS, LABELS, **{**QUIET, **settings})


every_method = pytest.mark.parametrize("method", [reflow, distill, mean_flow])


def test_settings_that_cannot_be(flow):
    for steps, power in ((0, 1), (-1, 1), (4, 0), (4, -1)):
        with pytest.raises(SpecgenError, match="power"):
            power_times(steps, power)
    with pytest.raises(SpecgenError, match="at least 2"):
        straightness(torch.zeros(1, 3, 2))
    with pytest.raises(SpecgenError, match="class"):
        flow_paths(flow, [3])


def test_a_path_is_the_flows_own(flow):
    path = flow_paths(flow, LABELS, guidance=2.0, substeps=1, seed=4)
    end = flow.sample(LABELS, steps=4, guidance=2.0, method="midpoint", seed=4)
    assert path.shape == (6, 5, 6, 64) and torch.allclose(path[:, -1], end, atol=1e-5)
    assert torch.equal(path, flow_paths(flow, LABELS, guidance=2.0, substeps=1, seed=4))


def test_it_begins_as_the_flow_whatever_the_length(flow):
    begun, t = StepNetwork.begin(flow).eval(), torch.rand(6, generator=torch.Generator().manual_seed(0))
    for length in (None, torch.zeros(6), torch.full((6,), 0.5)):
        assert torch.equal(begun(LATENTS, t, LABELS, length), flow(LATENTS, t, LABELS))


def test_folded_for_a_number_of_steps_it_is_a_plain_network(flow, tmp_path):
    model = learn(distill, flow)
    t, half = torch.full((6,), 0.5), torch.full((6,), 0.5)
    plain = model.for_steps(2)
    assert type(plain) is VelocityNetwork and torch.allclose(plain(LATENTS, t, LABELS), model(LATENTS, t, LABELS, half), atol=1e-6)
    model.save_pretrained(tmp_path)
    assert torch.equal(StepNetwork.from_pretrained(tmp_path).sample(LABELS, steps=2, seed=0), plain.sample(LABELS, steps=2, guidance=1, seed=0))


@every_method
def test_a_training_leaves_its_teacher_alone_and_repeats(method, flow):
    before = {name: t.clone() for name, t in flow.state_dict().items()}
    first, second, other = (learn(method, flow, seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(t, before[name]) for name, t in flow.state_dict().items())
    assert all(torch.equal(first[name], second[name]) for name in first) and not all(torch.equal(first[name], other[name]) for name in first)


@every_method
def test_a_folder_continues_and_is_of_one_run(method, flow, tmp_path):
    first, again = (learn(method, flow, out=tmp_path).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    for settings in (dict(seed=1), dict(guidance=3.0) if method is mean_flow else dict(seed=2)):
        with pytest.raises(SpecgenError, match="another folder"):
            learn(method, flow, out=tmp_path, **settings)
    other = deepcopy(flow)
    torch.nn.init.ones_(other.network.last.bias)
    with pytest.raises(SpecgenError, match="another folder"):
        learn(method, other, out=tmp_path)
    with pytest.raises(SpecgenError, match="huge"):
        learn(method, flow, preset="huge", out=tmp_path / "new")
    assert not (tmp_path / "new").exists()
