"Edges of the vocoder, and HiFi-GAN's generator against a second, functional writing of it."
import json
import sys

import pytest
import torch
from torch.nn import functional as F

from specgen import vocoder
from made_up import noise

from specgen.audio import LogMel, LogSTFT, Representation, SpecgenError, istft, spectral_convergence
from specgen.training import TrainConfig, train
from specgen.vocoder import (
    PRESETS,
    PUBLISHED,
    SHIPPED,
    Discriminators,
    Generator,
    HiFiGAN,
    HiFiGANConfig,
    HiFiGANMel,
    Pair,
    apply_weight_norm,
    build_generator,
    check_mels,
    fit_vocoder,
    fold_weight_norm,
    locked_phase,
    remove_weight_norm,
    segments,
    speech_scores,
    train_gan,
)

MELS = LogMel(sample_rate=8000, n_fft=128, hop_length=20, n_mels=16, power=1.0)
TINY = dict(kind="hifigan", n_mels=16, upsample_initial_channel=16, upsample_rates=(5, 4), upsample_kernel_sizes=(11, 8), resblock="2",
            resblock_kernel_sizes=(3, 5), resblock_dilation_sizes=((1, 2), (2, 6)))


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
    model, mels = randomise(Generator(PUBLISHED[name])), noise(1, 80, 7)
    with torch.no_grad():
        made, expected = model(mels), functional(model.state_dict(), model.config, mels)
    assert made.shape == (1, 7 * 256) and expected.std() > 1e-3
    assert torch.allclose(made, expected, atol=1e-5)


@pytest.mark.parametrize("form", ["folded", "weight_g and weight_v", "parametrizations"])
@pytest.mark.parametrize("beside", [True, False])
def test_published_checkpoints_load_in_every_form(tmp_path, form, beside):
    model = randomise(Generator(PUBLISHED["v3"]))
    state = model.state_dict()
    forms = {"folded": lambda: state, "weight_g and weight_v": lambda: unfolded(state),
             "parametrizations": lambda: apply_weight_norm(randomise(Generator(PUBLISHED["v3"]))).state_dict()}
    torch.save({"generator": forms[form]()}, tmp_path / "generator_v3")
    if beside:
        h = {**{k: v for k, v in vars(PUBLISHED["v3"]).items() if k != "n_mels"}, "num_mels": 80, "n_fft": 1024, "hop_size": 256, "win_size": 1024,
             "sampling_rate": 22050, "fmin": 0, "fmax": 8000, "fmax_for_loss": None}
        (tmp_path / "config.json").write_text(json.dumps(h))
    loaded, mels = HiFiGAN.from_pretrained(tmp_path if beside else tmp_path / "generator_v3"), noise(1, 80, 5)
    assert torch.allclose(loaded.decode(mels)[0], model(mels)[0], atol=1e-5)
    check_mels(loaded.representation, HiFiGANMel())
    with pytest.raises(SpecgenError, match="n_mels 128.*n_mels 80"):
        loaded.decode(noise(1, 128, 5), representation=HiFiGANMel(n_mels=128))


def test_weight_norm_comes_and_goes():
    model = randomise(Generator(HiFiGANConfig(**{k: v for k, v in TINY.items() if k != "kind"})))
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
    torch.save(Generator(HiFiGANConfig(upsample_initial_channel=32)).state_dict(), tmp_path / "g_1")
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


@pytest.mark.parametrize("source", ["owner/name", "https://example.org/generator_v1", "http://example.org/g"])
def test_without_a_network_the_error_names_what_ships(monkeypatch, source):
    def offline(*args, **kwargs):
        raise ConnectionError

    monkeypatch.setattr(vocoder, "snapshot_download", offline)
    monkeypatch.setattr(vocoder.pooch, "retrieve", offline)
    with pytest.raises(SpecgenError, match="ConnectionError.*ships: digits"):
        HiFiGAN.from_pretrained(source)
    with pytest.raises(SpecgenError, match="no such vocoder.*ships: digits"):
        HiFiGAN.from_pretrained("nowhere")


def test_a_file_with_code_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("run",))

    torch.save({"generator": Evil()}, tmp_path / "g_1")
    with pytest.raises(SpecgenError, match="fetch it again"):
        HiFiGAN.from_pretrained(tmp_path / "g_1")


