"The spectral vocoder: phases, refinements, the weights that ship, training, and what it leaves alone."
import pytest
import torch
from made_up import noise
from torch.nn import functional as F

from specgen import spectral_vocoder
from specgen.core import SpecgenError
from specgen.datasets import load_recordings
from specgen.models import Preset, WaveformDataset, fit_recordings
from specgen.saved import shipped_models
from specgen.phase import spectral_convergence
from specgen.spectral_vocoder import SpectralVocoder, locked_phase, magnitude_loss, propagate_peak_phase
from specgen.spectrogram import HiFiGANMel, LogMel, LogSTFT, check_same_representation, log_mels, mel_loss
from specgen.stft import istft
from specgen.training import train

MELS = LogMel(sample_rate=8000, n_fft=128, hop_length=20, n_mels=16, power=1.0)
TINY = dict(channels=8, hidden=8, blocks=1)
PRESET = Preset(dict(representation=MELS.to_dict(), segment=64), TINY, dict(steps=4, batch_size=2, checkpoint_every=2, log_every=1, ema=0.9))


def dataset(n=4):
    return WaveformDataset([noise(900, seed=i) * 0.1 for i in range(n)], MELS, torch.arange(n) == n - 1)


# phases


def followed(log, by_frame, by_bin, quiet):
    "The rule of `propagate_peak_phase`, hill by hill from the rises and falls of each frame, in plain Python."
    phase, steps = torch.zeros(log.shape, dtype=torch.double), (by_bin[:, :-1] + by_bin[:, 1:]) / 2  # steps[t, k] leads from k to k + 1
    for t, row in enumerate(log.tolist()):
        starts = [0] + [k for k in range(2, len(row)) if row[k] >= row[k - 1] and row[k - 1] < row[k - 2]]
        above_before = False
        for start, stop in zip(starts, [*starts[1:], len(row)], strict=True):
            peak = max(range(start, stop), key=lambda k: (row[k], k))
            if row[peak] > quiet:
                valley = start - 1
                if above_before and (t == 0 or row[valley] > log[t - 1, peak]):
                    phase[t, peak] = phase[t, valley] + steps[t, valley:peak].sum()
                elif t:
                    phase[t, peak] = phase[t - 1, peak] + (by_frame[t - 1, peak] + by_frame[t, peak]) / 2
                for k in range(start, peak):
                    phase[t, k] = phase[t, peak] - steps[t, k:peak].sum()
                for k in range(peak + 1, stop):
                    phase[t, k] = phase[t, peak] + steps[t, peak:k].sum()
            above_before = row[peak] > quiet
    return phase


@pytest.mark.parametrize("seed", range(4))
def test_phases_follow_peaks_and_valleys_as_written_down(seed):
    log, by_frame, by_bin = (noise(6, 30, seed=10 * seed + i).double() for i in range(3))
    phase = torch.zeros(6, 30, dtype=torch.double)
    propagate_peak_phase(log.numpy(), by_frame.numpy(), by_bin.numpy(), -0.2, phase.numpy())
    assert torch.allclose(phase, followed(log, by_frame, by_bin, -0.2), atol=1e-12)


def test_locked_phases_follow_a_tone_and_need_no_neighbours():
    tone = torch.sin(2 * torch.pi * 733 * torch.arange(4000) / 8000)
    mag = MELS.magnitude(tone)
    log = mag.clamp(min=1e-5).log()
    phase = locked_phase(torch.stack([log, log - 3]), **MELS.stft_settings)
    again = istft(torch.polar(mag, phase[0]), length=4000, **MELS.stft_settings)
    assert spectral_convergence(mag, again, **MELS.stft_settings) < -20
    assert torch.allclose(phase[0], locked_phase(log[None], **MELS.stft_settings)[0], atol=1e-3)
    assert locked_phase(torch.full((1, 65, 4), -11.0), **MELS.stft_settings).isfinite().all()


