"Classifiers of made-up sounds: they learn, repeat themselves, survive saving, and refuse what they cannot use."
import csv
import json
import math
from dataclasses import replace

import pytest
import torch

from specgen.audio import LogMel, SpecgenError, write
from specgen.classifier import (
    RECIPES,
    Classifier,
    classify,
    disturbed,
    fit_classifier,
    fit_model,
    fixed_pictures,
    masked,
    mixed,
    predict,
    predict_files,
    recipe_of,
    rolled,
    submit,
    tilted,
    warped,
    write_submissions,
)
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
    torch.testing.assert_close(pictures[2].amax(0), MELS.encode(tone[3240:4760]).amax(0), atol=0.1, rtol=0)  # the middle of the long one
    for start in (0, 6480):  # a word at an edge of a long silence
        quiet = torch.zeros(8000)
        quiet[start : start + 1520] = tone[:1520]
        found, whole = (fixed_pictures([x], MELS, 20)[0].amax(0) for x in (quiet, tone[:1520]))
        torch.testing.assert_close(found[1:-1], whole[1:-1], atol=0.1, rtol=0)
    assert torch.equal(fixed_pictures([torch.zeros(8000)], MELS, 20), fixed_pictures([torch.zeros(10)], MELS, 20))


def test_levelled_pictures_do_not_know_loudness_or_room():
    tone = torch.sin(torch.arange(1520) / 3)
    (plain,), (level,) = (fixed_pictures([tone], MELS, 20, depth) for depth in (None, 40))
    ground = plain.max() - 40 / MELS.decibels
    assert plain.min() < ground and (level.min() == level).sum() == (plain <= ground).sum()
    torch.testing.assert_close(torch.stack([level.mean(), level.std()]), torch.tensor([0.0, 1.0]))
    room = tone + 1e-4 * torch.randn(1520, generator=generator())
    torch.testing.assert_close(fixed_pictures([0.3 * room], MELS, 20, 40)[0], level, atol=0.05, rtol=0)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_an_idle_warp_changes_nothing():
    pictures, _ = bars(5)
    torch.testing.assert_close(warped(pictures, generator(), hertz=torch.linspace(0, 4000, 32), voice=0, tempo=0, frames=0), pictures)


def test_another_voice_divides_all_frequencies_by_one_factor():
    hertz = MELS.frequencies
    lines = torch.exp(-((hertz.log2() - torch.tensor([500.0, 1500.0]).log2()[:, None]) / 0.1) ** 2).sum(0)  # two resonances
    moved = warped(lines[:, None].expand(200, 32, 4), generator(), hertz=hertz, voice=0.2, tempo=0, frames=0)[..., 0]
    low, high = hertz < 870, hertz >= 870
    centres = torch.stack([(moved * hertz.log() * part).sum(1) / (moved * part).sum(1) for part in (low, high)])
    factors = centres - centres.mean(1, keepdim=True)
    assert factors[0].std() > 0.08
    assert torch.corrcoef(factors)[0, 1] > 0.98


def test_tempo_keeps_the_middle_and_moves_the_ends():
    pulses = torch.zeros(50, 8, 41)
    pulses[:, :, [10, 20, 30]] = 1
    moved = warped(pulses, generator(), hertz=torch.linspace(0, 4000, 8), voice=0, tempo=0.3, frames=0)[:, 0]
    places = torch.arange(41.0)
    ends = torch.stack([(part * places).sum(1) / part.sum(1) for part in (moved * (places < 16), moved * (places > 24))])
    assert (moved[:, 20] > 0.99).all()
    torch.testing.assert_close(ends.mean(0), torch.full((50,), 20.0))
    assert ends[0].std() > 0.5


def test_microphones_colour_all_frames_alike():
    change = tilted(torch.zeros(300, 32, 6), generator(), 0.5)
    assert (change == change[..., :1]).all()
    assert abs(change.mean()) < 0.05 and 0.4 < change.std() < 0.8  # three cosines, the power of each one half