@pytest.mark.parametrize("change", [dict(hop_length=32), dict(n_mels=12), dict(floor=1e-10), dict(mel_scale="htk"), dict(power=2.0), dict(f_max=3000.0)])
def test_other_mels_are_refused_with_both_settings(change):
    model, (name, value) = HiFiGAN(TINY, MELS.to_dict()), next(iter(change.items()))
    other = LogMel(**{**{k: v for k, v in MELS.to_dict().items() if k != "kind"}, **change})
    with pytest.raises(SpecgenError, match=f"{name} {value}.*{name} {getattr(MELS, name) or 4000.0}"):
        model.decode(noise(other.n_mels, 9), representation=other)
    with pytest.raises(SpecgenError, match="kind LogSTFT.*kind LogMel"):
        model.decode(noise(65, 9), representation=LogSTFT(8000, 128, 20))
    with pytest.raises(SpecgenError, match="16, time"):
        model.decode(noise(12, 9))


def test_statistics_of_pictures_are_undone_and_shapes_kept():
    model = HiFiGAN(TINY, MELS.to_dict()).eval()
    pictures = noise(2, 3, 16, 9)
    scaled = LogMel(**{k: v for k, v in MELS.to_dict().items() if k != "kind"} | dict(mean=-4.0, std=2.0, win_length=128, f_max=4000.0))
    sound = model.decode(pictures)
    assert sound.shape == (2, 3, 8 * 20) and not sound.requires_grad
    assert torch.allclose(model.decode(scaled.normalize(pictures), representation=scaled), sound, atol=1e-6)
    assert model.decode(pictures, length=333).shape == (2, 3, 333)


@pytest.mark.parametrize("generator", [dict(kind="other"), dict(kind="spectral", depth=3), dict(TINY, upsample_rates=(5, 5)), dict(TINY, resblock="3"),
                                       dict(TINY, upsample_rates=(5, 4, 2)), dict(TINY, n_mels=80)])
def test_generators_that_do_not_fit(generator):
    with pytest.raises(SpecgenError):
        build_generator(generator, MELS)


def test_a_vocoder_wants_mels():
    with pytest.raises(SpecgenError, match="LogSTFT"):
        build_generator(dict(kind="spectral"), LogSTFT())


def test_mels_of_the_published_models_are_one_kind_of_representation():
    mels, wave = HiFiGANMel(), noise(2, 4096) * 0.1
    assert Representation.from_dict(mels.to_dict()) == mels
    spec = mels.encode(wave)
    assert spec.shape == (2, 80, mels.n_frames(4096)) and mels.decode(spec).shape == (2, 4096)
    assert torch.allclose(mels.encode(torch.zeros(4096)), torch.tensor(1e-5).log(), atol=1.0)
    with pytest.raises(SpecgenError, match="mirrored"):
        mels.encode(noise(300))


def test_decoding_published_mels_by_phase_retrieval_keeps_time():
    mels, t = HiFiGANMel(), torch.arange(22050) / 22050
    wave = (torch.sin(2 * torch.pi * 440 * t) * torch.exp(-((t - 0.5) / 0.01) ** 2)).float()
    made = mels.decode(mels.encode(wave), length=22050)
    assert abs(int(made.abs().argmax()) - int(wave.abs().argmax())) < 128


def test_every_refinement_brings_the_mels_nearer():
    wave = noise(3000).cumsum(0) / 60
    mels, errors = MELS.encode(wave)[None], []
    for n in range(3):
        torch.manual_seed(0)
        model = build_generator(dict(kind="spectral", channels=16, hidden=16, blocks=1, refinements=n), MELS)
        errors.append((MELS.encode(model(mels, 3000)) - mels).abs().mean().item())
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("length", [1, 20, 159, 160, 500])
def test_a_sound_has_the_length_asked_for(length):
    model = build_generator(dict(kind="spectral", channels=8, hidden=8, blocks=1), MELS)
    sound = model(noise(2, 16, 9), length)
    assert sound.shape == (2, length) and sound.isfinite().all()


def test_locked_phases_follow_a_tone_and_need_no_neighbours():
    tone = torch.sin(2 * torch.pi * 733 * torch.arange(4000) / 8000)
    mag = MELS.magnitude(tone)
    log = mag.clamp(min=1e-5).log()
    phase = locked_phase(torch.stack([log, log - 3]), **MELS.stft_settings)
    again = istft(torch.polar(mag, phase[0]), length=4000, **MELS.stft_settings)
    assert spectral_convergence(mag, again, **MELS.stft_settings) < -20
    assert torch.allclose(phase[0], locked_phase(log[None], **MELS.stft_settings)[0], atol=1e-3)
    assert locked_phase(torch.full((1, 65, 4), -11.0), **MELS.stft_settings).isfinite().all()


