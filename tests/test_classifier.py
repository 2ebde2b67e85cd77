"Classifiers of made-up sounds: they learn, repeat themselves, survive saving, leave their caller alone, and refuse what they cannot use."
import csv
import json
import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from specgen.audio import peak_normalize, read_audio, write_audio
from specgen.augmentation import augment_mixed
from specgen.classifier import Classifier, classification_loss, log_mel, speech_stages, steps_config, submit, write_submissions
from specgen.core import SpecgenError
from specgen.datasets import load_recordings
from specgen.models import Preset, fit_recordings
from specgen.saved import shipped_models
from specgen.spectrogram import LogMel
from specgen.spectrogram_dataset import SpectrogramDataset, encode_recordings, pad_or_crop, standardize

RATE = 8000
MELS = LogMel.librosa(sample_rate=RATE, n_fft=256, hop_length=80, n_mels=32)
TINY = Preset(model=dict(channels=(8, 8)), training=dict(epochs=2, batch_size=16, lr=1e-3))


def bars(n=120, n_test=0, size=(32, 16), n_classes=3, about=None):
    "Noise with a bright row whose place is the label; the last clips are held out."
    labels = torch.arange(n) % n_classes
    specs = torch.randn(n, *size, generator=torch.Generator().manual_seed(0))
    specs[torch.arange(n), size[0] // 2 + 5 * labels - 5] += 3
    return SpectrogramDataset(specs, labels, ["low", "middle", "high"][:n_classes], MELS, torch.arange(n) >= n - n_test, about=about or {})


def network(size=(32, 16), classes=3, **settings):
    return Classifier(classes=[str(k) for k in range(classes)], representation=MELS.to_dict(), size=size, **settings)


def tones_in(root, rate=RATE, seconds=0.25, takes=8):
    for name, hertz in (("low", 300), ("high", 1900)):
        for take in range(takes):
            t = torch.arange(int(seconds * rate) + 300 * take) / rate
            write_audio(root / name / f"{take}.wav", 0.3 * torch.sin(2 * math.pi * (hertz + 20 * take) * t), rate)
    return root


@pytest.fixture(scope="module")
def tones(tmp_path_factory):
    "Low and high tones, eight takes each, of several lengths."
    return load_recordings(tones_in(tmp_path_factory.mktemp("tones")))


@pytest.fixture(scope="module")
def trained(tones):
    dataset = Classifier.prepare(tones, preset="quick", by="stratified")
    return Classifier.fit(dataset, preset="quick", progress=False), dataset


# the network


@pytest.mark.parametrize("size", [(256, 24), (48, 64), (128, 100), (32, 8)])
@pytest.mark.parametrize("bands", [4, None])
def test_any_size_goes_in(size, bands):
    model, x = network(size, classes=5, bands=bands).eval(), torch.randn(3, *size)
    assert model(x).shape == (3, 5) and model.embed(x).shape == (3, 128)
    torch.testing.assert_close(model.head(model.embed(x)), model(x))


def test_the_sources_network_keeps_every_place():
    model = network((32, 16), bands=None, channels=(4, 8), stem=(2, 2))
    assert model.embedding[1].in_features == 8 * 8 * 4  # channels, 32 / 4 bands, 16 / 4 frames
    x = torch.randn(2, 32, 16)
    maps = model.eval().stages[:-2](x[:, None])
    assert torch.equal(model.stages(x[:, None]), maps.flatten(1))


def test_probabilities_do_not_depend_on_the_batch():
    x, model = bars(50).spectrograms, network()
    probs = model.predict_proba(x)
    torch.testing.assert_close(probs.sum(1), torch.ones(50))
    torch.testing.assert_close(torch.cat([model.predict_proba(part) for part in x.split(7)]), probs, atol=1e-6, rtol=0)
    assert torch.equal(model.predict(x), probs.argmax(1))


def test_asking_leaves_mode_gradients_and_random_state_alone():
    model, x = network().train(), bars(20).spectrograms
    model.head.eval()
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    probs, features = model.predict_proba(x), model.embed(x)
    assert torch.equal(torch.rand(2), expected)
    assert model.training and model.embedding.training and not model.head.training
    assert torch.equal(probs, network_in_eval_mode(model, x))
    layer = torch.nn.Linear(128, 2)
    layer(features).sum().backward()  # never an inference tensor
    assert layer.weight.grad.abs().sum() > 0 and not probs.requires_grad


def network_in_eval_mode(model, x):
    again = network().eval()
    again.load_state_dict(model.state_dict())
    return again(x).softmax(1)


def test_evaluation_by_hand():
    model = network(dropout=0.0)
    torch.nn.init.zeros_(model.head[1].weight)
    model.head[1].bias.data = torch.tensor([0.5, 0.2, 0.3]).log()  # always the first class, with probability one half
    dataset = bars(12, n_test=5)  # held out: 1, 2, 0, 1, 2
    found = model.evaluate(dataset)
    expected = -(torch.tensor([0.5]).log() + 2 * torch.tensor([0.2]).log() + 2 * torch.tensor([0.3]).log()) / 5
    assert found == pytest.approx({"n": 5, "accuracy": 0.2, "loss": expected.item()}, rel=1e-6)
    assert model.evaluate(dataset.test) == found
    assert model.evaluate(dataset.train)["n"] == 7 and model.evaluate(bars(12))["n"] == 12


# training


def test_it_learns_and_the_same_seed_repeats_it():
    dataset = bars()
    models = [Classifier.fit(dataset, preset="quick", seed=seed, progress=False) for seed in (1, 1, 2)]
    same, again, other = (model.predict_proba(dataset.spectrograms) for model in models)
    assert (same.argmax(1) == dataset.labels).float().mean() > 0.99
    assert torch.equal(same, again) and not torch.equal(same, other)
    assert not models[0].training


def test_training_leaves_the_global_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    Classifier.fit(bars(30), preset=TINY, progress=False)
    assert torch.equal(torch.rand(2), expected)


def test_a_finished_folder_answers_at_once_with_the_same_model(tmp_path):
    dataset = bars(30, n_test=6)
    first, second = (Classifier.fit(dataset, preset=TINY, out=tmp_path, progress=False) for _ in range(2))
    assert torch.equal(first.predict_proba(dataset.spectrograms), second.predict_proba(dataset.spectrograms))
    assert (tmp_path / "history.csv").read_text().splitlines()[0].split(",").count("val_accuracy") == 1


def test_held_out_clips_are_not_learnt_from():
    dataset = bars(60, n_test=30)
    other = replace(dataset, spectrograms=torch.where(dataset.is_test[:, None, None], 9.0, dataset.spectrograms), labels=dataset.labels.clone())
    other.labels[dataset.is_test] = 0
    models = [Classifier.fit(data, preset=TINY, progress=False) for data in (dataset, other)]
    assert all(torch.equal(a, b) for a, b in zip(*(model.state_dict().values() for model in models), strict=True))


def test_nothing_to_learn_from_is_refused():
    for dataset in (bars(12, n_test=12), bars(0)):
        with pytest.raises(SpecgenError, match="no clips to train on"):
            Classifier.fit(dataset, preset="quick", progress=False)
    with pytest.raises(SpecgenError, match="preset 'huge': unknown; choose one of quick, small, source") as error:
        Classifier.fit(bars(12), preset="huge", progress=False)
    assert "\n" not in str(error.value)


def test_training_with_mixtures_and_masks_learns_too():
    dataset = bars()
    preset = Classifier.presets["quick"].changed(augment=dict(mix=True, gain_db=3.0, mask=(2, 4)))
    assert Classifier.fit(dataset, preset=preset, progress=False).evaluate(dataset)["accuracy"] > 0.99


def test_the_loss_is_of_the_shares_that_augmentation_gives():
    logits, labels, seen = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2]), []

    def model(x):
        seen.append(x)
        return logits

    x = torch.randn(6, 32, 16, generator=torch.Generator().manual_seed(0))
    how = dict(representation=MELS, n_classes=3)
    loss, parts = classification_loss(model, (x, labels), torch.Generator(), smoothing=0.1, **how)
    assert torch.equal(seen[0], x)
    torch.testing.assert_close(loss, F.cross_entropy(logits, labels, label_smoothing=0.1))
    assert parts["accuracy"] == (logits.argmax(1) == labels).float().mean()
    loss, _ = classification_loss(model, (x, labels), torch.Generator().manual_seed(0), mix=True, **how)
    mixed, shares = augment_mixed(x, torch.eye(3)[labels], torch.Generator().manual_seed(0), representation=MELS, mix=True)
    assert torch.equal(seen[1], mixed) and not torch.equal(mixed, x)
    torch.testing.assert_close(loss, -(shares * logits.log_softmax(1)).sum(1).mean())


