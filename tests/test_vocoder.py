"HiFi-GAN: its generator against a second, functional writing of it, published files in every form, training, and what it refuses."
import json
import os
import sys
from pathlib import Path

import pytest
import torch
from made_up import noise
from torch.nn import functional as F

from specgen import vocoder
from specgen.audio import read_audio
from specgen.core import SpecgenError
from specgen.discriminators import Discriminators, adversarial_loss, apply_weight_norm, discriminator_loss, feature_loss, remove_weight_norm
from specgen.augmentation import make_segments, random_segment
from specgen.models import Preset, WaveformDataset, fit_recordings
from specgen.spectrogram import HiFiGANMel, LogMel, LogSTFT, check_same_representation, mel_loss
from specgen.stft import stft_loss
from specgen.training import train_adversarial
from specgen.vocoder import (
    PUBLISHED,
    HiFiGAN,
    HiFiGANConfig,
    HiFiGANGenerator,
    fold_weight_norm,
    speech_scores,
)

MELS = LogMel(sample_rate=8000, n_fft=128, hop_length=20, n_mels=16, power=1.0)
TINY = dict(upsample_initial_channel=16, upsample_rates=(5, 4), upsample_kernel_sizes=(11, 8), resblock="2", resblock_kernel_sizes=(3, 5),
            resblock_dilation_sizes=((1, 2), (2, 6)))
STEP = dict(steps=4, batch_size=2, checkpoint_every=2, log_every=1, ema=0.9, grad_clip=None)
PRESET = Preset(dict(representation=MELS.to_dict(), segment=64), dict(TINY, divisor=32), STEP)


def randomise(model, seed=0):
    rng = torch.Generator().manual_seed(seed)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.03, generator=rng)
    return model.eval()


def unfolded(state):
    "The state with weight norm in the original repository's naming."
    return {name.replace("weight", f"weight_{part}"): t for key, w in state.items() for name, part, t in (
        [(key, "g", w.flatten(1).norm(dim=1)[:, None, None]), (key, "v", w / 1.7)] if key.endswith("weight") else [(key, "", w)])}


