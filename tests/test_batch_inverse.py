"Many sounds at once: the answers of `invert`, each as if alone, on a second device; block systems; input that cannot be."

import warnings

import numpy as np
import pytest
import torch

from specgen.batch_inverse import invert_batch
from specgen.batch_solver import solve_blocks
from specgen.core import SpecgenError
from specgen.exact_inverse import invert
from specgen.frame_solver import mse_up_to_sign
from specgen.reassignment import reassigned_spectrogram, synthetic_voice
from pretend import DEVICE, NAME, pretend_device

SETTINGS = dict(sr=16000, n_fft=80, hop_length=20, window="hamming")


def features(y, **settings):
    return reassigned_spectrogram(torch.as_tensor(y), **{**SETTINGS, **settings}, fill_nan=True, clip=False)


def voice(seconds=0.2, seed=0):
    return synthetic_voice(seconds=seconds, seed=seed)


@pytest.mark.parametrize("option", [
    {}, dict(window="hann"), dict(window=("gaussian", 10.0)), dict(center=False), dict(ref_power=0.0), dict(n_fft=81), dict(win_length=64, hop_length=16),
    dict(n_fft=64, hop_length=16), dict(n_fft=128, hop_length=32),
], ids=str)
def test_the_same_answer_as_invert(option):
    y, settings = voice(), {**SETTINGS, **option}
    parts, length = features(y, **option), len(y) if settings.get("center", True) else None
    (x,), (result,) = invert_batch(*([v] for v in parts), **settings, lengths=length and [length])
    other, _ = invert(*parts, **settings, length=length)
    assert result.trusted and result.solved == 1 and x.dtype == torch.float64 and x.shape == other.shape
    assert mse_up_to_sign(x, y) < 1e-24 and (x - other).abs().max() < 1e-10


def test_a_batch_is_each_sound_alone():
    sounds = [voice(0.15, 1), voice(0.1, 2), np.zeros(400)]
    parts = [features(y) for y in sounds]
    together, results = invert_batch(*zip(*parts, strict=True), **SETTINGS, lengths=[len(y) for y in sounds])
    for y, part, x, result in zip(sounds, parts, together, results, strict=True):
        (alone,), (one,) = invert_batch(*([v] for v in part), **SETTINGS, lengths=[len(y)])
        assert (x - alone).abs().max() < 1e-12 and mse_up_to_sign(x, y) < 1e-24 and result.trusted and one.trusted


def test_tensors_of_one_length_and_the_same_seed():
    y = np.stack([voice(0.1, 3), voice(0.1, 4)])
    parts = features(y)
    (a, _), (b, _) = (invert_batch(*parts, **SETTINGS, seed=2)[0] for _ in range(2))
    assert torch.equal(a, b) and mse_up_to_sign(a, y[0]) < 1e-24


def test_float32_features():
    y = voice()
    (x,), (result,) = invert_batch(*([v.float()] for v in features(y)), **SETTINGS, lengths=[len(y)])
    assert result.solved == 1 and mse_up_to_sign(x, y) < 1e-9 * np.mean(y**2)


def test_a_second_device_and_no_mixing():
    y = voice(0.1)
    parts = features(y)
    (here,), _ = invert_batch(*([v] for v in parts), **SETTINGS)
    with pretend_device():
        (there,), (result,) = invert_batch(*([v] for v in parts), **SETTINGS, device=NAME)
        assert there.device == DEVICE and result.trusted
        (own,), _ = invert_batch(*([v.to(NAME)] for v in parts), **SETTINGS)
        assert own.device == DEVICE
        (back,), _ = invert_batch(*([v.to(NAME)] for v in parts), **SETTINGS, device="cpu")
        assert back.device.type == "cpu"
        assert all((v.cpu() - here).abs().max() < 1e-12 for v in (there, own, back))


def test_silence_leaves_two_signs():
    y = np.concatenate([voice(0.1), np.zeros(400), voice(0.1, 1)])
    with pytest.warns(UserWarning, match="clip 0: 2 stretches"):
        (x,), (result,) = invert_batch(*([v] for v in features(y)), **SETTINGS, lengths=[len(y)])
    assert result.segments == 2 and result.solved == 1 and mse_up_to_sign(x[:1600], y[:1600]) < 1e-24


def test_wrong_window_is_never_silent():
    with pytest.warns(UserWarning, match="clip 0: .*not solved"):
        assert not invert_batch(*([v] for v in features(voice(0.05))), **{**SETTINGS, "window": "hann"})[1][0].trusted


def test_nothing_and_one_frame():
    assert invert_batch([], [], [], **SETTINGS) == ([], [])
    y = voice(0.1)[800:880]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (x,), _ = invert_batch(*([v] for v in features(y, center=False)), **SETTINGS, center=False)
    assert x.shape == (80,)


@pytest.mark.parametrize(("change", "words"), [
    (dict(n_fft=512), "n_fft 512: .*use invert"), (dict(precision=(1.0, 1e-5, 1e-3)), "noisy features: .*use invert"), (dict(precision=-1.0), "precision"),
    (dict(lengths=[1, 2]), "clips: 1, 1, 1 and 2"), (dict(hop_length=10), "clip 0: times"), (dict(device="nonsense"), "device 'nonsense'"),
    (dict(hop_length=0), "clip 0"),
])
def test_one_line_says_what_to_give(change, words):
    with pytest.raises(SpecgenError, match=words) as caught:
        invert_batch(*([v] for v in features(voice(0.05))), **{**SETTINGS, **change})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8])
def test_block_systems(count):
    m, rng = 4, torch.Generator().manual_seed(count)
    diagonal, upper = torch.randn(count, m, m, dtype=torch.float64, generator=rng), torch.randn(count, m, m, dtype=torch.float64, generator=rng)
    diagonal, upper[-1] = diagonal + diagonal.mT + 20 * torch.eye(m, dtype=torch.float64), 0
    y, whole = torch.randn(count, m, dtype=torch.float64, generator=rng), torch.block_diag(*diagonal)
    for i in range(count - 1):
        whole[i * m : i * m + m, i * m + m : i * m + 2 * m] = upper[i]
        whole[i * m + m : i * m + 2 * m, i * m : i * m + m] = upper[i].T
    torch.testing.assert_close(solve_blocks(diagonal, upper, y).flatten(), torch.linalg.solve(whole, y.flatten()))
