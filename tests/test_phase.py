"Phase retrieval: the fast loop is the plain one, known phases come back, and edges have answers or errors."
import subprocess
import sys

import numpy as np
import pytest
import torch
from pretend import DEVICE, pretend_device
from test_stft import SETTINGS, ids

from specgen import phase
from specgen.core import SpecgenError
from specgen.phase import (
    compiled,
    griffin_lim,
    loudness_levels,
    pghi,
    pghi_integrate,
    phase_gradient,
    phase_retrieval,
    spectral_convergence,
    stream_pghi,
)
from specgen.stft import istft, stft

SMALL = dict(n_fft=64, hop_length=16)


def sound(*shape, dtype=torch.float32):
    "Three gliding harmonics, another glide for every clip"
    t = torch.arange(shape[-1], dtype=torch.float64) / 8000
    glides = 1 + torch.rand(*shape[:-1], 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    phase = 2 * torch.pi * glides * (200 * t + 300 * t**2)
    return sum(torch.sin(k * phase) / k for k in (1, 2, 3)).to(dtype)


def score(mag, settings, **how):
    return spectral_convergence(mag, phase_retrieval(mag, **how, **settings), **settings)


def test_spectral_convergence_is_its_formula():
    x = sound(2, 3000, dtype=torch.float64)
    mag = stft(x, **SMALL).abs()
    assert torch.allclose(spectral_convergence(mag, 1.1 * x, **SMALL), torch.tensor(-20.0, dtype=torch.float64))  # a tenth too loud
    assert spectral_convergence(mag, x, **SMALL).max() < -300
    assert spectral_convergence(mag.half(), x.half(), **SMALL).dtype == torch.float32


@pytest.mark.parametrize("settings", SETTINGS, ids=ids)
@pytest.mark.parametrize("extra", [0, 1, 17])
def test_griffin_lim_is_the_plain_loop(settings, extra):
    length = 20 * settings["hop_length"] + extra
    mag = stft(sound(2, length, dtype=torch.float64), **settings).abs()
    phase = torch.rand(mag.shape, generator=torch.Generator().manual_seed(0), dtype=mag.dtype) * 2 * torch.pi
    spectrum, previous = torch.polar(mag, phase), 0
    for _ in range(3):
        rebuilt = stft(istft(spectrum, length=length, **settings), **settings)
        spectrum = mag * torch.sgn(rebuilt + 0.9 * (rebuilt - previous))  # the papers' form of the momentum
        previous = rebuilt
    ours = griffin_lim(mag, n_iter=3, momentum=0.9, phase=phase, length=length, **settings)
    torch.testing.assert_close(ours, istft(spectrum, length=length, **settings), rtol=0, atol=1e-10)


@pytest.mark.parametrize("settings", SETTINGS, ids=ids)
def test_pghi_is_a_far_better_start_than_noise(settings):
    mag = stft(sound(2, 4000), **settings).abs()
    assert (score(mag, settings, length=4000, method="pghi") < score(mag, settings, length=4000, method="gla", n_iter=0) - 8).all()
    assert (score(mag, settings, length=4000, n_iter=16) < score(mag, settings, length=4000, method="gla", n_iter=16) - 1).all()


@pytest.mark.parametrize("n_fft,win_length,hop", [(256, None, 32), (256, 200, 25), (512, 301, 40)])
def test_known_phase_through_a_gaussian_window(n_fft, win_length, hop):
    settings = dict(n_fft=n_fft, hop_length=hop, win_length=win_length, window="gaussian")
    t = torch.arange(8000, dtype=torch.float64) / 8000
    clicks = torch.zeros(8000, dtype=torch.float64)
    clicks[4000] = 1
    chirp = torch.hann_window(8000, dtype=torch.float64) * torch.sin(2 * torch.pi * (500 * t + 1500 * t**2))
    for x, limit in ((clicks, 1e-6), (chirp, 0.05)):
        spectrum = stft(x, **settings)
        difference = torch.exp(1j * (spectrum.angle() - pghi(spectrum.abs(), **settings)))[spectrum.abs() > 0.1 * spectrum.abs().max()]
        assert (difference * difference.mean().conj()).angle().abs().max() < limit


def test_the_gradient_of_a_tone_is_its_frequency():
    t = torch.arange(8000, dtype=torch.float64)
    log = stft(torch.sin(2 * torch.pi * 0.125 * t), n_fft=256, hop_length=32, window="gaussian").abs().log()
    by_frame, by_bin = phase_gradient(log, n_fft=256, hop_length=32, window="gaussian")
    assert (by_frame[30:35, 20:-20] - 2 * torch.pi * 0.125 * 32).abs().max() < 1e-3  # one turn is 8 samples: 8 pi a frame
    assert (by_bin[30:35, 20:-20] + torch.pi).abs().max() < 1e-3  # the energy is in the middle of the frame


@pytest.mark.parametrize("n_known", [0, 1, 5])
def test_compiled_and_plain_visit_the_same_way(n_known):
    noise = torch.rand(1, 33, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64) ** 4
    log, (level,), (loud,) = loudness_levels(noise, 1e-2)
    slopes = [x[0].numpy() for x in phase_gradient(log, **SMALL)]
    results = []
    for function in (pghi_integrate, compiled(pghi_integrate)):
        phase, order = noise[0].clone().numpy(), np.zeros(level.shape, np.int32)
        order[:, :n_known] = level[:, :n_known] < 32767
        known = order > 0
        function(level, *slopes, loud, phase, order)
        assert (phase[known] == noise[0].numpy()[known]).all() and (order[known] == 1).all()
        visits = order[(order > 0) & ~known]
        assert len(visits) + known.sum() == len(loud) and sorted(visits) == list(range(1, len(visits) + 1))
        results.append((phase, order))
    assert (results[0][0] == results[1][0]).all() and (results[0][1] == results[1][1]).all()


# ---- frames that come one by one

@pytest.mark.parametrize("settings", SETTINGS[:3], ids=ids[:3])
def test_a_stream_is_nearly_as_good_as_the_whole_clip(settings):
    mag = stft(sound(2, 4000), **settings).abs()
    rate = lambda phase: spectral_convergence(mag, griffin_lim(mag, n_iter=0, phase=phase, length=4000, **settings), **settings)  # noqa: E731
    whole = rate(pghi(mag, **settings))
    given = []
    for lookahead, margin in ((0, 16), (1, 6), (3, 4)):
        frames = iter(mag.unbind(-1))
        stream = stream_pghi((given.append(frame) or frame for frame in frames), lookahead=lookahead, **settings)
        first = next(stream)
        assert len(given) == lookahead + 1  # no later than promised
        phase = torch.stack([first, *stream], -1)
        assert phase.shape == mag.shape and phase.dtype == mag.dtype and (rate(phase) < whole + margin).all()
        given.clear()


def test_a_stream_that_sees_all_is_the_whole_clip():
    mag = stft(sound(2, 600), **SMALL).abs()
    first = next(stream_pghi(mag.unbind(-1), lookahead=mag.shape[-1], generator=torch.Generator().manual_seed(0), **SMALL))
    assert torch.equal(first, pghi(mag, generator=torch.Generator().manual_seed(0), **SMALL)[..., 0])


def test_short_streams():
    assert list(stream_pghi([], **SMALL)) == []
    for n in (1, 2, 3):
        assert len(list(stream_pghi([torch.ones(33)] * n, lookahead=2, **SMALL))) == n
    assert all(not phase.isnan().any() for phase in stream_pghi([torch.zeros(2, 33)] * 4, **SMALL))
    assert [p.shape for p in stream_pghi([torch.zeros(0, 33)] * 3, **SMALL)] == [(0, 33)] * 3
    assert {p.dtype for p in stream_pghi([torch.ones(33, dtype=torch.bfloat16)] * 3, **SMALL)} == {torch.float32}
    with pytest.raises(SpecgenError, match="33 magnitudes"):
        list(stream_pghi([torch.ones(32)], **SMALL))


# ---- clips, batches, devices

def test_long_clips_keep_their_phase_in_float32():
    settings = dict(n_fft=512, hop_length=128)
    t = torch.arange(60 * 8000, dtype=torch.float64) / 8000
    mag = stft(torch.sin(2 * torch.pi * 3456.7 * t).float(), **settings).abs()
    assert score(mag, settings, method="pghi", length=60 * 8000) < -30


def test_a_batch_is_its_clips_and_seeds_are_kept():
    settings = dict(n_fft=256, hop_length=64)
    mag = stft(sound(2, 3, 2000), **settings).abs()
    whole = phase_retrieval(mag, **settings)
    assert whole.shape == (2, 3, (mag.shape[-1] - 1) * 64) and whole.dtype == torch.float32
    assert torch.equal(whole[0, 0], phase_retrieval(mag[0, 0], generator=torch.Generator().manual_seed(0), **settings))
    assert not torch.equal(whole, phase_retrieval(mag, generator=torch.Generator().manual_seed(1), **settings))
    phases = torch.rand(mag.shape, generator=torch.Generator().manual_seed(0)) * 6
    torch.testing.assert_close(griffin_lim(mag, phase=phases, **settings)[1, 2], griffin_lim(mag[1, 2], phase=phases[1, 2], **settings), rtol=0, atol=1e-3)
    assert (score(mag, settings) < -20).all()
    assert phase_retrieval(mag.double(), **settings).dtype == torch.float64


@pytest.mark.parametrize("method", ["pghi+gla", "pghi", "gla"])
def test_silence_and_lone_bins(method):
    mag = torch.zeros(3, 33, 8)
    mag[1, 5, 3] = 1.0
    mag[2, :, :] = 1e-30
    out = phase_retrieval(mag, method=method, length=100, **SMALL)
    assert out.shape == (3, 100) and out.isfinite().all() and not out[0].any() and out[1].any()
    assert phase_retrieval(mag[..., :2], method=method, length=200, **SMALL).shape == (3, 200)
    mag[0, 3, 3] = torch.nan
    assert phase_retrieval(mag, method=method, **SMALL)[1:].isfinite().all()


@pytest.mark.parametrize("method", ["pghi+gla", "pghi", "gla"])
def test_empty_batches_half_precision_and_gradients(method):
    assert phase_retrieval(torch.zeros(2, 0, 33, 9), method=method, **SMALL).shape == (2, 0, 128)
    mag = stft(sound(2, 800), **SMALL).abs()
    wanted = phase_retrieval(mag.bfloat16().float(), method=method, **SMALL)
    assert torch.equal(phase_retrieval(mag.bfloat16(), method=method, **SMALL), wanted)
    made = phase_retrieval(mag.clone().requires_grad_(), method=method, **SMALL)
    assert not made.requires_grad and torch.equal(made, phase_retrieval(mag, method=method, **SMALL))


def test_any_device():
    mag = stft(sound(2, 800), **SMALL).abs()
    with pretend_device():
        far = mag.to(DEVICE)
        assert torch.equal(pghi(far, **SMALL).cpu(), pghi(mag, **SMALL))
        assert torch.equal(phase_retrieval(far, n_iter=4, **SMALL).cpu(), phase_retrieval(mag, n_iter=4, **SMALL))
        assert griffin_lim(far, phase=pghi(mag, **SMALL), **SMALL).device == DEVICE  # a phase from elsewhere comes along
        assert all(phase.device == DEVICE for phase in stream_pghi(far.unbind(-1), **SMALL))
        assert torch.equal(phase_gradient(far.log(), **SMALL)[0].cpu(), phase_gradient(mag.log(), **SMALL)[0])
        assert spectral_convergence(far, sound(2, 800).to(DEVICE), **SMALL).device == DEVICE


@pytest.mark.parametrize("call,message", [
    (lambda: phase_retrieval(torch.ones(257, 1), n_fft=512, hop_length=128), "at least 2 frames"),
    (lambda: phase_retrieval(torch.ones(256, 9), n_fft=512, hop_length=128), "257 rows"),
    (lambda: pghi(torch.ones(257), n_fft=512, hop_length=128), "257 rows"),
    (lambda: phase_gradient(torch.ones(256, 9), n_fft=512, hop_length=128), "257 rows"),
    (lambda: phase_retrieval(torch.ones(257, 9), n_fft=512, hop_length=512), "shorter hop"),
    (lambda: phase_retrieval(torch.ones(257, 9), n_fft=512, hop_length=0), "hop_length 0"),
    (lambda: phase_retrieval(torch.ones(257, 9), n_fft=512, hop_length=128, win_length=513), "win_length 513"),
    (lambda: pghi(torch.ones(257, 9), tolerance=0, n_fft=512, hop_length=128), "tolerance 0"),
    (lambda: phase_retrieval(torch.ones(257, 9), n_fft=512, hop_length=128, method="magic"), "method 'magic': unknown; choose one of pghi"),
    (lambda: phase_retrieval(torch.ones(257, 9), n_fft=512, hop_length=128, window="magic"), "hann"),
])
def test_errors_are_one_clear_line(call, message):
    with pytest.raises(SpecgenError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def test_numba_waits_until_it_is_needed():
    probe = "import sys, specgen.phase; print([m for m in ('numba', 'librosa') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", probe], check=True, capture_output=True, text=True).stdout.strip() == "[]"