# the published speech embedding


def test_the_speech_embedding_is_the_published_one_and_can_be_trained_further():
    dataset = replace(bars(24, size=(32, 84)), about={"domain": "words"})
    preset = Classifier.presets["words/pretrained"].changed(training=dict(epochs=1, batch_size=8, max_steps=2), augment=dict(warp=None))
    weights = load_file(shipped_models()["specgen/speech-embedding"] / "model.safetensors")
    assert sum(w.numel() for w in weights.values()) == 328128
    model = Classifier.fit(dataset, preset=preset, progress=False)
    assert model.embedding[1].in_features == 96 * 2  # 84 frames are one step of 8 more than 76
    own = model.cpu().stages.state_dict()
    assert all(torch.equal(own[name], weight.float()) for name, weight in weights.items())
    further = Classifier.fit(dataset, preset=preset.changed(training=dict(speech_lr=0.1)), progress=False).cpu().stages.state_dict()
    kept = {name for name, weight in weights.items() if torch.equal(further[name], weight.float())}
    assert kept == {name for name in weights if name[0] in "12"}  # the first two blocks


def test_an_impulse_is_seen_76_frames_wide():
    blocks = torch.nn.Sequential(*speech_stages()[1:-1]).eval()
    x = torch.zeros(1, 1, 32, 92, requires_grad=True)
    y = blocks(x)
    assert y.shape == (1, 96, 1, 3)
    y[..., 1].sum().backward()
    frames = x.grad.abs().sum((0, 1, 2)).nonzero().flatten()
    assert 8 <= frames.min() and frames.max() < 8 + 76


