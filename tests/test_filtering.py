"""Filtering and augmentation at the edges: strange clips, strange splits, folders of another call."""

import csv

import pytest
import soundfile
import torch

from specgen import augmentation, filtering
from specgen.audio import SpecgenError
from specgen.corpora import load

RATE = 8000


def word(kind, seed, seconds=0.4):
    "A noisy tone of the class's own pitch, with silence around."
    generator = torch.Generator().manual_seed(seed)
    t = torch.arange(int(seconds * RATE)) / RATE
    sound = 0.3 * torch.sin(2 * torch.pi * (500 + 700 * kind) * t) + 0.02 * torch.randn(len(t), generator=generator)
    return torch.nn.functional.pad(sound, (800, 400))


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    "A folder of two classes with a silent clip, a long one, a short one, a wrong label and files that are no sound."
    root = tmp_path_factory.mktemp("words")
    for kind, name in enumerate(("high", "low")):
        (root / name).mkdir()
        for i in range(16):
            soundfile.write(root / name / f"{i:02}.wav", word(kind, 100 * kind + i).numpy(), RATE)
    soundfile.write(root / "high" / "long.wav", word(0, 1, 2.0).numpy(), RATE)
    soundfile.write(root / "high" / "short.wav", word(0, 2, 0.05).numpy(), RATE)
    soundfile.write(root / "high" / "faint.wav", (1.5e-4 * word(0, 3)).numpy(), RATE, subtype="FLOAT")
    soundfile.write(root / "high" / "wrong.wav", word(1, 4).numpy(), RATE)
    (root / "low" / "text.wav").write_text("no sound")
    return root


@pytest.fixture(scope="module")
def corpus(recordings):
    return load(recordings)


@pytest.fixture
def parts(corpus):
    "Two clips of each class are held out, among them the long one."
    test = [i for i, item in enumerate(corpus) if item.path.stem in ("00", "01", "long")]
    return [i for i in range(len(corpus)) if i not in test], test


def test_every_recording_has_its_row(corpus, parts, tmp_path):
    digits = filtering.filter_corpus(corpus, *parts, preset="quick", folder=tmp_path)
    with open(tmp_path / "kept.csv", newline="") as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    assert len(rows) == len(corpus) + 1
    reasons = {"long": "too long", "short": "too short", "faint": "silent", "wrong": "high loss"}
    assert {name: rows[f"high/{name}.wav"]["why"] for name in reasons} == reasons
    assert rows["high/wrong.wav"]["prediction"] == "low" and rows["low/text.wav"]["kept"] == "no" and rows["low/text.wav"]["why"]
    assert sum(row["kept"] == "yes" for row in rows.values()) == len(digits)
    assert digits.counts()["recordings"] == len(rows) and sum(n for *_, n in digits.balance().values()) == len(digits)


def test_nothing_is_learnt_from_heldout_clips(corpus, parts):
    digits = filtering.filter_corpus(corpus, *parts, preset="quick")
    without = filtering.filter_corpus(corpus, parts[0], [], preset="quick")
    assert set(digits.test.source.tolist()) <= set(parts[1]) and set(digits.train.source.tolist()) <= set(parts[0])
    assert torch.equal(digits.train.pictures, without.pictures) and digits.representation == without.representation
    assert all(row["loss"] == "" for row in digits.rows if row["split"] == "test")


def test_same_seed_same_result_and_saved_result_is_read(corpus, parts, tmp_path):
    first = filtering.filter_corpus(corpus, *parts, preset="quick", folder=tmp_path)
    stamp = (tmp_path / "digits.safetensors").stat().st_mtime_ns
    again = filtering.filter_corpus(corpus, *parts, preset="quick", folder=tmp_path)
    fresh = filtering.filter_corpus(corpus, *parts, preset="quick")
    assert (tmp_path / "digits.safetensors").stat().st_mtime_ns == stamp
    for other in (again, fresh):
        assert other.rows == first.rows and torch.equal(other.pictures, first.pictures)
    with pytest.raises(SpecgenError, match="other seed"):
        filtering.filter_corpus(corpus, *parts, preset="quick", folder=tmp_path, seed=1)


