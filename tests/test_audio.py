"Phase retrieval: the fast loop is the plain one, known phases come back, and edges have answers or errors."
import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

from specgen.audio import (
    Fbank,
    LogMel,
    LogSTFT,
    SpecgenError,
    griffin_lim,
    istft,
    overlap_add,
    pghi,
    phase_retrieval,
    spectral_convergence,
    stft,
    stream_pghi,
)

SETTINGS = [
    dict(n_fft=512, hop_length=128),
    dict(n_fft=512, hop_length=141),  # a hop that divides nothing, as the digits' pictures have
    dict(n_fft=512, hop_length=160, win_length=400, window="hamming"),
    dict(n_fft=80, hop_length=20, window="hamming"),
    dict(n_fft=256, hop_length=64, win_length=255, window="blackman"),
    dict(n_fft=256, hop_length=32, window="gaussian"),
]
ids = [" ".join(map(str, s.values())) for s in SETTINGS]


def sound(*shape, dtype=torch.float32):
    "Three gliding harmonics, another glide for every clip"
    t = torch.arange(shape[-1], dtype=torch.float64) / 8000
    glides = 1 + torch.rand(*shape[:-1], 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    phase = 2 * torch.pi * glides * (200 * t + 300 * t**2)
    return sum(torch.sin(k * phase) / k for k in (1, 2, 3)).to(dtype)


@pytest.mark.parametrize("hop,n", [(1, 1), (1, 4), (3, 4), (4, 4), (5, 4), (7, 20)])
def test_overlap_add_is_the_adjoint_of_unfold(hop, n):
    frames = torch.randn(2, 6, n, generator=torch.Generator().manual_seed(0))
    wanted = F.fold(frames.mT, (1, 5 * hop + n), (1, n), stride=(1, hop))[:, 0, 0]
    added = overlap_add(frames, hop)
    torch.testing.assert_close(added[:, : 5 * hop + n], wanted)
    assert not added[:, 5 * hop + n :].any()


@pytest.mark.parametrize("settings", SETTINGS, ids=ids)
@pytest.mark.parametrize("extra", [0, 1, 17])
def test_griffin_lim_is_the_plain_loop(settings, extra):
    length = 20 * settings["hop_length"] + extra
    mag = stft(sound(2, length, dtype=torch.float64), **settings).abs()
    phase = torch.rand(mag.shape, generator=torch.Generator().manual_seed(0), dtype=mag.dtype) * 2 * torch.pi
    spectrum, previous = torch.polar(mag, phase), 0
    for _ in range(3):
        rebuilt = stft(istft(spectrum, length=length, **settings), **settings)
        spectrum = mag * torch.sgn(rebuilt - previous * 0.9 / 1.9)
        previous = rebuilt
    ours = griffin_lim(mag, n_iter=3, momentum=0.9, phase=phase, length=length, **settings)
    torch.testing.assert_close(ours, istft(spectrum, length=length, **settings), rtol=0, atol=1e-6)


@pytest.mark.parametrize("settings", SETTINGS, ids=ids)
def test_pghi_is_a_far_better_start_than_noise(settings):
    x = sound(2, 4000)
    mag = stft(x, **settings).abs()
    score = lambda **how: spectral_convergence(mag, phase_retrieval(mag, length=4000, **how, **settings), **settings)  # noqa: E731
    assert (score(method="pghi") < score(method="gla", n_iter=0) - 8).all()
    assert (score(n_iter=16) < score(method="gla", n_iter=16) - 1).all()


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


@pytest.mark.parametrize("settings", SETTINGS[:3], ids=ids[:3])
def test_a_stream_is_nearly_as_good_as_the_whole_clip(settings):
    x = sound(2, 4000)
    mag = stft(x, **settings).abs()
    score = lambda phase: spectral_convergence(mag, griffin_lim(mag, n_iter=0, phase=phase, length=4000, **settings), **settings)  # noqa: E731
    whole = score(pghi(mag, **settings))
    given = []
    for lookahead, margin in ((0, 16), (1, 6), (3, 4)):
        frames = iter(mag.unbind(-1))
        stream = stream_pghi((given.append(frame) or frame for frame in frames), lookahead=lookahead, **settings)
        first = next(stream)
        assert len(given) == lookahead + 1  # no later than promised
        phase = torch.stack([first, *stream], -1)
        assert phase.shape == mag.shape and phase.dtype == mag.dtype and (score(phase) < whole + margin).all()
        given.clear()


def test_short_streams():
    settings = dict(n_fft=64, hop_length=16)
    assert list(stream_pghi([], **settings)) == []
    for n in (1, 2, 3):
        assert len(list(stream_pghi([torch.ones(33)] * n, lookahead=2, **settings))) == n
    assert all(not phase.isnan().any() for phase in stream_pghi([torch.zeros(2, 33)] * 4, **settings))
    with pytest.raises(SpecgenError, match="33 magnitudes"):
        list(stream_pghi([torch.ones(32)], **settings))


def test_long_clips_keep_their_phase_in_float32():
    settings = dict(n_fft=512, hop_length=128)
    t = torch.arange(60 * 8000, dtype=torch.float64) / 8000
    x = torch.sin(2 * torch.pi * 3456.7 * t).float()
    sound = phase_retrieval(stft(x, **settings).abs(), method="pghi", length=len(x), **settings)
    assert spectral_convergence(stft(x, **settings).abs(), sound, **settings) < -30


def test_a_batch_is_its_clips_and_seeds_are_kept():
    settings = dict(n_fft=256, hop_length=64)
    mag = stft(sound(2, 3, 2000), **settings).abs()
    whole = phase_retrieval(mag, **settings)
    assert whole.shape == (2, 3, (mag.shape[-1] - 1) * 64) and whole.dtype == torch.float32
    assert torch.equal(whole, phase_retrieval(mag, generator=torch.Generator().manual_seed(0), **settings))
    assert not torch.equal(whole, phase_retrieval(mag, generator=torch.Generator().manual_seed(1), **settings))
    single = phase_retrieval(mag[1, 2], **settings)
    scores = [spectral_convergence(mag[1, 2], x, **settings).item() for x in (whole[1, 2], single)]
    assert abs(scores[0] - scores[1]) < 3 and max(scores) < -20
    assert phase_retrieval(mag.double(), **settings).dtype == torch.float64


@pytest.mark.parametrize("method", ["pghi+gla", "pghi", "gla"])
def test_silence_and_lone_bins(method):
    settings = dict(n_fft=64, hop_length=16)
    mag = torch.zeros(3, 33, 8)
    mag[1, 5, 3] = 1.0
    mag[2, :, :] = 1e-30
    out = phase_retrieval(mag, method=method, length=100, **settings)
    assert out.shape == (3, 100) and out.isfinite().all() and not out[0].any() and out[1].any()
    assert phase_retrieval(mag[..., :2], method=method, length=200, **settings).shape == (3, 200)
    mag[0, 3, 3] = torch.nan
    assert phase_retrieval(mag, method=method, **settings)[1:].isfinite().all()


@pytest.mark.parametrize("call,message", [
    (lambda: phase_retrieval(torch.ones(257, 1), n_fft=512, hop_length=128), "at least 2 frames"),
    (lambda: phase_retrieval(torch.ones(256, 9), n_fft=512, hop_length=128), "257 rows"),
    (lambda: pghi(torch.ones(257), n_fft=512, hop_length=128), "257 rows"),
    (lambda: phase_retrieval(torch.ones(257, 9), n_fft=512, hop_length=512), "shorter hop"),
    (lambda: pghi(torch.ones(257, 9), tolerance=0, n_fft=512, hop_length=128), "tolerance 0"),
    (lambda: phase_retrieval(torch.ones(257, 9), n_fft=512, hop_length=128, method="magic"), "pghi"),
    (lambda: phase_retrieval(torch.ones(257, 9), n_fft=512, hop_length=128, window="magic"), "hann"),
])
def test_errors_are_one_clear_line(call, message):
    with pytest.raises(SpecgenError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("recipe", [
    LogSTFT(8000, hop_length=141, n_bins=256), LogMel.librosa(sample_rate=8000), LogMel.torchaudio(sample_rate=8000, hop_length=160, win_length=400),
    Fbank(8000, n_fft=256, hop_length=80, win_length=200, n_mels=64),
], ids=lambda r: f"{type(r).__name__} {r.hop_length}")
def test_pictures_speak_and_look_the_same_again(recipe):
    x = sound(2, 4000)
    picture = recipe.encode(x)
    again = recipe.encode(recipe.decode(picture, length=4000))
    loud = picture > picture.amax((-2, -1), keepdim=True) - 60 / recipe.decibels
    assert ((again - picture).abs()[loud].median() * recipe.decibels) < 3


def test_numba_waits_until_it_is_needed():
    probe = "import sys, specgen.audio; print([m for m in ('numba', 'librosa') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", probe], check=True, capture_output=True, text=True).stdout.strip() == "[]"
