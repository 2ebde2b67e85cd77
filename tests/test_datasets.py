"Datasets in every layout, splits, downloads: nothing here needs data or a network."
import csv
import hashlib
import os
import re
import shutil
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from specgen import datasets
from specgen.core import SpecgenError
from specgen.datasets import ARCHIVES, Archive, detect_layout, find_files, load_recordings, shared_speakers, unpack
from specgen.recordings import sounds_below, speaker_facts
from specgen.synthetic_digits import folder_sha256

NOISE = np.random.default_rng(0).normal(0, 0.1, 8000)


def sound(path, samples=NOISE, rate=16000, **settings):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:  # soundfile itself wants names in UTF-8
        soundfile.write(file, samples, rate, format=settings.pop("format", path.suffix[1:].upper()), **settings)
    return path


@pytest.fixture
def alone(monkeypatch, tmp_path):
    "No data, no cache, no network."
    monkeypatch.delenv("SPECGEN_DATA", raising=False)
    monkeypatch.setenv("SPECGEN_CACHE", str(tmp_path / "cache"))

    def refuse(*args, **kwargs):
        raise ConnectionError("no network in tests")

    monkeypatch.setattr(datasets.pooch, "retrieve", refuse)
    return tmp_path


def accounted(dataset, folder):
    "Every sound is used or listed with a reason, and none is both."
    used, listed = {os.path.realpath(r.path) for r in dataset}, {os.path.realpath(bad.path) for bad in dataset.skipped if os.path.lexists(bad.path)}
    assert not used & listed and used | listed == {os.path.realpath(path) for path in sounds_below(folder)}
    assert all(len(bad.reason) > 5 and "\n" not in bad.reason for bad in dataset.skipped)
    return dataset


# ---- folders

def test_folder_of_anything(tmp_path):
    sound(tmp_path / "yes" / "a.wav", np.stack([NOISE, 0 * NOISE], 1), 44100)
    sound(tmp_path / "yes" / "deep" / "er" / "b.flac", rate=8000)
    sound(tmp_path / "no" / "c.ogg", rate=48000)
    sound(tmp_path / "no" / "d.MP3", rate=16000, format="MP3")
    for path in ("empty/nested/folder", "no/x.wav"):
        (tmp_path / path).mkdir(parents=True)
    (tmp_path / "yes" / "readme.txt").write_text("not counted")
    sound(tmp_path / "yes" / "._a.wav")
    sound(tmp_path / "lost.wav")
    dataset = accounted(load_recordings(tmp_path), tmp_path)
    assert dataset.name == "folder" and dataset.classes == ["no", "yes"] and len(dataset) == 4
    assert dataset.labels.tolist() == [0, 0, 1, 1] and dataset.speakers == [None] * 4
    assert [Path(bad.path).name for bad in dataset.skipped] == ["lost.wav"]
    waveforms = dataset.waveforms(8000)
    assert all(w.dtype == torch.float32 and w.ndim == 1 for w in waveforms) and abs(len(waveforms[2]) - 8000 * 8000 / 44100) < 1
    assert load_recordings("folder", root=tmp_path).speakers == [None] * 4
    assert "yes" in dataset.describe() and "1 files skipped" in dataset.describe()


BAD = {
    "text.wav": (b"not a sound at all, but longer than a header of a wav file is", "cannot be read as sound"),
    "empty.flac": (b"", "empty file"),
    "cut.wav": (b"RIFF\xff\xff\xff\xffWAVE", "broken wav header: no format chunk"),
    "random.ogg": (bytes(np.random.default_rng(1).integers(0, 256, 5000, dtype=np.uint8)), "cannot be read as sound"),
    "phone.m4a": (b"\0\0\0 ftypM4A ", "format .m4a cannot be read; convert it to wav or flac"),
}