@pytest.mark.parametrize("size", [(40, 92), (32, 75)])
def test_the_speech_embedding_refuses_other_spectrograms(size):
    with pytest.raises(SpecgenError, match="takes 32 bands and at least 76 frames"):
        network(size, speech=True, bands=None)


def test_epochs_become_steps():
    config = steps_config(100, epochs=3, batch_size=32, lr=1e-3, warmup=50)
    assert (config.steps, config.batch_size, config.warmup) == (12, 32, 1)
    assert steps_config(100, epochs=3, batch_size=32, lr=1e-3, max_steps=5).steps == 5
    assert steps_config(10, epochs=3, batch_size=32, lr=1e-3).batch_size == 10


def test_the_sources_preset_is_the_sources():
    for name in ("source", "words/source", "sounds/source"):
        preset = Classifier.presets[name]
        assert (preset.training["epochs"], preset.training["batch_size"]) == (30, 32)
        assert preset.training["schedule"] == "constant" and preset.training["weight_decay"] == 0 and "ema" not in preset.training
        assert preset.augment == {} and preset.model["bands"] is None and sorted(preset.model["channels"]) == list(preset.model["channels"])
    assert Classifier.fit(bars(24), preset=replace(Classifier.presets["source"], training=TINY.training), progress=False).evaluate(bars(24))["n"] == 24


# from recordings


def test_presets_follow_the_durations(tones):
    assert tones.domain == "words" and Classifier.prepare(tones, by="stratified").about["domain"] == "words"
    long = replace(tones, recordings=[replace(r, duration=5.0) for r in tones])
    assert Classifier.preset("quick", long.domain).dataset["n_mels"] == 64
    with pytest.raises(SpecgenError, match="preset 'huge'"):
        Classifier.prepare(tones, preset="huge")


def test_long_sounds_have_their_own_spectrograms(tmp_path):
    dataset = Classifier.prepare(load_recordings(tones_in(tmp_path, seconds=2.2, takes=4)), preset="quick", by="stratified")
    assert dataset.spectrograms.shape[1] == 64 and dataset.about["domain"] == "sounds"
    preset = replace(Classifier.presets["sounds/quick"], training=TINY.training)
    assert Classifier.fit(dataset, preset=preset, progress=False).depth is None


