"Priors of the latents against torch's own distributions."
import pytest
import torch
from made_up import noise
from torch import distributions as D

from specgen.core import seeded
from specgen.priors import Mixture, StandardNormal, kl_per_latent, log_normal


def test_closed_kl_is_that_of_torch_and_of_samples():
    mean, log_var = noise(4, 3), noise(4, 3, seed=1)
    peer = D.kl_divergence(D.Normal(mean, (0.5 * log_var).exp()), D.Normal(0.0, 1.0))
    assert torch.allclose(kl_per_latent(mean, log_var), peer, atol=1e-5)
    z = mean + (0.5 * log_var).exp() * noise(100_000, 4, 3, seed=2)
    told = torch.stack([log_normal(z[:, i], mean[i], log_var[i]) - StandardNormal(3).log_prob(z[:, i]) for i in range(4)], 1).mean(0)
    assert torch.allclose(told, StandardNormal(3).kl(mean, log_var, None), atol=0.05)


@pytest.mark.parametrize("rank, classes", [(0, 0), (2, 0), (0, 3), (1, 3)])
def test_mixture_density_is_that_of_torch(rank, classes):
    with seeded(0):
        prior = Mixture(5, 4, rank, classes)
        for p in prior.parameters():
            torch.nn.init.normal_(p, std=0.6)
    z, labels = noise(7, 5), torch.arange(7) % max(classes, 1)

    def peer(k):
        cov = prior.factors[k] @ prior.factors[k].mT + torch.diag_embed((2 * prior.log_scales[k]).exp())
        return D.MixtureSameFamily(D.Categorical(logits=prior.logits[k]), D.MultivariateNormal(prior.means[k], cov))

    each = torch.stack([peer(k).log_prob(z) for k in range(prior.groups)], 1)
    own = each.gather(1, labels[:, None])[:, 0]
    assert torch.allclose(prior.log_prob(z, labels), own, atol=1e-4)
    assert torch.allclose(prior.log_prob(z), each.logsumexp(1) - torch.tensor(float(prior.groups)).log(), atol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.allclose(prior.log_prob(z, labels), own, atol=1e-4)
    drawn = prior.draw(torch.full((50_000,), prior.groups - 1), 1.0, torch.Generator().manual_seed(0))
    assert torch.allclose(drawn.mean(0), peer(prior.groups - 1).mean, atol=0.05)
    assert torch.allclose(drawn.var(0), peer(prior.groups - 1).variance, rtol=0.05)
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