def test_long_clips_are_taken_in_blocks(monkeypatch):
    y = sound(1, 24000)[0]
    mag = stft(y, **SMALL).abs()
    whole = phase_retrieval(mag, length=len(y), **SMALL)
    monkeypatch.setattr(phase, "LONGEST", 512)
    blocks = phase_retrieval(mag, length=len(y), **SMALL)
    assert blocks.shape == whole.shape
    error, other = (spectral_convergence(mag, made, **SMALL).item() for made in (whole, blocks))
    assert other < error + 1
    seams = torch.cat([torch.arange(k, k + 64) for k in range(448, 1400, 448)])
    wrong = (stft(blocks, **SMALL).abs() - mag)[:, seams]
    assert wrong.square().sum() < 0.01 * mag[:, seams].square().sum()


def test_a_clip_sounds_alone_as_in_a_batch():
    mags = stft(sound(3, 4000), **SMALL).abs()
    torch.testing.assert_close(phase_retrieval(mags[1], **SMALL), phase_retrieval(mags, **SMALL)[1], atol=1e-4, rtol=0)


@pytest.mark.parametrize("n_fft", [1, 2])
def test_a_window_too_short_for_phases_is_told(n_fft):
    with pytest.raises(SpecgenError, match=f"window of {n_fft} samples: too short"):
        phase_retrieval(torch.ones(n_fft // 2 + 1, 9), n_fft=n_fft, hop_length=1)