def test_words_for_the_speech_embedding_are_as_long_as_it_needs(tones):
    dataset = Classifier.prepare(tones, preset="pretrained", by="stratified")
    assert dataset.spectrograms.shape[1:] == (32, 108) and dataset.representation.f_max == 3800
    preset = Classifier.presets["words/pretrained"].changed(training=dict(max_steps=2))
    model = Classifier.fit(dataset, preset=preset, progress=False)
    torch.testing.assert_close(model.encode_files([r.path for r in tones]), dataset.spectrograms, atol=1e-4, rtol=0)


def test_distorted_copies_of_the_training_clips_follow_the_recordings(tones):
    plain, preset = Classifier.prepare(tones, preset="small", by="stratified"), "small-distorted"
    dataset, again = (Classifier.prepare(tones, preset=preset, by="stratified") for _ in range(2))
    n, known = len(tones), (~plain.is_test).nonzero().flatten()
    assert torch.equal(dataset.spectrograms[:n], plain.spectrograms) and len(dataset) == n + 2 * len(known)
    assert torch.equal(dataset.test.spectrograms, plain.test.spectrograms) and dataset.representation == plain.representation
    assert torch.equal(dataset.labels[n:], plain.labels[known].repeat(2)) and dataset.paths[n:] == 2 * [plain.paths[i] for i in known]
    change = (dataset.spectrograms[n:].unflatten(0, (2, -1)) - plain.spectrograms[known]).abs().amax((2, 3))
    assert (change > 1e-4).float().mean() > 0.75  # one in sixteen is spared by all four distortions
    assert torch.equal(dataset.spectrograms, again.spectrograms)


@pytest.mark.parametrize("others, rate", [({"slow": 4000}, 8000), ({"fast": 48000}, 8000)])
def test_one_file_does_not_decide_the_sample_rate(tmp_path, others, rate):
    "A single file at a telephone's rate made all others lose everything above it."
    tones_in(tmp_path)
    for name, hertz in others.items():
        write_audio(tmp_path / "low" / f"{name}.wav", 0.3 * torch.sin(2 * math.pi * 300 * torch.arange(hertz // 4) / hertz), hertz)
    assert Classifier.prepare(load_recordings(tmp_path), preset="quick", by="stratified").representation.sample_rate == rate


def test_statistics_come_from_the_training_clips_and_travel_along(trained, tones):
    model, dataset = trained
    plain = replace(model.representation, mean=0.0, std=1.0)
    length = (model.size[1] - 1) * plain.hop_length
    logs = torch.stack([plain.encode(pad_or_crop(peak_normalize(w), length)) for w in tones.waveforms(RATE)])[~dataset.is_test]
    assert (model.representation.mean, model.representation.std) == pytest.approx((logs.mean().item(), logs.std().item()), rel=1e-5)
    assert model.representation == dataset.representation


def test_it_standardises_by_itself(trained):
    model, dataset = trained
    x = dataset.spectrograms
    assert model.depth == 48.0
    asked = model(standardize(x.to(model.device), 48.0 / dataset.representation.decibels)).softmax(1).to(x)
    torch.testing.assert_close(model.predict_proba(x), asked, atol=1e-6, rtol=0)
    torch.testing.assert_close(model.predict_proba(2 + x), model.predict_proba(x), atol=1e-5, rtol=0)  # louder, or another microphone's gain


def test_spectrograms_that_were_standardised_are_not_standardised_again(tones):
    dataset = encode_recordings(tones, log_mel(RATE, **Classifier.presets["words/quick"].dataset), by="stratified", depth_db=48.0)
    preset = replace(Classifier.presets["words/quick"], training=TINY.training)
    model = Classifier.fit(dataset, preset=preset, progress=False)
    assert model.depth is None
    files = [r.path for r in tones]
    torch.testing.assert_close(model.encode_files(files), dataset.spectrograms, atol=0.01, rtol=0)  # up to the common scale after it, which is nearly 1


def test_the_mel_bands_are_never_empty():
    for rate in (4000, 8000, 11025, 16000):
        for name in ("words/quick", "sounds/quick", "words/source"):
            mels = log_mel(rate, **Classifier.presets[name].dataset)
            assert (mels.encode(torch.randn(rate, generator=torch.Generator().manual_seed(0))).amax(1) > math.log(mels.floor)).all()


# files


def test_a_saved_model_alone_predicts_files(trained, tones, tmp_path):
    model, dataset = trained
    model.save_pretrained(tmp_path)
    files = [r.path for r in tones]
    torch.testing.assert_close(model.encode_files(files), dataset.spectrograms, atol=1e-5, rtol=0)
    rows = Classifier.from_pretrained(tmp_path, device=model.device).predict_files(files)
    assert [row["file"] for row in rows] == [str(path) for path in files]
    assert [row["classes"][0] for row in rows] == [r.label for r in tones] and {len(row["classes"]) for row in rows} == {2}
    probs = model.predict_proba(dataset.spectrograms)
    for row, own in zip(rows, probs, strict=True):
        assert dict(zip(row["classes"], row["probabilities"], strict=True)) == pytest.approx(dict(zip(tones.classes, own.tolist(), strict=True)), abs=1e-5)
    assert [len(row["classes"]) for row in model.predict_files(files[:2], top=1)] == [1, 1]


def test_models_asked_together_give_the_mean_of_their_probabilities(trained, tones):
    model, files = trained[0], [r.path for r in tones]
    preset = Classifier.presets["words/pretrained"].changed(training=dict(max_steps=2))
    other = Classifier.fit(Classifier.prepare(tones, preset=preset, by="stratified"), preset=preset, progress=False)
    mean = (model.predict_proba(model.encode_files(files)) + other.predict_proba(other.encode_files(files))) / 2
    for row, own in zip(model.predict_files(files, others=[other]), mean.tolist(), strict=True):
        assert dict(zip(row["classes"], row["probabilities"], strict=True)) == pytest.approx(dict(zip(tones.classes, own, strict=True)), abs=1e-5)
    assert model.evaluate_recordings(tones.root, others=[model]) == model.evaluate_recordings(tones.root)
    with pytest.raises(SpecgenError, match="must know the same classes"):
        model.predict_files(files, others=[network()])


def test_loudness_does_not_matter(trained, tones, tmp_path):
    waveform = read_audio(tones[0].path)[0]
    files = [write_audio(tmp_path / f"{name}.wav", gain * waveform, RATE) for name, gain in (("quiet", 0.2), ("loud", 2))]
    probs = trained[0].predict_proba(trained[0].encode_files(files))
    torch.testing.assert_close(probs[0], probs[1], atol=1e-3, rtol=0)


def test_unreadable_files_and_models_that_cannot_read_are_refused(trained, tmp_path):
    (tmp_path / "text.wav").write_text("no sound")
    for model, paths, word in ((trained[0], [tmp_path / "text.wav"], "text.wav"), (trained[0], [], "no files"), (network(), ["a.wav"], "Classifier.prepare")):
        with pytest.raises(SpecgenError, match=word):
            model.predict_files(paths)


def test_another_kind_of_model_is_refused(tmp_path):
    network().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "channels": [8, 8, 8]}))
    with pytest.raises(SpecgenError, match="another model than a Classifier"):
        Classifier.from_pretrained(tmp_path)


