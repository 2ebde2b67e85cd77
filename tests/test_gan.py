"Edges of the conditional GAN."
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from specgen import gan
from made_up import noise, two_classes

from specgen.audio import LogMel, SpecgenError, read
from specgen.classifier import Classifier
from specgen.evaluation import Judge
from specgen.gan import RECIPES, STEPS, Discriminator, GANConfig, Generator, Norm, config_of, draw_corpus, fit_gan, gan_scores, widths
from specgen.training import load_model

MELS = LogMel(sample_rate=8000, n_fft=128, hop_length=40, n_mels=16, power=1.0)
TINY = GANConfig(width=8, most=16, noise=8, epochs=2, batch_size=16, lr=1e-3, spectral=True, projection=True, augment=True, smooth=True,
                 conditional=True, faster=2.0, ema=0.9)


def toy():
    return two_classes(MELS, 16, 32, 32, 8)


@pytest.mark.parametrize("shape, n, start", [((64, 64), 5, (4, 4)), ((128, 512), 6, (4, 16)), ((16, 32), 3, (4, 8))])
def test_shapes(shape, n, start):
    channels, smallest = widths(shape, 2, 16)
    assert len(channels) == n and channels[-1] == 2 and max(channels) <= 16 and smallest == start
    labels = torch.tensor([0, 2])
    for switch in (False, True):
        model = Generator(3, shape, 2, 16, 4, smooth=switch, conditional=switch)
        assert model(noise(2, 4), labels).shape == (2, *shape)
        assert Discriminator(3, shape, 2, 16, switch, switch)(noise(2, *shape), labels).shape == (2,)


def test_every_size_is_drawn_and_judged_and_begins_as_the_smaller_one():
    model, judge, labels = Generator(3, (32, 64), 4, 16, 4, levels=2).eval(), Discriminator(3, (32, 64), 4, 16, True, True, levels=2), torch.tensor([0, 2])
    drawn = {}
    for model.level in (2, 1, 0):
        drawn[model.level] = model(noise(2, 4), labels)
        assert drawn[model.level].shape == (2, 32 >> model.level, 64 >> model.level)
        loss = judge(drawn[model.level], labels).sum()
        assert model.sample(2).shape == (2, 32, 64)
        loss.backward()
        assert all(p.grad is not None for p in [*model.parameters(), *judge.parameters()])
        model.zero_grad()
        judge.zero_grad()
    for level in (0, 1):
        larger = F.interpolate(drawn[level + 1][:, None], scale_factor=2.0, mode="bilinear")[:, 0]
        torch.testing.assert_close(drawn[level], larger)
    with pytest.raises(SpecgenError, match="3 smaller sizes"):
        Generator(3, (32, 64), 4, 16, 4, levels=3)


def test_disturbances_shrink_with_the_pictures():
    hertz = MELS.frequencies
    small = gan.resized(dict(warp=dict(voice=0.1, tempo=0.2, frames=4), tilt=MELS.decibels, mask=(8, 12)), MELS, 2)
    assert small["warp"] == dict(voice=0.1, tempo=0.2, frames=2) and small["mask"] == (4, 6) and small["tilt"] == 1
    torch.testing.assert_close(small["hertz"], (hertz[::2] + hertz[1::2]) / 2)


@pytest.mark.parametrize("shape", [(4, 4), (64, 60), (100, 500)])
def test_odd_shapes_are_told(shape):
    with pytest.raises(SpecgenError, match=f"{shape[0]} x {shape[1]}"):
        Generator(2, shape)


def test_projection_adds_the_labels_share_of_the_features():
    judge, x = Discriminator(3, (16, 16), 4, 8, False, True), noise(3, 16, 16)
    a, b = (judge(x, torch.full((3,), k)) for k in (0, 2))
    h = x[:, None]
    for conv in (*judge.enters, *judge.convs):
        h = F.leaky_relu(conv(h), 0.2)
    h = F.adaptive_avg_pool2d(h, 4).flatten(1)
    assert torch.allclose(a - b, h @ (judge.label.weight[0] - judge.label.weight[2]), atol=1e-5)


def test_the_plane_changes_what_is_seen():
    judge, x = Discriminator(3, (16, 16), 4, 8, False, False), noise(1, 16, 16)
    assert judge(x, torch.tensor([0])) != judge(x, torch.tensor([1]))


