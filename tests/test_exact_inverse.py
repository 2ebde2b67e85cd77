"The exact inverse: odd sizes, masks, silence, any number of workers, bad features, bad files."

import json
import warnings

import librosa
import numpy as np
import pytest
import torch

from specgen.audio import read_audio, write_audio
from specgen.core import SpecgenError
from specgen.exact_inverse import independent_runs, invert, invert_file, reassign_file
from specgen.frame_solver import mse_up_to_sign
from specgen.reassignment import reassigned_spectrogram, synthetic_voice

SETTINGS = dict(sr=16000, n_fft=80, hop_length=20, window="hamming")


def sound(n=3000, seed=0):
    rng, t = np.random.default_rng(seed), np.arange(n) / 16000
    return 0.2 * np.sin(2 * np.pi * (300 * t + 2000 * t * t)) + 0.05 * rng.standard_normal(n)


@pytest.mark.parametrize("option", [
    {}, dict(clip=False), dict(center=False, fill_nan=True), dict(ref_power=0.0), dict(win_length=64), dict(window="hann"),
    dict(n_fft=81),
])
def test_comes_back(option):
    y, settings = sound(), {**SETTINGS, **option}
    features = librosa.reassigned_spectrogram(y, **settings)
    kept = {k: v for k, v in settings.items() if k not in ("clip", "fill_nan")}
    x, result = invert(*features, **kept, length=len(y) if settings.get("center", True) else None)
    assert result.trusted and result.solved == 1 and mse_up_to_sign(x, y) < 1e-28


def test_long_frames_come_back():
    y, settings = sound(2000), {**SETTINGS, "n_fft": 256, "hop_length": 64}
    x, result = invert(*librosa.reassigned_spectrogram(y, **settings), **settings)
    assert result.trusted and mse_up_to_sign(x, y) < 1e-26


def test_the_band_of_few_taps_is_the_same_for_any_number_of_workers():
    settings = dict(sr=16000, n_fft=320, hop_length=80, window="hann")
    y = synthetic_voice(seconds=0.3)
    features = [v.numpy() for v in reassigned_spectrogram(y, **settings)]
    answers = [invert(*features, **settings, workers=workers, length=len(y)) for workers in (1, 2, 4)]
    assert all(np.array_equal(answers[0][0], x) and result == answers[0][1] for x, result in answers)
    assert answers[0][1].trusted and mse_up_to_sign(answers[0][0], y) < 1e-22


@pytest.mark.parametrize("share", [1e-4, 1e-2])
def test_noisy_features_give_the_closest_sound(share):
    y, rng = synthetic_voice(seconds=0.25), np.random.default_rng(0)
    f, t, m = (v.numpy() for v in reassigned_spectrogram(y, **SETTINGS, fill_nan=True, clip=False))
    hertz, late = 100 * share, 4e-4 * share
    noisy = f + hertz * rng.standard_normal(f.shape), t + late * rng.standard_normal(f.shape), np.abs(m * (1 + share * rng.standard_normal(m.shape)))
    with pytest.warns(UserWarning, match="closest sound"):
        answers = [invert(*noisy, **SETTINGS, precision=(hertz, late, share), length=len(y), workers=workers) for workers in (1, 4)]
    (x, result), n = answers[0], len(m[0])
    assert np.array_equal(x, answers[1][0]) and not result.trusted and result.confidence.shape == (n,)
    assert -20 * np.log10(share) - 15 < np.median(result.confidence) < -20 * np.log10(share) + 15
    wrong = [mse_up_to_sign(x[i : i + 80], y[i : i + 80]) / np.mean(y[i : i + 80] ** 2) for i in range(0, len(y) - 80, 80)]
    assert np.median(wrong) < 30 * share**2


def test_noise_needs_an_even_frame():
    settings = {**SETTINGS, "n_fft": 81}
    with pytest.raises(SpecgenError, match="even"):
        invert(*reassigned_spectrogram(sound(), **settings), **settings, precision=(1.0, 1e-6, 1e-2))


def test_sign_and_length():
    y = sound()
    features = reassigned_spectrogram(y, **SETTINGS)
    x, _ = invert(*features, **SETTINGS, length=3100)
    assert x.shape == (3100,) and not x[3040:].any() and x[x.abs().argmax()] > 0
    assert invert(*features, **SETTINGS, length=100)[0].shape == (100,)


def test_torch_and_the_same_seed():
    features = reassigned_spectrogram(torch.from_numpy(sound()), **SETTINGS)
    a, b = (invert(*features, **SETTINGS, seed=3)[0] for _ in range(2))
    assert isinstance(a, torch.Tensor) and torch.equal(a, b)


