"Recordings are read, checked and decoded once, and never believed when they have changed."
import hashlib
import os
import random
import sys
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import soundfile
import torch

from specgen import recordings, waveforms
from specgen.audio import read_audio
from specgen.core import SpecgenError
from specgen.datasets import load_recordings
from specgen.recordings import cache_folder, folders_below, sounds_below
from specgen.waveforms import make_room, stored_waveforms, waveforms_file


def folder_of(place, content, rate=8000):
    "Files of noise with these names, old enough to be believed the next time; each sample a multiple of 2^-15."
    for seed, name in enumerate(content):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(place / name, np.random.default_rng(seed).integers(-9000, 9000, 4000).astype(np.int16), rate)
        os.utime(place / name, (1e9, 1e9))
    return place


NAMES = ["a/1.wav", "a/2.flac", "b/1.ogg", "b/2.wav"]


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("SPECGEN_CACHE", str(tmp_path / "cache"))
    return folder_of(tmp_path / "sounds", NAMES)


class Opened(Counter):
    "How often each file was opened by Python or by libsndfile."

    def __init__(self, monkeypatch, place):
        super().__init__()
        self.place, self.active = str(place), True
        sys.addaudithook(lambda event, args: event == "open" and self.note(args[0]))
        original = soundfile.SoundFile.__init__

        def init(sound, file, *args, **kwargs):
            self.note(file)
            return original(sound, file, *args, **kwargs)

        monkeypatch.setattr(soundfile.SoundFile, "__init__", init)

    def note(self, file):
        if self.active and isinstance(file, str | bytes | os.PathLike) and os.fsdecode(file).startswith(self.place):
            self[os.path.relpath(os.fsdecode(file), self.place)] += os.path.isfile(file)


@pytest.fixture
def opened(place, monkeypatch):
    counter = Opened(monkeypatch, place)
    yield counter
    counter.active = False  # an audit hook cannot be removed


def test_every_file_is_read_once(place, opened):
    first = load_recordings(place)
    first.digest()
    waveforms = first.waveforms(16000)
    assert +opened == dict.fromkeys(NAMES, 1)
    again = load_recordings(place)  # as in the next process: nothing is read
    assert again.recordings == first.recordings and again.digest() == first.digest()
    assert all(map(torch.equal, again.waveforms(16000), waveforms))
    assert all(map(torch.equal, again.subset([3, 1]).waveforms(16000), [waveforms[3], waveforms[1]]))
    assert sum(opened.values()) == len(NAMES)
    again.waveforms(8000)  # another rate
    assert +opened == dict.fromkeys(NAMES, 2)


def test_waveforms_are_those_of_the_files(place):
    dataset = load_recordings(place)
    for rate in (8000, 11025):
        plain = [read_audio(r.path, rate)[0] for r in dataset]
        for _ in range(2):  # decoded, then from the cache
            assert all(w.dtype == torch.float32 for w in dataset.waveforms(rate)) and all(map(torch.equal, dataset.waveforms(rate), plain))


def test_16_bits_are_kept_as_16_bits(place):
    for name in ("b/1.ogg", "a/2.flac"):
        (place / name).unlink()
    dataset = load_recordings(place)
    dataset.waveforms(8000), dataset.waveforms(4000)
    sizes = [waveforms_file(dataset.digest(), rate).stat().st_size for rate in (8000, 4000)]
    assert 16000 <= sizes[0] < 16500 and 16000 <= sizes[1] < 16500  # 2 x 4000 samples of 2 bytes; 2 x 2000 of 4


def test_a_subset_is_decoded_alone_and_not_kept(place, opened):
    part = load_recordings(place).subset([0])
    load_recordings(place).subset([0]).waveforms(8000)
    assert +opened == {**dict.fromkeys(NAMES, 1), "a/1.wav": 2}
    assert len(part.waveforms(8000)) == 1 and not (cache_folder() / "waveforms").exists()


