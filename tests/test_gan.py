"Edges of the conditional GAN."
from dataclasses import replace

import pytest
import torch
from made_up import noise, two_classes
from torch.nn import functional as F

from specgen import gan
from specgen.audio import read_audio
from specgen.classifier import Classifier
from specgen.core import SpecgenError, seeded
from specgen.datasets import load_recordings
from specgen.gan import GAN, GAN_STEPS, SCENES, ConditionalNorm, GANDiscriminator, at_step, channels_by_size, without
from specgen.models import Preset, fit_recordings, save_samples
from specgen.spectral_vocoder import SpectralVocoder
from specgen.spectrogram import LogMel, Representation
from specgen.spectrogram_dataset import SpectrogramDataset

MELS = LogMel(sample_rate=8000, n_fft=128, hop_length=40, n_mels=16, power=1.0)
PLAIN = gan.gan_preset({}, {}, 8, 16, epochs=2, batch_size=16, lr=2e-4).changed(model=dict(noise=8))
TINY = at_step(PLAIN, "+ averaged weights").changed(training=dict(lr=1e-3, ema=0.9))
GROWING = TINY.changed(training=dict(progressive=(1.0,), epochs=1))


def toy():
    return two_classes(MELS, 16, 32, 32, 8)


def small(**changes):
    with seeded(0):
        return GAN(**{**dict(n_classes=3, shape=(16, 16), width=4, max_channels=8, noise=4), **changes})


@pytest.mark.parametrize("shape, n, start", [((64, 64), 5, (4, 4)), ((128, 512), 6, (4, 16)), ((16, 32), 3, (4, 8))])
def test_shapes(shape, n, start):
    channels, smallest = channels_by_size(shape, 2, 16)
    assert len(channels) == n and channels[-1] == 2 and max(channels) <= 16 and smallest == start
    labels = torch.tensor([0, 2])
    for switch in (False, True):
        assert GAN(3, shape, 2, 16, 4, smooth=switch, conditional=switch)(noise(2, 4), labels).shape == (2, *shape)
        assert GANDiscriminator(3, shape, 2, 16, switch, switch)(noise(2, *shape), labels).shape == (2,)


def test_every_size_is_drawn_and_taken_and_begins_as_the_smaller_one():
    model, labels = GAN(3, (32, 64), 4, 16, 4, levels=2).eval(), torch.tensor([0, 2])
    discriminator, drawn = GANDiscriminator(3, (32, 64), 4, 16, True, True, levels=2), {}
    for model.level in (2, 1, 0):
        drawn[model.level] = model(noise(2, 4), labels)
        assert drawn[model.level].shape == (2, 32 >> model.level, 64 >> model.level)
        assert model.sample(2).shape == (2, 32, 64)
        discriminator(drawn[model.level], labels).sum().backward()
        assert all(p.grad is not None for p in [*model.parameters(), *discriminator.parameters()])
        model.zero_grad()
        discriminator.zero_grad()
    for level in (0, 1):
        larger = F.interpolate(drawn[level + 1][:, None], scale_factor=2.0, mode="bilinear")[:, 0]
        torch.testing.assert_close(drawn[level], larger)
    with pytest.raises(SpecgenError, match="3 smaller sizes"):
        GAN(3, (32, 64), 4, 16, 4, levels=3)


def test_augmentations_shrink_with_the_spectrograms():
    hertz = MELS.frequencies
    half = gan.at_size(dict(warp=dict(voice=0.1, tempo=0.2, frames=4), tilt=MELS.decibels, mask=(8, 12)), MELS, 2)
    assert half["warp"] == dict(voice=0.1, tempo=0.2, frames=2) and half["mask"] == (4, 6) and half["tilt"] == 1
    torch.testing.assert_close(half["hertz"], (hertz[::2] + hertz[1::2]) / 2)


@pytest.mark.parametrize("shape", [(4, 4), (64, 60), (100, 500)])
def test_odd_shapes_are_told(shape):
    with pytest.raises(SpecgenError, match=f"{shape[0]} x {shape[1]}"):
        GAN(2, shape)