def test_all_bad_files_at_once(tmp_path):
    for name, (content, _) in BAD.items():
        (tmp_path / "word").mkdir(exist_ok=True)
        (tmp_path / "word" / name).write_bytes(content)
    (tmp_path / "word" / "gone.wav").symlink_to(tmp_path / "nowhere")
    sound(tmp_path / "word" / "silent.wav", np.zeros(8000))
    n = len(BAD) + 2
    with pytest.raises(SpecgenError, match=f"none of {n} sound files"):
        load_recordings(tmp_path)
    sound(tmp_path / "word" / "good.wav")
    dataset = accounted(load_recordings(tmp_path), tmp_path)
    reasons = {bad.path.name: bad.reason for bad in dataset.skipped}
    assert len(dataset) == 1 and len(reasons) == n
    wanted = {name: reason for name, (_, reason) in BAD.items()} | {"gone.wav": "cannot be opened (No such file", "silent.wav": "silent"}
    assert all(reasons[name].startswith(reason) for name, reason in wanted.items())
    rows = list(csv.DictReader(open(dataset.write_skipped(tmp_path / "out" / "skipped.csv"), encoding="utf-8")))
    assert {row["path"]: row["reason"] for row in rows} == {f"word/{name}": reason for name, reason in reasons.items()}
    with pytest.raises(SpecgenError, match="load without strict"):
        load_recordings(tmp_path, strict=True)


@pytest.mark.parametrize("prepare", [lambda p: None, lambda p: (p / "a" / "b").mkdir(parents=True), lambda p: (p / "notes.txt").touch()])
def test_folder_without_sounds(tmp_path, prepare):
    prepare(tmp_path)
    with pytest.raises(SpecgenError, match="holds no sound files; give a folder"):
        load_recordings(tmp_path)


@pytest.mark.parametrize("wrong", ["fsd", "no/such/folder", "folder", ""])
def test_unknown_name(alone, wrong):
    with pytest.raises(SpecgenError, match="no such folder; give digits, fsdd") as caught:
        load_recordings(wrong)
    assert "\n" not in str(caught.value)


def test_a_file_is_no_folder(tmp_path):
    with pytest.raises(SpecgenError, match="no such folder"):
        load_recordings(sound(tmp_path / "x.wav"))


def test_files_and_folders_of_files(tmp_path):
    a, b = sound(tmp_path / "a.wav"), sound(tmp_path / "more" / "b.flac")
    assert find_files([str(b), tmp_path]) == [b, a]
    (tmp_path / "empty").mkdir()
    for nothing in ([], [tmp_path / "empty"]):
        with pytest.raises(SpecgenError, match="name at least one sound file"):
            find_files(nothing)


def test_links_that_lead_back_up(tmp_path):
    top = tmp_path / "place" / "set"
    sound(top / "word" / "a.wav")
    (top / "word" / "up").symlink_to(top)
    (top / "word" / "further").symlink_to(tmp_path)
    (top / "other").symlink_to(tmp_path / "place")
    assert [r.label for r in load_recordings(top)] == ["word"]


def test_two_links_to_one_folder_are_two_classes(tmp_path):
    sound(tmp_path / "elsewhere" / "a.wav")
    for name in ("first", "second"):
        (tmp_path / "set" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "set" / name).symlink_to(tmp_path / "elsewhere")
    dataset = accounted(load_recordings(tmp_path / "set"), tmp_path / "set")
    assert dataset.classes == ["first", "second"] and len(dataset) == 2


def test_a_class_named_all_counts_its_own(tmp_path):
    for label, n in (("all", 1), ("none", 3)):
        for k in range(n):
            sound(tmp_path / label / f"{k}.wav")
    rows = [line.split()[:2] for line in load_recordings(tmp_path).describe().splitlines()[1:4]]
    assert rows == [["all", "1"], ["none", "3"], ["all", "4"]]


