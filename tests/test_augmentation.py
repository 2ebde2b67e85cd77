"""Fixed copies and random changes: known answers, formulas, seeds, precisions and devices."""
import math

import pytest
import torch
from made_up import noise

from specgen import augmentation
from specgen.augmentation import (
    augment,
    augment_dataset,
    down_back,
    energy_mixup,
    faster,
    mixup,
    random_eq,
    random_shift,
    slower,
    spec_augment,
    time_roll,
    up_forward,
    vtlp_time_warp,
)
from specgen.core import SpecgenError
from specgen.spectrogram import LogMel, LogSTFT
from specgen.spectrogram_dataset import SpectrogramDataset, standardize

MELS = LogMel.librosa(sample_rate=8000, n_fft=256, hop_length=80, n_mels=32, floor=1e-8)
ALL = dict(hertz=MELS.frequencies, warp=dict(voice=0.1, tempo=0.1, frames=2), roll=True, tilt=0.2, depth=3.0, mask=(4, 4))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def dataset(n=3, freq=256, time=24, **more):
    rep = LogSTFT(sample_rate=8000, n_fft=512, hop_length=160, n_bins=256)
    return SpectrogramDataset(noise(n, freq, time), torch.arange(n) + 4, list("abcdefghij"), rep, **more)


# fixed copies


def test_copies_of_an_impulse_and_of_a_ramp():
    impulse = torch.zeros(2, 1, 256, 24)
    impulse[..., 100, 10] = 1
    assert up_forward(impulse).nonzero().tolist() == [[i, 0, 101, 11] for i in (0, 1)]
    assert down_back(impulse).nonzero().tolist() == [[i, 0, 99, 9] for i in (0, 1)]
    t = torch.arange(24.0)
    torch.testing.assert_close(faster(t.expand(3, 24)), (t * 23 / 21).clamp(max=23).expand(3, 24))
    torch.testing.assert_close(slower(t.expand(1, 2, 3, 24)), (t * 23 / 25).expand(1, 2, 3, 24))


@pytest.mark.parametrize("change", [up_forward, down_back, faster, slower])
def test_copies_keep_shape_precision_and_a_constant(change):
    for shape in ((256, 24), (0, 256, 24), (2, 3, 5, 24)):
        for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
            ones = torch.ones(shape, dtype=dtype)
            assert torch.equal(change(ones), ones)
    assert change(torch.empty(2, 5, 24, device="meta")).device.type == "meta"


def test_an_augmented_dataset_is_five_times_as_long_originals_first():
    clips = dataset(speakers=["x", "y", "z"], paths=["1", "2", "3"], about={"n_frames": 24})
    five = augment_dataset(clips)
    assert five.spectrograms.shape == (15, 256, 24) and torch.equal(five.spectrograms[:3], clips.spectrograms)
    for k, change in enumerate((up_forward, down_back, faster, slower), 1):
        assert torch.equal(five.spectrograms[3 * k : 3 * k + 3], change(clips.spectrograms))
    assert five.labels.tolist() == [4, 5, 6] * 5 and five.speakers == ["x", "y", "z"] * 5 and five.paths == ["1", "2", "3"] * 5
    assert five.about == {"n_frames": 24, "kinds": ["original", "up_forward", "down_back", "faster", "slower"]}
    assert not five.is_test.any() and five.representation == clips.representation
    assert len(augment_dataset(clips.select([False] * 3))) == 0


def test_held_out_clips_are_not_copied_and_come_last():
    mixed = dataset(is_test=torch.tensor([False, True, False]), speakers=["x", "y", "z"])
    more = augment_dataset(mixed)
    assert more.labels.tolist() == [4, 6] * 5 + [5] and more.speakers == ["x", "z"] * 5 + ["y"] and more.is_test.tolist() == [False] * 10 + [True]
    assert torch.equal(more.test.spectrograms, mixed.test.spectrograms)
    assert torch.equal(more.train.spectrograms, augment_dataset(mixed.train).spectrograms)
    assert more.train.spectrograms.data_ptr() == more.spectrograms.data_ptr(), "the copies of a large dataset fit into memory once"
    with pytest.raises(SpecgenError, match="more than 2 frames"):
        augment_dataset(dataset(time=2))


