"""A grid of bad files and folders, corpora in every layout, splits, downloads: nothing here needs data or a network."""

import csv
import os
import re
import struct
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from specgen import corpora
from specgen.audio import SpecgenError
from specgen.corpora import Archive, load, make_digits, measure, recordings_digest, shared_speakers, split, unpack

NOISE = np.random.default_rng(0).normal(0, 0.1, 8000)
needs_espeak = pytest.mark.skipif(not find_spec("espeakng_loader"), reason="specgen[digits] is not installed")


def sound(path, samples=NOISE, rate=16000, **settings):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, **settings)
    return path


@pytest.fixture
def alone(monkeypatch, tmp_path):
    "No data, no cache, no network."
    monkeypatch.delenv("SPECGEN_DATA", raising=False)
    monkeypatch.setenv("SPECGEN_CACHE", str(tmp_path / "cache"))

    def refuse(*args, **kwargs):
        raise ConnectionError("no network in tests")

    monkeypatch.setattr(corpora.pooch, "retrieve", refuse)
    return tmp_path


# ---- one file

def cut(path, share):
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * share)])
    return path


def patched(path, at, data):
    raw = bytearray(path.read_bytes())
    raw[at : at + len(data)] = data
    path.write_bytes(bytes(raw))
    return path


BAD = {
    "text": (lambda p: p.write_text("not a sound at all, but longer than a header of a wav file is"), "cannot be read"),
    "empty": (lambda p: p.touch(), "empty file"),
    "header alone": (lambda p: sound(p, NOISE[:0]), "no samples"),
    "one sample": (lambda p: sound(p, NOISE[:1]), "too short: 1 sample,"),
    "silent": (lambda p: sound(p, np.zeros(8000)), "silent"),
    "constant": (lambda p: sound(p, np.full(8000, 0.5)), "silent"),
    "silent 24 bit": (lambda p: sound(p, np.zeros(8000), subtype="PCM_24"), "silent"),
    "not numbers": (lambda p: sound(p, np.full(8000, np.nan), subtype="FLOAT"), "not numbers"),
    "truncated": (lambda p: cut(sound(p), 0.6), "truncated"),
    "truncated by a byte": (lambda p: p.write_bytes(sound(p).read_bytes()[:-1]), "truncated"),
    "truncated stereo float": (lambda p: cut(sound(p, np.stack([NOISE, NOISE], 1), subtype="FLOAT"), 0.9), "truncated"),
    "cut in the header": (lambda p: p.write_bytes(sound(p).read_bytes()[:20]), "broken wav header"),
    "no channels": (lambda p: patched(sound(p), 22, b"\0\0"), "0 channels"),
    "random bytes": (lambda p: p.write_bytes(bytes(np.random.default_rng(1).integers(0, 256, 5000, dtype=np.uint8))), "cannot be read"),
    "random after RIFF": (lambda p: p.write_bytes(b"RIFF\xff\xff\xff\xffWAVEfmt \x10" + bytes(range(200))), ""),
    "broken link": (lambda p: p.symlink_to(p.with_name("nowhere")), "cannot be opened"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_wav(tmp_path, kind):
    make, reason = BAD[kind]
    make(tmp_path / "x.wav")
    answer = measure(tmp_path / "x.wav")
    assert isinstance(answer, str) and reason in answer and "\n" not in answer


@pytest.mark.parametrize("suffix", ["flac", "ogg", "opus"])
def test_truncated_codes(tmp_path, suffix):
    settings = {"format": "OGG", "subtype": "OPUS"} if suffix == "opus" else {}
    path = sound(tmp_path / f"x.{suffix}", **settings)
    assert measure(path) == (0.5, 16000) or suffix == "opus"
    for share in (0.99, 0.5, 0.1):
        cut(path, share)
        assert isinstance(measure(path), str)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "MS_ADPCM"])
@pytest.mark.parametrize("channels", [1, 2])
def test_every_wav_is_measured(tmp_path, subtype, channels):
    path = sound(tmp_path / "x.WAV", np.stack([NOISE] * channels, 1), 44100, subtype=subtype)
    seconds, rate = measure(path)
    assert rate == 44100 and abs(seconds - soundfile.info(path).duration) < 1e-9


def test_extensible_and_streamed_wav(tmp_path):
    assert measure(sound(tmp_path / "x.wav", format="WAVEX")) == (0.5, 16000)
    raw = bytearray(sound(tmp_path / "y.wav").read_bytes())
    raw[40:44] = struct.pack("<I", 0xFFFFFFFF)
    (tmp_path / "y.wav").write_bytes(bytes(raw))
    assert measure(tmp_path / "y.wav") == (0.5, 16000)
    (tmp_path / "z.wav").write_bytes(sound(tmp_path / "y.wav").read_bytes() + b"LIST\x04\0\0\0abcd")
    assert measure(tmp_path / "z.wav") == (0.5, 16000)