def test_masks_hide_one_stripe_each_way_under_the_mean():
    pictures = torch.randn(40, 32, 20, generator=generator())
    hidden = masked(pictures, generator(), (8, 5)) != pictures
    rows, frames = hidden.all(2).sum(1), hidden.all(1).sum(1)
    assert rows.max() <= 8 and frames.max() <= 5 and rows.float().mean() > 2
    assert (hidden == (hidden.all(2)[:, :, None] | hidden.all(1)[:, None, :])).all()
    means = pictures.mean((1, 2))
    assert all((masked(pictures, generator(), (8, 5))[i][hidden[i]] == means[i]).all() for i in range(40))


def test_rolling_keeps_every_frame_in_turn():
    pictures = torch.arange(10.0).expand(30, 4, 10)
    starts = rolled(pictures, generator())
    assert ((starts - starts[..., :1]) % 10 == pictures).all()
    assert len(starts[:, 0, 0].unique()) > 5


def test_mixing_leaves_each_clip_its_larger_part():
    pictures = torch.arange(200.0)[:, None, None].expand(200, 2, 2)
    both, other, own = mixed(pictures, generator(), 0.5)
    assert own.min() >= 0.5 and 60 < (own == 1).sum() < 140
    torch.testing.assert_close(both[:, 0, 0], own * torch.arange(200.0) + (1 - own) * other)
    assert torch.equal(mixed(pictures, generator(), 0.0)[0], pictures)