@pytest.mark.parametrize("keep_times", [False, True])
def test_new_recordings_under_old_names_are_new(place, keep_times):
    old = load_recordings(place)
    before = old.waveforms(8000)
    size = (place / "a/1.wav").stat().st_size
    folder_of(place, ["other.wav", "a/1.wav"])  # same size, other samples
    os.utime(place / "a/1.wav", (1e9, 1e9) if keep_times else (2e9, 2e9))
    assert (place / "a/1.wav").stat().st_size == size
    new = load_recordings(place)
    assert new.digest() != old.digest() and new[0].digest != old[0].digest
    after = new.waveforms(8000)
    assert not torch.equal(after[0], before[0]) and all(map(torch.equal, after[1:], before[1:]))
    assert torch.equal(after[0], read_audio(place / "a/1.wav")[0])


def test_a_file_that_changed_since_is_refused(place):
    dataset = load_recordings(place)
    dataset.contents.clear()  # as when it was checked before
    folder_of(place, ["x.wav", "a/1.wav"])
    with pytest.raises(SpecgenError, match=r"1\.wav: has changed since it was checked; load the dataset again"):
        dataset.waveforms(8000)


def test_what_is_wrong_is_remembered_too(place, opened):
    (place / "a/bad.wav").write_bytes(b"no sound" * 20)
    os.utime(place / "a/bad.wav", (1e9, 1e9))
    reasons = [[bad.reason for bad in load_recordings(place).skipped] for _ in range(2)]
    assert reasons[0] == reasons[1] and "cannot be read as sound" in reasons[0][0]
    assert opened["a/bad.wav"] == 1
    os.remove(place / "a/bad.wav")
    assert not load_recordings(place).skipped


def test_a_file_of_this_moment_is_read_anew(place, opened):
    os.utime(place / "a/1.wav")
    for _ in range(2):
        load_recordings(place)
    assert +opened == {**dict.fromkeys(NAMES, 1), "a/1.wav": 2}


@pytest.mark.parametrize("kind", ["a file", "nowhere", "damaged"])
def test_without_a_cache_everything_works(place, tmp_path, monkeypatch, kind):
    wanted = load_recordings(place).waveforms(16000)
    cache = tmp_path / "other"
    if kind == "a file":
        cache.write_text("no folder")
    elif kind == "damaged":
        cache.mkdir()
        (cache / "recordings.sqlite").write_bytes(b"no table" * 200)
        (cache / "waveforms").write_text("no folder")
    monkeypatch.setenv("SPECGEN_CACHE", "/proc/nowhere/cache" if kind == "nowhere" else str(cache))
    for _ in range(2):
        dataset = load_recordings(place)
        assert len(dataset) == 4 and all(map(torch.equal, dataset.waveforms(16000), wanted))


def test_a_damaged_copy_is_made_again(place):
    dataset = load_recordings(place)
    wanted, path = dataset.waveforms(16000), waveforms_file(dataset.digest(), 16000)
    path.write_bytes(path.read_bytes()[:500])
    assert all(map(torch.equal, dataset.waveforms(16000), wanted)) and stored_waveforms(path, [dataset[0].digest])


def test_a_long_dataset_is_not_kept(place, monkeypatch):
    monkeypatch.setattr("specgen.datasets.STORED", 1000)
    assert len(load_recordings(place).waveforms(16000)) == 4 and not (cache_folder() / "waveforms").exists()


def test_large_files_are_never_held(place, monkeypatch):
    small = load_recordings(place)
    for module in (recordings, waveforms):
        monkeypatch.setattr(module, "LARGE", 100)
    monkeypatch.setenv("SPECGEN_CACHE", str(place.parent / "new"))
    dataset = load_recordings(place)
    assert not dataset.contents and dataset.recordings == small.recordings
    assert all(map(torch.equal, dataset.waveforms(16000), small.waveforms(16000)))