def test_projection_adds_the_labels_share_of_the_features():
    discriminator, x = GANDiscriminator(3, (16, 16), 4, 8, False, True), noise(3, 16, 16)
    a, b = (discriminator(x, torch.full((3,), k)) for k in (0, 2))
    h = x[:, None]
    for conv in (*discriminator.conv_in, *discriminator.convs):
        h = F.leaky_relu(conv(h), 0.2)
    h = F.adaptive_avg_pool2d(h, 4).flatten(1)
    assert torch.allclose(a - b, h @ (discriminator.label.weight[0] - discriminator.label.weight[2]), atol=1e-5)


def test_the_plane_changes_what_is_seen():
    discriminator, x = GANDiscriminator(3, (16, 16), 4, 8, False, False), noise(1, 16, 16)
    assert discriminator(x, torch.tensor([0])) != discriminator(x, torch.tensor([1]))


def test_conditional_norm_is_batch_norm_when_nothing_steers_it():
    norm, x = ConditionalNorm(4, 6), noise(5, 4, 3, 3)
    torch.nn.init.zeros_(norm.film.weight)
    torch.nn.init.zeros_(norm.film.bias)
    assert torch.allclose(norm(x, noise(5, 6)), F.batch_norm(x, None, None, training=True), atol=1e-6)


def test_samples_depend_on_seed_and_label_alone():
    model = small()
    a, b = (model.sample([0, 1, 2, 1], seed=0, batch_size=n) for n in (1, 4))
    assert torch.allclose(a, b, atol=1e-5) and torch.equal(a, model.sample([0, 1, 2, 1], seed=0, batch_size=1))
    assert torch.equal(a, model.sample([0, 1, 2, 1], generator=torch.Generator().manual_seed(0), batch_size=1))
    assert not torch.allclose(a[0], model.sample([1], seed=0)[0]) and not torch.allclose(a, model.sample([0, 1, 2, 1], seed=1))
    assert torch.allclose(model.sample(4, seed=0), model.sample([0, 1, 2, 0], seed=0)) and not torch.equal(model.sample(2), model.sample(2))
    for labels in ([3], [-1], [], [0.5], 0):
        with pytest.raises(SpecgenError):
            model.sample(labels)


def test_a_sample_can_be_fed_to_a_trainable_layer_and_leaves_the_callers_mode():
    model, layer = small(representation=MELS.to_dict()).train(), torch.nn.Linear(16, 1)
    layer(model.sample(2, seed=0)).sum().backward()
    assert layer.weight.grad.abs().sum() > 0 and model.training
    sound = model.to_audio(model.sample(2, seed=0))
    torch.nn.Conv1d(1, 1, 3)(sound[:, None]).sum().backward()


def test_saved_and_loaded(tmp_path):
    model = small(n_classes=2, classes=["a", "b"], representation=MELS.to_dict())
    model.save_pretrained(tmp_path)
    loaded = GAN.from_pretrained(tmp_path)
    assert torch.equal(loaded.sample(3, seed=0), model.sample(3, seed=0)) and loaded.representation == MELS and loaded.classes == ["a", "b"]
    with pytest.raises(SpecgenError, match="Classifier"):
        Classifier.from_pretrained(tmp_path)


def test_every_step_adds_its_switch_alone():
    presets = [at_step(PLAIN, step) for step in GAN_STEPS]
    assert presets[0] == PLAIN
    for before, after, changes in zip(presets, presets[1:], list(GAN_STEPS.values())[1:], strict=False):
        assert after == before.changed(**changes) != before
    with pytest.raises(SpecgenError, match="source"):
        at_step(PLAIN, "magic")
    with pytest.raises(SpecgenError, match="quick, small, hifigan, source, paper"):
        GAN.preset("huge", "words")


