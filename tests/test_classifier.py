"Classifiers of made-up sounds: they learn, repeat themselves, survive saving, and refuse what they cannot use."
import csv
import json
import math
from dataclasses import replace

import pytest
import torch

from specgen.audio import LogMel, SpecgenError, write
from specgen.classifier import Classifier, classify, fit_classifier, fixed_pictures, predict, predict_files, write_submissions
from specgen.corpora import load
from specgen.training import load_model

RATE = 8000
MELS = LogMel.librosa(sample_rate=RATE, n_fft=256, hop_length=80, n_mels=32)


def bars(n=120, shape=(32, 16), n_classes=3):
    "Noise with a bright row whose place is the label."
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % n_classes
    pictures = torch.randn(n, *shape, generator=generator)
    pictures[torch.arange(n), shape[0] // 2 + 5 * labels - 5] += 3
    return pictures, labels


@pytest.fixture(scope="module")
def tones(tmp_path_factory):
    "A folder of low and high tones, eight takes each, of several lengths."
    root = tmp_path_factory.mktemp("tones")
    for name, hertz in (("low", 300), ("high", 2000)):
        for take in range(8):
            t = torch.arange(RATE // 4 + 300 * take) / RATE
            (root / name).mkdir(exist_ok=True)
            write(root / name / f"{take}.wav", 0.3 * torch.sin(2 * math.pi * (hertz + 20 * take) * t), RATE)
    return load(str(root))


@pytest.fixture(scope="module")
def trained(tones):
    return classify(tones, MELS, by="stratified", preset="quick", progress=False)


@pytest.mark.parametrize("shape", [(256, 24), (48, 64), (128, 100), (32, 8)])
def test_any_picture_goes_in(shape):
    model = Classifier(5).eval()
    x = torch.randn(3, *shape)
    assert model(x).shape == (3, 5) and model.features(x).shape == (3, 128)
    torch.testing.assert_close(model.decide(model.features(x)), model(x))


def test_probabilities_do_not_depend_on_the_batch():
    pictures, _ = bars(50)
    model = Classifier(3).eval()
    probs = predict(model, pictures)
    torch.testing.assert_close(probs.sum(1), torch.ones(50))
    torch.testing.assert_close(predict(model, pictures, batch_size=7), probs)


def test_it_learns_and_the_same_seed_repeats_it():
    pictures, labels = bars()
    models = [fit_classifier(pictures, labels, n_classes=3, preset="quick", seed=seed, progress=False) for seed in (1, 1, 2)]
    same, again, other = (predict(model, pictures) for model in models)
    assert (same.argmax(1) == labels).float().mean() > 0.95
    assert torch.equal(same, again) and not torch.equal(same, other)


def test_training_leaves_the_global_generator_alone():
    pictures, labels = bars(30)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    fit_classifier(pictures, labels, n_classes=3, preset="quick", progress=False)
    assert torch.equal(torch.rand(2), expected)


def test_a_finished_folder_answers_at_once_with_the_same_model(tmp_path):
    pictures, labels = bars(30)
    first, second = (fit_classifier(pictures, labels, n_classes=3, preset="quick", folder=tmp_path, progress=False) for _ in range(2))
    assert torch.equal(predict(first, pictures), predict(second, pictures))


@pytest.mark.parametrize("change, word", [
    (dict(preset="huge"), "huge"),
    (dict(labels=torch.arange(30) % 4), "labels"),
    (dict(labels=-torch.ones(30, dtype=torch.long)), "labels"),
    (dict(labels=torch.zeros(29, dtype=torch.long)), "29 labels"),
    (dict(pictures=torch.zeros(30, 1, 32, 16)), "need"),
    (dict(pictures=torch.zeros(0, 32, 16), labels=torch.zeros(0, dtype=torch.long)), "at least one"),
])
def test_impossible_arguments_are_refused_in_one_line(change, word):
    arguments = {"pictures": bars(30)[0], "labels": bars(30)[1], "preset": "quick", **change}
    with pytest.raises(SpecgenError, match=word) as error:
        fit_classifier(arguments["pictures"], arguments["labels"], n_classes=3, preset=arguments["preset"], progress=False)
    assert "\n" not in str(error.value)


def test_short_and_long_clips_become_one_size():
    tone = torch.sin(torch.arange(8000) / 3)
    pictures = fixed_pictures([tone[:50], tone[:1520], tone], MELS, 20)
    assert pictures.shape == (3, 32, 20)
    torch.testing.assert_close(pictures[2], MELS.encode(tone[3240:4760]))  # the middle of the long one


def test_a_checkpoint_alone_predicts_files(trained, tones, tmp_path):
    model, probs, labels = trained
    assert (probs.argmax(1) == labels).all()
    model.save_pretrained(tmp_path)
    words, again = predict_files(load_model(Classifier, tmp_path), [item.path for item in tones])
    assert words == [item.label for item in tones]
    assert again.shape == (16, 2)


def test_loudness_does_not_matter(trained, tones, tmp_path):
    waveform = tones.waveforms(RATE)[0]
    quiet, loud = write(tmp_path / "quiet.wav", 0.2 * waveform, RATE), write(tmp_path / "loud.wav", 2 * waveform, RATE)
    _, probs = predict_files(trained[0], [quiet, loud])
    torch.testing.assert_close(probs[0], probs[1], atol=0.02, rtol=0)


def test_unreadable_files_and_wordless_models_are_refused(trained, tmp_path):
    (tmp_path / "text.wav").write_text("no sound")
    for model, paths, word in ((trained[0], [tmp_path / "text.wav"], "text.wav"), (trained[0], [], "no files"), (Classifier(2), ["a.wav"], "classify")):
        with pytest.raises(SpecgenError, match=word):
            predict_files(model, paths)


def test_another_kind_of_checkpoint_is_refused(tmp_path):
    Classifier(3).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "channels": [8, 8, 8]}))
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(SpecgenError, match="another"):
            load_model(Classifier, folder)


def test_statistics_come_from_the_training_clips_and_travel_along(trained):
    settings = trained[0].representation
    assert settings["kind"] == "LogMel" and settings["std"] != 1
    assert replace(MELS, mean=settings["mean"], std=settings["std"]).to_dict() == settings


def test_submissions_are_sorted_and_whole_or_absent(tmp_path):
    path = write_submissions(tmp_path / "submissions.csv", ["b", "a,1"], ["rain", "dog"])
    with open(path, newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [["ID", "Class"], ["a,1", "dog"], ["b", "rain"]]
    for ids, classes in ((["a", "a"], ["x", "y"]), (["a"], ["x", "y"])):
        with pytest.raises(SpecgenError):
            write_submissions(tmp_path / "bad.csv", ids, classes)
    assert [p.name for p in tmp_path.iterdir()] == ["submissions.csv"]