def test_large_wav_is_measured_in_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(corpora, "LARGE", 100)
    assert measure(sound(tmp_path / "x.wav")) == (0.5, 16000)


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
    corpus = load(tmp_path)
    assert corpus.name == "folder" and corpus.classes == ["no", "yes"] and len(corpus) == 4
    assert corpus.labels.tolist() == [0, 0, 1, 1] and corpus.speakers == [None] * 4
    assert [Path(bad.path).name for bad in corpus.skipped] == ["lost.wav"]
    sounds = corpus.waveforms(8000)
    assert all(w.dtype == torch.float32 and w.ndim == 1 for w in sounds) and abs(len(sounds[2]) - 8000 * 8000 / 44100) < 1
    assert sorted(load("folder", root=tmp_path).speakers, key=str) == [None] * 4
    assert "yes" in corpus.describe() and "1 files skipped" in corpus.describe()


def test_all_bad_files_at_once(tmp_path):
    for i, (make, _) in enumerate(BAD.values()):
        (tmp_path / "word").mkdir(exist_ok=True)
        make(tmp_path / "word" / f"{i}.wav")
    with pytest.raises(SpecgenError, match=f"none of {len(BAD)} sound files"):
        load(tmp_path)
    sound(tmp_path / "word" / "good.wav")
    corpus = load(tmp_path)
    assert len(corpus) == 1 and len(corpus.skipped) == len(BAD)
    rows = list(csv.DictReader(open(corpus.write_skipped(tmp_path / "out" / "skipped.csv"), encoding="utf-8")))
    assert len(rows) == len(BAD) and all(row["reason"] and row["path"].startswith("word") for row in rows)
    with pytest.raises(SpecgenError, match="load without strict"):
        load(tmp_path, strict=True)


@pytest.mark.parametrize("prepare", [lambda p: None, lambda p: (p / "a" / "b").mkdir(parents=True), lambda p: (p / "notes.txt").touch()])
def test_folder_without_sounds(tmp_path, prepare):
    prepare(tmp_path)
    with pytest.raises(SpecgenError, match="holds no sound files; give a folder"):
        load(tmp_path)


@pytest.mark.parametrize("wrong", ["fsd", "no/such/folder", "folder", ""])
def test_unknown_name(alone, wrong):
    with pytest.raises(SpecgenError, match="no such folder; give digits, fsdd") as caught:
        load(wrong)
    assert "\n" not in str(caught.value)


def test_a_file_is_no_folder(tmp_path):
    with pytest.raises(SpecgenError, match="no such folder"):
        load(sound(tmp_path / "x.wav"))


def test_a_link_that_leads_back_up(tmp_path):
    sound(tmp_path / "word" / "a.wav")
    (tmp_path / "word" / "up").symlink_to(tmp_path)
    assert len(load(tmp_path)) == 1


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
    for corpus in (load(place), load(place / "recordings"), load("fsdd", root=alone), load("fsdd", root=place)):
        assert corpus.name == "fsdd" and len(corpus) == 24 and [bad.reason[:10] for bad in corpus.skipped] == ["wrong name"] * 2
    train, test = split(corpus)
    assert {corpus[int(i)].take for i in test} == set(range(5)) and len(train) + len(test) == 24
    assert shared_speakers(corpus, train, test) == ["ann", "bob"]
    train, test = split(corpus, "speaker", test="bob")
    assert shared_speakers(corpus, train, test) == [] and len(test) == 12
    monkeypatch.setenv("SPECGEN_DATA", str(alone))
    assert len(load("fsdd")) == 24
    with pytest.raises(SpecgenError, match="wrong name"):
        load("fsdd", strict=True)


def test_audiomnist(tmp_path):
    for speaker in ("01", "26", "60"):
        for digit in range(2):
            sound(tmp_path / "audio-mnist" / "data" / speaker / f"{digit}_{speaker}_0.wav", rate=48000)
    sound(tmp_path / "audio-mnist" / "data" / "01" / "0_60_1.wav")
    (tmp_path / "audio-mnist" / "data" / "audioMNIST_meta.txt").write_text("{}")
    corpus = load("audiomnist", root=tmp_path)
    assert corpus.name == "audiomnist" and len(corpus) == 6 and len(corpus.skipped) == 1
    assert {corpus[int(i)].speaker for i in split(corpus)[1]} == {"26", "60"}
    assert load(tmp_path / "audio-mnist").name == "audiomnist" and corpora.speaker_facts(corpus) == {}
    (corpus.root / "audioMNIST_meta.txt").write_text("{'01'")
    with pytest.raises(SpecgenError, match="not JSON"):
        corpora.speaker_facts(corpus)


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
    corpus = load("esc50", root=tmp_path)
    assert len(corpus) == 10 and corpus.classes == ["dog"] and len(corpus.skipped) == 1
    assert {item.take for item in corpus} == {0, 1}
    for fold in range(1, 6):
        train, test = split(corpus, "fold", test=fold)
        assert len(test) == 2 and not shared_speakers(corpus, train, test)
    assert {corpus[int(i)].fold for i in split(corpus)[1]} == {5}
    assert [len(part) for part in split(corpus, "fold", test="3")] == [8, 2]  # as a command line says it


