"Every generator in one table: who is asked for what, means and ranks, a run that goes on, a page."
import math
from functools import partialmethod

import pytest
import torch
from fakes import CLASSES, FakeGenerator

from specgen import scoreboard
from specgen.audio import write_audio
from specgen.core import SpecgenError, read_table
from specgen.datasets import load_recordings
from specgen.scoreboard import METHODS, UNASKED, Row, Task, draw_row, score_generators, score_lines, summarise
from specgen.sound_evaluation import SoundClassifier


@pytest.fixture
def methods(monkeypatch):
    "Two methods that draw tones without any training, and classifiers that hardly train."
    trained = []

    def tones(task, out):
        trained.append((task.split.get("test"), task.seed))
        hertz = 200 * (1 + torch.arange(10))

        def draw(labels, seed):
            return 0.3 * torch.sin(2 * math.pi * hertz[labels, None] * torch.arange(4000) / 8000)

        return {"tones": Row(draw, 8000, 1, 0.0), UNASKED[0]: Row(draw, 8000, 2, 0.0)}

    monkeypatch.setitem(METHODS, "tones", tones)
    for name, preset in list(SoundClassifier.presets.items()):
        if name.endswith("words/quick"):
            monkeypatch.setitem(SoundClassifier.presets, name, preset.changed(training=dict(max_steps=2, warmup=0)))
    return trained


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    "A folder of three words, 24 recordings each."
    folder = tmp_path_factory.mktemp("words")
    for k, word in enumerate(CLASSES):
        for i in range(24):
            tone = torch.sin(2 * math.pi * (300 + 400 * k + 9 * i) * torch.arange(3000) / 8000)
            write_audio(folder / word / f"{i}.wav", 0.3 * tone, 8000)
    return folder


def test_one_table_and_a_page(methods, words, tmp_path):
    how = dict(out=tmp_path, preset="quick", seeds=(0, 1), n=6, methods=("tones",), progress=False)
    table = score_generators(words, **how)
    rows = {(row["name"], row["classifier"]): row for row in table}
    assert {name for name, _ in rows} == {"held-out recordings", "the same from magnitudes", "copies of training clips", "tones", UNASKED[0]}
    assert all(row["n"] == 6 and row["seeds"] == 2 for row in table)
    assert math.isnan(rows[UNASKED[0], "mel"]["label_accuracy"]) and not math.isnan(rows["tones", "mel"]["label_accuracy"])
    assert math.isnan(rows["held-out recordings", "mel"]["rank"]) and {rows["tones", "mel"]["rank"], rows[UNASKED[0], "mel"]["rank"]} <= {1, 2}
    assert len(read_table(tmp_path / "scoreboard.csv")) == len(table) and "tones" in (lines := score_lines(table, "takes")) and "nan" not in lines
    page = (tmp_path / "scoreboard.html").read_text()
    assert page.count("<audio") == 9 and "none of the" in page
    score_generators(words, **how)
    assert methods == [(None, 0), (None, 1)]  # nothing is trained again


@pytest.mark.parametrize(("how", "message"), [
    (dict(methods=("nobody",)), "method"), (dict(methods=()), "at least one"), (dict(seeds=()), "at least one"), (dict(speakers=("nobody",)), "no speaker"),
])
def test_what_cannot_be_scored_is_told_before_anything_is_trained(how, message, tmp_path):
    with pytest.raises(SpecgenError, match=message):
        score_generators("digits", out=tmp_path / "a", preset="quick", **how)
    assert not (tmp_path / "a").exists()


def test_every_class_comes_as_often_and_the_first_of_each_first():
    model = FakeGenerator(wrong=0)
    tensors, noted = draw_row(scoreboard.row_of(as_model(model), 3.4), 7, len(CLASSES), seed=0)
    assert tensors["asked"].tolist() == [0, 1, 2, 0, 1, 2, 0] and len(tensors["sounds"]) == 7
    assert noted["training_cpu_seconds"] == 3 and noted["parameters"] == 0 and noted["sample_rate"] == 8000


def as_model(fake):
    fake.parameters = lambda: []
    return fake


def test_the_sources_network_has_the_sources_size(words, tmp_path, monkeypatch):
    monkeypatch.setattr(scoreboard, "augment_dataset", lambda dataset: dataset)
    monkeypatch.setattr(scoreboard.DigitGenerator, "sample", partialmethod(scoreboard.DigitGenerator.sample, steps=2))
    task = Task(load_recordings(words), dict(by="official"), "quick", 0, dict(device="cpu", precision="fp32", progress=False))
    (name, row), = scoreboard.unet_rows(task, tmp_path).items()
    sounds = row.draw(torch.tensor([0, 2]), 0)
    assert "U-Net" in name and row.parameters > 6e6 and len(sounds) == 2 and sounds.isfinite().all()


def test_mean_and_spread_over_seeds():
    rows = [{"split": "takes", "name": "a", "classifier": "mel", "seed": s, "n": 5, "frechet_distance": d, "parameters": 3} for s, d in enumerate((1.0, 3.0))]
    found = summarise(rows)[0]
    assert found["frechet_distance"] == 2 and found["frechet_distance_spread"] == pytest.approx(2**0.5) and found["rank"] == 1
    assert math.isnan(summarise(rows[:1])[0]["frechet_distance_spread"])
