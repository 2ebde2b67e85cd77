"Every kind of spectrogram: its numbers, the way back, silence, statistics, devices, precision, settings that make sense."
import json
import math
import subprocess
import sys
from dataclasses import dataclass, replace

import pytest
import torch
from pretend import DEVICE, pretend_device
from test_phase import sound

from specgen.audio import import_torchaudio
from specgen.core import SpecgenError
from specgen.spectrogram import (
    Fbank,
    HiFiGANMel,
    LogMel,
    LogSTFT,
    Representation,
    SpectrogramLayer,
    check_same_representation,
    mel_filterbank,
    mel_loss,
    mel_to_stft,
    rmse_db,
)
from specgen.stft import stft_loss

KINDS = [
    LogSTFT(8000, n_fft=256, hop_length=141, n_bins=120),
    LogMel.librosa(sample_rate=8000, n_mels=40),
    LogMel.torchaudio(sample_rate=8000, hop_length=160, win_length=400),
    LogMel(8000, n_fft=256, hop_length=64, n_mels=32, power=1.0),
    Fbank(8000, n_fft=256, hop_length=80, win_length=200, n_mels=40),
    Fbank(8000, n_fft=512, hop_length=40, win_length=320, n_mels=30, pool=2),
    HiFiGANMel(8000, n_mels=40, f_max=4000.0),
]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda r: f"{type(r).__name__} {r.hop_length}")


# ---- the numbers

@pytest.mark.parametrize("window,name", [("hann", "hanning"), ("hamming", "hamming")])
@pytest.mark.parametrize("settings", [dict(), dict(n_mels=40, hop_length=100, win_length=512), dict(n_mels=23, win_length=800, n_fft=1024, preemphasis=0.5)])
def test_fbank_is_torchaudios(window, name, settings):
    x, fbank = sound(3, 30_000, dtype=torch.float64), Fbank(window=window, **settings)
    kaldi = import_torchaudio().compliance.kaldi
    peer = dict(num_mel_bins=fbank.n_mels, window_type=name, dither=0.0, frame_length=fbank.win_length / 16, frame_shift=fbank.hop_length / 16,
                low_freq=fbank.f_min, preemphasis_coefficient=fbank.preemphasis)
    for clip, spec in zip(x, fbank.encode(x), strict=True):
        torch.testing.assert_close(spec.T, kaldi.fbank(clip[None], **peer), rtol=0, atol=1e-5)
        torch.testing.assert_close(fbank.to_log(fbank.magnitude(clip)), spec, rtol=0, atol=1e-9)
    assert fbank.n_frames(30_000) == spec.shape[-1] and fbank.n_frames(fbank.win_length - 1) == 0


@pytest.mark.parametrize("shape", [(70, 16_000), (2, 3, 4000), (1, 700_000), (2500, 500), (3, 450_000)])
def test_fbank_in_parts_is_fbank_clip_by_clip(shape):
    x = 0.1 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    fbank = Fbank(n_mels=20, mean=-3.0, std=2.0)
    specs = fbank.encode(x)
    assert specs.shape == (*shape[:-1], 20, fbank.n_frames(shape[-1]))
    at = tuple(n - 1 for n in shape[:-1])
    frames = x[at].unfold(0, 400, 160)  # all at once
    torch.testing.assert_close(specs[at], fbank.encode_frames(frames[None])[0].T, rtol=0, atol=1e-4)
    torch.testing.assert_close(fbank.encode(x[at]), specs[at], rtol=0, atol=1e-4)


def test_fbank_of_a_long_recording_needs_little_memory():
    probe = """
import resource, torch
from specgen.spectrogram import Fbank
torch.set_num_threads(1)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
sound = torch.ones(10 * 60 * 16000)
Fbank().encode(sound[:40_000_0])
before = peak()
spec = Fbank().encode(sound)
print(peak() - before, spec.nbytes / 2**20)
"""
    out = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout
    grown, size = map(float, out.split())
    assert 29 < size < 30 and grown < 4 * size, f"{grown:.0f} MB for a spectrogram of {size:.0f} MB"