def test_names_that_are_no_utf8(tmp_path):
    odd = os.fsdecode(b"caf\xe9")
    try:
        sound(tmp_path / odd / f"{odd}.wav")
    except OSError:
        pytest.skip("this disk takes only UTF-8")
    sound(tmp_path / odd / f"{odd}.flac")
    sound(tmp_path / "tea" / "1.wav")
    (tmp_path / "tea" / f"{odd}.wav").write_text("no sound")
    sound(tmp_path / f"{odd}.ogg")
    dataset = accounted(load_recordings(tmp_path), tmp_path)
    assert dataset.classes == ["caf\\xe9", "tea"] and dataset.labels.tolist() == [0, 0, 1] and len(dataset.skipped) == 2
    assert [len(w) for w in dataset.waveforms(16000)] == [8000] * 3 and len(dataset.digest()) == 64
    table = dataset.write_skipped(tmp_path / "skipped.csv").read_bytes()
    assert b"tea/caf\xe9.wav" in table and table.count(b"\n") == 3
    dataset.describe().encode()


# ---- known layouts

def fsdd(folder, takes=6):
    for digit in "07":
        for speaker in ("ann", "bob"):
            for take in range(takes):
                sound(folder / "recordings" / f"{digit}_{speaker}_{take}.wav", rate=8000)
    return folder


def test_fsdd(alone, monkeypatch):
    place = fsdd(alone / "some" / "free-spoken-digit-dataset-1.0.10")
    sound(place / "recordings" / "seven_ann_1.wav")
    sound(place / "recordings" / "7_ann.wav")
    for dataset in (load_recordings(place), load_recordings(place / "recordings"), load_recordings("fsdd", root=alone), load_recordings("fsdd", root=place)):
        assert dataset.name == "fsdd" and len(dataset) == 24 and [bad.reason[:10] for bad in dataset.skipped] == ["wrong name"] * 2
    train, test = dataset.split()
    assert {dataset[int(i)].take for i in test} == set(range(5)) and len(train) + len(test) == 24
    assert shared_speakers(dataset, train, test) == ["ann", "bob"]
    train, test = dataset.split("speaker", test="bob")
    assert shared_speakers(dataset, train, test) == [] and len(test) == 12
    monkeypatch.setenv("SPECGEN_DATA", str(alone))
    assert len(load_recordings("fsdd")) == 24
    with pytest.raises(SpecgenError, match="wrong name"):
        load_recordings("fsdd", strict=True)


def test_one_stray_file_does_not_take_a_folder_over(tmp_path):
    for label in ("yes", "no"):
        for k in range(3):
            sound(tmp_path / label / f"{k}.wav")
    sound(tmp_path / "1_take_2.wav")
    sound(tmp_path / "data" / "3_take_4.wav")
    assert detect_layout(tmp_path) is None
    dataset = accounted(load_recordings(tmp_path), tmp_path)
    assert dataset.name == "folder" and dataset.classes == ["data", "no", "yes"] and len(dataset) == 7
    assert [(bad.path.name, bad.reason[:23]) for bad in dataset.skipped] == [("1_take_2.wav", "lies in no class folder")]


def test_strays_beside_a_known_layout_are_listed(tmp_path):
    place = fsdd(tmp_path / "fsdd")
    sound(place / "extra" / "hum.wav")
    sound(place / "recordings" / "old" / "0_ann_9.wav")
    sound(place / "7_ann_99.wav")
    dataset = accounted(load_recordings(place), place)
    assert dataset.name == "fsdd" and len(dataset) == 24
    assert {bad.path.name: bad.reason for bad in dataset.skipped} == dict.fromkeys(("hum.wav", "0_ann_9.wav", "7_ann_99.wav"), "lies outside of fsdd's layout")