def test_esc10_is_a_part_of_esc50(tmp_path):
    folder = esc50(tmp_path)
    sound(folder / "audio" / "1-5-A-3.ogg", rate=44100)
    assert load("esc50", root=tmp_path).classes == ["cow", "dog"]
    ten = load("esc10", root=tmp_path)
    assert (ten.name, len(ten), ten.classes) == ("esc10", 10, ["dog"]) and {ten[int(i)].fold for i in split(ten)[1]} == {5}


@pytest.mark.parametrize("table", ["", "a,b\n1,2", "filename,fold,category,src_file\nx.wav,one,dog,3", "filename\n", b"\xff\xfe\x00"])
def test_broken_table(tmp_path, table):
    folder = esc50(tmp_path)
    (folder / "meta" / "esc50.csv").write_bytes(table if isinstance(table, bytes) else table.encode())
    with pytest.raises(SpecgenError):
        load(folder)


@pytest.mark.parametrize("name", ["fsdd", "esc50", "audiomnist"])
def test_missing_corpus_lists_the_places(alone, monkeypatch, name):
    monkeypatch.setenv("SPECGEN_DATA", str(alone / "data"))
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    with pytest.raises(SpecgenError) as caught:
        load(name)
    text = str(caught.value)
    assert "\n" not in text and f"'{name}': not found" in text and "set SPECGEN_DATA" in text
    assert all(place in text for place in (str(alone / "data"), "/kaggle/input", str(alone / "cache"), "download"))
    with pytest.raises(SpecgenError, match=re.escape(str(alone / "else"))):
        load(name, root=alone / "else")


# ---- splits

def test_splits_are_honest_and_repeatable(tmp_path):
    corpus = load(fsdd(tmp_path, takes=10))
    for by in ("official", "stratified", "speaker"):
        (train, test), again = split(corpus, by, seed=3), split(corpus, by, seed=3)
        assert torch.equal(train, again[0]) and torch.equal(test, again[1])
        assert sorted(train.tolist() + test.tolist()) == list(range(len(corpus)))
    train, test = split(corpus, "stratified", fraction=0.2)
    assert torch.bincount(corpus.labels[test]).tolist() == [4, 4]
    assert not torch.equal(split(corpus, "stratified", seed=1)[1], split(corpus, "stratified", seed=2)[1])
    assert corpus.subset(test).classes == corpus.classes and len(corpus.subset(test)) == len(test)


@pytest.mark.parametrize("by, settings", [
    ("speakers", {}), ("fold", {}), ("speaker", {"test": "eve"}), ("speaker", {"test": ["ann", "bob"]}), ("stratified", {"fraction": 1.5}),
])
def test_impossible_splits(tmp_path, by, settings):
    with pytest.raises(SpecgenError) as caught:
        split(load(fsdd(tmp_path)), by, **settings)
    assert "\n" not in str(caught.value)


def test_a_folder_is_split_by_class(tmp_path):
    for label, n in (("a", 20), ("b", 2), ("c", 1)):
        for k in range(n):
            sound(tmp_path / label / f"{k}.wav")
    corpus = load(tmp_path)
    assert torch.bincount(corpus.labels[split(corpus)[1]], minlength=3).tolist() == [2, 1, 0]
    with pytest.raises(SpecgenError, match="0 speakers"):
        split(corpus, "speaker")


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
    assert [p.name for p in corpora.sounds_in(good / "recordings")] == ["0_ann_0.wav", "1_ann_0.wav", "2_ann_0.wav"]
    digest = recordings_digest(good / "recordings")
    unpack(corpora.replace(archive, recordings=digest), zipped, tmp_path / "checked")
    unpack(corpora.replace(archive, recordings=digest), zipped, tmp_path / "checked")  # as when another process was faster
    wrong = packed(tmp_path / "b.zip", extra=["top/recordings/3_ann_0.wav"])
    (tmp_path / "c.zip").write_text("an error page")
    for bad in (wrong, tmp_path / "c.zip"):
        with pytest.raises(SpecgenError, match="nothing was kept"):
            unpack(corpora.replace(archive, recordings=digest), bad, tmp_path / "bad")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zip", "b.zip", "c.zip", "checked", "good"]