def functional(state, config, x):
    "The generator of Kong, Kim & Bae (2020), table 5 and section 2.2, from nothing but the weights."
    conv = lambda name, x, d=1: F.conv1d(  # noqa: E731
        x, state[f"{name}.weight"], state[f"{name}.bias"], dilation=d, padding=d * (state[f"{name}.weight"].shape[-1] - 1) // 2)
    x = conv("conv_pre", x)
    block = 0
    for i, (rate, kernel) in enumerate(zip(config.upsample_rates, config.upsample_kernel_sizes, strict=True)):
        x = F.conv_transpose1d(F.leaky_relu(x, 0.1), state[f"ups.{i}.weight"], state[f"ups.{i}.bias"], rate, (kernel - rate) // 2)
        total = 0
        for dilations in config.resblock_dilation_sizes:
            y = x
            for j, d in enumerate(dilations):
                if config.resblock == "1":
                    z = conv(f"resblocks.{block}.convs1.{j}", F.leaky_relu(y, 0.1), d)
                    y = y + conv(f"resblocks.{block}.convs2.{j}", F.leaky_relu(z, 0.1))
                else:
                    y = y + conv(f"resblocks.{block}.convs.{j}", F.leaky_relu(y, 0.1), d)
            total, block = total + y, block + 1
        x = total / len(config.resblock_dilation_sizes)
    return torch.tanh(conv("conv_post", F.leaky_relu(x, 0.01)))[:, 0]


@pytest.mark.parametrize("name", PUBLISHED)
def test_generator_agrees_with_a_functional_one(name):
    model, mels = randomise(HiFiGANGenerator(PUBLISHED[name])), noise(1, 80, 7)
    with torch.no_grad():
        made, expected = model(mels), functional(model.state_dict(), model.config, mels)
    assert made.shape == (1, 7 * 256) and expected.std() > 1e-3
    assert torch.allclose(made, expected, atol=1e-6)


@pytest.mark.parametrize("kind, dilations", [("1", [[1, 3, 5]]), ("2", [[1, 3]])])
def test_the_kind_of_block_is_a_number_or_a_text(tmp_path, kind, dilations):
    sizes = dict(upsample_initial_channel=8, upsample_rates=[4, 5], upsample_kernel_sizes=[8, 9], resblock_kernel_sizes=[3], resblock_dilation_sizes=dilations)
    model = HiFiGANGenerator(HiFiGANConfig(8, resblock=kind, **sizes))
    torch.save({"generator": model.state_dict()}, tmp_path / "g_0001")
    h = {**sizes, "num_mels": 8, "n_fft": 64, "hop_size": 20, "win_size": 64, "sampling_rate": 8000, "fmin": 0, "fmax": 4000}
    for written in (kind, int(kind)):
        (tmp_path / "config.json").write_text(json.dumps({**h, "resblock": written}))
        assert HiFiGAN.from_pretrained(tmp_path).to_audio(noise(1, 8, 5)).isfinite().all()


@pytest.mark.parametrize("resblock", ["1", "2"])
def test_long_sounds_are_made_in_stretches_without_seams(resblock, monkeypatch):
    config = HiFiGANConfig(16, 32, (5, 4), (11, 8), resblock, (3, 5), ((1, 2), (2, 6)))
    model, mels = randomise(HiFiGANGenerator(config)).double(), [noise(2, 16, 40).double().requires_grad_() for _ in range(3)]
    sounds = [model(mels[0]), functional(model.state_dict(), config, mels[1])]
    monkeypatch.setattr(vocoder, "CACHED", 1)
    sounds.append(model(mels[2]))
    for sound in sounds:
        (sound / sounds[1].std().detach()).square().sum().backward()
    for sound, own in zip(sounds, mels, strict=True):
        assert torch.allclose(sound, sounds[1], rtol=1e-9, atol=1e-12) and torch.allclose(own.grad, mels[1].grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("form", ["folded", "weight_g and weight_v", "parametrizations"])
@pytest.mark.parametrize("beside", [True, False])
def test_published_checkpoints_load_in_every_form(tmp_path, form, beside):
    model = randomise(HiFiGANGenerator(PUBLISHED["v3"]))
    state = model.state_dict()
    forms = {"folded": lambda: state, "weight_g and weight_v": lambda: unfolded(state),
             "parametrizations": lambda: apply_weight_norm(randomise(HiFiGANGenerator(PUBLISHED["v3"]))).state_dict()}
    torch.save({"generator": forms[form]()}, tmp_path / "generator_v3")
    if beside:
        h = {**{k: v for k, v in vars(PUBLISHED["v3"]).items() if k != "n_mels"}, "num_mels": 80, "n_fft": 1024, "hop_size": 256, "win_size": 1024,
             "sampling_rate": 22050, "fmin": 0, "fmax": 8000, "fmax_for_loss": None}
        (tmp_path / "config.json").write_text(json.dumps(h))
    loaded, mels = HiFiGAN.from_pretrained(tmp_path if beside else tmp_path / "generator_v3"), noise(1, 80, 5)
    assert torch.allclose(loaded.to_audio(mels)[0], model(mels)[0], atol=1e-6)
    check_same_representation(loaded.representation, HiFiGANMel())
    with pytest.raises(SpecgenError, match="n_mels 128.*n_mels 80"):
        loaded.to_audio(noise(1, 128, 5), representation=HiFiGANMel(n_mels=128))


PUBLISHED_V3 = Path(os.environ.get("SPECGEN_DATA", "")) / "hifigan_v3"


@pytest.mark.skipif(not PUBLISHED_V3.is_dir(), reason="the published V3 is not here")
def test_the_published_v3_speaks():
    v3 = HiFiGAN.from_pretrained(PUBLISHED_V3)
    for path in sorted((PUBLISHED_V3.parent / "speech").glob("LJ*.wav"))[:2]:
        wave = read_audio(path, 22050)[0][:44100]
        spec = v3.representation.encode(wave)
        assert 0.25 < (v3.representation.encode(v3.to_audio(spec, length=len(wave))) - spec).abs().mean() < 0.4


def test_a_vocoder_of_the_other_kind_is_told():
    with pytest.raises(SpecgenError, match="blocks.*not those of a HiFi-GAN"):
        HiFiGAN.from_pretrained("specgen/vocoder-digits")


def test_weight_norm_comes_and_goes():
    model = randomise(HiFiGANGenerator(HiFiGANConfig(16, **TINY)))
    before, mels = {k: v.clone() for k, v in model.state_dict().items()}, noise(2, 16, 6)
    sound = model(mels)
    assert torch.allclose(apply_weight_norm(model)(mels), sound, atol=1e-6)
    folded = fold_weight_norm(model.state_dict())
    assert folded.keys() == before.keys() and all(torch.allclose(folded[k], before[k], atol=1e-6) for k in before)
    assert remove_weight_norm(model).state_dict().keys() == before.keys()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut"])
def test_a_damaged_file_is_told(tmp_path, content):
    (tmp_path / "generator_v1").write_bytes(content)
    with pytest.raises(SpecgenError, match="generator_v1.*fetch it again"):
        HiFiGAN.from_pretrained(tmp_path)


def test_other_files_are_told(tmp_path):
    with pytest.raises(SpecgenError, match="holds none"):
        HiFiGAN.from_pretrained(tmp_path)
    torch.save({"state_dict": {}}, tmp_path / "other.pt")
    with pytest.raises(SpecgenError, match="no HiFi-GAN generator"):
        HiFiGAN.from_pretrained(tmp_path / "other.pt")
    torch.save(HiFiGANGenerator(HiFiGANConfig(upsample_initial_channel=32)).state_dict(), tmp_path / "g_1")
    with pytest.raises(SpecgenError, match="neither V1, V2 nor V3"):
        HiFiGAN.from_pretrained(tmp_path / "g_1")
    with pytest.raises(SpecgenError, match="name the file"):
        HiFiGAN.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(SpecgenError, match="config.json.*damaged"):
        HiFiGAN.from_pretrained(tmp_path / "g_1")
    (tmp_path / "config.json").write_text(json.dumps({"resblock": "1"}))
    with pytest.raises(SpecgenError, match="upsample"):
        HiFiGAN.from_pretrained(tmp_path / "g_1")


@pytest.mark.parametrize("source", ["owner/name", "https://example.org/generator_v1"])
def test_without_a_network_the_error_says_so(monkeypatch, source):
    def offline(*args, **kwargs):
        raise ConnectionError

    monkeypatch.setattr(vocoder, "snapshot_download", offline)
    monkeypatch.setattr(vocoder.pooch, "retrieve", offline)
    with pytest.raises(SpecgenError, match="cannot be fetched \\(ConnectionError\\)"):
        HiFiGAN.from_pretrained(source)
    with pytest.raises(SpecgenError, match="no such vocoder.*hub id"):
        HiFiGAN.from_pretrained("nowhere")


def test_the_hub_gets_its_own_arguments(monkeypatch, tmp_path):
    asked = {}

    def download(repo, allow_patterns, **hub):
        asked.update(hub, repo=repo)
        torch.save(randomise(HiFiGANGenerator(PUBLISHED["v3"])).state_dict(), tmp_path / "g_1")
        return str(tmp_path)

    monkeypatch.setattr(vocoder, "snapshot_download", download)
    HiFiGAN.from_pretrained("owner/name", revision="v2", token="x", cache_dir=tmp_path)
    assert asked == dict(repo="owner/name", revision="v2", token="x", cache_dir=tmp_path, local_files_only=False, force_download=False)


def test_a_file_with_code_is_not_run(tmp_path, capsys):
    class Evil:
        def __reduce__(self):
            return (print, ("run",))

    torch.save({"generator": Evil()}, tmp_path / "g_1")
    with pytest.raises(SpecgenError, match="fetch it again"):
        HiFiGAN.from_pretrained(tmp_path / "g_1")
    assert "run" not in capsys.readouterr().out


@pytest.mark.parametrize("change", [dict(hop_length=32), dict(n_mels=12), dict(floor=1e-10), dict(mel_scale="htk"), dict(power=2.0), dict(f_max=3000.0)])
def test_other_mels_are_refused_with_both_settings(change):
    model, (name, value) = HiFiGAN(MELS.to_dict(), **TINY), next(iter(change.items()))
    other = LogMel(**{**{k: v for k, v in MELS.to_dict().items() if k != "kind"}, **change})
    with pytest.raises(SpecgenError, match=f"{name} {value}.*{name} {getattr(MELS, name) or 4000.0}"):
        model.to_audio(noise(other.n_mels, 9), representation=other)
    with pytest.raises(SpecgenError, match="kind LogSTFT.*kind LogMel"):
        model.to_audio(noise(65, 9), representation=LogSTFT(8000, 128, 20))
    with pytest.raises(SpecgenError, match="16, time"):
        model.to_audio(noise(12, 9))


def test_statistics_of_spectrograms_are_undone_and_shapes_kept():
    model = HiFiGAN(MELS.to_dict(), **TINY)
    specs = noise(2, 3, 16, 9)
    scaled = LogMel(**{k: v for k, v in MELS.to_dict().items() if k != "kind"} | dict(mean=-4.0, std=2.0, win_length=128, f_max=4000.0))
    sound = model.to_audio(specs)
    assert sound.shape == (2, 3, 8 * 20) and sound.dtype == torch.float32
    assert torch.allclose(model.to_audio(scaled.normalize(specs), representation=scaled), sound, atol=1e-6)
    assert model.to_audio(specs, length=333).shape == (2, 3, 333)
    assert torch.allclose(model.to_audio(specs.half()), sound, atol=1e-3)
    assert model.to_audio(specs[:0]).shape == (0, 3, 160)


def test_a_sound_can_be_trained_on_and_the_caller_is_left_alone():
    model = HiFiGAN(MELS.to_dict(), **TINY).train()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    sound = model.to_audio(noise(2, 16, 9))
    assert model.training and model.generator.training and torch.equal(before, torch.get_rng_state())
    layer = torch.nn.Linear(sound.shape[-1], 1)
    layer(sound).sum().backward()
    assert layer.weight.grad.abs().sum() > 0
    wave = (0.1 * noise(1, 640)).requires_grad_()
    mel_loss(noise(1, 640), wave, MELS).backward()  # filters and windows that `to_audio` used still let gradients through
    assert wave.grad.abs().sum() > 0


@pytest.mark.parametrize("sizes", [dict(depth=3), dict(TINY, upsample_rates=(5, 5)), dict(TINY, resblock="3"),
                                   dict(TINY, upsample_rates=(5, 4, 2)), dict(TINY, n_mels=80)])
def test_generators_that_do_not_fit(sizes):
    with pytest.raises(SpecgenError):
        HiFiGAN(MELS.to_dict(), **sizes)


def test_a_vocoder_wants_mels():
    with pytest.raises(SpecgenError, match="LogSTFT"):
        HiFiGAN(LogSTFT().to_dict(), **TINY)


def dataset(n=4):
    return WaveformDataset([noise(900, seed=i) * 0.1 for i in range(n)], MELS, torch.arange(n) == n - 1)


def test_training_resumes_bit_for_bit_and_the_vocoder_is_saved(tmp_path, monkeypatch):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    whole = HiFiGAN.fit(dataset(), preset=PRESET, progress=False)
    assert torch.equal(before, torch.get_rng_state())
    monkeypatch.setattr(vocoder, "train_adversarial", stop_after(3))
    with pytest.raises(KeyboardInterrupt):
        HiFiGAN.fit(dataset(), preset=PRESET, out=tmp_path, progress=False)
    monkeypatch.setattr(vocoder, "train_adversarial", train_adversarial)
    continued = HiFiGAN.fit(dataset(), preset=PRESET, out=tmp_path, progress=False)
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), continued.state_dict().values(), strict=True))
    assert not [name for name in continued.state_dict() if "parametrizations" in name]
    continued.save_pretrained(tmp_path / "saved")
    again, spec = HiFiGAN.from_pretrained(tmp_path / "saved", device=whole.device), continued.representation.encode(dataset()[0])
    assert again.representation == continued.representation and not again.training
    assert torch.equal(again.to_audio(spec), whole.to_audio(spec))