@pytest.mark.parametrize("signs", [["digits.json"], ["meta/esc50.csv", "audio/x.txt"], ["recordings/0_ann_0.wav"], ["data/01/3_01_4.wav"]])
def test_no_layout_takes_class_folders_over(tmp_path, signs):
    for k in range(3):
        sound(tmp_path / "yes" / f"{k}.wav")
    for sign in signs:
        (tmp_path / sign).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / sign).write_text("filename,fold,target,category,esc10,src_file,take\n")
    dataset = accounted(load_recordings(tmp_path), tmp_path)
    assert dataset.name == "folder" and sum(label == "yes" for label in (r.label for r in dataset)) == 3


def test_audiomnist(tmp_path):
    for speaker in ("01", "26", "60"):
        for digit in range(2):
            sound(tmp_path / "audio-mnist" / "data" / speaker / f"{digit}_{speaker}_0.wav", rate=48000)
    sound(tmp_path / "audio-mnist" / "data" / "01" / "0_60_1.wav")
    sound(tmp_path / "audio-mnist" / "data" / "loose.wav")
    (tmp_path / "audio-mnist" / "data" / "audioMNIST_meta.txt").write_text("{}")
    dataset = accounted(load_recordings("audiomnist", root=tmp_path), tmp_path)
    assert dataset.name == "audiomnist" and len(dataset) == 6 and len(dataset.skipped) == 2
    assert {dataset[int(i)].speaker for i in dataset.split()[1]} == {"26", "60"}
    assert load_recordings(tmp_path / "audio-mnist").name == "audiomnist" and speaker_facts(dataset.root) == {}
    (dataset.root / "audioMNIST_meta.txt").write_text("{'01'")
    with pytest.raises(SpecgenError, match="not JSON"):
        speaker_facts(dataset.root)


def esc50(folder):
    rows = ["filename,fold,target,category,esc10,src_file,take"]
    for fold in range(1, 6):
        for take in "AB":
            sound(folder / "audio" / f"{fold}-{fold}77-{take}-0.ogg", rate=44100)
            rows.append(f"{fold}-{fold}77-{take}-0.wav,{fold},0,dog,True,{fold}77,{take}")
    (folder / "meta").mkdir()
    (folder / "meta" / "esc50.csv").write_text("\n".join(rows + ["1-5-A-3.wav,1,3,cow,False,5,A"]))
    return folder


def test_esc50(tmp_path):
    folder = esc50(tmp_path / "ESC-50-master")
    sound(folder / "audio" / "9-9-A-9.ogg")
    dataset = accounted(load_recordings("esc50", root=tmp_path), tmp_path)
    assert len(dataset) == 10 and dataset.classes == ["dog"] and len(dataset.skipped) == 2  # one without a row, one without a file
    assert {r.take for r in dataset} == {0, 1}
    for fold in range(1, 6):
        train, test = dataset.split("fold", test=fold)
        assert len(test) == 2 and not shared_speakers(dataset, train, test)
    assert {dataset[int(i)].fold for i in dataset.split()[1]} == {5}
    assert [len(part) for part in dataset.split("fold", test="3")] == [8, 2]  # as a command line says it


@pytest.mark.parametrize("rates, also", [((), True), (("16000", "44100"), True), (("16000", "44100"), False)])
def test_esc50_as_kaggle_mounts_its_widely_used_copy(tmp_path, rates, also):
    folder = esc50(tmp_path / "environmental-sound-classification-50")
    (folder / "audio").rename(folder / "sounds")
    (folder / "audio").mkdir()
    (folder / "sounds").rename(folder / "audio" / "audio")
    (folder / "meta" / "esc50.csv").rename(folder / "esc50.csv")
    sounds = list((folder / "audio" / "audio").glob("*.ogg"))
    for rate in rates:
        shutil.copytree(folder / "audio" / "audio", folder / rate)
    for rate in rates:
        (folder / rate).rename(folder / "audio" / "audio" / rate)
    for path in () if also else sounds:
        path.unlink()
    dataset = accounted(load_recordings("esc50", root=tmp_path), tmp_path)
    assert (dataset.name, len(dataset), dataset.root) == ("esc50", 10, folder) and len(dataset.skipped) == 1 + 10 * (len(rates) - (not also))
    assert dataset.skipped[0].reason == "esc50.csv lists it, but it isn't there" and load_recordings(folder).name == "esc50"


