"The transform is its formula, its inverse is exact; nothing shared can be spoilt; any batch, precision and device."
import math

import pytest
import torch
from pretend import DEVICE, pretend_device
from torch.nn import functional as F

from specgen.core import SpecgenError
from specgen.stft import as_batch, constant, istft, make_window, no_autocast, overlap_add, stft, window_values

SETTINGS = [
    dict(n_fft=512, hop_length=128),
    dict(n_fft=512, hop_length=141),  # a hop that divides nothing
    dict(n_fft=512, hop_length=160, win_length=400, window="hamming"),
    dict(n_fft=80, hop_length=20, window="hamming"),
    dict(n_fft=256, hop_length=64, win_length=255, window="blackman"),
    dict(n_fft=256, hop_length=32, window="gaussian"),
]
ids = [" ".join(map(str, s.values())) for s in SETTINGS]
SMALL = dict(n_fft=64, hop_length=16)


def noise(*shape, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


def by_formula(x, n_fft, hop_length, win_length=None, window="hann"):
    "Frame by frame, with the matrix of the discrete Fourier transform."
    win_length = win_length or n_fft
    left = (n_fft - win_length) // 2
    w = F.pad(make_window(window, win_length, dtype=torch.float64), (left, n_fft - win_length - left))
    x = F.pad(x, (n_fft // 2, n_fft // 2))
    angle = 2 * torch.pi / n_fft * torch.arange(n_fft // 2 + 1, dtype=torch.float64)[:, None] * torch.arange(n_fft)
    dft = torch.polar(torch.ones_like(angle), -angle)
    starts = range(0, len(x) - n_fft + 1, hop_length)
    return torch.stack([dft @ (x[s : s + n_fft] * w).to(dft.dtype) for s in starts], 1)


@pytest.mark.parametrize("settings", SETTINGS, ids=ids)
def test_stft_is_its_formula_and_comes_back(settings):
    x = noise(2, 3, 1500)
    spectrum = stft(x, **settings)
    torch.testing.assert_close(spectrum[1, 2], by_formula(x[1, 2], **settings), rtol=0, atol=1e-11)
    assert spectrum.shape == (2, 3, settings["n_fft"] // 2 + 1, 1 + 1500 // settings["hop_length"])
    end = (spectrum.shape[-1] - 1) * settings["hop_length"]  # what lies behind the last frame's centre is seen by too few
    torch.testing.assert_close(istft(spectrum, length=1500, **settings)[..., :end], x[..., :end], rtol=0, atol=1e-12)
    assert istft(spectrum, **settings).shape == (2, 3, end)


def test_reflected_ends_and_frames_that_are_not_centred():
    x = noise(1000)
    inside = stft(x, center=False, **SMALL)
    mirrored = F.pad(x[None], (32, 32), mode="reflect")[0]
    torch.testing.assert_close(stft(x, pad_mode="reflect", **SMALL), stft(mirrored, center=False, **SMALL))
    torch.testing.assert_close(inside, stft(x, **SMALL)[:, 2:-2][:, : inside.shape[1]])


@pytest.mark.parametrize("periodic", [True, False])
def test_windows_are_their_formulas(periodic):
    n = torch.arange(50, dtype=torch.float64)
    angle = 2 * torch.pi * n / (50 if periodic else 49)
    middle = 25 if periodic else 24.5
    wanted = {"hann": 0.5 - 0.5 * angle.cos(), "hamming": 0.54 - 0.46 * angle.cos(), "blackman": 0.42 - 0.5 * angle.cos() + 0.08 * (2 * angle).cos(),
              "gaussian": torch.exp(-((n - middle) ** 2) / 2 / (50 / 8) ** 2)}
    for name, values in wanted.items():
        torch.testing.assert_close(make_window(name, 50, periodic, torch.float64), values, rtol=0, atol=1e-12)
    assert make_window("hann", 1).tolist() == [1.0] and make_window("hann", 9).dtype == torch.float32


# ---- what is shared can't be spoilt

def test_a_window_that_is_handed_out_can_be_changed():
    x = noise(1000, dtype=torch.float32)
    before = stft(x, **SMALL)
    for arguments in ((), (True, torch.float32, "cpu")):
        make_window("hann", 64, *arguments).zero_()
    assert torch.equal(stft(x, **SMALL), before) and make_window("hann", 64).sum() == 32


def test_inference_mode_spoils_nothing():
    settings = dict(n_fft=48, hop_length=12)  # sizes that nothing else has asked for
    with torch.inference_mode():
        istft(stft(noise(500, dtype=torch.float32), **settings), **settings)
    x = noise(500, dtype=torch.float32).requires_grad_()
    istft(stft(x, **settings), **settings).square().sum().backward()
    assert x.grad.isfinite().all() and x.grad.any()


def test_constants_are_made_once_for_each_dtype_and_device():
    made = []

    def make(n):
        made.append(n)
        return torch.arange(n, dtype=torch.float64, device="cpu")

    x = torch.zeros(3)
    assert constant(make, 4, like=x) is constant(make, 4, like=x + 1) and made == [4]
    assert constant(make, 4, like=x.double()).dtype == torch.float64 and made == [4, 4]
    with torch.inference_mode():
        assert not constant(make, 5, like=x).is_inference()
    with torch.device("meta"):
        assert stft(torch.zeros(200, device="cpu"), n_fft=44, hop_length=11).device.type == "cpu"
    for n in range(300):
        constant(make, n, like=x)
    assert constant(make, 7, like=x).tolist() == list(range(7))


def test_any_device():
    x = noise(2, 800, dtype=torch.float32)
    wanted = stft(x, **SMALL)
    with pretend_device():
        far = x.to(DEVICE)
        with pytest.raises(RuntimeError, match="some tensors are on the CPU"):
            far * x
        spectrum = stft(far, **SMALL)
        back = istft(spectrum, **SMALL)
        assert spectrum.device == back.device == DEVICE
        assert torch.equal(spectrum.cpu(), wanted) and torch.equal(back.cpu(), istft(wanted, **SMALL))
        assert make_window("hann", 8, device=DEVICE).device == DEVICE


# ---- precision, batches, errors

@pytest.mark.parametrize("dtype,limit", [(torch.float16, 2e-2), (torch.bfloat16, 0.2)])
def test_half_precision_is_computed_in_float32(dtype, limit):
    x = noise(2, 500)
    spectrum = stft(x.to(dtype), **SMALL)
    assert spectrum.dtype == torch.complex64 and (spectrum - stft(x, **SMALL)).abs().max() < limit
    assert istft(spectrum.to(torch.complex32), **SMALL).dtype == torch.float32


def test_autocast_does_not_round_products():
    a = noise(40, 40, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (a @ a).dtype == torch.bfloat16
        with no_autocast(a):
            assert ((a @ a).double() - a.double() @ a.double()).abs().max() < 1e-5
        assert stft(a.flatten(), **SMALL).dtype == torch.complex64


@pytest.mark.parametrize("lead", [(0,), (2, 0), (0, 3)])
def test_empty_batches(lead):
    spectrum = stft(torch.zeros(*lead, 500), **SMALL)
    assert spectrum.shape == (*lead, 33, 32) and spectrum.dtype == torch.complex64
    assert istft(spectrum, **SMALL).shape == (*lead, 496) and istft(spectrum, length=490, **SMALL).shape == (*lead, 490)
    assert as_batch(torch.zeros(*lead, 5), 1).shape == (0, 5)


@pytest.mark.parametrize("call,message", [
    (lambda: stft(torch.ones(500), n_fft=64, hop_length=16, win_length=65), "win_length 65: is longer than n_fft 64"),
    (lambda: stft(torch.ones(500), n_fft=0, hop_length=16), "n_fft 0: has to be at least one"),
    (lambda: stft(torch.ones(500), n_fft=64, hop_length=0), "hop_length 0"),
    (lambda: stft(torch.ones(500), n_fft=64, hop_length=-1), "hop_length -1"),
    (lambda: stft(torch.ones(500), n_fft=64, hop_length=16, win_length=0), "win_length 0"),
    (lambda: stft(torch.ones(500), n_fft=64, hop_length=16, window="magic"), "window 'magic': unknown; choose one of hann"),
    (lambda: stft(torch.ones(32), n_fft=64, hop_length=16, pad_mode="reflect"), "clip of 32 samples: too short"),
    (lambda: stft(torch.ones(63), n_fft=64, hop_length=16, center=False), "clip of 63 samples: too short"),
    (lambda: stft(torch.ones(500, dtype=torch.int16), n_fft=64, hop_length=16), "int16"),
    (lambda: istft(torch.ones(33, 9), n_fft=64, hop_length=16), "complex numbers"),
    (lambda: istft(torch.ones(32, 9) * 1j, n_fft=64, hop_length=16), "= 33 rows"),
    (lambda: istft(torch.ones(33, 1) * 1j, n_fft=64, hop_length=16), "holds no sample"),
    (lambda: istft(torch.ones(33, 9) * 1j, n_fft=64, hop_length=16, length=0), "holds no sample"),
    (lambda: istft(torch.ones(33, 9) * 1j, n_fft=64, hop_length=64), "choose a shorter hop"),
    (lambda: make_window("hann", 0), "win_length 0"),
])
def test_errors_are_one_clear_line(call, message):
    with pytest.raises(SpecgenError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


# ---- overlapping frames

@pytest.mark.parametrize("hop,n", [(1, 1), (1, 4), (3, 4), (4, 4), (5, 4), (7, 20)])
def test_overlap_add_is_the_adjoint_of_unfold(hop, n):
    frames = noise(2, 6, n, dtype=torch.float32)
    wanted = F.fold(frames.mT, (1, 5 * hop + n), (1, n), stride=(1, hop))[:, 0, 0]
    added = overlap_add(frames, hop)
    torch.testing.assert_close(added[:, : 5 * hop + n], wanted)
    assert not added[:, 5 * hop + n :].any()
    x = noise(2, 5 * hop + n, dtype=torch.float32)
    inner = (x.unfold(1, n, hop) * frames).sum(), (x * added[:, : x.shape[1]]).sum()
    torch.testing.assert_close(*inner, rtol=1e-4, atol=1e-4)


def test_window_values_do_not_depend_on_defaults():
    torch.set_default_dtype(torch.float64)
    try:
        assert math.isclose(window_values("hann", 10, True).sum().item(), 5) and make_window("hann", 10).dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)