def test_submissions_are_sorted_and_whole_or_absent(tmp_path):
    path = write_submissions(tmp_path / "submissions.csv", ["b", "a,1"], ["rain", "dog"])
    assert rows_of(path) == [["ID", "Class"], ["a,1", "dog"], ["b", "rain"]]
    for ids, classes in ((["a", "a"], ["x", "y"]), (["a"], ["x", "y"])):
        with pytest.raises(SpecgenError, match="need one class for each ID"):
            write_submissions(tmp_path / "bad.csv", ids, classes)
    assert [p.name for p in tmp_path.iterdir()] == ["submissions.csv"]


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


# the whole errand


@pytest.fixture(scope="module")
def fitted(tones, tmp_path_factory):
    out = tmp_path_factory.mktemp("fitted") / "model"
    (tones.root / "low" / "broken.wav").write_text("no sound")
    try:
        fit_recordings(Classifier, tones.root, out=out, preset="quick", progress=False)
    finally:
        (tones.root / "low" / "broken.wav").unlink()
    return out


def test_fitting_writes_model_scores_and_what_was_skipped(fitted):
    assert {"config.json", "model.safetensors", "scores.json", "skipped.csv", "training", "run.json"} <= {p.name for p in fitted.iterdir()}
    scores = json.loads((fitted / "scores.json").read_text())
    assert scores.keys() == {"n", "accuracy", "loss"} and (scores["n"], scores["accuracy"]) == (2, 1.0)
    assert rows_of(fitted / "skipped.csv")[0] == ["path", "reason"] and [row[0] for row in rows_of(fitted / "skipped.csv")[1:]] == ["low/broken.wav"]