def test_a_step_left_out_leaves_all_others():
    everything = at_step(PLAIN, list(GAN_STEPS)[-1])
    for step, changes in list(GAN_STEPS.items())[1:]:
        preset = without(PLAIN, step)
        longer = dict(training=dict(epochs=PLAIN.training["epochs"]))  # without smaller sizes, the last one gets their work
        assert preset != everything and preset.changed(**changes).changed(**longer) == everything
    assert without(PLAIN.changed(training=dict(epochs=100)), "+ progressive growing").training["epochs"] == 159
    with pytest.raises(SpecgenError, match="source"):
        without(PLAIN, "magic")


def test_a_model_knows_how_much_noise_it_draws_from(tmp_path):
    model = small(truncation=0.5)
    assert torch.equal(model.sample(3, seed=0), model.sample(3, truncation=0.5, seed=0))
    assert not torch.equal(model.sample(3, seed=0), model.sample(3, truncation=1.0, seed=0)) and small().truncation == 1.0
    model.save_pretrained(tmp_path)
    assert GAN.from_pretrained(tmp_path).truncation == 0.5


def test_the_mels_of_the_published_hifigan_are_drawn():
    preset = GAN.preset("hifigan", "words")
    r = Representation.from_dict(preset.dataset["representation"])
    assert (r.sample_rate, r.n_mels, r.hop_length, preset.dataset["n_frames"]) == (22050, 80, 256, 64)
    model = GAN(10, (80, 64), 4, 8, representation=r.to_dict())
    assert model.start == (5, 4) and model.to_audio(model.sample(1, seed=0)).shape == (1, 64 * 256)


def test_the_source_preset_is_the_sources_method():
    source = GAN.preset("source", "sounds")
    assert (source.dataset["representation"]["n_mels"], source.dataset["n_frames"], source.training["epochs"]) == (128, 512, 100)
    assert not any(source.model[name] for name in ("spectral", "projection", "smooth", "conditional")) and not source.augment["both"]
    assert source.training["ema"] is None and source.training["d_lr_ratio"] == 1 and source.training["progressive"] == ()


@pytest.mark.parametrize("preset", [TINY, GROWING, PLAIN])
def test_the_same_seed_gives_the_same_model_and_every_epoch_is_kept(tmp_path, preset):
    data, preset = toy(), preset.changed(augment=SCENES)
    a, b = GAN.fit(data, preset=preset, out=tmp_path, progress=False), GAN.fit(data, preset=preset, progress=False)
    assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))
    plain = GAN(2, (16, 32), 8, 16, 8, preset.model["smooth"], preset.model["conditional"], len(preset.training["progressive"]))
    assert not a.training and a.state_dict().keys() == plain.state_dict().keys()
    assert sorted(p.name for p in (tmp_path / "outputs_gan").iterdir()) == [f"epoch_000{i}.{end}" for i in (1, 2) for end in ("png", "wav")]
    assert len(read_audio(tmp_path / "outputs_gan/epoch_0002.wav")[0]) == 2 * (31 * 40 + 1600)  # 0.2 s of silence after each
    again = GAN.fit(data, preset=preset, out=tmp_path, progress=False)
    assert torch.equal(again.sample(2, seed=0), a.sample(2, seed=0))


def test_a_killed_training_continues_bit_for_bit(tmp_path):
    preset, seen = TINY.changed(training=dict(epochs=4)), []
    whole = GAN.fit(toy(), preset=preset, progress=False)

    def stop(model):
        seen.append(model)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return {}

    with pytest.raises(KeyboardInterrupt):
        GAN.fit(toy(), preset=preset, out=tmp_path, score=stop, progress=False)
    resumed = GAN.fit(toy(), preset=preset, out=tmp_path, progress=False)
    assert all(torch.equal(x, y) for x, y in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True))
    assert len(list((tmp_path / "outputs_gan").glob("*.png"))) == 4


def test_it_learns_what_is_asked():
    data = two_classes(MELS, 16, 32, 128, 32)
    model = GAN.fit(data, preset=TINY.changed(training=dict(epochs=25, lr=2e-3)), progress=False)
    made = model.sample(100, seed=0)
    heard = (made[:, 8:].mean((1, 2)) > made[:, :8].mean((1, 2))).long()
    assert (heard == torch.arange(100) % 2).float().mean() > 0.9