def test_locked_phase_leaves_the_random_state_alone():
    torch.manual_seed(1)
    before, log = torch.get_rng_state(), noise(2, 65, 6)
    first = locked_phase(log, **MELS.stft_settings)
    assert torch.equal(before, torch.get_rng_state()) and torch.equal(first, locked_phase(log, **MELS.stft_settings))


# the network


def test_it_speaks_hifigans_mels_in_place():
    mels, t = HiFiGANMel(), torch.arange(22050) / 22050
    sound = sum(torch.sin(2 * torch.pi * 150 * k * t) / k for k in range(1, 20)) * 0.1
    model = SpectralVocoder(mels.to_dict(), **TINY, refinements=2)
    torch.nn.init.zeros_(model.head[1].weight), torch.nn.init.zeros_(model.head[1].bias)
    spec = mels.encode(sound)
    made = model.to_audio(spec)
    assert made.shape == (86 * 256,) and (mels.encode(made) - spec).abs()[:, 4:-4].mean() < 0.4
    click = torch.zeros(22050)
    click[9000] = 1.0
    assert abs(int(model.to_audio(mels.encode(click), length=22050).abs().argmax()) - 9000) < 200


def test_every_refinement_brings_the_mels_nearer():
    wave = noise(3000).cumsum(0) / 60
    mels, errors = MELS.encode(wave)[None], []
    for n in range(3):
        torch.manual_seed(0)
        model = SpectralVocoder(MELS.to_dict(), channels=16, hidden=16, blocks=1, refinements=n)
        errors.append((MELS.encode(model(mels, 3000)) - mels).abs().mean().item())
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("length", [1, 20, 159, 160, 500])
def test_a_sound_has_the_length_asked_for(length):
    sound = SpectralVocoder(MELS.to_dict(), **TINY)(noise(2, 16, 9), length)
    assert sound.shape == (2, length) and sound.isfinite().all()


def test_the_last_samples_are_silent_where_no_frame_lies():
    sound = SpectralVocoder(MELS.to_dict(), **TINY)(noise(1, 16, 9), 500)[0]
    assert sound[8 * 20 + 64 :].abs().max() == 0 < sound[: 8 * 20].abs().max()


def test_magnitudes_of_an_untrained_head_are_what_the_mels_say():
    model = SpectralVocoder(MELS.to_dict(), **TINY)
    torch.nn.init.zeros_(model.head[1].weight), torch.nn.init.zeros_(model.head[1].bias)
    flat = torch.full((1, 65, 5), 0.3)
    log = model.log_magnitudes(MELS.to_log(flat))
    covered = MELS.filters.sum(0) > 0
    assert torch.allclose(log[:, covered], flat.log()[:, covered], atol=1e-4)
    assert torch.allclose(log[:, ~covered], torch.tensor(MELS.floor).log().expand_as(log[:, ~covered]))


def test_the_loss_of_magnitudes_is_known_for_doubled_ones(monkeypatch):
    model, sound = SpectralVocoder(MELS.to_dict(), **TINY), 0.1 * noise(2, 1280)
    doubled = (2 * MELS.magnitude(sound)).log()
    monkeypatch.setattr(model, "log_magnitudes", lambda mels: doubled)
    assert magnitude_loss(model, sound).item() == pytest.approx(torch.tensor(2.0).log().item() + 1, abs=1e-5)


# sounds


def test_the_vocoder_that_ships_gives_what_it_gave_before():
    model = SpectralVocoder.from_pretrained("specgen/vocoder-digits")
    sound = model.to_audio(noise(2, 64, 40))
    assert sound.shape == (2, 39 * 80) and sound.dtype == torch.float32
    before = [[0.0051086, -0.0095179, -0.0420788, -0.0137944], [-0.0150400, 0.0004667, -0.0631872, 0.0130951]]  # before its weights were renamed
    assert torch.allclose(sound[:, [100, 1000, 2000, 3000]], torch.tensor(before), atol=1e-4)
    assert sum(p.stat().st_size for p in shipped_models()["specgen/vocoder-digits"].iterdir()) < 4e6