def test_a_mistyped_split_or_preset_does_not_claim_the_folder(tones, tmp_path):
    for mistake, word in ((dict(by="fold"), "fold"), (dict(preset="huge"), "huge")):
        with pytest.raises(SpecgenError, match=word):
            fit_recordings(Classifier, tones.root, out=tmp_path / "out", progress=False, **{"preset": "quick", **mistake})
        assert not (tmp_path / "out").exists()


def test_an_old_model_never_answers_for_new_recordings(fitted, tones, tmp_path):
    with pytest.raises(SpecgenError, match="seed 0, not 1"):
        fit_recordings(Classifier, tones.root, out=fitted, preset="quick", seed=1, progress=False)
    before = (fitted / "model.safetensors").read_bytes()
    fit_recordings(Classifier, tones.root, out=fitted, preset="quick", progress=False)  # the same again
    assert (fitted / "model.safetensors").read_bytes() == before
    (tmp_path / "low").symlink_to(tones.root / "high")  # the same clips, their names exchanged
    (tmp_path / "high").symlink_to(tones.root / "low")
    with pytest.raises(SpecgenError, match="other recordings"):
        fit_recordings(Classifier, tmp_path, out=fitted, preset="quick", progress=False)


def test_every_file_becomes_a_row_or_is_listed(fitted, tones, tmp_path):
    folder = tmp_path / "unlabelled"
    for name, recording in (("b.wav", tones[0]), ("a.wav", tones[15]), ("deep/c.wav", tones[1])):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(recording.path)
    (folder / "broken.wav").write_bytes(tones[0].path.read_bytes()[:1000])
    (folder / "empty.flac").touch()
    (folder / "notes.txt").write_text("no sound")
    (folder / ".hidden").touch()
    for model in (fitted, Classifier.from_pretrained(fitted)):  # the second time its own files lie there already
        done = submit(folder, model, folder / "submissions.csv", progress=False)
    expected = [["a", tones[15].label], ["b", tones[0].label], ["deep/c", tones[1].label]]
    assert rows_of(done.path) == [["ID", "Class"], *expected]
    assert [row[0] for row in rows_of(done.unreadable_path)] == ["path", "broken.wav", "empty.flac", "notes.txt"]
    assert all(len(row[1]) > 5 for row in rows_of(done.unreadable_path)[1:])
    assert done.n_predicted == 3 and len(done.unreadable) == 3


def test_ids_that_would_be_shared_keep_their_suffix(fitted, tones, tmp_path):
    waveform = tones.waveforms(RATE)[0]
    for suffix in ("wav", "flac"):
        write_audio(tmp_path / "files" / f"a.{suffix}", waveform, RATE)
    done = submit(tmp_path / "files", fitted, tmp_path / "out.csv", progress=False)
    assert [row[0] for row in rows_of(done.path)] == ["ID", "a.flac", "a.wav"]


def test_impossible_errands_are_refused_in_one_line(fitted, tones, tmp_path):
    (tmp_path / "one" / "class").mkdir(parents=True)
    (tmp_path / "one" / "class" / "a.wav").symlink_to(tones[0].path)
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("no sound")
    (tmp_path / "nothing").mkdir()
    errands = {
        "has 1 classes: .* needs at least 2": lambda: fit_recordings(Classifier, tmp_path / "one", out=tmp_path / "m", progress=False),
        "nowhere": lambda: fit_recordings(Classifier, tmp_path / "nowhere", out=tmp_path / "m", progress=False),
        "no such folder": lambda: submit(tmp_path / "nowhere", fitted, tmp_path / "s.csv", progress=False),
        "no saved model": lambda: submit(tmp_path / "one", tmp_path / "nothing", tmp_path / "s.csv", progress=False),
        "none of its 1": lambda: submit(tmp_path / "text", fitted, tmp_path / "s.csv", progress=False),
        "holds no files": lambda: submit(tmp_path / "nothing", fitted, tmp_path / "s.csv", progress=False),
    }
    for word, errand in errands.items():
        with pytest.raises(SpecgenError, match=word) as error:
            errand()
        assert "\n" not in str(error.value)
    assert not (tmp_path / "s.csv").exists()
