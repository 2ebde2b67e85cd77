"""The doors of the command line: from a folder of recordings to files, and one line for every mistake."""
import csv
from pathlib import Path

import pytest
import torch

from specgen.audio import write
from specgen.cli import main


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    "A class of hums, a class of hisses."
    place = tmp_path_factory.mktemp("sounds")
    for i in range(10):
        t = torch.arange(4000) / 8000
        write(place / f"hum/{i}.wav", 0.5 * torch.sin(2 * torch.pi * (200 + 10 * i) * t), 8000)
        write(place / f"hiss/{i}.wav", 0.1 * torch.randn(4000, generator=torch.Generator().manual_seed(i)), 8000)
    return place


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
        assert [row["Class"] for row in csv.DictReader(file)] == ["hum"] * 10
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
