"Folders and labels as people have them, networks that are broken, linked folders and odd files in predict."
import os
import unicodedata

import numpy as np
import pytest
import soundfile
import torch

from specgen.classifier import files_below
from specgen.cli import main
from specgen.core import SpecgenError
from specgen.datasets import load_recordings, readable_files
from specgen.gan import GAN
from specgen.saved import shipped_models
from specgen.pipeline import named_words
from specgen.vae import VAE


def sound(path, seed=0, seconds=0.5):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(os.fsencode(path) if os.name != "nt" else path, np.random.default_rng(seed).normal(0, 0.1, int(16000 * seconds)), 16000, format="WAV")
    return path


def folder(root, classes, n=2):
    for k, name in enumerate(classes):
        for i in range(n):
            sound(root / name / f"{i}.wav", 100 * k + i)
    return root


def test_labels_keep_their_letters(tmp_path):
    names = ["nan", "null", "01", "1", "None", "true", "-1", "=1", "yes, please"]
    dataset = load_recordings(folder(tmp_path, names))
    assert dataset.classes == sorted(names) and dataset.labels.bincount().tolist() == [2] * len(names)


def test_system_files_are_no_recordings(tmp_path):
    folder(tmp_path, "ab")
    for name in ("a/._x.wav", "a/Thumbs.db", "a/.DS_Store", "a/desktop.ini"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "a" / "0.wav").rename(tmp_path / "a" / "0.WAV")
    dataset = load_recordings(tmp_path)
    assert len(dataset) == 4 and not dataset.skipped


def test_background_noise_is_no_class_and_m4a_is_listed(tmp_path):
    folder(tmp_path, ["yes", "no", "_background_noise_"])
    (tmp_path / "maybe").mkdir()
    (tmp_path / "maybe" / "x.m4a").write_bytes(b"x")
    dataset = load_recordings(tmp_path)
    assert dataset.classes == ["no", "yes"] and len(dataset.skipped) == 3
    assert {s.reason.split(",")[0] for s in dataset.skipped} == {"lies in _background_noise_", "format .m4a cannot be read; convert it to wav or flac"}
    with pytest.raises(SpecgenError, match="m4a|background"):
        load_recordings(tmp_path, strict=True)


def test_one_name_in_two_spellings_is_one_class(tmp_path):
    for form in ("NFC", "NFD"):
        folder(tmp_path, [unicodedata.normalize(form, "café"), "b"])
    assert load_recordings(tmp_path).classes == ["b", "café"]
    assert named_words("cafe\u0301,b", ["b", "café"]) == ["café", "b"]
    assert named_words("yes, please,no, yes ,maybe", ["yes", "yes, please", "no"]) == ["yes, please", "no", "yes", "maybe"]
    assert named_words("", ["a"]) == [""]


@pytest.mark.parametrize("change", ["BOM", "semicolons", "row without a file"])
def test_the_table_of_esc50_as_a_spreadsheet_saves_it(tmp_path, change):
    lines = ["filename,fold,target,category,esc10,src_file,take"]
    for fold in (1, 2):
        for i in range(3):
            lines.append(f"{sound(tmp_path / 'audio' / f'{fold}-{i}-A-0.wav', 10 * fold + i).name},{fold},0,dog,True,{10 * fold + i},A")
    (tmp_path / "meta").mkdir()
    text = "\n".join(lines + (["1-9-A-0.wav,1,0,dog,True,99,A"] if change == "row without a file" else []))
    text = {"BOM": "\ufeff" + text, "semicolons": text.replace(",", ";")}.get(change, text)
    (tmp_path / "meta" / "esc50.csv").write_text(text, encoding="utf-8")
    dataset = load_recordings(tmp_path)
    assert dataset.name == "esc50" and len(dataset) == 6
    assert [s.reason for s in dataset.skipped] == (["meta/esc50.csv lists it, but it isn't there"] if change == "row without a file" else [])


def test_one_clip_a_class_is_not_told_to_do_what_it_does(tmp_path):
    dataset = load_recordings(folder(tmp_path, "ab", n=1))
    with pytest.raises(SpecgenError, match="no class has two recordings"):
        dataset.split("stratified")
    assert load_recordings(folder(tmp_path / "one", "a", n=3)).split()[1].numel() == 1


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_predict_follows_links_and_survives_loops(tmp_path, capsys):
    inner, outer = folder(tmp_path / "inner", "ab"), folder(tmp_path / "outer", "c")
    (outer / "linked").symlink_to(inner)
    (outer / "up").symlink_to(outer)
    (outer / "self").symlink_to("self")
    (outer / "c" / "loop.wav").symlink_to("loop.wav")
    assert len(list(files_below(outer))) == 8
    lines = []
    assert len(readable_files([outer / "c", inner / "a"], lines.append)) == 4 and len(lines) == 1 and "loop.wav" in lines[0]
    with pytest.raises(SpecgenError, match="loop.wav.*none of 1"):
        readable_files([outer / "c" / "loop.wav"], lines.append)
    main(["transformer", "predict", str(outer / "c"), "--top", "1"])
    said = capsys.readouterr()
    assert said.out.count(".wav") == 2 and "loop.wav: cannot be opened" in said.err


@pytest.mark.parametrize("kind,name", [(GAN, "gan-digits"), (VAE, "vae-digits")])
def test_a_network_of_nan_is_refused(tmp_path, kind, name):
    model = kind.from_pretrained(shipped_models()[f"specgen/{name}"])
    with torch.no_grad():
        for place, weights in model.named_parameters():
            weights.view(-1)[0] = weights.view(-1)[0] if "prior" in place else torch.nan
    with pytest.raises(SpecgenError, match="numbers that are not finite"):
        model.sample(2, seed=0)
    model.save_pretrained(tmp_path)
    with pytest.raises(SpecgenError, match="weights hold numbers that are not finite"):
        kind.from_pretrained(tmp_path)


def test_a_spectrogram_of_nan_has_no_answer():
    model = VAE.from_pretrained("specgen/vae-digits")
    with pytest.raises(SpecgenError, match="VAE: its answer holds numbers that are not finite"):
        model.embed(torch.full((1, *model.shape), torch.nan))


def test_a_picture_that_fails_does_not_end_a_training(tmp_path, monkeypatch):
    from specgen import gan

    def broken(*args):
        raise ValueError("Could not parse math")

    class Pair:
        generator = GAN.from_pretrained("specgen/gan-digits")

    monkeypatch.setattr(gan, "save_epoch", broken)
    with pytest.warns(UserWarning, match="nothing drawn"):
        assert gan.watch_epoch(Pair, tmp_path, 10, None) == {}


def test_speech_commands_tells_who_speaks_and_what_tests(tmp_path):
    for label in ("yes", "no"):
        for speaker in ("aaaa1111", "bbbb2222", "cccc3333"):
            sound(tmp_path / label / f"{speaker}_nohash_0.wav")
    for name, speaker in (("testing_list.txt", "cccc3333"), ("validation_list.txt", "bbbb2222")):
        (tmp_path / name).write_text("".join(f"{label}/{speaker}_nohash_0.wav\n" for label in ("yes", "no")))
    dataset = load_recordings(tmp_path)
    assert dataset.classes == ["no", "yes"] and dataset.speakers == ["aaaa1111", "bbbb2222", "cccc3333"] * 2
    assert {dataset[int(i)].speaker for i in dataset.split()[1]} == {"cccc3333"}
    assert [dataset[k].part for k in range(3)] == ["train", "validation", "test"]