def test_conditional_norm_is_batch_norm_when_nothing_steers_it():
    norm, x = Norm(4, 6), noise(5, 4, 3, 3)
    torch.nn.init.zeros_(norm.film.weight)
    torch.nn.init.zeros_(norm.film.bias)
    assert torch.allclose(norm(x, noise(5, 6)), F.batch_norm(x, None, None, training=True), atol=1e-6)


def test_adam_moves_slowed_weights_slower_and_settling_changes_nothing():
    plain, slow = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    slow.load_state_dict(plain.state_dict())
    x, before = noise(4, 3), plain.weight.detach().clone()
    for model in (plain, gan.slow_down(slow, 0.25)):
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        model(x).square().sum().backward()
        optimizer.step()
    assert torch.allclose(0.25 * (plain.weight - before), slow.weight - before, atol=1e-6)
    answer = slow(x)
    assert gan.settle(slow).state_dict().keys() == plain.state_dict().keys() and torch.allclose(slow(x), answer, atol=1e-6)


def test_samples_depend_on_seed_and_label_alone():
    model = Generator(3, (16, 16), 4, 8, 4)
    a, b = (model.sample([0, 1, 2, 1], batch_size=n) for n in (1, 4))
    assert torch.allclose(a, b, atol=1e-5) and torch.equal(a, model.sample([0, 1, 2, 1], batch_size=1))
    assert not torch.allclose(a[0], model.sample([1])[0]) and not torch.allclose(a, model.sample([0, 1, 2, 1], generator=torch.Generator().manual_seed(1)))
    assert torch.allclose(model.sample(4), model.sample([0, 1, 2, 0]))
    for labels in ([3], [-1], [], [0.5], 0):
        with pytest.raises(SpecgenError):
            model.sample(labels)


def test_saved_and_loaded(tmp_path):
    model = Generator(2, (16, 16), 4, 8, 4, classes=["a", "b"], representation=MELS.to_dict())
    model.save_pretrained(tmp_path)
    for loaded in (load_model(Generator, tmp_path), Generator.from_pretrained(tmp_path)):
        assert torch.equal(loaded.sample(3), model.sample(3)) and loaded.representation == MELS and loaded.classes == ["a", "b"]
    with pytest.raises(SpecgenError, match="Classifier"):
        load_model(Classifier, tmp_path)


def test_every_step_adds_its_switch_alone():
    configs = [vars(config_of(RECIPES["sounds"], "quick", step)) for step in STEPS]
    sizes = RECIPES["sounds"]["sizes"]["quick"]
    assert configs[0] == vars(GANConfig(**sizes))
    for before, after, changes in zip(configs, configs[1:], list(STEPS.values())[1:], strict=False):
        assert {k: v for k, v in after.items() if v != before[k]} == changes
    with pytest.raises(SpecgenError, match="quick, small, paper"):
        config_of(RECIPES["words"], "huge")
    with pytest.raises(SpecgenError, match="source"):
        config_of(RECIPES["words"], "small", "magic")


@pytest.mark.parametrize("config", [TINY, replace(TINY, coarse=(1.0,), epochs=1), GANConfig(width=8, most=16, noise=8, epochs=2, batch_size=16)])
def test_the_same_seed_gives_the_same_model_and_every_epoch_is_kept(tmp_path, config):
    data = toy()
    a = fit_gan(data, config, disturb=RECIPES["sounds"]["disturb"], folder=tmp_path, progress=False)
    b = fit_gan(data, config, disturb=RECIPES["sounds"]["disturb"], progress=False)
    assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))
    plain = Generator(2, (16, 32), 8, 16, 8, config.smooth, config.conditional, len(config.coarse))
    assert not a.training and a.state_dict().keys() == plain.state_dict().keys()
    assert sorted(p.name for p in (tmp_path / "outputs_gan").iterdir()) == [f"epoch_000{i}.{end}" for i in (1, 2) for end in ("png", "wav")]
    assert len(read(tmp_path / "outputs_gan/epoch_0002.wav")[0]) == 2 * 31 * 40
    again = fit_gan(data, config, disturb=RECIPES["sounds"]["disturb"], folder=tmp_path, progress=False)
    assert torch.equal(again.sample(2), a.sample(2))