def test_disturbing_repeats_with_the_seed():
    pictures, _ = bars(6)
    how = dict(hertz=MELS.frequencies, warp=dict(voice=0.1, tempo=0.1, frames=2), roll=True, tilt=0.2, mask=(4, 4))
    first, again, other = (disturbed(pictures, generator(seed), **how) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(disturbed(pictures, generator(), hertz=MELS.frequencies), pictures)


def test_mixed_training_learns_too():
    pictures, labels = bars()
    model = fit_classifier(pictures, labels, n_classes=3, preset="quick", mix=0.8, disturb=lambda x, g: masked(x, g, (2, 4)), progress=False)
    assert (predict(model, pictures).argmax(1) == labels).float().mean() > 0.95


def test_recipes_follow_the_durations(tones):
    assert recipe_of(tones) == "words"
    assert recipe_of(replace(tones, items=[replace(item, duration=5.0) for item in tones])) == "sounds"
    with pytest.raises(SpecgenError, match="huge"):
        classify(tones, preset="huge", progress=False)


def test_long_sounds_have_their_own_recipe(tmp_path):
    for name, hertz in (("low", 300), ("high", 2000)):
        (tmp_path / name).mkdir()
        for take in range(4):
            t = torch.arange(int(2.2 * RATE)) / RATE
            write(tmp_path / name / f"{take}.wav", 0.3 * torch.sin(2 * math.pi * (hertz + 20 * take) * t), RATE)
    small = {**RECIPES["sounds"], "sizes": {"small": dict(channels=(4, 8, 8), epochs=3, most_steps=3, batch_size=4, lr=1e-3)}}
    model, probs, _ = classify(load(str(tmp_path)), by="stratified", recipe=small, progress=False)
    assert model.representation["n_mels"] == 128 and model.depth is None and probs.shape == (2, 2)


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


@pytest.fixture(scope="module")
def fitted(tones, tmp_path_factory):
    out = tmp_path_factory.mktemp("fitted")
    (tones.root / "low" / "broken.wav").write_text("no sound")
    try:
        scores = fit_model(out, train=tones.root, preset="quick", progress=False)
    finally:
        (tones.root / "low" / "broken.wav").unlink()
    return out, scores


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_fitting_writes_model_scores_and_what_was_skipped(fitted):
    out, scores = fitted
    assert {p.name for p in out.iterdir()} == {"README.md", "config.json", "fit.json", "model.safetensors", "scores.json", "skipped.csv", "training"}
    assert json.loads((out / "scores.json").read_text()) == scores
    assert (scores["n_train"], scores["n_test"]) == (14, 2)
    assert [row[0] for row in rows_of(out / "skipped.csv")] == ["path", "low/broken.wav"]


def test_a_mistyped_split_or_preset_does_not_claim_the_folder(tones, tmp_path):
    for mistake in (dict(by="fold"), dict(preset="huge")):
        with pytest.raises(SpecgenError):
            fit_model(tmp_path / "out", train=tones.root, progress=False, **{"preset": "quick", **mistake})
        assert not (tmp_path / "out").exists()


def test_an_old_model_never_answers_for_new_recordings(fitted, tones, tmp_path):
    out, scores = fitted
    with pytest.raises(SpecgenError, match="other recordings or settings"):
        fit_model(out, train=tones.root, preset="quick", seed=1, progress=False)
    assert fit_model(out, train=tones.root, preset="quick", progress=False) == scores  # the same again returns at once
    (tmp_path / "low").symlink_to(tones.root / "high")  # the same clips, their names exchanged
    (tmp_path / "high").symlink_to(tones.root / "low")
    with pytest.raises(SpecgenError, match="other recordings or settings"):
        fit_model(out, train=tmp_path, preset="quick", progress=False)


def test_every_file_becomes_a_row_or_is_listed(fitted, tones, tmp_path):
    folder = tmp_path / "unlabelled"
    for name, item in (("b.wav", tones[0]), ("a.wav", tones[15]), ("deep/c.wav", tones[1])):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(item.path)
    (folder / "broken.wav").write_bytes(tones[0].path.read_bytes()[:1000])
    (folder / "empty.flac").touch()
    (folder / "notes.txt").write_text("no sound")
    (folder / ".hidden").touch()
    for _ in range(2):  # the second time its own files lie there already
        done = submit(folder, fitted[0], folder / "submissions.csv", progress=False)
    expected = [["a", tones[15].label], ["b", tones[0].label], ["deep/c", tones[1].label]]
    assert rows_of(done.path) == [["ID", "Class"], *expected]
    assert [row[0] for row in rows_of(done.unreadable_path)] == ["path", "broken.wav", "empty.flac", "notes.txt"]
    assert done.n_predicted == 3 and len(done.unreadable) == 3


def test_ids_that_would_be_shared_keep_their_suffix(fitted, tones, tmp_path):
    (tmp_path / "files").mkdir()
    waveform = tones.waveforms(RATE)[0]
    for suffix in ("wav", "flac"):
        write(tmp_path / "files" / f"a.{suffix}", waveform, RATE)
    done = submit(tmp_path / "files", fitted[0], tmp_path / "out.csv", progress=False)
    assert [row[0] for row in rows_of(done.path)] == ["ID", "a.flac", "a.wav"]


def test_impossible_errands_are_refused_in_one_line(fitted, tones, tmp_path):
    (tmp_path / "one" / "class").mkdir(parents=True)
    (tmp_path / "one" / "class" / "a.wav").symlink_to(tones[0].path)
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("no sound")
    (tmp_path / "nothing").mkdir()
    errands = {
        "either": lambda: fit_model(tmp_path / "m", progress=False),
        "one class": lambda: fit_model(tmp_path / "m", train=tmp_path / "one", progress=False),
        "nowhere": lambda: fit_model(tmp_path / "m", train=tmp_path / "nowhere", progress=False),
        "no such folder": lambda: submit(tmp_path / "nowhere", fitted[0], tmp_path / "s.csv", progress=False),
        "no saved model": lambda: submit(tmp_path / "one", tmp_path / "nothing", tmp_path / "s.csv", progress=False),
        "none of its 1": lambda: submit(tmp_path / "text", fitted[0], tmp_path / "s.csv", progress=False),
        "holds no files": lambda: submit(tmp_path / "nothing", fitted[0], tmp_path / "s.csv", progress=False),
    }
    for word, errand in errands.items():
        with pytest.raises(SpecgenError, match=word) as error:
            errand()
        assert "\n" not in str(error.value)
    assert not (tmp_path / "s.csv").exists()
