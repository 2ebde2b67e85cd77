"The transformer: features as Kaldi's, logits as transformers', folds that share nothing, and errors in one line."
import csv
import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from specgen.ast import (
    AST,
    HEARD,
    RECIPES,
    Attention,
    Features,
    Folds,
    cross_validate,
    fit_ast,
    fold_split,
    heard,
    load_ast,
    mixed_energies,
    predict,
    predict_files,
    recipe_at,
    resized,
    rollout,
    turns,
)
from specgen.audio import Fbank, SpecgenError, kaldi, write
from specgen.corpora import Item, load
from specgen.training import TrainConfig

RATE = 16000
NETWORK = dict(stem=((8, (4, 4)), (16, (2, 2))), embed_dim=16, depth=1, num_heads=2, tokens=0)
TINY = {**RECIPES["hybrid"], "features": dict(n_frames=24, pooled=2), "heard": {**HEARD, "turn": False, "mask": (4, 2)},
        "sizes": {"quick": dict(network=NETWORK, epochs=6), "small": dict(network=NETWORK, epochs=12)}}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def tone(hertz, seconds=0.5, rate=RATE):
    return 0.3 * torch.sin(2 * math.pi * hertz * torch.arange(int(seconds * rate)) / rate) + 0.01 * torch.randn(int(seconds * rate), generator=generator())


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
                    write(root / "audio" / file_name, tone(hertz + 20 * fold + 5 * k, 0.3 + 0.1 * k, rate), rate)
    return root


# features


@pytest.mark.parametrize("window, theirs", [("hann", "hanning"), ("hamming", "hamming")])
def test_filterbanks_are_kaldis_in_batch(window, theirs):
    clips = torch.stack([0.1 * torch.randn(RATE, generator=generator()), tone(440, 1.0), torch.zeros(RATE)]).double()
    ours = Fbank(window=window).encode(clips)
    for clip, mine in zip(clips, ours, strict=True):
        peer = kaldi.fbank(clip[None], num_mel_bins=128, sample_frequency=RATE, htk_compat=True, use_energy=False, window_type=theirs, dither=0.0).T
        torch.testing.assert_close(mine, peer, atol=1e-4, rtol=0)
        peer = kaldi.fbank(clip[None].float(), num_mel_bins=128, sample_frequency=RATE, htk_compat=True, use_energy=False, window_type=theirs, dither=0.0).T
        torch.testing.assert_close(Fbank(window=window).encode(clip.float()), peer, atol=1e-4, rtol=0)


def test_filterbanks_of_many_clips_at_once_are_those_of_each():
    clips = 0.1 * torch.randn(3, 20, RATE, generator=generator())
    one_by_one = torch.stack([Fbank().encode(clip) for clip in clips.flatten(0, 1)]).unflatten(0, (3, 20))
    torch.testing.assert_close(Fbank().encode(clips), one_by_one, atol=1e-5, rtol=0)


