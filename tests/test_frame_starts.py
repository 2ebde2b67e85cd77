"Frames from nothing: the derivatives against differences, a few bins found, any spectrum the same for the same seed."

import numpy as np
import pytest

from specgen.frame_solver import make_equations, residuals
from specgen.frame_starts import derivatives, frame_taps, grow_spectrum, linear_map, search_window
from specgen.reassignment import Framing, reassigned_spectrogram

FRAMING = Framing(16000, 256, 64, 256, "hann", False)
TRUTH = np.random.default_rng(0).standard_normal(256)


@pytest.fixture(scope="module")
def eqs():
    settings = dict(sr=16000, n_fft=256, hop_length=64, window="hann", center=False, fill_nan=True, clip=False)
    return make_equations(*(v.numpy() for v in reassigned_spectrogram(TRUTH, **settings)), FRAMING, ref_power=1e-6, precision=None)


def true_spectrum(eqs):
    return np.fft.rfft(TRUTH) / eqs.scale[0]


@pytest.mark.parametrize("a", [0, 40, 119])
def test_derivatives_are_differences(eqs, a):
    rng, taps, x = np.random.default_rng(1), frame_taps(eqs.tables).taps, true_spectrum(eqs)
    linear, fixed, out, weight, residual = np.empty((6, 10, 20)), np.empty((6, 10)), np.empty((3, 10, 20)), np.ones((3, 10)), np.empty((3, 10))
    linear_map(x, taps, a, a + 9, a, linear, fixed)
    target, u = eqs.target[0, :, a : a + 10].copy(), rng.standard_normal(20)

    def errors(v):
        residuals(linear @ v + fixed, target, weight, residual)
        return residual.copy()

    derivatives(linear @ u + fixed, weight, linear, out)
    steps = np.stack([(errors(u + e) - errors(u - e)) / 2 for e in np.eye(20)], -1)
    np.testing.assert_allclose(out, steps, atol=1e-9 * np.abs(steps).max())


def test_the_true_bins_fit_and_missing_ones_are_found(eqs):
    x, taps, rng = true_spectrum(eqs), frame_taps(eqs.tables), np.array([1], np.int64)
    spectrum = x.copy()
    spectrum[69:71] = 0
    assert search_window(spectrum, eqs.target[0], eqs.weight[0], taps, (60, 70), (0, 128), 2, True, 50, rng) < 1e-4
    assert np.abs(spectrum - x).max() < 1e-2 * np.abs(x).max()


def test_the_same_seed_is_the_same_spectrum_and_some_are_the_frame(eqs):
    taps, w, right = frame_taps(eqs.tables), np.pad(eqs.tables.windows[0], (eqs.tables.start, 0)), 0
    true = np.fft.rfft(TRUTH * w)
    for seed in range(1, 41):
        spectrum, worst = grow_spectrum(3 * seed, eqs.target[0], eqs.weight[0], taps, seed)
        phase = np.angle(np.fft.rfft(np.fft.irfft(spectrum) * w) * true.conj())
        right += worst < 1e-2 and bool((np.abs(np.sin(phase)) < 0.3).all())
    again, _ = grow_spectrum(120, eqs.target[0], eqs.weight[0], taps, 40)
    assert right > 0 and np.array_equal(again, spectrum)