def test_recordings_in_vocoder_out(sounds, tmp_path, monkeypatch):
    monkeypatch.setitem(HiFiGAN.presets, "tiny", PRESET)
    trained = fit_recordings(HiFiGAN, str(sounds), out=tmp_path / "run", preset="tiny", by="stratified", progress=False)
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())
    assert scores.keys() == {"mel", "stft"} and scores["mel"] > 0
    again = HiFiGAN.from_pretrained(tmp_path / "run", device=trained.device)
    assert torch.equal(again.to_audio(noise(16, 9)), trained.to_audio(noise(16, 9))) and again.representation.mean != 0


def stop_after(steps):
    "A `train_adversarial` that is interrupted."
    def stopped(generator, discriminator, data, make, *args, **settings):
        seen = []

        def counted(*args):
            seen.append(1)
            if len(seen) > steps:
                raise KeyboardInterrupt
            return make(*args)

        return train_adversarial(generator, discriminator, data, counted, *args, **settings)

    return stopped


def test_discriminators_take_any_length_and_their_paper_sizes():
    discriminators = Discriminators(32)
    for samples in (600, 601, 1001):
        outputs = discriminators(noise(2, samples))
        assert [len(o) for o in outputs] == [6] * 5 + [8] * 3 and all(len(o[-1]) == 2 for o in outputs)
    with torch.device("meta"):
        assert [round(sum(p.numel() for p in part.parameters()) / 1e6, 1) for part in Discriminators()] == [41.1, 29.6]