def test_the_vocoder_that_ships_speaks():
    vocoder = HiFiGAN.from_pretrained()
    mels = vocoder.representation
    t = torch.arange(mels.sample_rate) / mels.sample_rate
    voiced = sum(torch.sin(2 * torch.pi * 130 * k * t) / k for k in range(1, 20)) * 0.1
    made = vocoder.decode(mels.encode(voiced), length=len(t))
    assert made.shape == voiced.shape and (mels.encode(made) - mels.encode(voiced)).abs().mean() < 0.2
    assert sum(p.stat().st_size for p in SHIPPED["digits"].iterdir()) < 4e6


@pytest.fixture
def tiny(monkeypatch):
    step = dict(steps=4, batch_size=2, checkpoint_every=2, log_every=1, ema=0.9)
    spectral = dict(kind="spectral", channels=8, hidden=8, blocks=1, refinements=1)
    monkeypatch.setitem(PRESETS, "tiny", dict(generator=spectral, segment=64, divisor=32, warm_up=step, adversarial=step))
    monkeypatch.setitem(PRESETS, "wave", dict(generator=TINY, segment=64, divisor=32, adversarial=step))
    return [noise(900, seed=i) * 0.1 for i in range(4)]


@pytest.mark.parametrize("preset", ["tiny", "wave"])
def test_training_resumes_bit_for_bit_and_the_vocoder_is_saved(tiny, tmp_path, monkeypatch, preset):
    whole = fit_vocoder(tiny, MELS, preset=preset, progress=False)
    monkeypatch.setattr(vocoder, "train", interrupted := stop_after(train, 3))
    with pytest.raises(KeyboardInterrupt):
        fit_vocoder(tiny, MELS, preset=preset, folder=tmp_path, progress=False)
    assert interrupted
    monkeypatch.setattr(vocoder, "train", train)
    continued = fit_vocoder(tiny, MELS, preset=preset, folder=tmp_path, validate=tiny[:2], progress=False)
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), continued.state_dict().values(), strict=True))
    assert not [name for name in continued.state_dict() if "parametrizations" in name]
    continued.half().save_pretrained(tmp_path / "saved")
    again, picture = HiFiGAN.from_pretrained(tmp_path / "saved"), continued.representation.encode(tiny[0])
    assert again.representation == continued.representation and again.decode(picture).dtype == torch.float32
    assert torch.allclose(again.decode(picture), whole.decode(picture), atol=0.05)


def stop_after(train, steps):
    "A `train` that is interrupted in the adversarial stage."
    def stopped(model, data, loss_fn, config, **settings):
        seen = []

        def counted(*args):
            seen.append(1)
            if isinstance(model, Pair) and len(seen) > steps:
                raise KeyboardInterrupt
            return loss_fn(*args)

        return train(model, data, counted, config, **settings)

    return stopped


def test_opponents_leave_no_gradient_in_each_other():
    generator, discriminator = torch.nn.Linear(2, 2), torch.nn.Linear(2, 1)
    before = [p.clone() for p in (*generator.parameters(), *discriminator.parameters())]
    config = dict(batch_size=4, weight_decay=0.0, precision="fp32", clip=None)

    def run(g_weight, d_weight):
        pair = Pair(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
        pair.load_state_dict(Pair(generator, discriminator).state_dict())
        train_gan(pair.generator, pair.discriminator, (noise(8, 2),), lambda g, batch, rng: (batch[0], g(batch[0])),
                  lambda d, real, made, batch: g_weight * d(made).mean(), lambda d, real, made, batch: d_weight * (d(real) - d(made)).mean(),
                  TrainConfig(1, **config), progress=False)
        return [not torch.equal(a, b) for a, b in zip(before, (*pair.generator.parameters(), *pair.discriminator.parameters()), strict=True)]

    assert run(1.0, 0.0) == [True, True, False, False]
    assert run(0.0, 1.0)[:3] == [False, False, True]


def test_discriminators_take_any_length_and_their_paper_sizes():
    judges = Discriminators(32)
    for samples in (600, 601, 1001):
        outputs = judges(noise(2, samples))
        assert [len(o) for o in outputs] == [6] * 5 + [8] * 3 and all(len(o[-1]) == 2 for o in outputs)


def test_scores_of_speech_without_their_packages(monkeypatch):
    monkeypatch.setitem(sys.modules, "pesq", None)
    with pytest.raises(SpecgenError, match=r"specgen\[vocoder\]"):
        speech_scores([noise(8000)], [noise(8000)], 8000)


def test_bad_training_input(tiny):
    with pytest.raises(SpecgenError, match="huge"):
        fit_vocoder(tiny, MELS, preset="huge")
    with pytest.raises(SpecgenError, match="hop"):
        fit_vocoder(tiny, MELS, preset="v1")
    with pytest.raises(SpecgenError, match="no waveforms"):
        fit_vocoder([], MELS)
    assert segments([torch.zeros(10)], 100).isfinite().all()