def test_killed_after_one_fold_continues(corpus, parts, tmp_path, monkeypatch):
    fit, calls = filtering.fit_classifier, []

    def fit_once(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return fit(*args, **kwargs)

    monkeypatch.setattr(filtering, "fit_classifier", fit_once)
    with pytest.raises(KeyboardInterrupt):
        filtering.filter_corpus(corpus, *parts, preset="quick", folder=tmp_path)
    assert not (tmp_path / "digits.safetensors").exists() and not (tmp_path / "kept.csv").exists()
    resumed = filtering.filter_corpus(corpus, *parts, preset="quick", folder=tmp_path)
    assert resumed.rows == filtering.filter_corpus(corpus, *parts, preset="quick").rows


@pytest.mark.parametrize("how, message", [
    (dict(preset="huge"), "preset 'huge'"),
    (dict(drop=1.0), "drop 1.0"),
    (dict(max_stretch=(2, 1)), "max_stretch"),
    (dict(n_frames=0), "n_frames 0"),
    (dict(max_stretch=(50, 60)), "no training clip of 'high' is left"),
])
def test_impossible_arguments(corpus, how, message):
    with pytest.raises(SpecgenError, match=message) as error:
        filtering.filter_corpus(corpus, **how)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("train, test", [([0, 1], [1]), ([0, 999], []), ([-1], []), ([], [])])
def test_impossible_splits(corpus, train, test):
    with pytest.raises(SpecgenError):
        filtering.filter_corpus(corpus, train, test)
    with pytest.raises(SpecgenError, match="no recordings"):
        filtering.filter_corpus(corpus.subset([]))


def test_few_clips_and_one_class(corpus):
    high = [i for i, item in enumerate(corpus) if item.label == "high" and item.path.stem.isdigit()]
    low = [i for i, item in enumerate(corpus) if item.label == "low"]
    alone = filtering.filter_corpus(corpus, high[:5], high[5:7], preset="quick")
    assert alone.counts()["dropped"] == 0 and len(alone.train) == 5 and {row["loss"] for row in alone.rows} == {""}
    lone = filtering.filter_corpus(corpus, high[:3] + low[:1], [], preset="quick")
    assert set(lone.labels.tolist()) == {0, 1} and len(lone.test) == 0


def test_broken_result_is_named(tmp_path):
    (tmp_path / "digits.safetensors").write_bytes(b"no tensors")
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(SpecgenError, match="digits.safetensors"):
            filtering.DigitSet.load(folder)


def test_one_sample_clips():
    grid = filtering.choose_geometry([0.4])
    assert filtering.fit_duration(torch.ones(1), grid).shape == (24, 256) and len(filtering.trim(torch.ones(1), RATE)) == 0
    for waveform in (torch.zeros(0), torch.zeros(100)):
        with pytest.raises(SpecgenError, match="silent or empty"):
            filtering.fit_duration(waveform, grid)
    with pytest.raises(SpecgenError, match="no sound"):
        filtering.choose_geometry([])


def test_augment_shapes_and_errors():
    pictures = torch.randn(3, 24, 256, generator=torch.Generator().manual_seed(0))
    five = augmentation.augment(pictures, torch.tensor([4, 5, 6]))
    assert five.pictures.shape == (15, 24, 256) and torch.equal(five.pictures[:3], pictures) and five.pictures.is_contiguous()
    assert five.labels.tolist() == [4, 5, 6] * 5 and five.source.tolist() == [0, 1, 2] * 5
    assert five.kind.tolist() == [k for k in range(5) for _ in range(3)]
    assert len(augmentation.augment(pictures[:0], torch.zeros(0, dtype=torch.long)).pictures) == 0
    for wrong, labels in ((pictures[0], 1), (pictures, 2), (pictures[:, :2], 3)):
        with pytest.raises(SpecgenError, match="need"):
            augmentation.augment(wrong, torch.zeros(labels, dtype=torch.long))
