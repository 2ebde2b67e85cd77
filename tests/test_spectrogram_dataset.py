"One type for what models learn from: the numbers of the former ones, any loader, files that are whole or refused."
import math
from dataclasses import replace

import pytest
import torch
from made_up import noise, two_classes
from torch.utils.data import DataLoader

from specgen.audio import read_audio
from specgen.core import SpecgenError
from specgen.datasets import load_recordings
from specgen.spectrogram import Fbank, HiFiGANMel, LogMel, LogSTFT
from specgen.spectrogram_dataset import SpectrogramDataset, encode_recordings, encode_waveforms, pad_or_crop, standardize, trim_and_crop

STFT = LogSTFT(sample_rate=8000, n_fft=256, hop_length=96, n_bins=128, floor=0.05)
MEL = LogMel(sample_rate=8000, n_fft=512, hop_length=80, n_mels=64, power=1.0)


@pytest.fixture
def dataset():
    made = two_classes(replace(STFT, mean=-2.0, std=1.5), 128, 6, 10, 4)
    return replace(made, speakers=[f"s{i}" for i in range(14)], paths=[f"{i}.wav" for i in range(14)], playback=STFT, about={"by": "speaker"})


# ---- one size, one scale

def test_pad_or_crop():
    assert pad_or_crop(torch.tensor([1.0, 2.0, 3.0]), 6).tolist() == [0, 1, 2, 3, 0, 0]
    late = torch.zeros(1000)
    late[980:990] = 1.0
    assert pad_or_crop(late, 100).sum() == 10 and torch.equal(pad_or_crop(late, 100), late[900:])
    early = late.flip(0) + 0.1 * late
    assert torch.equal(pad_or_crop(early, 100), early[:100])  # centre of energy near sample 24
    middle = torch.zeros(1000)
    middle[600] = 1.0
    assert pad_or_crop(middle, 101)[50] == 1.0
    assert torch.equal(pad_or_crop(late, 1000), late) and pad_or_crop(torch.zeros(50), 10).tolist() == [0.0] * 10


def test_standardize_limits_then_scales():
    specs = torch.tensor([[[0.0, -1.0], [-2.0, -9.0]], [[5.0, 5.0], [5.0, 5.0]]])
    limited = torch.tensor([0.0, -1.0, -2.0, -3.0])
    flat = standardize(specs, 3.0).flatten(1)
    assert torch.allclose(flat[0], (limited + 1.5) / math.sqrt(5 / 3), atol=1e-6) and flat[1].abs().max() == 0
    assert torch.allclose(standardize(7 * noise(3, 8, 9) - 4, 100.0).std((1, 2)), torch.ones(3), atol=1e-5)


def test_trim_and_crop_fades_the_end():
    tone = torch.sin(2 * torch.pi * 440 * torch.arange(8000) / 8000)
    clip = torch.cat([torch.zeros(2000), tone, torch.zeros(3000)])
    whole = trim_and_crop(clip, 8000)
    assert 7900 < len(whole) < 8300
    cut = trim_and_crop(clip, 8000, 4000)
    assert len(cut) == 4000 and cut[-1] == 0 and torch.equal(cut[:3920], whole[:3920])
    assert torch.allclose(cut[3920:], whole[3920:4000] * torch.linspace(1, 0, 80), atol=1e-7)


@pytest.mark.parametrize("representation", [STFT, MEL, Fbank(), HiFiGANMel()])
def test_every_representation_gives_the_frames_asked_for(representation):
    specs = encode_waveforms([noise(n) for n in (900, 30_000)], representation, 32)
    assert specs.shape[0] == 2 and specs.shape[2] == 32


# ---- from recordings: the numbers of the functions that this one replaced

def full(path):
    waveform = read_audio(path)[0]
    return waveform / waveform.abs().max()


def test_one_scale_for_all(sounds):
    recordings = load_recordings(sounds)
    made = encode_recordings(recordings, replace(STFT, mean=3.0, std=9.0), 64)
    train, test = recordings.split()
    logs = torch.stack([STFT.encode(pad_or_crop(full(r.path), 63 * 96)) for r in recordings])
    mean, std = logs[train].mean(), logs[train].std()
    assert made.representation == replace(STFT, mean=mean.item(), std=std.item()) and made.playback is None
    assert torch.allclose(made.spectrograms, (logs - mean) / std, atol=1e-6)
    assert made.is_test.nonzero().flatten().tolist() == test.tolist() and torch.equal(made.labels, recordings.labels)
    assert made.classes == ["hiss", "hum"] and made.paths[:2] == ["hiss/0.wav", "hiss/1.wav"] and made.speakers == [None] * 24
    assert made.about["recordings"] == recordings.digest() and made.about["by"] == "official"
    assert abs(made.train.spectrograms.mean()) < 1e-5 and abs(made.train.spectrograms.std() - 1) < 1e-5


