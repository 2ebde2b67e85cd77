"The reassigned spectrogram and the networks: librosa's own numbers, batches, devices of clips, odd input, the source's layers."

import importlib.util
from pathlib import Path

import librosa
import numpy as np
import pytest
import torch

from specgen.core import SpecgenError
from specgen.reassignment import (
    DeeperUnrolledNet, FrameNet, Framing, StackedNet, UnrolledNet,
    frame_norms, offsets, outer_product_loss, reassigned_spectrogram, stack_features, unroll_features,
)

SETTINGS = dict(sr=16000, n_fft=80, hop_length=20, window="hamming")


def sound(n=3000, seed=0):
    rng, t = np.random.default_rng(seed), np.arange(n) / 16000
    return 0.2 * np.sin(2 * np.pi * (300 * t + 2000 * t * t)) + 0.05 * rng.standard_normal(n)


def test_matches_librosa_batch():
    y = np.stack([sound(seed=s) for s in range(3)])
    for ours, theirs in zip(reassigned_spectrogram(y, **SETTINGS, fill_nan=True), librosa.reassigned_spectrogram(y, **SETTINGS, fill_nan=True), strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-8, atol=1e-8 * np.abs(theirs).max())


@pytest.mark.parametrize("option", [
    dict(clip=False), dict(center=False), dict(win_length=48), dict(n_fft=81), dict(reassign_times=False), dict(reassign_frequencies=False),
    dict(pad_mode="reflect"), dict(pad_mode="edge"), dict(ref_power=lambda p: p.max() * 1e-4),
])
def test_matches_librosa_options(option):
    settings = {**SETTINGS, **option}
    for ours, theirs in zip(reassigned_spectrogram(sound(), **settings), librosa.reassigned_spectrogram(sound(), **settings), strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-8, atol=1e-8 * np.nanmax(np.abs(theirs)))


def test_wrap_is_numpys():
    "librosa no longer takes this mode, which the source used."
    ours = reassigned_spectrogram(sound(), **SETTINGS, pad_mode="wrap", clip=False)
    padded = reassigned_spectrogram(np.pad(sound(), 40, mode="wrap"), **SETTINGS, center=False, clip=False)
    assert torch.equal(ours[2], padded[2]) and torch.equal(ours[0].nan_to_num(-1), padded[0].nan_to_num(-1))


def test_known_places():
    "A click lies at its own time in every frame that holds it, a tone at its own frequency."
    click = np.zeros(400)
    click[203] = 1.0
    _, times, mags = reassigned_spectrogram(click, sr=16000, n_fft=64, hop_length=16)
    np.testing.assert_allclose(times[mags > 1e-3].numpy() * 16000, 203, atol=0.5)  # librosa counts from half a sample beside the centre
    tone = np.sin(2 * np.pi * 1234.5 * np.arange(4000) / 16000)
    freqs, _, mags = reassigned_spectrogram(tone, sr=16000, n_fft=512, hop_length=128, center=False)
    np.testing.assert_allclose(freqs[mags > 10].numpy(), 1234.5, atol=0.5)


def test_shapes_of_batches():
    batch = torch.from_numpy(np.stack([sound(seed=s) for s in range(4)])).view(2, 2, -1)
    whole, alone = reassigned_spectrogram(batch, **SETTINGS), reassigned_spectrogram(batch[1, 0], **SETTINGS)
    for a, b in zip(whole, alone, strict=True):
        assert a.shape[:2] == (2, 2) and torch.equal(a[1, 0].nan_to_num(-1), b.nan_to_num(-1))
    assert [v.shape for v in reassigned_spectrogram(torch.zeros(0, 3000), **SETTINGS)] == [(0, 41, 151)] * 3


@pytest.mark.parametrize("y", [torch.zeros(500, dtype=torch.float16), torch.zeros(500, dtype=torch.int16), torch.tensor(1.0), torch.zeros(10)])
def test_sounds_that_cannot_be(y):
    with pytest.raises(SpecgenError, match="give"):
        reassigned_spectrogram(y, **SETTINGS, center=False)


