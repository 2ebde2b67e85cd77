"One frame's equations: true samples fulfil them, derivatives are those of the residuals, groups come back from the features alone."
import warnings

import numpy as np
import pytest
import torch

from specgen.core import SpecgenError
from specgen.frame_solver import (
    add_gradient, add_gram, check_shapes, factorize, frame_tables, levenberg_marquardt, make_equations,
    mse_up_to_sign, pghi_init, residuals, solve_group, spectra, substitute,
)
from specgen.reassignment import Framing, reassigned_spectrogram, synthetic_voice

FRAMING = Framing(16000, 80, 20, 80, "hamming", False)
TRUTH = synthetic_voice(seconds=0.2)


def features(framing=FRAMING, y=TRUTH):
    settings = dict(n_fft=framing.n_fft, hop_length=framing.hop_length, win_length=framing.win_length, window=framing.window, center=framing.center)
    return [v.numpy() for v in reassigned_spectrogram(y, sr=16000, **settings, fill_nan=True, clip=False)]


def equations(framing=FRAMING, y=TRUTH):
    return make_equations(*features(framing, y), framing, ref_power=1e-6, precision=None)


def residual_vector(eqs, x, f):
    out = np.empty((3, eqs.tables.cos.shape[1]))
    residuals(spectra(x, eqs.tables), eqs.target[f], eqs.weight[f], out)
    return out.ravel()


@pytest.mark.parametrize("framing", [
    FRAMING, Framing(16000, 81, 20, 81, "hann", False), Framing(16000, 96, 16, 80, "hamming", False), Framing(16000, 64, 16, 64, ("gaussian", 10.0), False),
], ids=["even", "odd", "padded", "gaussian"])
def test_true_samples_fulfil_the_equations(framing):
    eqs = equations(framing)
    for f in range(10, 100, 15):
        at = f * framing.hop_length + eqs.tables.start
        x = TRUTH[at : at + eqs.tables.windows.shape[1]] / eqs.scale[f]
        assert (residual_vector(eqs, x, f) ** 2).sum() < 1e-22
        assert (residual_vector(eqs, -x, f) == residual_vector(eqs, x, f)).all()


@pytest.mark.parametrize("framing", [FRAMING, Framing(16000, 96, 16, 80, "hamming", False)], ids=["full", "padded"])
def test_gradient_and_gram_are_those_of_the_residuals(framing):
    eqs, f, lo, hi = equations(framing), 50, 20, 70
    x = np.random.default_rng(0).standard_normal(eqs.tables.windows.shape[1]) * 0.1
    J = np.stack([(residual_vector(eqs, x + e, f) - residual_vector(eqs, x - e, f)) / 2 for e in np.eye(len(x))], 1)[:, lo:hi]
    spec, r = spectra(x, eqs.tables), residual_vector(eqs, x, f)
    gradient, gram = np.ones(hi - lo), np.ones((hi - lo, hi - lo))
    add_gradient(spec, r.reshape(3, -1), eqs.weight[f], eqs.tables, lo, hi, 0, gradient)
    add_gram(spec, eqs.weight[f], eqs.tables, lo, hi, 0, gram)
    np.testing.assert_allclose(gradient - 1, J.T @ r, rtol=0, atol=1e-11 * np.abs(J.T @ r).max())
    np.testing.assert_allclose(np.tril(gram - 1), np.tril(J.T @ J), rtol=0, atol=1e-11 * np.abs(J.T @ J).max())


@pytest.mark.parametrize("n", [5, 201])
def test_cholesky_against_numpy(n):
    rng = np.random.default_rng(0)
    A, y, factor = rng.standard_normal((n, n)), rng.standard_normal(n), np.zeros((n, n))
    A = A @ A.T + np.eye(n)
    assert factorize(A, 0.5, factor)
    solution = y.copy()
    substitute(factor, solution)
    np.testing.assert_allclose(solution, np.linalg.solve(A + 0.5 * np.eye(n), y), rtol=1e-9)
    assert not factorize(-A, 0.0, np.zeros((n, n)))


def test_search_moves_only_its_samples_and_never_uphill():
    eqs, rows = equations(), slice(50, 53)
    x = TRUTH[1000:1120] / eqs.scale[rows].max()
    start = x + 0.01 * np.random.default_rng(0).standard_normal(120)
    start[:40], start[100:] = x[:40], x[100:]
    ratio = ((eqs.scale[rows] / eqs.scale[rows].max()) ** 2)[:, None, None]
    moved = start.copy()
    before, _ = levenberg_marquardt(start.copy(), eqs.target[rows] * ratio, eqs.weight[rows] / ratio, eqs.tables, 40, 100, 0, 1e-3, 0.0)
    cost, iters = levenberg_marquardt(moved, eqs.target[rows] * ratio, eqs.weight[rows] / ratio, eqs.tables, 40, 100, 50, 1e-3, 1e-24)
    assert (moved[:40] == start[:40]).all() and (moved[100:] == start[100:]).all()
    assert cost < 1e-20 < before and iters < 50 and np.abs(moved - x).max() < 1e-9


def test_groups_come_back():
    eqs = equations()
    for f in (40, 60, 100):
        assert mse_up_to_sign(solve_group(eqs, f, 3, np.random.default_rng(0)), TRUTH[20 * f : 20 * f + 120]) < 1e-20


def test_integrated_phase_has_nearly_the_magnitudes():
    freqs, times, mags = features()
    again = features(y=pghi_init(freqs, times, mags, FRAMING))[2]
    assert np.linalg.norm(again - mags) < 0.25 * np.linalg.norm(mags)


def test_masks_precision_and_silence():
    y = np.concatenate([TRUTH[:1000], np.zeros(200), TRUTH[:1000]])
    freqs, times, mags = features(y=y)
    freqs[7, 5] = np.nan
    eqs = make_equations(freqs, times, mags, FRAMING, ref_power=1e-6, precision=None)
    assert eqs.silent.sum() == np.sum(mags.max(0) == 0) > 0
    assert (eqs.weight[5, :, 7] > 0).tolist() == [True, False, False] and (eqs.weight[20, 1, [0, -1]] == 0).all()
    coarse = make_equations(freqs, times, mags.astype(np.float32), FRAMING, ref_power=1e-6, precision=None)
    assert (coarse.accept > 100 * eqs.accept)[~eqs.silent].all()


def test_window_of_zeros():
    with pytest.raises(SpecgenError, match="zeros"):
        frame_tables(Framing(16000, 80, 20, 80, np.zeros(80), False))


def test_better_sign():
    x = np.array([1.0, -2.0, 3.0])
    assert mse_up_to_sign(-x, x) == mse_up_to_sign(torch.tensor(x), x) == 0 and mse_up_to_sign(x[:2], x + 1) == 1


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_features_of_any_precision_are_checked_without_a_warning(kind):
    features = np.ones((41, 3), kind)
    with warnings.catch_warnings(action="error"):
        check_shapes(features, features, features, Framing(16000, 80, 20, 80, "hamming", False))
        with pytest.raises(SpecgenError, match="beyond 1e100"):
            check_shapes(features, features, -features, Framing(16000, 80, 20, 80, "hamming", False))