def test_the_vocoder_that_ships_speaks():
    vocoder = SpectralVocoder.from_pretrained("specgen/vocoder-digits")
    mels = vocoder.representation
    t = torch.arange(mels.sample_rate) / mels.sample_rate
    voiced = sum(torch.sin(2 * torch.pi * 130 * k * t) / k for k in range(1, 20)) * 0.1
    made = vocoder.to_audio(mels.encode(voiced), length=len(t))
    assert made.shape == voiced.shape and mel_loss(voiced, made, mels) < 0.2
    assert abs(torch.fft.rfft(made).abs()[100:160].argmax() + 100 - 130) <= 1  # hertz


@pytest.mark.parametrize("name", ["speech16k", "speech22k"])
def test_the_vocoders_of_speech_are_small_speak_and_name_their_voices(name):
    vocoder = SpectralVocoder.from_pretrained(f"specgen/vocoder-{name}", local_files_only=True)
    check_same_representation(LogMel.from_dict(SpectralVocoder.presets[name].dataset["representation"]), vocoder.representation)
    folder = shipped_models()[f"specgen/vocoder-{name}"]
    trained, validated = vocoder.voices["speakers"], vocoder.voices["validation"]
    assert (folder / "model.safetensors").stat().st_size <= 600_000 and (folder / "README.md").is_file()
    assert vocoder.voices["corpus"].startswith("LibriSpeech") and len(set(trained)) == len(trained) > 200 and not set(trained) & set(validated)
    r, t = vocoder.representation, torch.arange(24000) / vocoder.representation.sample_rate
    voiced = sum(torch.sin(2 * torch.pi * 130 * k * t) / k for k in range(1, 20)) * 0.1
    made = vocoder.to_audio(r.encode(voiced), length=len(t))
    assert made.shape == voiced.shape and (log_mels(made, r) - log_mels(voiced, r)).abs().mean() < 0.3
    near = torch.fft.rfftfreq(24000, 1 / r.sample_rate)
    assert abs(near[torch.fft.rfft(made).abs()[near < 200].argmax()] - 130) <= 1


def test_a_sound_can_be_trained_on_and_the_caller_is_left_alone():
    model = SpectralVocoder(MELS.to_dict(), **TINY).train()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    sound = model.to_audio(noise(2, 3, 16, 9))
    assert sound.shape == (2, 3, 160) and model.training and model.norm.training and torch.equal(before, torch.get_rng_state())
    layer = torch.nn.Linear(160, 1)
    layer(sound).sum().backward()
    assert layer.weight.grad.abs().sum() > 0
    wave = (0.1 * noise(1, 640)).requires_grad_()
    mel_loss(noise(1, 640), wave, MELS).backward()  # filters and windows that `to_audio` used still let gradients through
    assert wave.grad.abs().sum() > 0


def test_other_spectrograms_are_refused_and_odd_ones_taken():
    model = SpectralVocoder(MELS.to_dict(), **TINY)
    with pytest.raises(SpecgenError, match="n_mels 12.*n_mels 16"):
        model.to_audio(noise(12, 9), representation=LogMel(8000, 128, 20, n_mels=12, power=1.0))
    with pytest.raises(SpecgenError, match="16, time"):
        model.to_audio(noise(12, 9))
    with pytest.raises(SpecgenError, match="at least 2 frames"):
        model.to_audio(noise(16, 1))
    with pytest.raises(SpecgenError, match="wants mels; give a LogMel"):
        SpectralVocoder(LogSTFT().to_dict())
    specs = noise(3, 16, 9)
    assert model.to_audio(specs[:0]).shape == (0, 160)
    assert torch.allclose(model.to_audio(specs.half()).float(), model.to_audio(specs.half().float()))
    assert torch.equal(model.to_audio(specs[1]), model.to_audio(specs[1:2])[0])


# training


