"""The doors of the command line: from a folder of recordings to files, and one line for every mistake."""
import csv
import json
from pathlib import Path

import pytest

from specgen.cli import main


def fails(capsys, *words) -> str:
    "The one line that a mistaken command ends with."
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    error = capsys.readouterr().err.strip()
    assert stop.value.code == 2 and error
    return error


def test_classify(sounds, tmp_path, capsys):
    main(["classify", "fit", "--train", str(sounds), "--preset", "quick", "--out", str(tmp_path / "model")])
    assert "test clips named rightly" in capsys.readouterr().out
    main(["classify", "predict", str(sounds / "hum"), "--model", str(tmp_path / "model"), "--out", str(tmp_path / "submissions.csv")])
    with open(tmp_path / "submissions.csv", newline="") as file:
        assert [row["Class"] for row in csv.DictReader(file)] == ["hum"] * 12
    assert "seed" in fails(capsys, "classify", "fit", "--train", sounds, "--seed", "one")
    assert "either" in fails(capsys, "classify", "fit", "--out", tmp_path / "none")
    assert "no split by fold" in fails(capsys, "classify", "fit", "--train", sounds, "--by", "fold", "--test", "1", "--out", tmp_path / "none")
    assert "no such folder" in fails(capsys, "classify", "predict", tmp_path / "nowhere", "--model", tmp_path / "model")
    assert not (tmp_path / "none").exists()


def test_gan(sounds, tmp_path, capsys):
    main(["gan", "fit", "--train", str(sounds), "--preset", "quick", "--out", str(tmp_path / "model")])
    main(["gan", "sample", "--class", "hiss", "--n", "2", "--model", str(tmp_path / "model"), "--out", str(tmp_path / "drawn")])
    assert [Path(line).name for line in capsys.readouterr().out.split()][-3:] == ["hiss_000.wav", "hiss_001.wav", "pictures.png"]
    assert "other recordings or settings" in fails(capsys, "gan", "fit", "--train", sounds, "--preset", "quick", "--seed", "1", "--out", tmp_path / "model")
    assert "hiss, hum" in fails(capsys, "gan", "sample", "--class", "bark", "--model", tmp_path / "model", "--out", tmp_path / "drawn")
    assert "--n" in fails(capsys, "gan", "sample", "--n", "0", "--out", tmp_path / "drawn")


def test_vae(tmp_path, capsys):
    main(["vae", "sample", "--class", "7", "--n", "2", "--out", str(tmp_path / "drawn")])
    wavs = [Path(line) for line in capsys.readouterr().out.split()][:2]
    assert [path.name for path in wavs] == ["7_000.wav", "7_001.wav"]
    main(["vae", "reconstruct", str(tmp_path / "drawn"), "--out", str(tmp_path / "again")])
    main(["vae", "walk", *map(str, wavs), "--steps", "3", "--out", str(tmp_path / "walk")])
    assert {p.name for p in (tmp_path / "walk").iterdir()} == {"walk_000.wav", "walk_001.wav", "walk_002.wav", "walk.wav", "pictures.png"}
    assert "class 'rooster'" in fails(capsys, "vae", "sample", "--class", "rooster", "--out", tmp_path / "none")
    assert "truncated" in fails(capsys, "vae", "walk", wavs[0], cut(wavs[1]), "--out", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_ast(sounds, tmp_path, capsys):
    wav = sounds / "hiss" / "0.wav"
    main(["ast", "predict", str(wav), "--top", "2", "--json"])
    (row,) = json.loads(capsys.readouterr().out)
    assert row["file"] == str(wav) and len(row["classes"]) == len(row["probabilities"]) == 2
    assert "fold" in fails(capsys, "ast", "cv", "--corpus", sounds, "--out", tmp_path / "none")
    assert "--folds" in fails(capsys, "ast", "cv", "--folds", "1,two")
    assert "truncated" in fails(capsys, "ast", "predict", cut(wav))


def cut(path: Path) -> Path:
    "A copy of a file without its end."
    short = path.with_name(f"cut_{path.name}")
    short.write_bytes(path.read_bytes()[:-100])
    return short


def test_a_stop_is_told(capsys, monkeypatch, tmp_path):
    def stopped(*args, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr("specgen.ast.cross_validate", stopped)
    with pytest.raises(SystemExit) as stop:
        main(["ast", "cv", "--out", str(tmp_path)])
    assert stop.value.code == 130 and "continues" in capsys.readouterr().err