@pytest.mark.parametrize("seconds, frames", [(1, 98), (5, 498), (10, 998)])
def test_frame_counts(seconds, frames):
    clip = torch.randn(seconds * RATE, generator=generator())
    assert Features().energies(clip).shape == (128, frames)
    assert Features(pooled=2).energies(clip).shape == (128, frames // 2)
    for n_frames in (98, 512, 1024):
        (fitted,) = Features(n_frames=n_frames).clips([clip])
        assert fitted.shape == (128, n_frames)
        kept = min(n_frames, frames)
        assert torch.equal(fitted[:, :kept], Features().energies(clip)[:, :kept])
        torch.testing.assert_close(fitted[:, kept:], torch.full_like(fitted[:, kept:], torch.finfo(torch.float32).eps))


@pytest.mark.parametrize("samples", [1, 100, 400, 559, 560])
def test_clips_shorter_than_a_frame_are_padded(samples):
    assert Features(n_frames=8, pooled=2).clips([torch.ones(samples)]).shape == (1, 128, 8)


def test_statistics_make_deviation_one_half():
    energies = Features(n_frames=40).clips([tone(300), tone(900)])
    fitted = Features(n_frames=40).fit(energies)
    pictures = fitted.pictures(energies)
    assert abs(pictures.mean()) < 1e-4 and abs(pictures.std() - 0.5) < 1e-4
    assert Features.from_dict(json.loads(json.dumps(fitted.to_dict()))) == fitted
    own = replace(fitted, per_clip=True).pictures(energies)
    torch.testing.assert_close(own.mean((1, 2)), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(own.std((1, 2)), torch.full((2,), 0.5))


# the network


def test_attention_is_the_fused_one():
    attention, x = Attention(24, 3), torch.randn(2, 10, 24, generator=generator())
    with torch.no_grad():
        fused = attention(x)
    torch.testing.assert_close(attention(x), fused, atol=1e-5, rtol=0)
    torch.testing.assert_close(attention.shares(x).sum(-1), torch.ones(2, 3, 10))


def test_places_keep_still_on_their_own_grid_and_stay_within_it_on_others():
    places = torch.randn(1, 12, 5)
    assert torch.equal(resized(places, (3, 4), (3, 4)), places)
    assert resized(places, (3, 4), (5, 9)).shape == (1, 45, 5)
    flat = torch.ones(1, 12, 5)
    torch.testing.assert_close(resized(flat, (3, 4), (2, 7)), torch.ones(1, 14, 5))


@pytest.mark.parametrize("tokens", [0, 1, 2])
@pytest.mark.parametrize("settings", [{}, dict(stem=((8, (4, 2)), (16, (2, 2)))), dict(patch=(16, 8), stride=(16, 8))])
def test_any_length_goes_in(tokens, settings):
    model = AST(4, n_mels=32, n_frames=40, embed_dim=16, depth=2, num_heads=2, tokens=tokens, **settings).eval()
    for frames in (16, 40, 90):
        x = torch.randn(2, 32, frames)
        assert model(x).shape == (2, 4)
        where = rollout(model, x)
        assert where.shape == (2, *model.grid_of(32, frames)) and (where >= 0).all() and (where.sum((1, 2)) <= 1.0001).all()


def test_the_papers_size():
    with torch.device("meta"):
        assert sum(p.numel() for p in AST().parameters()) == 86_594_063


@pytest.mark.parametrize("change", [dict(embed_dim=15), dict(depth=0), dict(tokens=3), dict(n_classes=0), dict(n_frames=8), dict(classes=["one"])])
def test_impossible_networks_are_refused(change):
    settings = {**dict(n_classes=4, n_mels=32, n_frames=40, embed_dim=16, depth=1, num_heads=2), **change}
    with pytest.raises(SpecgenError) as error:
        AST(**settings)
    assert "\n" not in str(error.value)


def test_saved_networks_answer_alike_and_adapt(tmp_path):
    features = Features(n_frames=40).fit(Features(n_frames=40).clips([tone(300)]))
    model = AST(3, n_frames=40, embed_dim=16, depth=1, num_heads=2, classes=["a", "b", "c"], features=features.to_dict()).eval()
    model.save_pretrained(tmp_path)
    again, x = AST.from_pretrained(tmp_path), torch.randn(2, 128, 40)
    assert torch.equal(again(x), model(x)) and again.features == features and again.classes == ["a", "b", "c"]
    longer = AST.from_pretrained(tmp_path, n_frames=80)
    assert longer.grid == (12, 7) and longer.features.n_frames == 80 and torch.equal(longer.head.weight, model.head.weight)
    other = AST.from_pretrained(tmp_path, classes=["x", "y"])
    assert other.n_classes == 2 and torch.equal(other.places, model.places)


@pytest.mark.parametrize("source", ["missing", "no/one/has/this", "owner/name"])
def test_what_is_not_there_is_said(source, monkeypatch):
    monkeypatch.setattr("specgen.ast.snapshot_download", lambda *a, **k: (_ for _ in ()).throw(OSError("no network")))
    with pytest.raises(SpecgenError, match=re.escape(source)) as error:
        AST.from_pretrained(source)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("config", [None, "{", "[]", "{}", '{"model_type": "audio-spectrogram-transformer"}', '{"model_type": "bert"}'])
def test_broken_folders_are_refused(tmp_path, config):
    if config is not None:
        (tmp_path / "config.json").write_text(config)
        (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(SpecgenError, match=re.escape(str(tmp_path))) as error:
        AST.from_pretrained(tmp_path)
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
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


@pytest.mark.parametrize("seconds", [0.4, 1.0])
def test_published_weights_see_the_same_pictures(theirs, seconds):
    _, extractor, folder = theirs
    features, clip = AST.from_pretrained(folder).features, tone(700, seconds)
    expected = extractor(clip.numpy(), sampling_rate=RATE, return_tensors="pt").input_values[0].T
    torch.testing.assert_close(features.pictures(features.clips([clip]))[0], expected, atol=1e-3, rtol=0)


def test_published_weights_are_tuned_on_folds(theirs, small_esc, tmp_path):
    recipe = {**RECIPES["published"], "start": str(theirs[2]), "features": dict(n_frames=48), "sizes": {"quick": dict(network=None, epochs=1)}}
    result = cross_validate(tmp_path, root=small_esc, folds=(2,), recipe=recipe, preset="quick", progress=False)
    assert result.rows[0]["n_test"] == 6
    model = load_ast(tmp_path / "fold2")
    assert model.classes == ["high", "low"] and not model.multilabel and model.features.fbank.window == "hann"


# what a step hears


def test_turns_go_round_long_and_short_clips():
    assert turns(torch.arange(10), 4, 2).tolist() == [[0, 1, 2, 3], [5, 6, 7, 8]]
    assert turns(torch.arange(4), 4, 4)[3].tolist() == [3, 0, 1, 2]
    assert turns(torch.rand(3, 8, 20), 12, 5).shape == (5, 3, 8, 12)


def test_mixing_weighs_pressures_and_keeps_energy_between():
    energies = torch.rand(64, 8, 20, generator=generator()) * 10 ** (6 * torch.rand(64, 1, 1, generator=generator()))
    mixed, targets = mixed_energies(energies, torch.eye(64), generator())
    torch.testing.assert_close(targets.sum(1), torch.ones(64))
    other = torch.randperm(64, generator=generator())
    low, high = torch.minimum(energies, energies[other]), torch.maximum(energies, energies[other])
    assert ((mixed >= low * 0.999) & (mixed <= high * 1.001)).all()
    # an equal share is heard equally loud, however loud the clips were
    loud, quiet, none = (torch.full((4, 5), value) for value in (100.0, 0.01, 1e-9))
    pair = torch.stack([torch.cat([loud, none]), torch.cat([none, quiet])])
    for seed in range(200):
        (one, _), shares = mixed_energies(pair, torch.eye(2), generator(seed))
        if abs(shares[0, 0] - 0.5) < 0.02 and shares[0, 1] > 0:
            assert 0.8 < (one[:4].mean() / one[4:].mean()).item() < 1.25


def test_hearing_repeats_with_the_seed_and_can_do_nothing():
    features = Features(n_frames=40).fit(Features(n_frames=40).clips([tone(300), tone(900)]))
    energies = features.clips([tone(300 * k) for k in range(1, 5)])
    first, again, other = (heard(energies, torch.eye(4), generator(seed), features, **HEARD) for seed in (0, 0, 1))
    assert torch.equal(first[0], again[0]) and not torch.equal(first[0], other[0])
    same, targets = heard(energies, torch.eye(4), generator(), features)
    assert torch.equal(same, features.pictures(energies)) and torch.equal(targets, torch.eye(4))
    assert torch.isfinite(heard(energies, torch.eye(4), generator(), features, warp=dict(voice=0.1, tempo=0.2))[0]).all()


def test_energies_do_not_know_polarity():
    torch.testing.assert_close(Features().energies(tone(300)), Features().energies(-tone(300)))


# training and folds


def fit(energies, labels, **change):
    arguments = dict(classes=["low", "high"], recipe=recipe_at(TINY, "quick"), features=Features(n_frames=24, pooled=2), progress=False)
    return fit_ast(energies, labels, **{**arguments, **change})


def test_it_learns_and_repeats_itself():
    energies = Features(n_frames=24, pooled=2).clips([tone(300 + 5 * k) for k in range(16)] + [tone(2500 + 5 * k) for k in range(16)])
    labels = torch.arange(2).repeat_interleave(16)
    recipe = {**recipe_at(TINY, "quick"), "epochs": 60}
    models = [fit(energies, labels, recipe=recipe, seed=seed) for seed in (0, 0, 1)]
    same, again, other = (predict(model, energies) for model in models)
    assert torch.equal(same, again) and not torch.equal(same, other)
    assert (same.argmax(1) == labels).float().mean() > 0.9


@pytest.mark.parametrize("energies, labels, word", [
    (torch.ones(3, 128, 24), torch.tensor([0, 1, 2]), "labels 0 to 2"),
    (torch.ones(3, 128, 24), torch.tensor([0, -1, 1]), "labels -1"),
    (torch.ones(3, 128, 24), torch.tensor([0]), "1 labels"),
    (torch.ones(3, 24), torch.tensor([0, 1, 1]), "need"),
    (torch.ones(0, 128, 24), torch.tensor([], dtype=torch.long), "at least one"),
])
def test_data_that_do_not_fit_are_refused(energies, labels, word):
    with pytest.raises(SpecgenError, match=word):
        fit(energies, labels)


def test_no_fold_shares_a_clip_or_a_recording(small_esc):
    corpora = [load("esc50", small_esc)]
    try:
        corpora.append(load("esc50"))  # the real one, where it is at hand
    except SpecgenError:
        pass
    for corpus in corpora:
        seen = []
        for fold in range(1, 6):
            trained, tested = fold_split(corpus, fold)
            files, recordings = ([{key(corpus[int(i)]) for i in part} for part in (trained, tested)]
                                 for key in (lambda item: item.path, lambda item: item.path.name.split("-")[1]))
            assert not files[0] & files[1] and not recordings[0] & recordings[1]
            assert len(trained) + len(tested) == len(corpus) and {corpus[int(i)].fold for i in tested} == {fold}
            seen += tested.tolist()
        assert sorted(seen) == list(range(len(corpus)))


def test_a_recording_in_two_folds_is_refused(small_esc):
    corpus = load("esc50", small_esc)
    items = [replace(item, fold=1) if item.path.name == "2-200-B-0.wav" else item for item in corpus]
    with pytest.raises(SpecgenError, match="recording 200 lies in fold 1"):
        fold_split(replace(corpus, items=items), 1)
    lonely = [*corpus, Item(Path("a.wav"), "owl", "999", 0, 3, 1.0, RATE)]
    with pytest.raises(SpecgenError, match="class 'owl' of fold 3"):
        fold_split(replace(corpus, items=lonely, classes=["high", "low", "owl"]), 3)


def run(folder, root, **change):
    return cross_validate(folder, **{**dict(root=root, folds=(1,), recipe=TINY, preset="quick", progress=False), **change})


def test_statistics_come_from_the_training_folds_alone(small_esc, tmp_path):
    def statistics(folder):
        run(tmp_path / folder, tmp_path / "data")
        return load_ast(tmp_path / folder / "fold1").features.fbank

    shutil.copytree(small_esc, tmp_path / "data")
    before = statistics("a")
    for path in (tmp_path / "data" / "audio").glob("1-*"):
        write(path, 0.9 * torch.rand(8000, generator=generator()), RATE)
    assert statistics("b") == before
    write(next((tmp_path / "data" / "audio").glob("2-*")), 0.9 * torch.rand(8000, generator=generator()), RATE)
    assert statistics("c") != before


def test_folds_are_taken_up_where_they_were(small_esc, tmp_path, monkeypatch):
    whole = run(tmp_path / "whole", small_esc, folds=(1, 2))
    assert isinstance(whole, Folds) and whole.confusion.sum() == 12 and whole.summary.endswith("in 2 folds")
    run(tmp_path / "parts", small_esc)
    weights = tmp_path / "parts" / "fold1" / "model.safetensors"
    written = weights.stat().st_mtime_ns
    import specgen.ast as room
    steps = []

    def stop(*args, **settings):
        steps.append(1)
        if len(steps) == 4:
            raise KeyboardInterrupt
        return heard(*args, **settings)

    monkeypatch.setattr(room, "TrainConfig", lambda *a, **k: TrainConfig(*a, checkpoint_every=2, **k))
    with monkeypatch.context() as patch:
        patch.setattr(room, "heard", stop)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "parts", small_esc, folds=(1, 2))
    assert not (tmp_path / "parts" / "fold2" / "scores.json").exists()
    again = run(tmp_path / "parts", small_esc, folds=(1, 2))
    assert weights.stat().st_mtime_ns == written
    assert [row["accuracy"] for row in again.rows] == [row["accuracy"] for row in whole.rows]
    one, other = (load_ast(tmp_path / name / "fold2").state_dict() for name in ("whole", "parts"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    with open(tmp_path / "parts" / "folds.csv") as file:
        assert [row["fold"] for row in csv.DictReader(file)] == ["1", "2"]
    with open(tmp_path / "parts" / "predictions.csv") as file:
        assert len(list(csv.DictReader(file))) == 12


@pytest.mark.parametrize("change, word", [
    (dict(folds=(7,)), "fold 7"),
    (dict(folds=()), "at least one"),
    (dict(folds=(1, 1)), "only once"),
    (dict(preset="huge"), "preset 'huge'"),
    (dict(recipe="magic"), "recipe 'magic'"),
])
def test_mistakes_are_said_before_anything_is_written(small_esc, tmp_path, change, word):
    with pytest.raises(SpecgenError, match=word) as error:
        run(tmp_path / "out", small_esc, **change)
    assert "\n" not in str(error.value) and not (tmp_path / "out").exists()


def test_a_corpus_without_folds_is_said(small_esc, tmp_path):
    for name in ("low", "high"):
        write(tmp_path / "data" / name / "0.wav", tone(300), RATE)
    with pytest.raises(SpecgenError, match="no split by fold"):
        run(tmp_path / "out", None, corpus=tmp_path / "data")


def test_a_missing_table_is_said(small_esc, tmp_path):
    (tmp_path / "audio").mkdir()
    with pytest.raises(SpecgenError):
        run(tmp_path / "out", tmp_path)


def test_another_run_is_not_overwritten(small_esc, tmp_path):
    run(tmp_path, small_esc)
    with pytest.raises(SpecgenError, match="other recordings or settings"):
        run(tmp_path, small_esc, seed=1)


# naming files


def test_a_model_names_files_of_any_length_and_rate(small_esc, tmp_path):
    run(tmp_path / "out", small_esc, preset="small")
    files = [write(tmp_path / f"{k}.wav", tone(300, seconds, rate), rate) for k, (seconds, rate) in enumerate([(0.01, 16000), (0.3, 8000), (3.0, 44100)])]
    rows = predict_files([tmp_path], tmp_path / "out" / "fold1", top=5)
    assert [row["file"] for row in rows] == [str(path) for path in files]
    for row in rows:
        assert len(row["classes"]) == 2 and abs(sum(row["probabilities"]) - 1) < 1e-3 and row["probabilities"] == sorted(row["probabilities"], reverse=True)
    json.dumps(rows)


def test_files_that_cannot_be_named_are_refused(tmp_path):
    (tmp_path / "text.wav").write_text("no sound")
    (tmp_path / "empty").mkdir()
    wordless = AST(2, embed_dim=16, depth=1, num_heads=2, n_frames=64)
    able = AST(2, embed_dim=16, depth=1, num_heads=2, n_frames=64, classes=["a", "b"], features=Features(n_frames=64).to_dict())
    mistakes = (
        ([tmp_path / "text.wav"], able, 1, "text.wav"),
        ([], able, 1, "no recordings"),
        ([tmp_path / "empty"], able, 1, "no recordings"),
        (["a.wav"], able, 0, "at least one"),
        (["a.wav"], wordless, 1, "cross_validate"),
        (["a.wav"], tmp_path / "none", 1, "none"),
    )
    for files, model, top, word in mistakes:
        with pytest.raises(SpecgenError, match=word):
            predict_files(files, model, top)


def test_the_shipped_network_works_at_once():
    import specgen
    folder = Path(specgen.__file__).parent / "weights" / "ast_esc10"
    assert (folder / "model.safetensors").stat().st_size <= 6e6 and (folder / "README.md").is_file()
    model = load_ast()
    assert model.n_classes == 10 and "rooster" in model.classes
    noise = 0.1 * torch.randn(5 * RATE, generator=generator())
    probs = predict(model, model.features.energies(noise)[None])
    torch.testing.assert_close(probs.sum(1), torch.ones(1))