def test_esc10_is_a_part_of_esc50(tmp_path):
    folder = esc50(tmp_path)
    sound(folder / "audio" / "1-5-A-3.ogg", rate=44100)
    assert load_recordings("esc50", root=tmp_path).classes == ["cow", "dog"]
    ten = load_recordings("esc10", root=tmp_path)
    assert (ten.name, len(ten), ten.classes) == ("esc10", 10, ["dog"]) and {ten[int(i)].fold for i in ten.split()[1]} == {5}


@pytest.mark.parametrize("table", ["", "a,b\n1,2", "filename,fold,category,src_file\nx.wav,one,dog,3", "filename\n", b"\xff\xfe\x00"])
def test_broken_table(tmp_path, table):
    folder = esc50(tmp_path)
    (folder / "meta" / "esc50.csv").write_bytes(table if isinstance(table, bytes) else table.encode())
    with pytest.raises(SpecgenError, match=r"is not ESC-50's table|meta/esc50\.csv has no such clip"):
        load_recordings(folder)


@pytest.mark.parametrize("name", ["fsdd", "esc50", "audiomnist"])
def test_missing_dataset_lists_the_places(alone, monkeypatch, name):
    monkeypatch.setenv("SPECGEN_DATA", str(alone / "data"))
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    with pytest.raises(SpecgenError) as caught:
        load_recordings(name)
    text = str(caught.value)
    assert "\n" not in text and f"'{name}': not found" in text and "set SPECGEN_DATA" in text
    assert all(place in text for place in (str(alone / "data"), "/kaggle/input", str(alone / "cache"), "download"))
    with pytest.raises(SpecgenError, match=re.escape(str(alone / "else"))):
        load_recordings(name, root=alone / "else")


# ---- parts that folders name

def parts(folder, names, labels=("cat", "dog"), n=4):
    for k, name in enumerate(names):
        for label in labels:
            for i in range(n):
                sound(folder / name / label / f"{k}{i}.wav")
    return folder


@pytest.mark.parametrize("names, held", [(("train", "test"), "test"), (("train", "valid"), "valid"), (("Training", "validation", "testing"), "testing")])
def test_parts_are_no_classes(tmp_path, names, held):
    dataset = accounted(load_recordings(parts(tmp_path, names)), tmp_path)
    assert dataset.classes == ["cat", "dog"] and len(dataset) == 8 * len(names)
    train, test = dataset.split()
    assert {dataset[int(i)].path.parts[-3] for i in test} == {held} and len(test) == 8
    assert {dataset[int(i)].path.parts[-3] for i in train} == set(names) - {held}
    assert len(dataset.split("stratified", fraction=0.25)[1]) == 2 * len(names)


def test_strays_beside_parts_are_listed(tmp_path):
    parts(tmp_path, ("train", "test"))
    strays = [tmp_path / "x.wav", tmp_path / "train" / "y.wav", tmp_path / "other" / "bird" / "z.wav"]
    for path in strays:
        sound(path)
    dataset = accounted(load_recordings(tmp_path), tmp_path)
    assert len(dataset) == 16 and {bad.path for bad in dataset.skipped} == set(strays)


def test_classes_may_be_called_train_and_test(tmp_path):
    for label in ("train", "bus", "test"):
        sound(tmp_path / label / "a.wav")
        sound(tmp_path / label / "more" / "b.wav") if label == "bus" else None
    assert load_recordings(tmp_path).classes == ["bus", "test", "train"]
    sound(tmp_path / "only" / "train" / "a.wav")
    assert load_recordings(tmp_path / "only").classes == ["train"]