@pytest.mark.parametrize("option", [
    dict(window="nonsense"), dict(window=np.ones(7)), dict(win_length=100), dict(ref_power=-1.0), dict(pad_mode="nonsense"), dict(pad_mode="reflect"),
    dict(reassign_times=False, reassign_frequencies=False),
])
def test_settings_that_cannot_be(option):
    with pytest.raises(SpecgenError):
        reassigned_spectrogram(np.zeros(30), **{**SETTINGS, **option})


def test_source_networks_layer_by_layer():
    "Lawliet19189/Dirichlet, inverse_reassigned_spectogram_approaches.ipynb."
    from torch.nn import BatchNorm2d, Conv2d, Dropout2d, Sequential

    recorded = {
        StackedNet: [Conv2d(1, 80, (123, 2)), Dropout2d(0.3), BatchNorm2d(80), Conv2d(80, 20, 1)],
        UnrolledNet: [Conv2d(1, 20, (3, 20), 20), Dropout2d(0.3), BatchNorm2d(20), Conv2d(20, 20, 1)],
        DeeperUnrolledNet: [
            Conv2d(1, 40, (3, 20), 20), Dropout2d(0.8), BatchNorm2d(40), Conv2d(40, 20, 1), Dropout2d(0.8), BatchNorm2d(20), Conv2d(20, 20, 1),
        ],
    }
    for net, layers in recorded.items():
        assert str(net().layers) == str(Sequential(*layers))


