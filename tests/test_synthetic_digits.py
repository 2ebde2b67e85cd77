"The synthesiser: the same bytes whatever happened before, and nothing left half-made. Nothing here needs a network."
import os
import re
import subprocess
import sys
from importlib.util import find_spec

import pytest

from specgen import synthetic_digits
from specgen.core import SpecgenError
from specgen.datasets import load_recordings
from specgen.synthetic_digits import HELD_OUT, N_PER_DIGIT, SPEAKERS, Synthesizer, digits_config, digits_folder_name, folder_sha256, make_digits, prosody

needs_espeak = pytest.mark.skipif(not find_spec("espeakng_loader"), reason="specgen[digits] is not installed")


def test_nobody_must_make_the_standard_digits_anew():
    assert digits_folder_name(digits_config()) == "digits-4e2a25bb"
    assert prosody("en-gb+f2", 7, 1) == {"rate": 136, "pitch": 43, "pitch_range": 61}


def test_another_setting_has_another_folder():
    assert len({digits_folder_name(digits_config(*setting)) for setting in [(300, 0), (299, 0), (300, 1)]}) == 3


@needs_espeak
def test_digits_are_the_same_bytes_in_another_process_and_after_other_words(tmp_path):
    code = "import sys; from specgen.synthetic_digits import make_digits; make_digits(sys.argv[1], 4)"
    other = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "a")], env=os.environ | {"MALLOC_PERTURB_": "85"})
    make_digits(tmp_path / "b", 4)
    make_digits(tmp_path / "c", 4)
    assert other.wait() == 0
    digests = {folder_sha256(tmp_path / name) for name in "abc"}
    assert len(digests) == 1 and len(list((tmp_path / "a").glob("*.wav"))) == 40
    dataset = load_recordings(tmp_path / "a")
    assert dataset.name == "digits" and dataset.classes == list("0123456789") and not dataset.skipped
    assert {r.sample_rate for r in dataset} == {22050} and len(set(dataset.speakers)) == 4 and dataset.domain == "words"


@needs_espeak
def test_digits_made_by_two_processes_in_one_place(tmp_path, monkeypatch):
    folder = tmp_path / "cache" / digits_folder_name(digits_config(5))
    original = synthetic_digits.speak_digits

    def slower(temporary, speaker, n, seed):  # the other process finishes while this one is at work
        if not folder.exists():
            monkeypatch.setattr(synthetic_digits, "speak_digits", original)
            make_digits(folder, 5)
            monkeypatch.setattr(synthetic_digits, "speak_digits", slower)
        return original(temporary, speaker, n, seed)

    monkeypatch.setattr(synthetic_digits, "speak_digits", slower)
    assert make_digits(folder, 5) == folder and len(list(folder.glob("*.wav"))) == 50
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]
    with pytest.raises(SpecgenError, match="exists already"):
        make_digits(folder, 5)


def test_nothing_is_left_of_a_broken_off_making(tmp_path, monkeypatch):
    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(synthetic_digits, "speak_digits", stop)
    old, new = tmp_path / ".digits-aaaaaaaa", tmp_path / ".digits-bbbbbbbb"  # left by a killed process, and of one at work
    old.mkdir(), new.mkdir()
    os.utime(old, (0, 0))
    with pytest.raises(KeyboardInterrupt):
        make_digits(tmp_path / "digits", 2)
    assert list(tmp_path.iterdir()) == [new]


def test_missing_synthesiser(tmp_path, monkeypatch):
    monkeypatch.delenv("SPECGEN_DATA", raising=False)
    monkeypatch.setenv("SPECGEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(SpecgenError, match=re.escape("pip install specgen[digits]")):
        load_recordings("digits")
    assert not list((tmp_path / "cache").glob("*"))


@needs_espeak
def test_digits_that_were_lost_are_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr("specgen.datasets.N_PER_DIGIT", 2)
    folder = make_digits(tmp_path / digits_folder_name(digits_config()), 2)
    assert len(load_recordings("digits", tmp_path)) == 20
    next(folder.glob("7_*.wav")).unlink()
    with pytest.raises(SpecgenError, match="19 of 20 recordings are whole; remove this folder"):
        load_recordings("digits", tmp_path)


@needs_espeak
def test_unknown_voice():
    with Synthesizer() as machine, pytest.raises(SpecgenError, match="no voice"):
        machine.voice("en-us+nonsense")


def test_voices_and_held_out():
    assert len(SPEAKERS) == len({s.lower() for s in SPEAKERS}) == 60 and len(HELD_OUT) == 6
    assert N_PER_DIGIT % len(SPEAKERS) == 0