@pytest.mark.parametrize("case", ["masked", "sparse"])
def test_the_same_answer_for_any_number_of_workers(case):
    "Most weak bins masked, or a hop of 50 under a frame of 80: many gaps, and solved stretches between them that two gaps share."
    option, seconds, seed = {"masked": (dict(ref_power=3e-3), 1.0, 2), "sparse": (dict(hop_length=50), 0.3, 4)}[case]
    settings = {**SETTINGS, **option}
    features = [v.numpy() for v in reassigned_spectrogram(synthetic_voice(seconds=seconds, seed=seed), **settings)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        answers = [invert(*features, **settings, seed=1, workers=workers) for workers in (1, 2, 4, 4)]
    assert all(np.array_equal(answers[0][0], x) and result == answers[0][1] for x, result in answers[1:])


def test_gaps_that_share_frames_are_one_run():
    chain = np.array([-1, -1, 1, 1, 1, -1, 2, 2, 2, 2, 2, 2, -1, -1])
    gaps = [(-1, 2), (4, 6), (11, 14)]
    assert independent_runs(chain, 0) == independent_runs(chain, 1) == [[gap] for gap in gaps]
    assert independent_runs(chain, 2) == independent_runs(chain, 3) == [gaps[:2], gaps[2:]]
    assert independent_runs(chain, 4) == [gaps]
    assert independent_runs(np.full(5, -1), 6) == [] and independent_runs(np.zeros(5, int), 6) == []


def test_silence_is_silence():
    features = reassigned_spectrogram(np.zeros(1000), **SETTINGS, fill_nan=True)
    assert not np.asarray(invert(*features, **SETTINGS)[0]).any()


def test_silence_leaves_two_signs():
    y = np.concatenate([sound(1500), np.zeros(400), sound(1500, seed=1)])
    with pytest.warns(UserWarning, match="2 stretches"):
        x, result = invert(*reassigned_spectrogram(y, **SETTINGS), **SETTINGS)
    assert result.segments == 2 and result.solved == 1 and not result.trusted
    assert mse_up_to_sign(x[:1500], y[:1500]) < 1e-28 and mse_up_to_sign(x[1900:], y[1900:]) < 1e-28


def test_wrong_window_is_never_silent():
    features = reassigned_spectrogram(sound(), **SETTINGS)
    with pytest.warns(UserWarning, match="not solved"):
        assert not invert(*features, **{**SETTINGS, "window": "hann"})[1].trusted


@pytest.mark.parametrize("change", [
    dict(n_fft=128), dict(hop_length=10), dict(sr=8000), dict(center=False), dict(hop_length=0), dict(window="nonsense"), dict(window=np.zeros(80)),
])
def test_settings_that_do_not_fit(change):
    features = reassigned_spectrogram(sound(), **SETTINGS, fill_nan=True)
    with warnings.catch_warnings(), pytest.raises(SpecgenError):
        invert(*features, **{**SETTINGS, **change})


@pytest.mark.parametrize("spoil", [
    lambda f, t, m: (f, t, -m), lambda f, t, m: (f * np.nan, t, m), lambda f, t, m: (f[1:], t, m), lambda f, t, m: (f, t, m + np.nan),
])
def test_features_that_cannot_be(spoil):
    features = [v.numpy() for v in reassigned_spectrogram(sound(), **SETTINGS)]
    with pytest.raises(SpecgenError):
        invert(*spoil(*features), **SETTINGS)


def test_files(tmp_path):
    write_audio(tmp_path / "a.wav", torch.from_numpy(sound()).float(), 16000)
    assert reassign_file(tmp_path / "a.wav", tmp_path / "a", sample_rate=16000) == tmp_path / "a.npz"
    assert invert_file(tmp_path / "a.npz", tmp_path / "b.wav").trusted
    a, b = (read_audio(tmp_path / name)[0] for name in ("a.wav", "b.wav"))
    assert min((a - b).abs().max(), (a + b).abs().max()) == 0


def _npz(path, **changes):
    arrays = {name: np.zeros((41, 5)) for name in ("freqs", "times", "mags")}
    settings = dict(sr=16000, n_fft=80, hop_length=20, win_length=80, window="hamming", center=True, ref_power=1e-6, length=80) | changes
    np.savez(path, **arrays, settings=json.dumps(settings))


@pytest.mark.parametrize("make", [
    lambda path: path.write_text("not features"), lambda path: path.write_bytes(b""), lambda path: np.savez(path, freqs=np.zeros(3)),
    lambda path: _npz(path, more=1), lambda path: _npz(path, n_fft="eighty"), lambda path: _npz(path, length=None), lambda path: None,
], ids=["text", "empty", "no settings", "unknown setting", "a word for a number", "no length", "missing"])
def test_files_that_are_no_features(tmp_path, make):
    make(tmp_path / "bad.npz")
    with pytest.raises(SpecgenError, match="bad.npz: (holds no reassigned spectrogram|cannot be read|settings: )"):
        invert_file(tmp_path / "bad.npz", tmp_path / "c.wav")
    assert not (tmp_path / "c.wav").exists()


@pytest.mark.parametrize("precision", [
    (1, 2), (1.0, 1e-5, 1e-3, 0.1), ("a", 1, 2), (-1.0, 1e-5, 1e-3), (float("nan"), 1e-5, 1e-3), [16.0, 1e-5, 1e-3], "x", -1.0, 0.0,
])
def test_a_precision_that_is_none_says_what_to_give(precision):
    features = reassigned_spectrogram(torch.from_numpy(sound(800)), **SETTINGS, fill_nan=True)
    with pytest.raises(SpecgenError, match="give a relative error above 0, or a tuple of three"):
        invert(*features, **SETTINGS, precision=precision)


def test_silence_with_noise_given_is_silent():
    freqs, times, mags = reassigned_spectrogram(torch.from_numpy(sound(800)), **SETTINGS, fill_nan=True)
    x, result = invert(freqs, times, torch.zeros_like(mags), **SETTINGS, precision=(16.0, 1e-5, 1e-3))
    assert not x.any() and "nan" not in result.warning