def test_dynamics_are_limited_and_levels_kept(sounds):
    recordings = load_recordings(sounds)
    made, train = encode_recordings(recordings, MEL, 64, depth_db=60.0, alone=False), recordings.split()[0]
    logs = torch.stack([MEL.encode(pad_or_crop(full(r.path), 63 * 80)) for r in recordings])
    limited = logs.maximum(logs.amax((1, 2), keepdim=True) - 60 / (20 / math.log(10)))
    assert made.playback is None and made.about["alone"] is False
    assert torch.allclose(made.representation.denormalize(made.spectrograms), limited, atol=1e-4)
    assert made.representation.mean == pytest.approx(limited[train].mean().item(), abs=1e-5)
    encoded = encode_waveforms([full(r.path) for r in recordings], made.representation, 64, depth_db=60.0, alone=False)
    assert torch.allclose(encoded, made.spectrograms, atol=1e-4)


def test_every_clip_by_itself_with_a_playback_of_mean_level_and_dynamics(sounds):
    recordings = load_recordings(sounds)
    made = encode_recordings(recordings, MEL, 64, depth_db=60.0)
    train, _ = recordings.split()
    logs = torch.stack([MEL.encode(pad_or_crop(full(r.path), 63 * 80)) for r in recordings])
    limited = logs.maximum(logs.amax((1, 2), keepdim=True) - 60 / (20 / math.log(10)))
    own = (limited - limited.mean((1, 2), keepdim=True)) / limited.std((1, 2), keepdim=True)
    mean, std = own[train].mean(), own[train].std()
    assert torch.allclose(made.spectrograms, (own - mean) / std, atol=2e-5)
    level, dynamics = limited[train].mean(), limited[train].std((1, 2)).mean()
    assert made.playback.mean == pytest.approx((level + mean * dynamics).item(), abs=1e-5)
    assert made.playback.std == pytest.approx((std * dynamics).item(), rel=1e-6)
    assert made.playback.mean != made.representation.mean
    heard = made.to_audio(made.spectrograms[:2], n_iter=2)
    assert torch.equal(heard, made.playback.decode(made.spectrograms[:2], n_iter=2)) and heard.abs().max() > 0.01


def test_trimmed_and_cut(sounds):
    recordings = load_recordings(sounds)
    made = encode_recordings(recordings, STFT, 20, trim=True)
    length = 19 * 96
    clips = [full(r.path)[: length - 80] for r in recordings]  # nothing to trim, all too long
    tails = [full(r.path)[length - 80 : length] * torch.linspace(1, 0, 80) for r in recordings]
    logs = torch.stack([STFT.encode(torch.cat(parts)) for parts in zip(clips, tails, strict=True)])
    assert torch.allclose(made.representation.denormalize(made.spectrograms), logs, atol=1e-5)


def test_peaks_may_stay(sounds):
    recordings = load_recordings(sounds).subset([0, 1, 12, 13])
    loud, own = (encode_recordings(recordings, STFT, 16, by="stratified", peak=peak) for peak in (True, False))
    assert loud.representation.mean > own.representation.mean + 0.05


def test_frames_by_the_training_clips(sounds):
    made = encode_recordings(load_recordings(sounds), STFT)  # all of 4000 samples
    assert made.spectrograms.shape[2] == 1 + 4000 // 96
    assert encode_recordings(load_recordings(sounds), replace(STFT, hop_length=1000)).spectrograms.shape[2] == 16


def test_the_split_is_passed_on(sounds):
    with pytest.raises(SpecgenError, match="add by='speaker'"):
        encode_recordings(load_recordings(sounds), STFT, 16, test="ann")
    with pytest.raises(SpecgenError, match="0 speakers"):
        encode_recordings(load_recordings(sounds), STFT, 16, by="speaker")
    recordings = load_recordings(sounds)
    named = replace(recordings, recordings=[replace(r, speaker=f"s{i % 3}") for i, r in enumerate(recordings)])
    made = encode_recordings(named, STFT, 16, by="speaker", test={"s1", "s0"})
    assert {s for s, held in zip(made.speakers, made.is_test.tolist(), strict=True) if held} == {"s0", "s1"} and made.about["test"] == ["s0", "s1"]


# ---- the type

def test_parts_and_selections(dataset):
    assert len(dataset) == 14 and len(dataset.train) == 10 and len(dataset.test) == 4
    assert torch.equal(torch.cat([dataset.train.spectrograms, dataset.test.spectrograms]), dataset.spectrograms)
    assert dataset.test.paths == ["10.wav", "11.wav", "12.wav", "13.wav"] and not dataset.train.is_test.any()
    for which in (torch.tensor([3, 0]), [3, 0], torch.tensor([3, 0], dtype=torch.int32)):
        few = dataset.select(which)
        assert few.speakers == ["s3", "s0"] and torch.equal(few.spectrograms, dataset.spectrograms[[3, 0]])
    assert len(dataset.select(dataset.labels == 1)) == 7 and len(dataset.select(torch.zeros(14, dtype=torch.bool))) == len(dataset.select([])) == 0
    assert dataset.tensors[0] is dataset.spectrograms and dataset.device == torch.device("cpu")
    bare = SpectrogramDataset(noise(3, 4, 5), torch.zeros(3, dtype=torch.long), ["a"], STFT)
    assert not bare.is_test.any() and bare.speakers == [] and bare.select([1]).paths == []


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("shuffle", [False, True])
def test_in_a_data_loader(dataset, workers, shuffle):
    order = torch.Generator().manual_seed(1)
    loader = DataLoader(dataset, 4, shuffle=shuffle, num_workers=workers, generator=order)
    for _ in range(2):
        batches = list(loader)
        specs, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
        assert [len(labels) for _, labels in batches] == [4, 4, 4, 2] and specs.shape == (14, 128, 6)
        rows = [(dataset.spectrograms == spec).flatten(1).all(1).nonzero().item() for spec in specs]
        assert sorted(rows) == list(range(14)) and torch.equal(labels, dataset.labels[rows])
        assert (rows == list(range(14))) != shuffle