def test_losses_of_known_scores():
    half = [[torch.full((2, 1, 9), 0.5)]] * 3
    assert discriminator_loss(half, half) == 1.5 and adversarial_loss(half) == 0.75
    assert feature_loss([[torch.zeros(2), torch.ones(2)]], [[torch.ones(2), torch.ones(2) * 4]]) == 1 + 3
    sound = 0.1 * noise(1, 2000)
    assert mel_loss(sound, sound, MELS) == stft_loss(sound, sound) == 0
    assert mel_loss(sound, 2 * sound, MELS).item() == pytest.approx(torch.tensor(2.0).log().item(), abs=1e-5)


def test_scores_of_speech_without_their_packages(monkeypatch):
    monkeypatch.setitem(sys.modules, "pesq", None)
    with pytest.raises(SpecgenError, match=r"specgen\[vocoder\]"):
        speech_scores([noise(8000)], [noise(8000)], 8000)


def test_bad_training_input():
    with pytest.raises(SpecgenError, match="huge"):
        HiFiGAN.fit(dataset(), preset="huge")
    with pytest.raises(SpecgenError, match="hop"):
        HiFiGAN.fit(dataset(), preset="v1")
    with pytest.raises(SpecgenError, match="no waveforms"):
        HiFiGAN.fit(WaveformDataset([], MELS), preset=PRESET)