# random changes: each is a formula of the generator's numbers


def test_a_shift_moves_each_spectrogram_as_drawn():
    x, rng = noise(9, 20, 12), generator()
    moved = random_shift(x, generator(), (3, 1))
    frames, rows = torch.randint(-1, 2, (9, 1), generator=rng).flatten(), torch.randint(-3, 4, (9, 1), generator=rng).flatten()
    for i in range(9):
        assert torch.equal(moved[i], augmentation.shift(x[i], int(rows[i]), int(frames[i])))
    assert len({(int(f), int(r)) for f, r in zip(frames, rows, strict=True)}) > 4
    assert torch.equal(random_shift(x, limits=(0, 0)), x)


def test_an_idle_warp_changes_nothing():
    x = noise(5, 32, 20)
    torch.testing.assert_close(vtlp_time_warp(x, generator(), hertz=torch.linspace(0, 4000, 32), voice=0, tempo=0), x)


def test_another_voice_divides_all_frequencies_by_one_drawn_factor():
    hertz = torch.linspace(0, 4000, 2001)
    lines = torch.exp(-(((hertz - torch.tensor([500.0, 1500.0])[:, None]) / 60) ** 2)).sum(0)  # two resonances
    moved = vtlp_time_warp(lines[:, None].expand(50, 2001, 4), generator(), hertz=hertz, voice=0.2, tempo=0)[..., 0]
    factors = ((2 * torch.rand(50, 1, generator=generator()) - 1) * 0.2).exp()
    expected = torch.exp(-(((hertz * factors)[:, None] - torch.tensor([500.0, 1500.0])[:, None]) / 60) ** 2).sum(1)
    inside = hertz * factors <= 4000
    torch.testing.assert_close(moved[inside], expected[inside], atol=5e-4, rtol=0)


def test_empty_mel_bands_have_a_place_too():
    crowded = LogMel(sample_rate=8000, n_fft=128, hop_length=64, n_mels=60)
    assert (crowded.frequencies.diff() <= 0).any()  # there are some
    assert vtlp_time_warp(noise(4, 60, 9), generator(), hertz=crowded.frequencies, voice=0.2, tempo=0.1, frames=2).isfinite().all()


def test_tempo_reads_frame_t_at_the_drawn_place_around_the_middle():
    ramp = torch.arange(41.0).expand(30, 8, 41)
    moved = vtlp_time_warp(ramp, generator(), hertz=torch.linspace(0, 4000, 8), voice=0, tempo=0.3, frames=2.0)
    rng = generator()
    _, tempo, frames = (2 * torch.rand(30, 1, generator=rng) - 1 for _ in range(3))
    expected = (20 + (torch.arange(41) - 20) * (0.3 * tempo).exp() + 2 * frames).clamp(0, 40)
    torch.testing.assert_close(moved, expected[:, None].expand(30, 8, 41), atol=1e-4, rtol=0)


def test_a_microphone_adds_three_cosines_along_the_bands():
    change = random_eq(torch.zeros(300, 32, 6), generator(), 0.5)
    heights = 0.5 * torch.randn(300, 1, 3, generator=generator())
    bands = torch.linspace(0, math.pi, 32)
    expected = sum(heights[:, 0, k - 1, None] * torch.cos(k * bands) for k in (1, 2, 3))
    torch.testing.assert_close(change, expected[..., None].expand(300, 32, 6), atol=1e-6, rtol=1e-5)


def test_masks_hide_one_stripe_each_way_under_the_mean():
    x = noise(40, 32, 20)
    hidden = spec_augment(x, generator(), (8, 5)) != x
    rows, frames = hidden.all(2).sum(1), hidden.all(1).sum(1)
    assert rows.max() <= 8 and frames.max() <= 5 and rows.float().mean() > 2
    assert (hidden == (hidden.all(2)[:, :, None] | hidden.all(1)[:, None, :])).all()
    means = x.mean((1, 2))
    assert all((spec_augment(x, generator(), (8, 5))[i][hidden[i]] == means[i]).all() for i in range(40))
    assert torch.equal(spec_augment(x, generator(), (0, 0)), x)
    assert spec_augment(x, generator(), (999, 999)).shape == x.shape  # wider than it is