def test_examples_one_by_one_and_several(dataset):
    spec, label = dataset[5]
    assert torch.equal(spec, dataset.spectrograms[5]) and label == 1 and label.shape == ()
    several = dataset.__getitems__([5, 2])
    assert torch.equal(several[0][0], spec) and several[1][1] == 0


def test_on_another_device(dataset):
    moved = dataset.to("meta")
    assert {t.device.type for t in (moved.spectrograms, moved.labels, moved.is_test)} == {"meta"} and moved.device.type == "meta"
    assert moved.paths == dataset.paths and dataset.device.type == "cpu"


@pytest.mark.parametrize("change, says", [
    (dict(labels=torch.zeros(13, dtype=torch.long)), r"labels \(13,\)"),
    (dict(spectrograms=torch.zeros(14, 6)), r"need \(N, freq, time\)"),
    (dict(is_test=torch.zeros(2, dtype=torch.bool)), r"is_test \(2,\)"),
    (dict(labels=torch.full((14,), 2)), "labels 2 to 2: must lie within 0 to 1"),
    (dict(labels=torch.full((14,), -1)), "labels -1 to -1"),
    (dict(speakers=["ann"]), "1 speakers for 14 spectrograms"),
])
def test_parts_must_agree(dataset, change, says):
    with pytest.raises(SpecgenError, match=says):
        replace(dataset, **change)


def test_the_digest_is_of_what_is_learnt(dataset):
    other = dataset.spectrograms.clone()
    other[0, 0, 0] += 1
    changes = [dict(spectrograms=other), dict(labels=1 - dataset.labels), dict(is_test=~dataset.is_test), dict(classes=["high", "low"])]
    changes.append(dict(representation=STFT))
    assert len({d.digest() for d in [dataset, *(replace(dataset, **change) for change in changes)]}) == 6
    assert replace(dataset, spectrograms=dataset.spectrograms.clone(), paths=[]).digest() == dataset.digest()


# ---- in a file

def test_saved_and_loaded(dataset, tmp_path):
    assert dataset.save(tmp_path / "made") == tmp_path / "made"
    back = SpectrogramDataset.load(tmp_path / "made")
    assert back.digest() == dataset.digest() and all(map(torch.equal, back.tensors, dataset.tensors))
    for name in ("classes", "representation", "speakers", "paths", "playback", "about"):
        assert getattr(back, name) == getattr(dataset, name)
    odd = replace(dataset, classes=["caf\\xe9", "σ"], speakers=[None] * 14, paths=["caf\udce9.wav"] * 14, playback=None)
    odd.save(tmp_path / "made")
    back = SpectrogramDataset.load(tmp_path / "made")
    assert (back.classes, back.paths, back.playback) == (odd.classes, odd.paths, None)
    assert [p.name for p in (tmp_path / "made").iterdir()] == ["spectrograms.safetensors"]
    dataset.select(dataset.labels == 1).save(tmp_path / "some")
    assert len(SpectrogramDataset.load(tmp_path / "some")) == 7


@pytest.mark.parametrize("damage", ["missing", "short", "text", "other"])
def test_what_is_damaged_is_refused(dataset, tmp_path, damage):
    path = dataset.save(tmp_path) / "spectrograms.safetensors"
    if damage == "missing":
        path.unlink()
    elif damage == "short":
        path.write_bytes(path.read_bytes()[:-10])
    elif damage == "text":
        path.write_text("no tensors")
    else:
        path.write_bytes(path.read_bytes().replace(b'LogSTFT', b'Unknown'))
    reason = r"cannot be read \(No such file" if damage == "missing" else "is damaged or no dataset of spectrograms; delete it and make it again"
    with pytest.raises(SpecgenError, match=rf"spectrograms\.safetensors: {reason}"):
        SpectrogramDataset.load(tmp_path)


def test_a_broken_off_save_leaves_the_old_file(dataset, tmp_path, monkeypatch):
    dataset.save(tmp_path)

    def stop(tensors, path, about):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("safetensors.torch.save_file", stop)
    with pytest.raises(KeyboardInterrupt):
        replace(dataset, classes=["x", "y"]).save(tmp_path)
    assert SpectrogramDataset.load(tmp_path).classes == ["low", "high"] and len(list(tmp_path.iterdir())) == 1