def test_a_large_file_that_changed_is_refused(place, monkeypatch):
    for module in (recordings, waveforms):
        monkeypatch.setattr(module, "LARGE", 100)
    dataset = load_recordings(place)
    folder_of(place, ["x.wav", "a/1.wav"])
    with pytest.raises(SpecgenError, match=r"1\.wav: has changed since it was checked"):
        dataset.waveforms(8000)


def test_what_is_held_is_let_go(place):
    for _ in range(2):
        dataset = load_recordings(place)
        (cache_folder() / "recordings.sqlite").unlink()  # so that the files are read again
        assert len(dataset.contents) == 4
        dataset.waveforms(8000)
        assert not dataset.contents


def test_what_is_held_has_a_limit(place, monkeypatch):
    monkeypatch.setattr(recordings, "KEPT", 17_000)
    dataset = load_recordings(place)
    assert 0 < sum(map(len, dataset.contents.values())) <= 17_000
    dataset.waveforms(8000)
    assert not dataset.contents


def test_the_cache_has_a_limit(tmp_path):
    for k in range(4):
        (tmp_path / f"{k}.safetensors").write_bytes(bytes(100))
        os.utime(tmp_path / f"{k}.safetensors", (k, k))
    make_room(tmp_path, 250)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["2.safetensors", "3.safetensors"]


def test_recordings_of_ones_own_need_no_digest(place):
    dataset = load_recordings(place)
    bare = replace(dataset, recordings=[replace(r, digest="") for r in dataset], contents={})
    assert all(map(torch.equal, bare.waveforms(8000), dataset.waveforms(8000)))


def test_threads_keep_the_order(tmp_path, monkeypatch):
    monkeypatch.setenv("SPECGEN_CACHE", str(tmp_path / "cache"))
    names = [f"c/{k:03}.{'flac' if k % 2 else 'wav'}" for k in range(60)]
    dataset = load_recordings(folder_of(tmp_path / "sounds", names))
    assert [r.path.name for r in dataset] == [Path(n).name for n in names]
    assert [r.digest for r in dataset] == [hashlib.sha256((tmp_path / "sounds" / n).read_bytes()).hexdigest() for n in names]
    assert all(torch.equal(w, read_audio(r.path)[0]) for w, r in zip(dataset.waveforms(8000), dataset, strict=True))


@pytest.mark.parametrize("seed", range(8))
def test_every_sound_of_a_random_tree_is_used_or_listed(tmp_path, monkeypatch, seed):
    monkeypatch.setenv("SPECGEN_CACHE", str(tmp_path / "cache"))
    draw, names = random.Random(seed), {"0_ann_0.wav"}
    for _ in range(draw.randint(5, 25)):
        depth = draw.choice([0, 0, 1, 1, 1, 2, 3])
        folders = [draw.choice(["train", "test", "val", "recordings", "data", "01", "yes", "no", "all"]) for _ in range(depth)]
        names.add("/".join([*folders, draw.choice(["{}_ann_{}.wav", "{}_01_{}.wav", "x{}{}.wav"]).format(draw.randint(0, 3), draw.randint(0, 3))]))
    top = folder_of(tmp_path / "sounds", sorted(names))
    if seed % 2:
        (top / "link").symlink_to(top / sorted(names)[-1].split("/")[0])
    try:
        dataset = load_recordings(top)
    except SpecgenError as error:
        assert f"none of {len(names)} sound files can be used" in str(error)
        return
    used, listed = {os.path.realpath(r.path) for r in dataset}, {os.path.realpath(bad.path) for bad in dataset.skipped}
    assert used | listed == {os.path.realpath(top / name) for name in names} == {os.path.realpath(p) for p in sounds_below(top)}
    assert not used & listed and all(bad.reason for bad in dataset.skipped)


