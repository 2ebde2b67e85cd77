"The transformer: logits as transformers', shipped answers as before, folds that share nothing, and errors in one line."
import csv
import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pretend import DEVICE, NAME, pretend_device
from safetensors.torch import load_file, save_file

from specgen.audio import import_torchaudio, read_audio, write_audio
from specgen.audio_transformer import AST, SelfAttention, encode_whole, pad_frames
from specgen.core import SpecgenError, read_table
from specgen.datasets import load_recordings
from specgen.evaluation import Folds, cross_validate, fold_split
from specgen.models import fit_recordings
from specgen.spectrogram import Fbank
from specgen.spectrogram_dataset import SpectrogramDataset

RATE = 16000
NETWORK = dict(stem=((8, (4, 4)), (16, (2, 2))), embed_dim=16, depth=1, num_heads=2, n_cls_tokens=0)
TINY = replace(AST.preset("quick").changed(dataset=dict(n_frames=24), training=dict(epochs=6), augment=dict(roll=False, mask=(4, 2))), model=NETWORK)
FBANK = Fbank(window="hamming", pool=2, mean=-6.0, std=9.0)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def tone(hertz, seconds=0.5, rate=RATE):
    return 0.3 * torch.sin(2 * math.pi * hertz * torch.arange(int(seconds * rate)) / rate) + 0.01 * torch.randn(int(seconds * rate), generator=generator())


def tones(n=16):
    "A dataset of low and high tones, none held out."
    logs = torch.stack([FBANK.encode(tone(hertz + 5 * k))[:, :24] for hertz in (300, 2500) for k in range(n)])
    return SpectrogramDataset(logs, torch.arange(2).repeat_interleave(n), ["low", "high"], FBANK)


