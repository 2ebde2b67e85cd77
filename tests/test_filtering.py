"Filtering at the edges: strange clips, strange splits, folders of another call."
import csv

import pytest
import soundfile
import torch

from specgen import filtering
from specgen.core import SpecgenError
from specgen.datasets import load_recordings
from specgen.filtering import adaptive_hop_stft, choose_geometry, filter_balance, filter_counts, filter_recordings, stratified_folds
from specgen.spectrogram_dataset import SpectrogramDataset

RATE = 8000


def word(kind, seed, seconds=0.4):
    "A noisy tone of the class's own pitch, with silence around."
    generator = torch.Generator().manual_seed(seed)
    t = torch.arange(int(seconds * RATE)) / RATE
    sound = 0.3 * torch.sin(2 * torch.pi * (500 + 700 * kind) * t) + 0.02 * torch.randn(len(t), generator=generator)
    return torch.nn.functional.pad(sound, (800, 400))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
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
def recordings(folder):
    return load_recordings(folder)


@pytest.fixture
def parts(recordings):
    "Two clips of each class are held out, among them the long one."
    test = [i for i, item in enumerate(recordings) if item.path.stem in ("00", "01", "long")]
    return [i for i in range(len(recordings)) if i not in test], test


def test_every_recording_has_its_row(recordings, parts, tmp_path):
    words = filter_recordings(recordings, *parts, preset="quick", out=tmp_path / "out")
    with open(tmp_path / "out" / "kept.csv", newline="") as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    assert len(rows) == len(recordings) + 1
    reasons = {"long": "too long", "short": "too short", "faint": "silent", "wrong": "high loss"}
    assert {name: rows[f"high/{name}.wav"]["why"] for name in reasons} == reasons
    assert rows["high/wrong.wav"]["prediction"] == "low" and rows["low/text.wav"]["kept"] == "no"
    assert rows["low/text.wav"]["why"] == recordings.skipped[0].reason != ""
    assert sum(row["kept"] == "yes" for row in rows.values()) == len(words)
    assert filter_counts(words)["recordings"] == len(rows) and sum(n for *_, n in filter_balance(words).values()) == len(words)
    assert words.spectrograms.shape[1:] == (256, 24) and words.about["settings"]["drop"] == 0.1


def test_nothing_is_learnt_from_heldout_clips(recordings, parts):
    words = filter_recordings(recordings, *parts, preset="quick")
    without = filter_recordings(recordings, parts[0], [], preset="quick")
    names = [item.path.name for item in recordings]
    assert {f"{recordings[i].label}/{names[i]}" for i in parts[1]} >= set(words.test.paths)
    assert torch.equal(words.train.spectrograms, without.spectrograms) and words.representation == without.representation
    assert all(row["loss"] == "" for row in words.about["rows"] if row["split"] == "test")


def test_same_seed_same_result_and_a_saved_result_is_read(recordings, parts, tmp_path):
    first = filter_recordings(recordings, *parts, preset="quick", out=tmp_path / "out")
    stamp = (tmp_path / "out" / "kept.csv").stat().st_mtime_ns
    again = filter_recordings(recordings, *parts, preset="quick", out=tmp_path / "out")
    fresh = filter_recordings(recordings, *parts, preset="quick")
    assert (tmp_path / "out" / "kept.csv").stat().st_mtime_ns == stamp
    for other in (again, fresh):
        assert other.about == first.about and torch.equal(other.spectrograms, first.spectrograms)
    with pytest.raises(SpecgenError, match="seed 0, not 1"):
        filter_recordings(recordings, *parts, preset="quick", out=tmp_path / "out", seed=1)


@pytest.mark.parametrize("workers", [1, 5])
def test_any_number_of_workers_gives_the_same_bytes(recordings, parts, tmp_path, monkeypatch, workers):
    written = []
    for n in (2, workers):
        monkeypatch.setattr("os.cpu_count", lambda n=n: n)
        monkeypatch.setenv("SPECGEN_CACHE", str(tmp_path / f"cache_{n}"))
        out = tmp_path / f"out_{n}"
        filter_recordings(recordings, *parts, preset="quick", out=out)
        written.append([(out / name).read_bytes() for name in ("kept.csv", "spectrograms.safetensors")])
    assert written[0] == written[1]


def test_every_step_tells_how_far_it_is(recordings, parts, monkeypatch, tmp_path):
    monkeypatch.setenv("SPECGEN_CACHE", str(tmp_path))
    for _ in range(2):  # decoded, then from the cache
        told = []
        filter_recordings(recordings, *parts, preset="quick", progress=lambda step, steps, told=told: told.append((step, steps)))
        assert sum(step == steps for step, steps in told) == 5  # reading, cropping, fitting, two folds