def test_source_networks_on_a_sound():
    "Hertz, seconds and magnitudes as they come, under the source's options: a second in, all but the samples of the last hop out."
    options, y = dict(fill_nan=True, clip=False, pad_mode="wrap"), sound(16000)
    for kind, arrange, center, shape, samples in (
        (StackedNet, stack_features, True, (1, 1, 123, 801), 16000),
        (UnrolledNet, unroll_features, False, (1, 1, 3, 20 * 796 + 41), 15960),
        (DeeperUnrolledNet, unroll_features, False, (1, 1, 3, 20 * 796 + 41), 15960),
    ):
        parts = reassigned_spectrogram(y[None], **SETTINGS, **options, center=center)
        x, net = arrange(*parts).float(), kind()
        assert x.shape == shape and x.max() > 8000 and net(x).shape == (1, samples)
        steps = net.layers(x).shape
        assert steps == (1, 20, 1, samples // 20)
        assert torch.equal(net.eval()(x)[0], torch.swapaxes(net.layers(x).squeeze(), 0, 1).flatten())  # 20 samples a step


def benchmark():
    path = Path(__file__).parents[1] / "benchmarks" / "reassignment_networks.py"
    spec = importlib.util.spec_from_file_location("reassignment_networks", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_source_recipe_in_the_benchmark():
    "Batch normalisation sees one clip at a time, the weights change after 128; no speaker is on both sides."
    bench, net = benchmark(), UnrolledNet()
    clips = [bench.example(torch.from_numpy(sound(400, s))[None].float(), unroll_features, False) for s in range(3)]
    before = net.layers[0].weight.detach().clone()
    for update, loss in bench.fit(net, clips, bench.NETWORKS["unrolled"], 2, 1):
        assert net.layers[2].num_batches_tracked == 128 * update and loss > 0
    assert not torch.equal(before, net.layers[0].weight)
    recipes = [bench.NETWORKS[name] for name in ("stacked", "unrolled", "deeper")]
    assert [(r.kind, r.dropout, r.center, r.passes) for r in recipes] == [
        (StackedNet, 0.3, True, 128), (UnrolledNet, 0.3, False, 128), (DeeperUnrolledNet, 0.8, False, 128)]
    trained, unseen = bench.split(range(251))
    assert len(trained) == 200 and len(unseen) == 51 and not set(trained) & set(unseen)


def test_best_affine_map_of_the_benchmark():
    "What is an affine function of the features is found to the last digit; noise stays noise on clips that were not fitted."
    bench, net = benchmark(), UnrolledNet().double().eval()
    clips = [bench.example(torch.from_numpy(sound(4000, s))[None].float(), unroll_features, False)[0] for s in range(4)]
    with torch.no_grad():
        made = [(x, net(x.double())) for x in clips]
    assert max(bench.best_affine(net, made[:2], made[2:])) < 1e-12 * made[0][1].square().mean()
    noise = [(x, torch.randn(1, y.shape[1], generator=torch.Generator().manual_seed(0))) for x, y in made]
    seen, new = bench.best_affine(net, noise[:2], noise[2:])
    assert seen < 1 < new


def test_source_inputs_as_numpy_makes_them():
    "stack: np.vstack; unroll: np.append of the first n_fft // 4 bins of all frames but the last, and the whole last frame."
    features = [torch.randn(2, 41, 9) for _ in range(3)]
    stacked, unrolled = stack_features(*features), unroll_features(*features)
    assert stacked.shape == (2, 1, 123, 9) and unrolled.shape == (2, 1, 3, 201)
    for clip in range(2):
        assert np.array_equal(stacked[clip, 0], np.vstack([v[clip] for v in features]))
        assert np.array_equal(unrolled[clip, 0], np.vstack([np.append(v[clip][:20, :-1], v[clip][:, -1]) for v in features]))
    assert StackedNet()(stacked).shape == (2, 160) and UnrolledNet()(unrolled).shape == DeeperUnrolledNet()(unrolled).shape == (2, 200)


def test_outputs_are_twenty_samples_a_step():
    "A step of the first network sees two frames and writes the 20 samples between them."
    net, x = StackedNet().eval(), torch.randn(1, 1, 123, 9)
    changed = x.clone()
    changed[..., 5] += 1.0
    assert ((net(changed) - net(x))[0].abs() > 1e-6).nonzero().flatten().tolist() == list(range(80, 120))


def test_frame_norms_and_sign():
    y = torch.from_numpy(sound()).float()
    parts = reassigned_spectrogram(y, **SETTINGS, center=False, fill_nan=True, clip=False)
    frames = y.unfold(-1, 80, 20) * torch.hamming_window(80)
    torch.testing.assert_close(frame_norms(parts[2]), frames.norm(dim=1), rtol=1e-4, atol=0)
    x = offsets(*parts, sr=16000, n_fft=80, hop_length=20, center=False).unfold(-1, 5, 1).movedim(2, 0)
    net = FrameNet(width=32, depth=1)
    assert outer_product_loss(net, frames[2:-2], x) == outer_product_loss(net, -frames[2:-2], x)
    assert net.predict_frames(x).shape == (len(x), 80)


def test_grid_is_librosas():
    features = librosa.reassigned_spectrogram(np.zeros(1000), **SETTINGS, fill_nan=True)
    bins, starts = Framing(16000, 80, 20, 80, "hamming", True).grid(features[0].shape[1])
    assert np.array_equal(features[0][:, 0], bins) and np.array_equal(features[1][0], starts)


@pytest.mark.parametrize("dtype, close", [(torch.float32, 1e-5), (torch.float64, 1e-13)])
@pytest.mark.parametrize("settings", [dict(n_fft=80, hop_length=20), dict(n_fft=300, hop_length=100, fill_nan=True, clip=False), dict(n_fft=81, ref_power=0.0)])
def test_one_pass_gives_what_is_differentiable(dtype, close, settings):
    x = torch.randn(2, 3, 3000, generator=torch.Generator().manual_seed(0), dtype=dtype)
    x[0, 0] = 0
    x[1, 0] *= 1e-22  # whose squares are zero in float32
    fast, slow = reassigned_spectrogram(x, sr=8000, **settings), reassigned_spectrogram(x.clone().requires_grad_(), sr=8000, **settings)
    for one, two in zip(fast, slow, strict=True):
        assert not one.requires_grad and one.shape == two.shape
        loud = (slow[2].detach() > 1e-3).expand_as(one)
        torch.testing.assert_close(one[loud], two.detach()[loud], rtol=10 * close, atol=500 * close if one is fast[0] else close, equal_nan=True)
        assert (one.isnan() == two.isnan())[loud | (slow[2] == 0)].all()
    torch.testing.assert_close(fast[2], slow[2].detach(), rtol=10 * close, atol=close)
    assert fast[2][1, 0].any()