@pytest.mark.parametrize("kind", KINDS[:4], ids=lambda r: f"{type(r).__name__} {r.hop_length}")
def test_a_tone_is_where_it_belongs(kind):
    x = torch.sin(2 * torch.pi * 1000 * torch.arange(8000) / 8000)
    spec = kind.encode(x)
    assert abs(kind.frequencies[spec[:, spec.shape[1] // 2].argmax()] - 1000) < 100
    assert spec.shape == (len(kind.frequencies), kind.n_frames(8000)) and len(kind.frame_times(7)) == 7


@every_kind
def test_twice_as_loud_is_six_decibels(kind):
    kind, x = replace(kind, mean=1.3, std=2.5), 0.1 * sound(4000, dtype=torch.float64)
    a, b = kind.encode(x), kind.encode(2 * x)
    loud = a * kind.std + kind.mean > math.log(kind.floor) + 6
    assert ((b - a)[loud] * kind.decibels - 20 * math.log10(2)).abs().max() < 0.01
    assert rmse_db(torch.zeros(3, 4), torch.full((3, 4), 2.0), kind) == pytest.approx(2 * kind.decibels)


def test_mel_to_stft_finds_what_fits():
    filters = mel_filterbank(8000, 256, 20, 0.0, 4000.0, "slaney", "slaney")
    wanted = torch.rand(3, 129, 5, generator=torch.Generator().manual_seed(0))
    bands = filters @ wanted
    found = mel_to_stft(bands, filters, 500)
    assert (found >= 0).all() and (filters @ found - bands).norm() / bands.norm() < 1e-3


@every_kind
def test_spectrograms_speak_and_look_the_same_again(kind):
    x = sound(2, 4000)
    spec = kind.encode(x)
    again = kind.encode(kind.decode(spec, length=4000))
    error, below = (again - spec) * kind.decibels, (spec.amax((-2, -1), keepdim=True) - spec) * kind.decibels
    assert error[below < 30].abs().median() < (0.1 if isinstance(kind, LogSTFT) else 0.7) and error[below < 20].mean().abs() < 0.4
    assert kind.decode(spec).shape[-1] <= 4000 and kind.decode(spec, length=4321).shape == (2, 4321)


# ---- silence

@every_kind
def test_silence_comes_back_as_silence_for_all_statistics(kind):
    draw = torch.Generator().manual_seed(0)
    silent = kind.encode(torch.zeros(3000))[:, :2]
    for _ in range(1000):
        mean, std = 80 * torch.rand(1, generator=draw).item() - 60, 10 ** (6 * torch.rand(1, generator=draw).item() - 3)
        own = replace(kind, mean=mean, std=std)
        single, fine = own.normalize(silent), own.normalize(silent.double())
        for spec in (single, fine, fine.float(), single.bfloat16(), single.half()):
            assert not own.above_floor(own.denormalize(spec)).any(), (mean, std, spec.dtype)
    for mean, std in ((0.0, 1.0), (-7.3, 2.9), (11.7, 0.31)):
        own = replace(kind, mean=mean, std=std)
        assert not own.decode(own.encode(torch.zeros(3000)), n_iter=2).any()


@every_kind
def test_what_is_a_hair_above_the_floor_is_kept(kind):
    for mean, std in ((0.0, 1.0), (-7.3, 2.9), (40.0, 0.5)):
        own = replace(kind, mean=mean, std=std)
        rows = len(own.frequencies)
        log = torch.full((rows, 3), math.log(own.floor) + 2e-3)
        assert (own.above_floor(own.denormalize(own.normalize(log))) > own.floor).all()


# ---- statistics and settings

@every_kind
def test_fitted_statistics_travel_as_json(kind):
    clips = [sound(3000), 0.3 * sound(2000), torch.zeros(1500)]
    fitted = kind.fit(iter(clips))
    values = torch.cat([fitted.encode(clip).flatten() for clip in clips]).double()
    assert abs(values.mean()) < 1e-4 and abs(values.square().mean() - 1) < 1e-4
    assert Representation.from_dict(json.loads(json.dumps(fitted.to_dict()))) == fitted
    with pytest.raises(SpecgenError, match="at least one"):
        kind.fit([])


def test_every_kind_is_known_without_further_imports():
    configs = json.dumps([kind.to_dict() for kind in KINDS])
    probe = f"import json; from specgen.spectrogram import Representation; print(len([Representation.from_dict(c) for c in json.loads({configs!r})]))"
    assert subprocess.run([sys.executable, "-c", probe], check=True, capture_output=True, text=True).stdout.strip() == str(len(KINDS))


def test_a_kind_of_ones_own_is_known_too():
    @dataclass(frozen=True)
    class Loud(LogMel):
        gain: float = 2.0

    assert Representation.from_dict(Loud(gain=3.0).to_dict()) == Loud(gain=3.0)
    del Representation.KINDS["Loud"]


@pytest.mark.parametrize("config", [{}, {"kind": "MelBands"}, {"kind": "Magic"}, {"kind": "LogMel", "magic": 1}, {"kind": ["LogMel"]}, [], None, "LogMel"])
def test_unknown_kinds_and_settings(config):
    with pytest.raises(SpecgenError, match="the kinds are LogSTFT, LogMel, Fbank, HiFiGANMel|setting 'magic' is unknown; known are sample_rate"):
        Representation.from_dict(config)


@pytest.mark.parametrize("make,message", [
    (lambda: LogSTFT(n_fft=0), "n_fft 0"), (lambda: LogSTFT(hop_length=0), "hop_length 0"), (lambda: LogSTFT(hop_length=-3), "hop_length -3"),
    (lambda: LogMel(hop_length=1.5), "hop_length 1.5"), (lambda: LogMel(n_fft="512"), "n_fft '512'"), (lambda: LogMel(sample_rate=0), "sample_rate 0"),
    (lambda: Fbank(n_fft=512, win_length=513), "win_length 513 is longer than n_fft 512"), (lambda: LogSTFT(win_length=0), "win_length 0"),
    (lambda: LogSTFT(window="magic"), "hann"), (lambda: LogSTFT(floor=0.0), "floor 0.0"), (lambda: LogSTFT(std=0.0), "std 0.0"),
    (lambda: LogSTFT(std=math.nan), "std nan"), (lambda: LogSTFT(mean=math.inf), "mean inf"), (lambda: LogSTFT(pad_mode="magic"), "pad_mode 'magic'"),
    (lambda: LogSTFT(n_bins=258), "n_bins 258"), (lambda: LogSTFT(n_bins=0), "n_bins 0"), (lambda: LogMel(n_mels=0), "n_mels 0"),
    (lambda: Fbank(n_mels=2.5), "n_mels 2.5"), (lambda: Fbank(pool=0), "pool 0"),
    (lambda: LogMel(f_min=9000.0), "f_min 9000.0"), (lambda: LogMel(f_min=-1.0), "f_min -1.0"), (lambda: LogMel(f_min=500.0, f_max=400.0), "f_min 500.0"),
    (lambda: Fbank(f_min=8000.0), "f_min 8000.0"), (lambda: LogMel(mel_scale="magic"), "mel_scale 'magic'"), (lambda: LogMel(power=0), "power 0"),
])
def test_settings_that_make_no_spectrogram(make, message):
    with pytest.raises(SpecgenError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("call,message", [
    (lambda: Fbank().encode(torch.zeros(2, 399)), "shorter than one frame of 400"),
    (lambda: HiFiGANMel().encode(torch.zeros(2, 384)), "cannot be mirrored by 384"),
    (lambda: LogMel.torchaudio().encode(torch.zeros(256)), "clip of 256 samples: too short"),
    (lambda: LogMel().encode(torch.zeros(4000, dtype=torch.int16)), "int16"),
    (lambda: LogMel().decode(torch.zeros(79, 9)), "80, time"), (lambda: Fbank().decode(torch.zeros(128)), "128, time"),
    (lambda: LogSTFT().decode(torch.zeros(258, 9)), "257 rows"), (lambda: LogSTFT().decode(torch.zeros(257, 1)), "at least 2 frames"),
])
def test_errors_are_one_clear_line(call, message):
    with pytest.raises(SpecgenError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("change", [dict(hop_length=100), dict(n_mels=39), dict(floor=1e-3), dict(mel_scale="htk"), dict(power=1.0), dict(f_max=3000.0)])
def test_another_representation_is_refused_with_both_settings(change):
    own = LogMel(8000, n_mels=40)
    check_same_representation(replace(own, mean=-3.0, std=2.0, win_length=512, f_max=4000.0), own)
    (name, value), = change.items()
    mine = {"f_max": 4000.0}.get(name, getattr(own, name))
    with pytest.raises(SpecgenError, match=f"with {name} {value} for a model trained on {name} {mine}"):
        check_same_representation(replace(own, **change), own)
    with pytest.raises(SpecgenError, match="kind LogSTFT.*kind LogMel"):
        check_same_representation(LogSTFT(8000), own)


# ---- what is shared can't be spoilt; precision, batches, devices

@every_kind
def test_inference_mode_spoils_nothing(kind):
    kind = replace(kind, sample_rate=7000)  # filters that nothing else has asked for
    with torch.inference_mode():
        kind.decode(kind.encode(sound(3000)), n_iter=1)
    x = sound(2, 3000).requires_grad_()
    SpectrogramLayer(kind)(x).mean().backward()
    assert x.grad.isfinite().all() and x.grad.any() and not list(SpectrogramLayer(kind).state_dict())


@pytest.mark.parametrize("kind", KINDS[1:], ids=lambda r: f"{type(r).__name__} {r.hop_length}")
def test_filters_that_are_handed_out_can_be_changed(kind):
    before = kind.encode(sound(3000))
    kind.filters.zero_()
    mel_filterbank(8000, 256, 32, 0.0, 4000.0, "slaney", "slaney").zero_()
    assert kind.filters.any() and torch.equal(kind.encode(sound(3000)), before)


@every_kind
def test_the_gradient_is_right(kind):
    x = torch.randn(1200, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()  # nowhere near the floor
    weights = torch.randn(kind.encode(x).shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    total = lambda wave: (kind.encode(wave) * weights).sum()  # noqa: E731
    total(x).backward()
    step = torch.randn(1200, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    with torch.no_grad():
        slope = (total(x + 1e-6 * step) - total(x - 1e-6 * step)) / 2e-6
    assert slope.item() == pytest.approx((x.grad * step).sum().item(), rel=1e-3)


@every_kind
def test_empty_batches(kind):
    spec = kind.encode(torch.zeros(2, 0, 3000))
    assert spec.shape == (2, 0, len(kind.frequencies), kind.n_frames(3000))
    assert kind.decode(spec).shape[:2] == (2, 0) and kind.decode(spec[0], length=77).shape == (0, 77)
    assert kind.magnitude(torch.zeros(0, 3000)).shape[0] == 0


@every_kind
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(kind, dtype):
    x = sound(2, 3000)
    spec = kind.encode(x.to(dtype))
    assert spec.dtype == torch.float32 and torch.equal(spec, kind.encode(x.to(dtype).float()))
    kind = kind.fit([x])
    made = kind.decode(kind.encode(x).to(dtype), n_iter=2)
    assert made.dtype == torch.float32 and made.isfinite().all() and made.any()


@every_kind
def test_autocast_does_not_round(kind):
    x = sound(2, 3000)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        spec, made = kind.encode(x), kind.decode(kind.encode(x), n_iter=1)
    assert torch.equal(spec, kind.encode(x)) and torch.equal(made, kind.decode(kind.encode(x), n_iter=1))


@every_kind
def test_any_device(kind):
    x = sound(2, 3000)
    kind = kind.fit([x])
    spec = kind.encode(x)
    with pretend_device():
        far = x.to(DEVICE).requires_grad_()
        there = kind.encode(far)
        there.mean().backward()
        assert there.device == far.grad.device == DEVICE and torch.equal(there.detach().cpu(), spec)
        made = kind.decode(there.detach(), n_iter=2)
        assert made.device == DEVICE and torch.equal(made.cpu(), kind.decode(spec, n_iter=2))
        assert kind.fit([far.detach()]) == kind.fit([x])
        assert rmse_db(there.detach(), spec, kind) == rmse_db(there.detach(), there.detach(), kind) == 0
        if isinstance(kind, LogMel):
            assert mel_loss(far, far * 2, kind).device == stft_loss(far, far * 2).device == DEVICE


def test_the_callers_gradient_mode_is_left_alone():
    spec = LogMel().encode(sound(3000)).requires_grad_()
    assert not LogMel().decode(spec, n_iter=1).requires_grad and torch.is_grad_enabled()
    assert LogMel().from_log(LogMel().denormalize(spec)).requires_grad