def test_parts_without_class_folders_say_so(tmp_path):
    for name in ("train", "test"):
        sound(tmp_path / name / "a.wav")
    with pytest.raises(SpecgenError, match="lies in no class folder; move it into a folder named after its class"):
        load_recordings(tmp_path)


# ---- splits

def test_splits_are_honest_and_repeatable(tmp_path):
    dataset = load_recordings(fsdd(tmp_path, takes=10))
    for by in ("official", "stratified", "speaker"):
        (train, test), again = dataset.split(by, seed=3), dataset.split(by, seed=3)
        assert torch.equal(train, again[0]) and torch.equal(test, again[1])
        assert sorted(train.tolist() + test.tolist()) == list(range(len(dataset)))
    train, test = dataset.split("stratified", fraction=0.2)
    assert torch.bincount(dataset.labels[test]).tolist() == [4, 4]
    assert not torch.equal(dataset.split("stratified", seed=1)[1], dataset.split("stratified", seed=2)[1])
    assert dataset.subset(test).classes == dataset.classes and len(dataset.subset(test)) == len(test)


@pytest.mark.parametrize("by, settings, says", [
    ("speakers", {}, "unknown; choose official, speaker, fold or stratified"),
    ("fold", {}, "has 0 folds, no split by fold is possible"),
    ("speaker", {"test": "eve"}, "has no speaker 'eve'; choose from ann, bob"),
    ("speaker", {"test": ["ann", "bob"]}, "leaves nothing to train on"),
    ("stratified", {"fraction": 1.5}, "fraction 1.5: must lie between 0 and 1"),
])
def test_impossible_splits(tmp_path, by, settings, says):
    with pytest.raises(SpecgenError, match=says) as caught:
        load_recordings(fsdd(tmp_path)).split(by, **settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("by", ["official", "stratified"])
@pytest.mark.parametrize("name", ["ann", "nobody"])
def test_a_test_speaker_needs_a_split_by_speaker(tmp_path, by, name):
    with pytest.raises(SpecgenError, match=f"test '{name}': means nothing to a split by '{by}'; add by='speaker'"):
        load_recordings(fsdd(tmp_path)).split(by, test=name)


def test_a_folder_is_split_by_class(tmp_path):
    for label, n in (("a", 20), ("b", 2), ("c", 1)):
        for k in range(n):
            sound(tmp_path / label / f"{k}.wav")
    dataset = load_recordings(tmp_path)
    assert torch.bincount(dataset.labels[dataset.split()[1]], minlength=3).tolist() == [2, 1, 0]
    with pytest.raises(SpecgenError, match="0 speakers"):
        dataset.split("speaker")


@pytest.mark.parametrize("name, by, digest", [
    ("fsdd", "official", "d0e7e8d92954"), ("fsdd", "stratified", "f4953ae8713e"), ("fsdd", "speaker", "e0920a65c9c6"),
    ("esc10", "official", "544597fffadc"), ("esc10", "stratified", "c1e4a7302d23"), ("esc10", "speaker", "fe7b7ba3ecf2"),
])
@pytest.mark.skipif(not os.environ.get("SPECGEN_DATA"), reason="SPECGEN_DATA is not set")
def test_splits_of_real_datasets_stay_what_they_were(name, by, digest):
    test = load_recordings(name).split(by)[1].tolist()
    assert hashlib.sha256(repr(test).encode()).hexdigest()[:12] == digest


# ---- what else a dataset knows

def test_rates_and_domain(tmp_path):
    for k, rate in enumerate((44100, 44100, 44100, 8000, 22050)):
        sound(tmp_path / "word" / f"{k}.wav", rate=rate)
    dataset = load_recordings(tmp_path)
    assert dataset.common_sample_rate() == 16000 and dataset.common_sample_rate(most=48000) == 44100  # one telephone does not drag all down
    assert dataset.subset([3, 4]).common_sample_rate(most=48000) == 22050 and dataset.subset([3]).common_sample_rate() == 8000
    assert dataset.domain == "words"
    assert [len(w) for w in dataset.subset([0, 3]).waveforms(16000)] == [2903, 16000]  # the slower one is resampled up
    longer = replace(dataset, recordings=[replace(r, duration=d) for r, d in zip(dataset, (0.5, 2.0, 2.0, 1.9, 60.0), strict=True)])
    assert longer.domain == "sounds"


def test_digest_says_what_the_recordings_are(tmp_path):
    for name in ("a/1.wav", "a/2.wav", "b/1.wav"):
        sound(tmp_path / "one" / name)
    dataset = load_recordings(tmp_path / "one")
    (tmp_path / "one").rename(tmp_path / "two")
    assert load_recordings(tmp_path / "two").digest() == dataset.digest()
    assert dataset[0].digest == hashlib.sha256((tmp_path / "two" / "a" / "1.wav").read_bytes()).hexdigest()
    changes = [dict(label="b"), dict(speaker="ann"), dict(take=1), dict(fold=2), dict(part="test"), dict(digest="0")]
    changes.append(dict(path=tmp_path / "one" / "a" / "3.wav"))
    others = [replace(dataset, recordings=[replace(dataset[0], **change), *dataset[1:]]) for change in changes]
    assert len({d.digest() for d in [dataset, dataset.subset([0, 1]), *others]}) == len(changes) + 2


# ---- archives

def packed(path, extra=()):
    with zipfile.ZipFile(path, "w") as file:
        for k in range(3):
            file.writestr(f"top/recordings/{k}_ann_0.wav", bytes([k]) * 100)
        for name in ("top/../../evil.wav", "top/recordings/../evil.wav", "/recordings/evil.sh", *extra):
            file.writestr(name, b"x")
    return path


def test_unpack_checks_and_leaves_nothing(tmp_path):
    zipped = packed(tmp_path / "a.zip")
    archive = Archive("https://example.org/a.zip", re.compile(r"recordings/[^/.]+\.wav"))
    good = unpack(archive, zipped, tmp_path / "good")
    assert [p.name for p in sorted((good / "recordings").iterdir())] == ["0_ann_0.wav", "1_ann_0.wav", "2_ann_0.wav"]
    digest = folder_sha256(good / "recordings")
    unpack(replace(archive, recordings=digest), zipped, tmp_path / "checked")
    unpack(replace(archive, recordings=digest), zipped, tmp_path / "checked")  # as when another process was faster
    wrong = packed(tmp_path / "b.zip", extra=["top/recordings/3_ann_0.wav"])
    (tmp_path / "c.zip").write_text("an error page")
    for bad in (wrong, tmp_path / "c.zip"):
        with pytest.raises(SpecgenError, match="nothing was kept"):
            unpack(replace(archive, recordings=digest), bad, tmp_path / "bad")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zip", "b.zip", "c.zip", "checked", "good"]


def test_download_goes_through_pooch(alone, monkeypatch):
    def fetch(url, known_hash, fname, path, progressbar):
        path.mkdir(parents=True)
        return str(packed(path / fname))

    monkeypatch.setattr(datasets.pooch, "retrieve", fetch)
    with pytest.raises(SpecgenError, match="other recordings than expected"):
        load_recordings("fsdd")
    assert not list((alone / "cache").iterdir())


def test_every_download_is_checked():
    assert all(archive.sha256 or archive.recordings for archive in ARCHIVES.values())


# ---- the real ones

@pytest.mark.skipif(not os.environ.get("SPECGEN_DATA"), reason="SPECGEN_DATA is not set")
def test_real_recordings():
    real = load_recordings("fsdd")
    train, test = real.split()
    assert (len(real), len(train), len(test), len(set(real.speakers))) == (3000, 2700, 300, 6) and not real.skipped
    assert folder_sha256(real.root) == ARCHIVES["fsdd"].recordings