def test_presets_are_the_published_ones():
    assert HiFiGAN.presets["source"] == HiFiGAN.presets["v1"]
    for name in ("v1", "v2", "v3"):
        preset = HiFiGAN.preset(name)
        assert HiFiGANMel().to_dict() == preset.dataset["representation"] and preset.dataset["segment"] * 256 == 8192
        assert HiFiGANConfig(**preset.model) == PUBLISHED[name]
        training = preset.training
        assert (training["steps"], training["batch_size"], training["lr"], training["betas"]) == (2_500_000, 16, 2e-4, (0.8, 0.99))


def test_segments_hold_every_sample_at_one_level():
    clips = [torch.linspace(0.1, 1, 50), torch.linspace(-0.2, 0, 30), torch.zeros(0)]
    segments = make_segments(clips, 40)
    assert segments.shape[1] == 40 and segments.abs().amax() == pytest.approx(0.7)
    assert torch.equal(segments[0, 20:], segments[1, :20])
    line = torch.cat([segments[0], *segments[1:, 20:]])
    assert torch.allclose(line[5:55], clips[0] * 0.7) and torch.allclose(line[65:95], clips[1] * 3.5)
    assert make_segments([torch.zeros(10)], 100).shape == (1, 100)


def test_random_segments_are_stretches_at_a_level_within_bounds():
    x, generator = torch.arange(1.0, 101).repeat(500, 1), torch.Generator().manual_seed(0)
    parts = random_segment(x, 10, generator)
    step = parts[:, 1] - parts[:, 0]
    level = 20 * step.log10()
    assert -14 <= level.min() < -13.5 and 1.5 < level.max() <= 2
    first = (parts[:, 0] / step).round()
    assert first.min() == 1 and first.max() == 91
    assert torch.equal(random_segment(x, 10, torch.Generator().manual_seed(0)), parts)
    assert torch.equal(random_segment(x, 100, generator, level_db=(0, 0)), x)