def test_clips_are_fitted_as_one_by_one(recordings, parts):
    words = filter_recordings(recordings, *parts, preset="quick", drop=0)
    sounds = dict(zip((recordings.below_root(r.path) for r in recordings), recordings.waveforms(RATE), strict=True))
    for k in (0, -1):
        sound = filtering.trim_silence(sounds[words.paths[k]], RATE)
        torch.testing.assert_close(words.spectrograms[k], adaptive_hop_stft(sound, words.representation), atol=1e-5, rtol=0)


def test_new_recordings_under_old_names_get_no_old_answer(tmp_path):
    for kind, name in enumerate(("high", "low")):
        (tmp_path / "in" / name).mkdir(parents=True)
        for i in range(4):
            soundfile.write(tmp_path / "in" / name / f"{i}.wav", word(kind, 100 * kind + i).numpy(), RATE)
    filter_recordings(load_recordings(tmp_path / "in"), preset="quick", out=tmp_path / "out")
    soundfile.write(tmp_path / "in" / "low" / "3.wav", word(1, 999).numpy(), RATE)
    with pytest.raises(SpecgenError, match="other recordings"):
        filter_recordings(load_recordings(tmp_path / "in"), preset="quick", out=tmp_path / "out")


def test_killed_after_one_fold_continues(recordings, parts, tmp_path, monkeypatch):
    fit, calls = filtering.Classifier.fit, []

    def fit_once(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return fit(*args, **kwargs)

    monkeypatch.setattr(filtering.Classifier, "fit", fit_once)
    with pytest.raises(KeyboardInterrupt):
        filter_recordings(recordings, *parts, preset="quick", out=tmp_path / "out")
    assert not (tmp_path / "out" / "kept.csv").exists()
    resumed = filter_recordings(recordings, *parts, preset="quick", out=tmp_path / "out")
    assert resumed.about["rows"] == filter_recordings(recordings, *parts, preset="quick").about["rows"]


@pytest.mark.parametrize("how, message", [
    (dict(preset="huge"), "preset 'huge'"),
    (dict(drop=1.0), "drop 1.0"),
    (dict(max_stretch=(2, 1)), "max_stretch"),
    (dict(n_frames=0), "n_frames 0"),
    (dict(colour="red"), "setting 'colour'"),
    (dict(max_stretch=(50, 60)), "no training clip of 'high' is left"),
])
def test_impossible_arguments(recordings, how, message):
    with pytest.raises(SpecgenError, match=message) as error:
        filter_recordings(recordings, **how)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("train, test", [([0, 1], [1]), ([0, 999], []), ([-1], []), ([], [])])
def test_impossible_splits(recordings, train, test):
    with pytest.raises(SpecgenError):
        filter_recordings(recordings, train, test)
    with pytest.raises(SpecgenError, match="no recordings"):
        filter_recordings(recordings.subset([]))


def test_few_clips_and_one_class(recordings):
    high = [i for i, item in enumerate(recordings) if item.label == "high" and item.path.stem.isdigit()]
    low = [i for i, item in enumerate(recordings) if item.label == "low"]
    alone = filter_recordings(recordings, high[:5], high[5:7], preset="quick")
    assert filter_counts(alone)["dropped"] == 0 and len(alone.train) == 5 and {row["loss"] for row in alone.about["rows"]} == {""}
    lone = filter_recordings(recordings, high[:3] + low[:1], [], preset="quick")
    assert set(lone.labels.tolist()) == {0, 1} and len(lone.test) == 0


def test_folds_share_every_label_and_place_the_rare_ones():
    labels = torch.tensor([0] * 12 + [1] * 7 + [2])
    fold = stratified_folds(labels, 3)
    assert torch.bincount(fold[:12]).tolist() == [4, 4, 4] and set(torch.bincount(fold[12:19]).tolist()) <= {2, 3}
    assert torch.equal(fold, stratified_folds(labels, 3)) and not torch.equal(fold, stratified_folds(labels, 3, seed=1))


def test_no_sound_and_one_sample():
    grid = choose_geometry([0.4])
    assert adaptive_hop_stft(torch.ones(1), grid).shape == (256, 24)
    for waveform in (torch.zeros(0), torch.zeros(100)):
        with pytest.raises(SpecgenError, match="silent or empty"):
            adaptive_hop_stft(waveform, grid)
    with pytest.raises(SpecgenError, match="no sound"):
        choose_geometry([])


def test_a_clip_scored_out_of_fold_needs_two_folds():
    alike = SpectrogramDataset(torch.zeros(4, 256, 24), torch.zeros(4, dtype=torch.long), ["a"], choose_geometry([0.4]))
    with pytest.raises(SpecgenError, match="at least 2"):
        filtering.out_of_fold(alike, folds=1)