def test_a_closed_folder_beside_a_known_layout_does_no_harm(tmp_path, monkeypatch):
    monkeypatch.setenv("SPECGEN_CACHE", str(tmp_path / "cache"))
    folder_of(tmp_path / "fsdd", ["recordings/0_ann_0.wav", "recordings/1_ann_1.wav", "lost/x.wav"])
    scandir = os.scandir

    def closed(folder):
        if Path(folder).name == "lost":
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", closed)
    dataset = load_recordings(tmp_path / "fsdd")
    assert (dataset.name, len(dataset), dataset.skipped) == ("fsdd", 2, [])
    (tmp_path / "fsdd" / "recordings").rename(tmp_path / "fsdd" / "zero")  # now it is a class
    with pytest.raises(SpecgenError, match=r"lost: cannot be opened \(Permission denied\); check the path and its permissions"):
        load_recordings(tmp_path / "fsdd")


def test_folders_below_are_seen_once(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "again").symlink_to(tmp_path / "a" / "b")
    (tmp_path / "a" / "top").symlink_to(tmp_path)
    assert [p.relative_to(tmp_path).as_posix() for p in folders_below(tmp_path)] == [".", "a", "a/again"]


def test_waveforms_one_at_a_time(place, monkeypatch):
    wanted = load_recordings(place).waveforms(16000)
    for kept in (False, True):
        monkeypatch.setattr("specgen.datasets.STORED", 1 << 30 if kept else 0)
        monkeypatch.setenv("SPECGEN_CACHE", str(place.parent / f"lazy_{kept}"))
        for _ in range(2):  # decoded, then from the cache
            lazy = load_recordings(place).lazy_waveforms(16000)
            assert len(lazy) == 4 and all(map(torch.equal, lazy, wanted)) and torch.equal(lazy[2], wanted[2])
            with pytest.raises(IndexError):
                lazy[4]
        assert (cache_folder() / "waveforms").exists() == kept
        assert not [path for path in cache_folder().rglob("*") if "tmp" in path.name]  # the file has no name


def test_waveforms_in_threads(place, monkeypatch):
    monkeypatch.setattr(recordings, "SHORT", 0.0)
    lazy, wanted = load_recordings(place).lazy_waveforms(8000), load_recordings(place).waveforms(8000)
    order = [k % 4 for k in range(400)]
    assert all(map(torch.equal, recordings.in_parallel(lazy.__getitem__, order, "reading", False), [wanted[k] for k in order]))


def test_only_long_calls_go_to_threads():
    def who(seconds):
        time.sleep(seconds)
        return threading.get_ident()

    for seconds, alone in ((0.0, True), (0.003, False)):
        idents = list(recordings.in_parallel(who, [seconds] * 40, "waiting", False))
        assert (set(idents) == {threading.get_ident()}) is alone and len(idents) == 40


def test_without_a_cache_the_waveforms_lie_elsewhere(place, monkeypatch):
    wanted = load_recordings(place).waveforms(16000)
    monkeypatch.setenv("SPECGEN_CACHE", "/proc/nowhere/cache")
    assert all(map(torch.equal, load_recordings(place).lazy_waveforms(16000), wanted))


def test_a_full_disk_is_one_line(place, monkeypatch):
    monkeypatch.setattr(waveforms.tempfile, "TemporaryFile", lambda **how: open("/dev/full", "wb", buffering=0))
    with pytest.raises(SpecgenError, match="cannot be written") as error:
        load_recordings(place).lazy_waveforms(16000)
    assert "\n" not in str(error.value)


def test_empty_and_16_bit_waveforms_are_kept(tmp_path):
    sounds = [torch.zeros(0), torch.tensor([-1.0, 0.5]), torch.arange(5) / 32768]
    assert all(map(torch.equal, waveforms.spooled(sounds), sounds))
    waveforms.store_waveforms(tmp_path / "kept.safetensors", list("abc"), sounds)
    kept = stored_waveforms(tmp_path / "kept.safetensors", list("cab"))
    assert kept.dtype == torch.int16 and all(map(torch.equal, kept, [sounds[k] for k in (2, 0, 1)]))
    assert torch.equal(safetensors.torch.load_file(tmp_path / "kept.safetensors")["samples"], (torch.cat(sounds) * 32768).short())
