"Edge cases of the exact inverse: odd sizes, masks, silence, bad features, bad files."

import warnings

import librosa
import numpy as np
import pytest
import torch

from specgen.audio import SpecgenError, write
from specgen.reassignment import invert, invert_file, reassign_file, reassigned_spectrogram

SETTINGS = dict(sr=16000, n_fft=80, hop_length=20, window="hamming")


def sound(n=3000, seed=0):
    rng, t = np.random.default_rng(seed), np.arange(n) / 16000
    return 0.2 * np.sin(2 * np.pi * (300 * t + 2000 * t * t)) + 0.05 * rng.standard_normal(n)


def error(x, y):
    x, y = np.asarray(x), y[: len(x)]
    return min(np.mean((x - y) ** 2), np.mean((x + y) ** 2))


@pytest.mark.parametrize("option", [
    {}, dict(clip=False), dict(center=False, fill_nan=True), dict(ref_power=0.0), dict(win_length=64), dict(window="hann"),
    dict(n_fft=81),
])
def test_comes_back(option):
    y, settings = sound(), {**SETTINGS, **option}
    features = librosa.reassigned_spectrogram(y, **settings)
    kept = {k: v for k, v in settings.items() if k not in ("clip", "fill_nan")}
    x, result = invert(*features, **kept, length=len(y) if settings.get("center", True) else None)
    assert result.trusted and result.solved == 1 and error(x, y) < 1e-18


def test_torch_and_the_same_seed():
    features = reassigned_spectrogram(torch.from_numpy(sound()), **SETTINGS)
    a, b = (invert(*features, **SETTINGS, seed=3)[0] for _ in range(2))
    assert isinstance(a, torch.Tensor) and torch.equal(a, b)


def test_matches_librosa_batch():
    y = np.stack([sound(seed=s) for s in range(3)])
    for ours, theirs in zip(reassigned_spectrogram(y, **SETTINGS, fill_nan=True), librosa.reassigned_spectrogram(y, **SETTINGS, fill_nan=True), strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-8, atol=1e-8 * np.abs(theirs).max())


def test_silence_is_silence():
    features = reassigned_spectrogram(np.zeros(1000), **SETTINGS, fill_nan=True)
    assert not np.asarray(invert(*features, **SETTINGS)[0]).any()


def test_wrong_window_is_never_silent():
    features = reassigned_spectrogram(sound(), **SETTINGS)
    with pytest.warns(UserWarning, match="not solved"):
        assert not invert(*features, **{**SETTINGS, "window": "hann"})[1].trusted


@pytest.mark.parametrize("change", [dict(n_fft=128), dict(hop_length=10), dict(sr=8000), dict(center=False), dict(hop_length=0), dict(window="nonsense")])
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
    write(tmp_path / "a.wav", torch.from_numpy(sound()).float(), 16000)
    reassign_file(tmp_path / "a.wav", tmp_path / "a.npz")
    assert invert_file(tmp_path / "a.npz", tmp_path / "b.wav").trusted
    (tmp_path / "bad.npz").write_text("not features")
    for name in ("bad.npz", "none.npz"):
        with pytest.raises(SpecgenError):
            invert_file(tmp_path / name, tmp_path / "c.wav")
    assert not (tmp_path / "c.wav").exists()