def test_training_resumes_bit_for_bit_and_the_vocoder_is_saved(tmp_path, monkeypatch):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    whole = SpectralVocoder.fit(dataset(), preset=PRESET, progress=False)
    assert torch.equal(before, torch.get_rng_state())
    monkeypatch.setattr(spectral_vocoder, "train", stop_after(3))
    with pytest.raises(KeyboardInterrupt):
        SpectralVocoder.fit(dataset(), preset=PRESET, out=tmp_path, progress=False)
    monkeypatch.setattr(spectral_vocoder, "train", train)
    continued = SpectralVocoder.fit(dataset(), preset=PRESET, out=tmp_path, progress=False)
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), continued.state_dict().values(), strict=True))
    continued.half().save_pretrained(tmp_path / "saved")
    again, spec = SpectralVocoder.from_pretrained(tmp_path / "saved", device=whole.device), continued.representation.encode(dataset()[0])
    assert again.representation == whole.representation and again.to_audio(spec).dtype == torch.float32
    assert torch.allclose(again.log_magnitudes(MELS.encode(dataset()[0])[None]), whole.log_magnitudes(MELS.encode(dataset()[0])[None]), atol=0.02)


def stop_after(steps):
    "A `train` that is interrupted."
    def stopped(model, data, loss_fn, config, **settings):
        seen = []

        def counted(*args):
            seen.append(1)
            if len(seen) > steps:
                raise KeyboardInterrupt
            return loss_fn(*args)

        return train(model, data, counted, config, **settings)

    return stopped


def test_recordings_become_waveforms_with_the_statistics_of_the_training_ones(sounds):
    recordings = load_recordings(str(sounds))
    data = SpectralVocoder.prepare(recordings, preset=PRESET, by="stratified")
    train_index, test_index = recordings.split("stratified")
    assert len(data) == len(recordings) and len(data.train) == len(train_index) and len(data.test) == len(test_index)
    assert torch.equal(data.test[0], recordings.waveforms(8000)[int(test_index[0])])
    assert data.voices == {"corpus": recordings.name, "speakers": sorted({r.speaker for r in recordings} - {None})}
    logs = torch.cat([MELS.to_log(MELS.magnitude(w)).flatten() for w in data.train.waveforms])
    assert data.representation.mean == pytest.approx(logs.mean().item(), abs=1e-4) and data.representation.std == pytest.approx(logs.std().item(), rel=1e-4)
    model = SpectralVocoder.fit(data, preset=PRESET, progress=False)
    assert model.voices == data.voices == data.train.voices
    assert model.evaluate(data).keys() == {"mel", "stft"} and model.evaluate(data.train) == {}


def test_recordings_in_vocoder_out(sounds, tmp_path, monkeypatch):
    monkeypatch.setitem(SpectralVocoder.presets, "tiny", PRESET)
    trained = fit_recordings(SpectralVocoder, str(sounds), out=tmp_path / "run", preset="tiny", by="stratified", progress=False)
    again = SpectralVocoder.from_pretrained(tmp_path / "run", device=trained.device)
    assert torch.equal(again.to_audio(noise(16, 9)), trained.to_audio(noise(16, 9))) and again.representation.mean != 0


def test_bad_training_input():
    with pytest.raises(SpecgenError, match="huge"):
        SpectralVocoder.fit(dataset(), preset="huge")
    with pytest.raises(SpecgenError, match="no waveforms"):
        SpectralVocoder.fit(WaveformDataset([], MELS), preset=PRESET)
    with pytest.raises(SpecgenError, match="no waveforms"):
        SpectralVocoder.fit(WaveformDataset([noise(900)], MELS, torch.tensor([True])), preset=PRESET)


def test_quick_learns_the_spectra_of_coloured_noises():
    waves = [0.05 * F.conv1d(noise(1, 1, 8000, seed=i), noise(1, 1, 21, seed=10 + i), padding=10)[0, 0] for i in range(6)]
    mels = LogMel.from_dict(SpectralVocoder.preset("quick").dataset["representation"])
    data = WaveformDataset(waves, mels.fit(waves), torch.arange(6) == 3)
    untrained = SpectralVocoder(data.representation.to_dict(), **SpectralVocoder.preset("quick").model)
    trained = SpectralVocoder.fit(data, preset="quick", progress=False)
    assert magnitude_loss(trained.cpu(), waves[3][None]) < 0.75 * magnitude_loss(untrained, waves[3][None])
