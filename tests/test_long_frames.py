"Long frames: the transform, the band of few taps against the full system, the normal equations of the whole signal against one frame's."

import numpy as np
import pytest

from specgen.frame_solver import add_gradient, add_gram, make_equations, residuals, spectra
from specgen.long_frames import add_banded, band_solve, band_system, band_residuals, band_tables, equal_diagonal, fourier, spectra4, to_samples
from specgen.reassignment import Framing, reassigned_spectrogram, synthetic_voice

TRUTH = synthetic_voice(seconds=0.3)


def equations(framing):
    settings = dict(n_fft=framing.n_fft, hop_length=framing.hop_length, win_length=framing.win_length, window=framing.window, center=framing.center)
    features = [v.numpy() for v in reassigned_spectrogram(TRUTH, sr=16000, **settings, fill_nan=True, clip=False)]
    return make_equations(*features, framing, ref_power=1e-6, precision=None)


@pytest.mark.parametrize("n_fft", [80, 81, 83, 512])
def test_fourier_is_numpys(n_fft):
    bands, z = band_tables(equations(Framing(16000, n_fft, n_fft // 4, n_fft, "hann", False)).tables), np.random.default_rng(0).standard_normal(n_fft) + 0j
    np.testing.assert_allclose(fourier(z, bands), np.fft.fft(z), atol=1e-11)


def test_taps_give_the_derivatives_of_the_residuals():
    eqs = equations(Framing(16000, 64, 16, 64, "hann", False))
    bands, rng = band_tables(eqs.tables, tail=0.0), np.random.default_rng(0)
    x, known, target, weight = 0.1 * rng.standard_normal(64), np.zeros(64), eqs.target[20], eqs.weight[20]
    width, residual = 2 * bands.taps.shape[1], np.empty((5, 33))

    def errors(unknowns):
        band_residuals(spectra4(x + to_samples(unknowns, bands), known, 0, bands), target, weight, 0.7, residual)
        return residual.ravel().copy()

    r, J = errors(np.zeros(66)), np.stack([(errors(e) - errors(-e)) / 2 for e in np.eye(66)], 1)
    band, gradient = np.empty((66, width)), np.empty(66)
    band_system(spectra4(x, known, 0, bands), r.reshape(5, -1), weight, bands, 0, 0.7, np.zeros((3, width)), band, gradient)
    gram = np.zeros((66, 66))
    for j in range(66):
        for p in range(min(width, 66 - j)):
            gram[j + p, j] = band[j, p]
    free = [i for i in range(66) if i not in (1, 65)]  # the imaginary parts at both ends move no sample
    np.testing.assert_allclose(gradient[free], (J.T @ r)[free], rtol=0, atol=1e-3 * np.abs(J.T @ r).max())
    np.testing.assert_allclose(gram[np.ix_(free, free)], np.tril(J.T @ J)[np.ix_(free, free)], rtol=0, atol=1e-3 * gram.max())


def test_band_solve_against_numpy():
    rng, n, width = np.random.default_rng(0), 20, 5
    band, full, y, out = np.zeros((n, width)), np.zeros((n, n)), rng.standard_normal(n), np.empty(n)
    for j in range(n):
        for p in range(min(width, n - j)):
            band[j, p] = full[j + p, j] = full[j, j + p] = 6.0 if p == 0 else rng.uniform(-1, 1)
    assert band_solve(band, np.full(n, 0.5), y, np.empty((n, width)), out)
    np.testing.assert_allclose(out, np.linalg.solve(full + 0.5 * np.eye(n), y), rtol=1e-10)
    assert not band_solve(-band, np.zeros(n), y, np.empty((n, width)), out)


@pytest.mark.parametrize("framing", [Framing(16000, 80, 20, 80, "hamming", False), Framing(16000, 96, 16, 81, "hann", False)], ids=["full", "padded"])
def test_normal_equations_of_the_signal_are_those_of_its_frames(framing):
    eqs, f = equations(framing), 30
    n, weight, x = eqs.tables.windows.shape[1], eqs.weight[f], 1e-3 * np.random.default_rng(0).standard_normal(eqs.tables.windows.shape[1])
    x *= eqs.scale[f]  # weaker than the frame: no bin is too strong
    spec, residual, gram, gradient = spectra(x / eqs.scale[f], eqs.tables), np.empty((3, len(weight[0]))), np.zeros((n, n)), np.zeros(n)
    residuals(spec, eqs.target[f], weight, residual)
    residual *= np.where(spec[0] ** 2 + spec[1] ** 2 > eqs.target[f, 0], 0, 1)
    add_gram(spec, weight, eqs.tables, 0, n, 0, gram)
    band, got = np.zeros((n, n)), np.zeros(n)
    add_banded(x, eqs, weight[None], f, band_tables(eqs.tables), band, got)
    for j in range(0, n, 7):
        np.testing.assert_allclose(band[j, : n - j] * eqs.scale[f] ** 2, gram[j:, j], atol=1e-12 * np.abs(gram).max())
    if not (residual == 0).any():
        add_gradient(spec, residual, weight, eqs.tables, 0, n, 0, gradient)
        np.testing.assert_allclose(got * eqs.scale[f], gradient, atol=1e-10 * np.abs(gradient).max())


def test_equal_diagonal_leaves_unseen_samples_alone():
    band = np.array([[4.0, 2.0], [9.0, 0.0], [0.0, 0.0]])
    unit = equal_diagonal(band, 0.0)
    np.testing.assert_allclose(unit, [1 / 2, 1 / 3, 0])
    np.testing.assert_allclose(band, [[1, 1 / 3], [1, 0], [1, 0]])