def test_a_killed_training_continues_bit_for_bit(tmp_path):
    config = replace(TINY, epochs=4)
    whole, seen = fit_gan(toy(), config, progress=False), []

    def stop(generator):
        seen.append(generator)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return {}

    with pytest.raises(KeyboardInterrupt):
        fit_gan(toy(), config, folder=tmp_path, score=stop, progress=False)
    resumed = fit_gan(toy(), config, folder=tmp_path, progress=False)
    assert all(torch.equal(x, y) for x, y in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True))
    assert len(list((tmp_path / "outputs_gan").glob("*.png"))) == 4


def test_it_learns_what_is_asked():
    data = two_classes(MELS, 16, 32, 128, 32)
    model = fit_gan(data, replace(TINY, epochs=25, lr=2e-3), progress=False)
    made = model.sample(100)
    heard = (made[:, 8:].mean((1, 2)) > made[:, :8].mean((1, 2))).long()
    assert (heard == torch.arange(100) % 2).float().mean() > 0.9


def test_scores_of_the_real_clips_themselves():
    data, judge = toy(), Judge(Classifier(2, (4, 8), stem=(2, 2)), 0.5)
    scores = gan_scores(judge, data.specs, data.labels, data.specs, data.labels)
    assert scores["least_diversity"] == pytest.approx(1) and scores["fid"] < 1e-3 and scores["nearest"] == pytest.approx(0, abs=1e-3)
    one = data.specs[:2].repeat(10, 1, 1)
    assert gan_scores(judge, one, torch.arange(20) % 2, data.specs, data.labels)["least_diversity"] < 1e-3


def test_pictures_are_standardised_by_training_clips(sounds):
    data = draw_corpus(gan.load(sounds))
    assert data.specs.shape == (24, 64, 64) and data.classes == ["hiss", "hum"]
    own = data.specs[data.train]
    assert own.mean().abs() < 1e-4 and abs(own.std() - 1) < 1e-4
    assert (data.specs.amax((1, 2)) - data.specs.amin((1, 2))).max() <= 60 / data.representation.decibels + 1e-4


def test_from_a_folder_to_files(sounds, tmp_path):
    with pytest.raises(SpecgenError, match="either"):
        gan.fit_model(tmp_path)
    gan.fit_model(tmp_path / "model", train=sounds, preset="quick", progress=False)
    paths = gan.sample_files(tmp_path / "model", tmp_path / "out", label="hum", n=2)
    assert [p.name for p in paths] == ["hum_000.wav", "hum_001.wav", "pictures.png"] and all(p.is_file() for p in paths)
    first = paths[0].read_bytes()
    assert gan.sample_files(tmp_path / "model", tmp_path / "out", label="hum", n=2)[0].read_bytes() == first
    spoken = gan.sample_files(tmp_path / "model", tmp_path / "voc", n=3, vocoder="digits")
    assert [p.name for p in spoken[:-1]] == ["hiss_000.wav", "hum_001.wav", "hiss_002.wav"]
    with pytest.raises(SpecgenError, match="hiss, hum"):
        gan.sample_files(tmp_path / "model", tmp_path / "out", label="bark")
    with pytest.raises(SpecgenError, match="at least 1"):
        gan.sample_files(tmp_path / "model", tmp_path / "out", n=0)
    with pytest.raises(SpecgenError, match="no saved model"):
        gan.sample_files(tmp_path, tmp_path / "out")


def test_the_one_that_ships_speaks_and_without_noise_says_each_word_one_way():
    model = gan.load_generator()
    pictures = model.sample([3, 3, 7], truncation=0.0)
    assert torch.allclose(pictures[0], pictures[1], atol=1e-5) and not torch.allclose(pictures[0], pictures[2], atol=0.1)
    assert model.decode(pictures, gan.HiFiGAN.from_pretrained("digits")).abs().max() > 0.01
    with pytest.raises(SpecgenError, match="no saved model"):
        gan.load_generator("whales")


def test_a_vocoder_for_other_mels_is_told():
    model = Generator(2, (16, 32), 4, 8, 4, representation=MELS.to_dict())
    with pytest.raises(SpecgenError, match="n_mels 16.*n_mels 64"):
        model.decode(model.sample(2), gan.HiFiGAN.from_pretrained("digits"))