def test_spectrograms_are_standardised_by_training_clips(sounds):
    data = GAN.prepare(load_recordings(sounds), preset="quick")
    assert data.spectrograms.shape == (24, 64, 64) and data.classes == ["hiss", "hum"] and data.about["domain"] == "words"
    own = data.train.spectrograms
    assert own.mean().abs() < 1e-4 and abs(own.std() - 1) < 1e-4
    assert (data.spectrograms.amax((1, 2)) - data.spectrograms.amin((1, 2))).max() <= 60 / data.representation.decibels + 1e-4


def test_sound_has_the_level_and_the_dynamics_of_the_playback_representation():
    data = toy()
    louder = replace(MELS, mean=MELS.mean + 2.0, std=1.5)
    model = GAN.fit(SpectrogramDataset(data.spectrograms, data.labels, data.classes, MELS, data.is_test, playback=louder), preset=TINY, progress=False)
    assert model.representation == louder
    quiet = small(shape=(16, 32), representation=replace(MELS, mean=-6.0, std=1.0).to_dict())
    drawn = quiet.sample(3, seed=0).clamp(-2, 2)  # well above the floor
    torch.testing.assert_close(quiet.to_audio(drawn), quiet.representation.decode(drawn))
    for change, expected in ((dict(mean=-6.0 + torch.tensor(10.0).log().item()), 10.0), (dict(mean=-6.0), 1.0)):
        other = small(shape=(16, 32), representation=replace(MELS, **{"std": 1.0, **change}).to_dict())
        ratio = other.representation.decode(drawn).square().mean().sqrt() / quiet.representation.decode(drawn).square().mean().sqrt()
        assert ratio == pytest.approx(expected, rel=0.02)
    loud = small(shape=(16, 32), representation=replace(MELS, mean=8.0).to_dict())
    assert loud.to_audio(drawn).abs().amax(1) == pytest.approx([1.0] * 3, abs=1e-6)


def test_from_a_folder_to_files(sounds, tmp_path):
    model = fit_recordings(GAN, sounds, out=tmp_path / "model", preset="quick", progress=False)
    loaded = GAN.from_pretrained(tmp_path / "model", device=model.device)
    drawn = loaded.sample([1, 1], seed=0)
    assert torch.equal(drawn, model.sample([1, 1], seed=0)) and model.classes == ["hiss", "hum"]
    paths = save_samples(tmp_path / "out", ["hum", "../../hum"], loaded.to_audio(drawn), 8000, spectrograms=drawn, representation=loaded.representation)
    assert all(p.parent == tmp_path / "out" and p.is_file() for p in paths) and paths[0].name == "hum_000.wav"
    with pytest.raises(SpecgenError, match="no saved model"):
        GAN.from_pretrained(tmp_path)


def test_the_one_that_ships_speaks_and_without_noise_says_each_word_one_way():
    model = GAN.from_pretrained("specgen/gan-digits")
    drawn = model.sample([3, 3, 7], truncation=0.0)
    assert torch.allclose(drawn[0], drawn[1], atol=1e-5) and not torch.allclose(drawn[0], drawn[2], atol=0.1)
    assert model.to_audio(drawn, SpectralVocoder.from_pretrained("specgen/vocoder-digits")).abs().max() > 0.01
    with pytest.raises(SpecgenError, match="whales"):
        GAN.from_pretrained("specgen/gan-whales")


def test_a_vocoder_for_other_mels_is_told():
    model = GAN(2, (16, 32), 4, 8, 4, representation=MELS.to_dict())
    with pytest.raises(SpecgenError, match="n_mels 16.*n_mels 64"):
        model.to_audio(model.sample(2), SpectralVocoder.from_pretrained("specgen/vocoder-digits"))


def test_the_preset_of_a_size_is_found_by_the_kind_of_recordings():
    for domain, shape in (("words", 64), ("sounds", 128)):
        assert isinstance(GAN.preset("small", domain), Preset) and GAN.preset("small", domain).dataset["representation"]["n_mels"] == shape