@pytest.fixture(scope="module")
def small_esc(tmp_path_factory):
    "ESC-50's layout: two classes, five folds, in each two takes of one recording and one of another, of several lengths and rates."
    root = tmp_path_factory.mktemp("esc50")
    (root / "meta").mkdir()
    with open(root / "meta" / "esc50.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("filename", "fold", "target", "category", "esc10", "src_file", "take"))
        for fold in range(1, 6):
            for target, (name, hertz) in enumerate((("low", 300), ("high", 2500))):
                for k, (source, take) in enumerate(((0, "A"), (0, "B"), (1, "A"))):
                    clip = f"{fold}{target}{source}"
                    file_name, rate = f"{fold}-{clip}-{take}-{target}.wav", (16000, 22050, 44100)[k]
                    table.writerow((file_name, fold, target, name, True, clip, take))
                    write_audio(root / "audio" / file_name, tone(hertz + 20 * fold + 5 * k, 0.3 + 0.1 * k, rate), rate)
    return root


# spectrograms of whole clips


@pytest.mark.parametrize("seconds, frames", [(1, 98), (5, 498), (10, 998)])
def test_frame_counts(seconds, frames):
    clip, plain = torch.randn(seconds * RATE, generator=generator()), Fbank(window="hamming")
    whole = encode_whole(clip, plain)
    assert whole.shape == (128, frames) and encode_whole(clip, replace(plain, pool=2)).shape == (128, frames // 2)
    padded = pad_frames(whole, 1024, plain)
    assert padded.shape == (128, max(1024, frames)) and torch.equal(padded[:, :frames], whole)
    torch.testing.assert_close(padded[:, frames:], torch.full_like(padded[:, frames:], math.log(torch.finfo(torch.float32).eps)))


def test_pooled_frames_are_means_of_energies():
    clip, single = tone(440, 1.0), replace(FBANK, pool=1)
    energies = single.denormalize(single.encode(clip)).exp()
    torch.testing.assert_close(FBANK.denormalize(FBANK.encode(clip)).exp(), energies.unflatten(1, (49, 2)).mean(2), rtol=1e-4, atol=0)
    assert FBANK.n_frames(RATE) == 49 and FBANK.decode(FBANK.encode(clip), n_iter=1).shape == single.decode(single.encode(clip), n_iter=1).shape
    torch.testing.assert_close(FBANK.frame_times(49), single.frame_times(98).unflatten(0, (49, 2)).mean(1))
    with pytest.raises(SpecgenError, match="560"):
        FBANK.encode(torch.zeros(559))
    with pytest.raises(SpecgenError, match="pool 0"):
        replace(FBANK, pool=0)


@pytest.mark.parametrize("samples", [1, 100, 400, 559, 560])
def test_clips_shorter_than_a_frame_are_padded(samples):
    assert encode_whole(torch.ones(samples), FBANK).shape == (128, 1)


def test_prepared_clips_have_deviation_one_half(small_esc):
    recordings = load_recordings("esc50", small_esc)
    dataset = AST.prepare(recordings, preset=TINY, by="fold", test=2)
    train, own = dataset.train.spectrograms, dataset.representation
    assert abs(train.mean()) < 1e-4 and abs(train.std() - 0.5) < 1e-4
    assert dataset.spectrograms.shape == (30, 128, 24) and int(dataset.is_test.sum()) == 6
    short = own.encode(read_audio(recordings[0].path, RATE)[0])
    torch.testing.assert_close(dataset.spectrograms[0], pad_frames(short, 24, own))
    assert short.shape[1] == 14 and (dataset.spectrograms[0, :, 14:] == dataset.spectrograms.min()).all()
    assert dataset.paths[0].endswith(recordings[0].path.name) and dataset.classes == ["high", "low"]


def test_the_source_has_its_own_settings(small_esc):
    preset = AST.preset("source")
    dataset = AST.prepare(load_recordings("esc50", small_esc), preset="source", by="fold", test=1)
    assert dataset.representation.sample_rate == 8000 and dataset.spectrograms.shape == (30, 128, 498)
    with torch.device("meta"):
        network = AST(50, n_frames=498, **preset.model)
        assert network.embedding.grid == (12, 49) and len(network.blocks) == 4
    x = 3 * torch.randn(2, 128, 64, generator=generator()) + 7
    embed = AST(3, n_frames=64, embed_dim=16, depth=1, num_heads=2, clip_std=1.0).eval().embedding
    standardised = (x - x.mean((1, 2), keepdim=True)) / x.std((1, 2), keepdim=True)
    torch.testing.assert_close(embed(x), embed(standardised))
    torch.testing.assert_close(embed(x), embed(5 * x - 2), atol=1e-5, rtol=0)


# the network


def test_attention_is_the_fused_one():
    attention, x = SelfAttention(24, 3), torch.randn(2, 10, 24, generator=generator())
    with torch.no_grad():
        fused = attention(x)
    torch.testing.assert_close(attention(x), fused, atol=1e-5, rtol=0)
    torch.testing.assert_close(attention.attention_weights(x).sum(-1), torch.ones(2, 3, 10))


def test_positional_embeddings_keep_still_on_their_own_grid_and_stay_within_it_on_others():
    model = AST(2, n_mels=32, n_frames=48, patch=(16, 16), stride=(16, 16), embed_dim=4, depth=1, num_heads=1, n_cls_tokens=1)
    embedding = model.embedding
    assert embedding.grid == (2, 3) and embedding.interpolate_pos_embed((2, 3)) is embedding.pos_embed
    row, column = torch.meshgrid(torch.arange(2.0), torch.arange(3.0), indexing="ij")
    with torch.no_grad():
        embedding.pos_embed[0, 1:] = torch.stack([row, column, row, column], -1).flatten(0, 1)
    double = embedding.interpolate_pos_embed((4, 6)).detach()
    assert torch.equal(double[:, :1], embedding.pos_embed[:, :1])
    grid = double[0, 1:].unflatten(0, (4, 6))
    torch.testing.assert_close(grid[:, 0, 0], torch.tensor([0, 0.25, 0.75, 1]))
    torch.testing.assert_close(grid[0, :, 1], torch.tensor([0, 0.25, 0.75, 1.25, 1.75, 2]))


@pytest.mark.parametrize("n_cls_tokens", [0, 1, 2])
@pytest.mark.parametrize("settings", [{}, dict(stem=((8, (4, 2)), (16, (2, 2)))), dict(patch=(16, 8), stride=(16, 8))])
def test_any_length_goes_in(n_cls_tokens, settings):
    model = AST(4, n_mels=32, n_frames=40, embed_dim=16, depth=2, num_heads=2, n_cls_tokens=n_cls_tokens, **settings).eval()
    for frames in (16, 40, 90):
        x = torch.randn(2, 32, frames)
        assert model(x).shape == (2, 4)
        where = model.attention_rollout(x)
        assert where.shape == (2, *model.embedding.grid_of(32, frames)) and (where >= 0).all() and (where.sum((1, 2)) <= 1.0001).all()


def test_the_papers_size():
    with torch.device("meta"):
        assert sum(p.numel() for p in AST().parameters()) == 86_594_063


@pytest.mark.parametrize("change, word", [
    (dict(embed_dim=15), "multiple"), (dict(num_heads=0), "heads"), (dict(depth=0), "depth 0"), (dict(n_cls_tokens=3), "3 class tokens"),
    (dict(n_classes=0), "0 classes"), (dict(n_frames=8), "patch"), (dict(classes=["one"]), "1 names"),
])
def test_impossible_networks_are_refused(change, word):
    settings = {**dict(n_classes=4, n_mels=32, n_frames=40, embed_dim=16, depth=1, num_heads=2), **change}
    with pytest.raises(SpecgenError, match=word) as error:
        AST(**settings)
    assert "\n" not in str(error.value)


def test_saved_networks_answer_alike_and_adapt(tmp_path):
    model = AST(3, n_frames=40, embed_dim=16, depth=1, num_heads=2, classes=["a", "b", "c"], representation=FBANK.to_dict()).eval()
    model.save_pretrained(tmp_path)
    again, x = AST.from_pretrained(tmp_path), torch.randn(2, 128, 40)
    assert torch.equal(again(x), model(x)) and again.representation == FBANK and again.classes == ["a", "b", "c"]
    longer = again.adapt(n_frames=80)
    assert longer.embedding.grid == (12, 7) and longer.n_frames == 80 and torch.equal(longer.head.weight, model.head.weight)
    other = again.adapt(classes=["x", "y"], representation=replace(FBANK, mean=1.0))
    assert other.n_classes == 2 and torch.equal(other.embedding.pos_embed, model.embedding.pos_embed) and other.representation.mean == 1.0
    other.save_pretrained(tmp_path / "other")
    assert torch.equal(AST.from_pretrained(tmp_path / "other")(x), other(x))


@pytest.mark.parametrize("source", ["missing", "no/one/has/this", "owner/name"])
def test_what_is_not_there_is_said(source):
    with pytest.raises(SpecgenError, match=re.escape(source)) as error:
        AST.from_pretrained(source, local_files_only=True)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("config", [None, "{", "[]", "{}", '{"model_type": "audio-spectrogram-transformer"}', '{"model_type": "bert"}', '{"embed_dim": "x"}'])
def test_broken_folders_are_refused(tmp_path, config):
    if config is not None:
        (tmp_path / "config.json").write_text(config)
        (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(SpecgenError, match=re.escape(str(tmp_path))) as error:
        AST.from_pretrained(tmp_path)
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    import_torchaudio()  # `transformers` asks for it too
    transformers = pytest.importorskip("transformers")
    size = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48)
    config = transformers.ASTConfig(**size, max_length=64, num_mel_bins=128, num_labels=7)
    model = transformers.ASTForAudioClassification(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(0.3 * torch.randn(p.shape, generator=generator()))
    folder = tmp_path_factory.mktemp("published")
    model.save_pretrained(folder)
    extractor = transformers.ASTFeatureExtractor(max_length=64)
    extractor.save_pretrained(folder)
    return model, extractor, folder


def test_published_weights_give_the_same_logits(theirs):
    model, _, folder = theirs
    ours, x = AST.from_pretrained(folder), torch.randn(3, 128, 64, generator=generator())
    with torch.no_grad():
        torch.testing.assert_close(ours(x), model(x.mT).logits, atol=1e-4, rtol=0)
    torch.testing.assert_close(ours.predict_proba(x), model(x.mT).logits.sigmoid(), atol=1e-4, rtol=0)


def published(theirs, place, **changes):
    "A copy of the published folder whose config.json has other settings; None takes one out."
    shutil.copytree(theirs[2], place)
    config = {**json.loads((place / "config.json").read_text()), **changes}
    (place / "config.json").write_text(json.dumps({name: value for name, value in config.items() if value is not None}))
    return place


@pytest.mark.parametrize("kind, multilabel", [("single_label_classification", False), ("multi_label_classification", True), (None, True)])
def test_the_problem_type_says_softmax_or_sigmoid(theirs, tmp_path, kind, multilabel):
    ours = AST.from_pretrained(published(theirs, tmp_path / "a", problem_type=kind))
    x = torch.randn(3, 128, 64, generator=generator())
    assert ours.multilabel is multilabel
    torch.testing.assert_close(ours.predict_proba(x), ours(x).sigmoid() if multilabel else ours(x).softmax(-1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("there, how", [
    ("config.json", dict(hidden_act="relu")), ("config.json", dict(problem_type="regression")), ("preprocessor_config.json", dict(max_length=128)),
    ("preprocessor_config.json", dict(num_mel_bins=64)),
])
def test_published_settings_that_are_not_built_are_refused(theirs, tmp_path, there, how):
    folder = published(theirs, tmp_path / "a")
    (folder / there).write_text(json.dumps(json.loads((folder / there).read_text()) | how))
    with pytest.raises(SpecgenError, match="isn't built for that; use transformers"):
        AST.from_pretrained(folder)


def test_published_weights_without_biases_of_queries_keys_and_values(theirs, tmp_path):
    transformers, x = pytest.importorskip("transformers"), torch.randn(2, 128, 64, generator=generator())
    size = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, max_length=64, qkv_bias=False)
    model = transformers.ASTForAudioClassification(transformers.ASTConfig(**size)).eval()
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(AST.from_pretrained(tmp_path)(x), model(x.mT).logits, atol=1e-4, rtol=0)


def test_published_sounds_that_are_not_normalised(theirs, tmp_path):
    transformers, folder = pytest.importorskip("transformers"), published(theirs, tmp_path / "a")
    extractor = transformers.ASTFeatureExtractor.from_pretrained(folder, do_normalize=False)
    extractor.save_pretrained(folder)
    model, clip = AST.from_pretrained(folder), tone(700, 1.0)
    expected = extractor(clip.numpy(), sampling_rate=RATE, return_tensors="pt").input_values[0].T
    ours = pad_frames(encode_whole(clip, model.representation), model.n_frames, model.representation, model.padding)[:, : model.n_frames]
    torch.testing.assert_close(ours, expected, atol=1e-3, rtol=0)


def test_published_weights_of_several_gpus(theirs, tmp_path):
    folder = published(theirs, tmp_path / "a")
    save_file({f"module.{name}": w for name, w in load_file(folder / "model.safetensors").items()}, folder / "model.safetensors")
    x = torch.randn(1, 128, 64, generator=generator())
    torch.testing.assert_close(AST.from_pretrained(folder)(x), AST.from_pretrained(theirs[2])(x), atol=0, rtol=0)


def test_two_published_classes_may_have_no_names(tmp_path):
    transformers = pytest.importorskip("transformers")
    size = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=48, max_length=64, num_labels=2)
    transformers.ASTForAudioClassification(transformers.ASTConfig(**size)).save_pretrained(tmp_path)
    assert "id2label" not in json.loads((tmp_path / "config.json").read_text())
    assert AST.from_pretrained(tmp_path).classes == ["LABEL_0", "LABEL_1"]


@pytest.mark.parametrize("change", [dict(hidden_size=2**31), dict(hidden_size=48), dict(num_hidden_layers=10**9), dict(num_hidden_layers=1),
    dict(max_length=10**9), dict(patch_size="16"), dict(id2label=[]), dict(id2label={"0": 5}), dict(frequency_stride=0), dict(num_attention_heads=0),
    dict(layer_norm_eps="x"), dict(intermediate_size=[])], ids=str)
def test_damaged_published_configs_are_refused(theirs, tmp_path, change):
    with pytest.raises(SpecgenError, match="AST|config.json") as error:
        AST.from_pretrained(published(theirs, tmp_path / "a", **change))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("seconds", [0.4, 1.0])
def test_published_weights_get_the_same_spectrograms(theirs, seconds):
    _, extractor, folder = theirs
    model, clip = AST.from_pretrained(folder), tone(700, seconds)
    expected = extractor(clip.numpy(), sampling_rate=RATE, return_tensors="pt").input_values[0].T
    ours = pad_frames(encode_whole(clip, model.representation), model.n_frames, model.representation, model.padding)[:, : model.n_frames]
    torch.testing.assert_close(ours, expected, atol=1e-3, rtol=0)


def test_published_weights_are_tuned_on_folds(theirs, small_esc, tmp_path):
    preset = AST.preset("published").changed(model=dict(start=str(theirs[2])), dataset=dict(n_frames=48), training=dict(epochs=1))
    result = cross_validate(AST, "esc50", out=tmp_path, root=small_esc, folds=(2,), preset=preset, progress=False)
    assert result.rows[0]["n_test"] == 6
    model = AST.from_pretrained(tmp_path / "fold2")
    assert model.classes == ["high", "low"] and not model.multilabel and model.representation.window == "hann" and model.padding == 0.0


# training and prediction


@pytest.mark.parametrize("frames, n_shifts, expected", [
    (4, None, [[0, 1, 2, 3]]), (4, 4, [[0, 1, 2, 3], [1, 2, 3, 0], [2, 3, 0, 1], [3, 0, 1, 2]]),
    (10, 2, [[0, 1, 2, 3], [5, 6, 7, 8]]), (10, None, [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]),
])
def test_shifts_go_round_long_and_short_clips(frames, n_shifts, expected, monkeypatch):
    model, seen = AST(2, n_mels=16, n_frames=16, embed_dim=4, depth=1, num_heads=1), []
    model.n_frames = 4
    monkeypatch.setattr(model, "forward", lambda x: seen.append(x[0, 0].tolist()) or x[:, 0, :2])
    probs = model.predict_proba(torch.arange(float(frames)).expand(1, 16, -1), n_shifts=n_shifts)
    assert seen == expected
    torch.testing.assert_close(probs[0], torch.tensor(expected).float()[:, :2].softmax(-1).mean(0))


def test_augmentation_repeats_with_the_seed_and_can_do_nothing():
    model, x = AST(4, n_frames=24, representation=FBANK.to_dict(), **NETWORK), tones(2).spectrograms
    changes = {k: v for k, v in AST.preset("small").augment.items() if k != "smoothing"}
    first, again, other = (model.augment_batch(x, torch.eye(4), generator(seed), **changes) for seed in (0, 0, 1))
    assert torch.equal(first[0], again[0]) and not torch.equal(first[0], other[0])
    torch.testing.assert_close(first[1].sum(1), torch.ones(4))
    same, targets = model.augment_batch(x, torch.eye(4), generator())
    assert torch.equal(same, x) and torch.equal(targets, torch.eye(4))


def test_gain_is_in_decibels_and_stops_at_the_floor():
    model, x = AST(4, n_frames=24, representation=FBANK.to_dict(), **NETWORK), tones(2).spectrograms
    louder, _ = model.augment_batch(x, torch.eye(4), generator(), gain_db=6.0)
    change = (louder - x) * FBANK.decibels
    assert change.abs().max() <= 6.0001 and len(change.flatten(1).median(1).values.unique()) == 4
    silent = FBANK.normalize(torch.full((4, 128, 24), math.log(FBANK.floor)))
    assert (model.augment_batch(silent, torch.eye(4), generator(), gain_db=6.0)[0] >= silent - 1e-6).all()


def test_mixing_is_of_energies():
    model, x = AST(2, n_frames=24, representation=FBANK.to_dict(), **NETWORK), tones(1).spectrograms
    energies = FBANK.denormalize(x).exp()
    for seed in range(20):
        mixed, proportions = model.augment_batch(x, torch.eye(2), generator(seed), mix=True)
        if proportions[0, 1]:  # an affine mixture of the two energies: one weight for all bands and frames
            weight = (FBANK.denormalize(mixed[0]).exp() - energies[1]) / (energies[0] - energies[1])
            loud = (energies[0] / energies[1] - 1).abs() > 0.5
            assert weight[loud].std() < 1e-3 and 0 <= weight[loud].mean() <= 1
            return
    raise AssertionError("no seed mixed the two")


def test_spectrograms_do_not_know_polarity():
    torch.testing.assert_close(FBANK.encode(tone(300)), FBANK.encode(-tone(300)))


def test_it_learns_and_repeats_itself():
    dataset = tones()
    models = [AST.fit(dataset, preset=TINY, epochs=60, seed=seed, progress=False) for seed in (0, 0, 1)]
    same, again, other = (model.predict_proba(dataset.spectrograms) for model in models)
    assert torch.equal(same, again) and not torch.equal(same, other)
    assert (models[0].predict(dataset.spectrograms) == dataset.labels).float().mean() > 0.9
    right = (same.argmax(1) == dataset.labels).float().mean().item()
    assert models[0].evaluate(dataset) == {"n": 32, "accuracy": pytest.approx(right)}
    held = replace(dataset, is_test=torch.arange(32) < 4)
    assert models[0].evaluate(held)["n"] == 4



def test_prediction_leaves_mode_and_random_state_and_training_goes_on():
    model, x = AST(2, n_frames=24, representation=FBANK.to_dict(), dropout=0.5, **NETWORK).train(), tones(2).spectrograms
    model.blocks[0].eval()
    before, modes = torch.get_rng_state(), [m.training for m in model.modules()]
    probs = model.predict_proba(x)
    assert torch.equal(model.predict_proba(x), probs) and torch.equal(torch.get_rng_state(), before)
    assert [m.training for m in model.modules()] == modes and not probs.requires_grad and not probs.is_inference()
    torch.nn.Linear(2, 2)(probs).sum().backward()


@pytest.mark.parametrize("network", [NETWORK, {**NETWORK, "stem": None, "n_cls_tokens": 1, "clip_std": 1.0}])
def test_a_second_device_gives_the_same_model(network, tmp_path):
    "It refuses to mix with the CPU, as a GPU does; what was on the CPU comes back there."
    dataset, preset = tones(4), replace(TINY, model=network)
    held = replace(dataset, is_test=torch.arange(8) < 2)
    expected = AST.fit(held, preset=preset, epochs=2, device="cpu", precision="fp32", progress=False)
    file = write_audio(tmp_path / "a.wav", tone(300), RATE)
    with pretend_device():
        model = AST.fit(held, preset=preset, epochs=2, device=NAME, precision="fp32", progress=False)
        probs, rolled = model.predict_proba(dataset.spectrograms, n_shifts=2), model.attention_rollout(dataset.spectrograms)
        there = model.predict_proba(dataset.spectrograms.to(NAME))
        adapted = model.adapt(n_frames=40, classes=["a", "b", "c"])
        rows = model.predict_files([file])
        assert model.device == there.device == adapted.device == DEVICE and {p.device for p in model.parameters()} == {DEVICE}
        assert adapted.predict(dataset.spectrograms).shape == (8,) and rows[0]["classes"]
        torch.testing.assert_close(there.cpu(), model.predict_proba(dataset.spectrograms))
    assert probs.device == rolled.device == torch.device("cpu")
    torch.testing.assert_close(rolled, expected.attention_rollout(dataset.spectrograms), atol=1e-5, rtol=0)
    torch.testing.assert_close(probs, expected.predict_proba(dataset.spectrograms, n_shifts=2), atol=1e-4, rtol=0)


@pytest.mark.parametrize("shape", [(2, 64, 24), (128, 24), (2, 1, 128, 24)])
def test_other_spectrograms_are_refused(shape):
    model = AST(2, n_frames=24, representation=FBANK.to_dict(), **NETWORK)
    with pytest.raises(SpecgenError, match=re.escape(f"{shape}: this network reads (N, 128, frames)")):
        model.predict(torch.zeros(shape))
    assert model.predict_proba(torch.zeros(0, 128, 24)).shape == (0, 2)


def test_a_dataset_without_training_clips_is_refused():
    dataset = tones(2)
    for bad in (replace(dataset, is_test=torch.ones(4, dtype=torch.bool)), dataset.select(torch.zeros(4, dtype=torch.bool))):
        with pytest.raises(SpecgenError, match="no clips to learn from"):
            AST.fit(bad, preset=TINY, progress=False)


# folds


def test_no_fold_shares_a_clip_or_a_recording(small_esc):
    datasets = [load_recordings("esc50", small_esc)]
    try:
        datasets.append(load_recordings("esc50"))  # the real one, where it is at hand
    except SpecgenError:
        pass
    for recordings in datasets:
        seen = []
        for fold in range(1, 6):
            train, test = fold_split(recordings, fold)
            files, sources = ([{key(recordings[int(i)]) for i in part} for part in (train, test)]
                              for key in (lambda item: item.path, lambda item: item.path.name.split("-")[1]))
            assert not files[0] & files[1] and not sources[0] & sources[1]
            assert len(train) + len(test) == len(recordings) and {recordings[int(i)].fold for i in test} == {fold}
            seen += test.tolist()
        assert sorted(seen) == list(range(len(recordings)))


def test_a_recording_in_two_folds_is_refused(small_esc):
    recordings = load_recordings("esc50", small_esc)
    moved = [replace(item, fold=1) if item.path.name == "2-200-B-0.wav" else item for item in recordings]
    with pytest.raises(SpecgenError, match="recording 200 lies in fold 1"):
        fold_split(replace(recordings, recordings=moved), 1)
    lonely = [*recordings, replace(recordings[0], path=Path("a.wav"), label="owl", speaker="999", fold=3)]
    with pytest.raises(SpecgenError, match="class 'owl' of fold 3"):
        fold_split(replace(recordings, recordings=lonely, classes=["high", "low", "owl"]), 3)


def run(folder, root, **change):
    return cross_validate(AST, **{**dict(source="esc50", out=folder, root=root, folds=(1,), preset=TINY, progress=False), **change})


def test_statistics_come_from_the_training_folds_alone(small_esc, tmp_path):
    def statistics(folder):
        run(tmp_path / folder, tmp_path / "data")
        return AST.from_pretrained(tmp_path / folder / "fold1").representation

    shutil.copytree(small_esc, tmp_path / "data")
    before = statistics("a")
    for path in (tmp_path / "data" / "audio").glob("1-*"):
        write_audio(path, 0.9 * torch.rand(8000, generator=generator()), RATE)
    assert statistics("b") == before
    write_audio(next((tmp_path / "data" / "audio").glob("2-*")), 0.9 * torch.rand(8000, generator=generator()), RATE)
    assert statistics("c") != before


def test_folds_are_taken_up_where_they_were(small_esc, tmp_path, monkeypatch):
    whole = run(tmp_path / "whole", small_esc, folds=(1, 2))
    assert isinstance(whole, Folds) and whole.confusion.sum() == 12 and whole.summary.endswith("in 2 folds")
    run(tmp_path / "parts", small_esc)
    weights = tmp_path / "parts" / "fold1" / "model.safetensors"
    written, steps, cross_entropy = weights.stat().st_mtime_ns, [], torch.nn.functional.cross_entropy

    def stop(*args, **settings):
        steps.append(1)
        if len(steps) == 4:
            raise KeyboardInterrupt
        return cross_entropy(*args, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(torch.nn.functional, "cross_entropy", stop)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "parts", small_esc, folds=(1, 2))
    assert not (tmp_path / "parts" / "fold2" / "done.json").exists()
    again = run(tmp_path / "parts", small_esc, folds=(1, 2))
    assert weights.stat().st_mtime_ns == written
    assert [row["accuracy"] for row in again.rows] == [row["accuracy"] for row in whole.rows]
    one, other = (AST.from_pretrained(tmp_path / name / "fold2").state_dict() for name in ("whole", "parts"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert [row["fold"] for row in read_table(tmp_path / "parts" / "folds.csv")] == ["1", "2"]
    answers = read_table(tmp_path / "parts" / "predictions.csv")
    assert len(answers) == 12 and again.confusion.trace() == sum(row["label"] == row["predicted"] for row in answers)


@pytest.mark.parametrize("change, word", [
    (dict(folds=(7,)), "fold 7"),
    (dict(folds=()), "at least one"),
    (dict(folds=(1, 1)), "only once"),
    (dict(preset="huge"), "preset 'huge'"),
    (dict(preset=AST.preset("published").changed(model=dict(start="nowhere/at_all"))), "nowhere/at_all"),
    (dict(precision="fp8"), "fp8"),
])
def test_mistakes_are_said_before_anything_is_written(small_esc, tmp_path, change, word, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(SpecgenError, match=word) as error:
        run(tmp_path / "out", small_esc, **change)
    assert "\n" not in str(error.value) and not (tmp_path / "out").exists()


def test_a_dataset_without_folds_is_said(tmp_path):
    for name in ("low", "high"):
        write_audio(tmp_path / "data" / name / "0.wav", tone(300), RATE)
    with pytest.raises(SpecgenError, match="fold"):
        run(tmp_path / "out", None, source=tmp_path / "data")


def test_a_missing_table_is_said(tmp_path):
    (tmp_path / "audio").mkdir()
    with pytest.raises(SpecgenError, match="esc50"):
        run(tmp_path / "out", tmp_path)


@pytest.mark.parametrize("change, word", [
    (dict(seed=1), "seed 0, not 1"), (dict(preset=TINY.changed(training=dict(lr=0.1))), "preset"), (dict(precision="fp32"), "precision"),
])
def test_another_run_is_not_overwritten(small_esc, tmp_path, change, word):
    run(tmp_path, small_esc)
    with pytest.raises(SpecgenError, match=word):
        run(tmp_path, small_esc, **change)


def test_other_recordings_under_old_names_never_get_the_old_answer(small_esc, tmp_path):
    shutil.copytree(small_esc, tmp_path / "data")
    run(tmp_path / "out", tmp_path / "data")
    write_audio(next((tmp_path / "data" / "audio").glob("2-*")), 0.5 * torch.rand(8000, generator=generator()), RATE)
    with pytest.raises(SpecgenError, match="other recordings"):
        run(tmp_path / "out", tmp_path / "data")


# naming files


def test_a_model_names_files_of_any_length_and_rate(small_esc, tmp_path):
    model = fit_recordings(AST, "esc50", out=tmp_path / "out", root=small_esc, preset="quick", epochs=1, progress=False)
    sounds = [(0.01, 16000), (0.3, 8000), (8.0, 44100)]
    files = [write_audio(tmp_path / "wavs" / f"{k}.wav", tone(300, seconds, rate), rate) for k, (seconds, rate) in enumerate(sounds)]
    rows = model.predict_files([tmp_path / "wavs"], top=5)
    assert [row["file"] for row in rows] == [str(path) for path in files]
    for row in rows:
        assert len(row["classes"]) == 2 and abs(sum(row["probabilities"]) - 1) < 1e-3 and row["probabilities"] == sorted(row["probabilities"], reverse=True)
    json.dumps(rows)
    again = AST.from_pretrained(tmp_path / "out", device=model.device).predict_files(files)
    assert again == rows


def test_files_that_cannot_be_named_are_refused(tmp_path):
    (tmp_path / "text.wav").write_text("no sound")
    (tmp_path / "empty").mkdir()
    wordless = AST(2, embed_dim=16, depth=1, num_heads=2, n_frames=64)
    able = AST(2, embed_dim=16, depth=1, num_heads=2, n_frames=64, classes=["a", "b"], representation=FBANK.to_dict())
    mistakes = (
        (able, [tmp_path / "text.wav"], 1, "text.wav"),
        (able, [], 1, "no recordings"),
        (able, [tmp_path / "empty"], 1, "no recordings"),
        (able, ["a.wav"], 0, "at least one"),
        (wordless, ["a.wav"], 1, "without a representation"),
    )
    for model, files, top, word in mistakes:
        with pytest.raises(SpecgenError, match=word):
            model.predict_files(files, top)


def test_the_shipped_network_answers_as_before():
    "Its answers to a fixed sound, computed before its weights were renamed."
    import specgen
    folder = Path(specgen.__file__).parent / "weights" / "ast-esc10"
    assert (folder / "model.safetensors").stat().st_size <= 6e6 and (folder / "README.md").is_file()
    model = AST.from_pretrained("specgen/ast-esc10")
    assert model.n_classes == 10 and model.classes[:3] == ["chainsaw", "clock_tick", "crackling_fire"]
    clicks = 0.5 * (torch.arange(5 * RATE) % 8000 < 40).float()
    probs = model.predict_proba(encode_whole(clicks, model.representation)[None])[0]
    torch.testing.assert_close(probs, torch.tensor(CLICKS), atol=1e-4, rtol=0)


CLICKS = [0.007418, 0.591979, 0.118956, 0.032557, 0.018568, 0.011042, 0.007422, 0.010054, 0.006181, 0.195823]