def test_rolling_keeps_every_frame_in_turn():
    x = torch.arange(10.0).expand(30, 4, 10)
    rolled = time_roll(x, generator())
    start = torch.randint(10, (30, 1), generator=generator())
    assert torch.equal(rolled[:, 0], (torch.arange(10) + start).float() % 10) and torch.equal(rolled, rolled[:, :1].expand_as(rolled))


def test_mixup_leaves_each_clip_its_larger_part():
    x = torch.arange(200.0)[:, None, None].expand(200, 2, 2)
    both, other, own = mixup(x, generator(), 0.5)
    assert own.min() >= 0.5 and 60 < (own == 1).sum() < 140 and other.sort().values.tolist() == list(range(200))
    torch.testing.assert_close(both[:, 0, 0], own * torch.arange(200.0) + (1 - own) * other)
    assert torch.equal(mixup(x, generator(), 0.0)[0], x)


def test_energy_mixup_is_tokozumes_formula():
    energies = torch.rand(16, 8, 20, generator=generator(1)) * 10 ** (6 * torch.rand(16, 1, 1, generator=generator(2)))
    mixed, targets = energy_mixup(energies, torch.eye(16), generator())
    rng = generator()
    other, share = torch.randperm(16, generator=rng), torch.rand(16, 1, generator=rng)[:, 0]
    torch.testing.assert_close(targets, share[:, None] * torch.eye(16) + (1 - share)[:, None] * torch.eye(16)[other])
    g = energies.sum(1).amax(1).sqrt()
    p = 1 / (1 + g / g[other] * (1 - share) / share)
    weight = (p**2 / (p**2 + (1 - p) ** 2))[:, None, None]
    torch.testing.assert_close(mixed, weight * energies + (1 - weight) * energies[other], rtol=1e-4, atol=1e-3)


def test_equal_shares_are_heard_equally_loud():
    loud, quiet, none = (torch.full((4, 5), value) for value in (100.0, 0.01, 1e-9))
    pair, near = torch.stack([torch.cat([loud, none]), torch.cat([none, quiet])]), 0
    for seed in range(200):
        (one, _), shares = energy_mixup(pair, torch.eye(2), generator(seed))
        if abs(shares[0, 0] - 0.5) < 0.02 and shares[0, 1] > 0:
            near += 1
            assert 0.8 < (one[:4].mean() / one[4:].mean()).item() < 1.25
    assert near


# together


def test_augment_is_its_parts_in_order():
    x, rng = noise(6, 32, 20), generator()
    expected = vtlp_time_warp(x, rng, hertz=MELS.frequencies, **ALL["warp"])
    expected = spec_augment(standardize(random_eq(time_roll(expected, rng), rng, 0.2), 3.0), rng, (4, 4))
    assert torch.equal(augment(x, generator(), **ALL), expected)
    assert not torch.equal(augment(x, generator(1), **ALL), expected)
    assert augment(x) is x


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_precision_goes_through(dtype):
    x = noise(6, 32, 20)
    full = augment(x, generator(), **{**ALL, "depth": None})
    some = augment(x.to(dtype), generator(), **{**ALL, "depth": None})
    assert some.dtype == dtype
    torch.testing.assert_close(some.float(), full, atol=0.1 if dtype == torch.bfloat16 else 2e-2, rtol=0)
    assert mixup(x.to(dtype), generator(), 0.5)[0].dtype == energy_mixup(x.exp().to(dtype), torch.eye(6), generator())[0].dtype == dtype


def test_numbers_are_drawn_where_the_generator_lives():
    "The meta device refuses to mix with the CPU, as a GPU does."
    x = noise(6, 32, 20).to("meta")
    changed = [augment(x, generator(), **ALL), random_shift(x, generator()), mixup(x, generator(), 0.5)[0], energy_mixup(x, x[:, 0], generator())[0]]
    assert all(y.device.type == "meta" and y.shape == x.shape for y in changed)


def test_without_a_generator_every_call_draws_anew():
    x = noise(6, 32, 20)
    assert not torch.equal(time_roll(x), time_roll(x)) and not torch.equal(random_shift(x), random_shift(x))