def test_download_goes_through_pooch(alone, monkeypatch):
    def fetch(url, known_hash, fname, path, progressbar):
        path.mkdir(parents=True)
        return str(packed(path / fname))

    monkeypatch.setattr(corpora.pooch, "retrieve", fetch)
    with pytest.raises(SpecgenError, match="other recordings than expected"):
        load("fsdd")
    assert not list((alone / "cache").iterdir())


def test_every_download_is_checked():
    assert all(archive.sha256 or archive.recordings for archive in corpora.ARCHIVES.values())


# ---- the embedded digits

@needs_espeak
def test_digits_are_the_same_bytes_in_another_process_and_after_other_words(tmp_path):
    code = "import sys; from specgen.corpora import make_digits; make_digits(sys.argv[1], 4)"
    other = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "a")], env=os.environ | {"MALLOC_PERTURB_": "85"})
    make_digits(tmp_path / "b", 4)
    make_digits(tmp_path / "c", 4)
    assert other.wait() == 0
    digests = {recordings_digest(tmp_path / name) for name in "abc"}
    assert len(digests) == 1 and len(corpora.sounds_in(tmp_path / "a")) == 40
    corpus = load(tmp_path / "a")
    assert corpus.name == "digits" and corpus.classes == list("0123456789") and not corpus.skipped
    assert {item.sample_rate for item in corpus} == {22050} and len(set(corpus.speakers)) == 4


@needs_espeak
def test_digits_made_by_two_processes_in_one_place(alone, monkeypatch):
    folder = alone / "cache" / corpora.digits_folder_name(corpora.digits_recipe(5))
    original = corpora.speak_digits

    def slower(temporary, speaker, n, seed):  # the other process finishes while this one is at work
        if not folder.exists():
            monkeypatch.setattr(corpora, "speak_digits", original)
            make_digits(folder, 5)
            monkeypatch.setattr(corpora, "speak_digits", slower)
        return original(temporary, speaker, n, seed)

    monkeypatch.setattr(corpora, "speak_digits", slower)
    assert make_digits(folder, 5) == folder and len(corpora.sounds_in(folder)) == 50
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]
    with pytest.raises(SpecgenError, match="exists already"):
        make_digits(folder, 5)


@needs_espeak
def test_nothing_is_left_of_a_broken_off_making(tmp_path, monkeypatch):
    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(corpora, "speak_digits", stop)
    old, new = tmp_path / ".digits-aaaa", tmp_path / ".digits-bbbb"  # left by a killed process, and of one at work
    old.mkdir(), new.mkdir()
    os.utime(old, (0, 0))
    with pytest.raises(KeyboardInterrupt):
        make_digits(tmp_path / "digits", 2)
    assert list(tmp_path.iterdir()) == [new]


def test_missing_synthesiser(alone, monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(SpecgenError, match=re.escape("pip install specgen[digits]")):
        load("digits")
    assert not list((alone / "cache").glob("*"))


@needs_espeak
def test_unknown_voice():
    with corpora.Synthesiser() as machine, pytest.raises(SpecgenError, match="no voice"):
        machine.voice("en-us+nonsense")


def test_voices_and_held_out():
    assert len(corpora.SPEAKERS) == len({s.lower() for s in corpora.SPEAKERS}) == 60 and len(corpora.HELD_OUT) == 6
    assert corpora.N_PER_DIGIT % len(corpora.SPEAKERS) == 0


# ---- the real ones

@pytest.mark.skipif(not os.environ.get("SPECGEN_DATA"), reason="SPECGEN_DATA is not set")
def test_real_corpora():
    real = load("fsdd")
    train, test = split(real)
    assert (len(real), len(train), len(test), len(set(real.speakers))) == (3000, 2700, 300, 6) and not real.skipped
    assert recordings_digest(real.root) == corpora.ARCHIVES["fsdd"].recordings


def test_a_file_that_broke_off_is_not_handed_over(tmp_path):
    sound(tmp_path / "whole.wav")
    waveform, rate = corpora.read_whole(tmp_path / "whole.wav")
    assert waveform.ndim == 1 and rate > 0
    (tmp_path / "part.wav").write_bytes((tmp_path / "whole.wav").read_bytes()[:-100])
    with pytest.raises(SpecgenError, match="part.wav: truncated"):
        corpora.read_whole(tmp_path / "part.wav")
    with pytest.raises(SpecgenError, match="no such file"):
        corpora.read_whole(tmp_path / "none.wav")
