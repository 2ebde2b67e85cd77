"Evaluation classifiers that hear sounds: what enters, what they are deaf to, who learns what, and what has to be caught."
import math
from dataclasses import replace

import pytest
import torch
from made_up import noise

from specgen.core import SpecgenError
from specgen.models import Preset
from specgen.sound_evaluation import KINDS, SoundClassifier, SoundDataset, SoundEvaluator, own_clips, positive_controls, sound_levels, suspicions, with_codecs

RATE, SAMPLES = 8000, 4000


def tones(n=60, n_test=20, speakers=("ann", "bob")) -> SoundDataset:
    "Two classes, low and high tones in a little noise; the last `n_test` are held out. Speakers take turns after each round of classes."
    labels = torch.arange(n) % 2
    hertz = 300 + 1200 * labels + 40 * noise(n, seed=1)
    x = 0.2 * torch.sin(2 * torch.pi * hertz[:, None] * torch.arange(SAMPLES) / RATE) + 0.01 * noise(n, SAMPLES, seed=2)
    levels = torch.tensor([sound_levels(sound, RATE) for sound in x])
    return SoundDataset(x, labels, ["low", "high"], RATE, "words", levels, torch.arange(n) >= n - n_test, [speakers[i // 2 % len(speakers)] for i in range(n)])


@pytest.fixture(scope="module")
def evaluator():
    for kind in KINDS:
        size = SoundClassifier.presets[f"{kind}/words/quick"]
        SoundClassifier.presets[f"{kind}/words/tiny"] = size.changed(training=dict(max_steps=25, batch_size=10, warmup=3, ema=0.8))
    yield SoundEvaluator.fit(tones(), preset="tiny", progress=False, precision="fp32")
    for kind in KINDS:
        del SoundClassifier.presets[f"{kind}/words/tiny"]


def test_sounds_enter_as_a_file_gives_them_back():
    dataset = tones()
    loud = dataset.hear(4 * dataset.waveforms[:2], [0, 1], RATE)
    assert loud.waveforms.abs().max() <= 1 and loud.is_test.all() and loud.waveforms.shape == (2, SAMPLES)
    other = dataset.hear([torch.randn(9000), torch.randn(11025)], torch.tensor([1, 0]), 22050)
    assert other.waveforms.shape == (2, SAMPLES) and other.labels.tolist() == [1, 0] and other.speakers == []
    assert (loud.waveforms * 32768 - (loud.waveforms * 32768).round()).abs().max() < 1e-2


@pytest.mark.parametrize(("sounds", "labels", "says"), [
    ([torch.zeros(10)], [0, 1], "1 sounds with 2 labels"), ([torch.full((10,), math.nan)], [0], "sound 0"),
    ([torch.zeros(2, 10)], [0], r"\(2, 10\)"), ([torch.zeros(0)], [0], "sound 0"),
])
def test_what_is_no_sound_is_refused(sounds, labels, says):
    with pytest.raises(SpecgenError, match=says):
        tones().hear(sounds, labels, RATE)


def test_levels_of_known_sounds():
    square = torch.ones(8000) * 0.5
    square[4000:] = 0
    peak, level, silence = sound_levels(square, RATE)
    assert peak == pytest.approx(-6.02, abs=0.01) and level == pytest.approx(-9.03, abs=0.01) and silence == pytest.approx(0.5)
    assert sound_levels(torch.zeros(8000), RATE)[2] == 1


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_deaf_to_loudness(kind, evaluator):
    model, x = evaluator.classifiers[kind], tones().waveforms[:6]
    torch.testing.assert_close(model.predict_proba(x), model.predict_proba(0.02 * x), atol=1e-3, rtol=0)
    assert model.predict_proba(torch.zeros(1, SAMPLES)).isfinite().all()
    with pytest.raises(SpecgenError, match="hears"):
        model.embed(x[:, 1:])


def test_no_two_learn_from_the_same_clip():
    dataset = tones()
    parts = own_clips(dataset, 3)
    together = torch.cat(parts)
    assert len(together.unique()) == len(together) == 40 and not dataset.is_test[together].any()
    for part in parts:
        own = dataset.select(part)
        assert {(k, s) for k, s in zip(own.labels.tolist(), own.speakers, strict=True)} == {(k, s) for k in (0, 1) for s in ("ann", "bob")}


def test_known_faults_are_caught(evaluator):
    dataset = tones()
    assert min(evaluator.accuracy.values()) >= 0.9
    rows = {"held out": dataset.test, **positive_controls(dataset, 20)}
    found = suspicions(evaluator.score_table(rows, dataset, show=False), "held out")
    assert found["held out"] == {} and "memorisation" in found["copies"]
    assert "diversity" in found["one clip a class"] and "classes" in found["half of the classes"]


def test_scores_have_one_number_of_sounds_and_say_it(evaluator):
    dataset = tones()
    table = evaluator.score_table({"all": dataset.train, "few": dataset.test.select(range(12))}, dataset, show=False)
    assert [row["n"] for row in table] == [12] * 6 and {row["classifier"] for row in table} == set(KINDS)
    assert all(1 <= row["voices"] <= 2 + 1e-6 and 1 <= row["classes"] <= 2 + 1e-6 for row in table)
    with pytest.raises(SpecgenError, match="'few'"):
        evaluator.score_table({"few": dataset.test}, dataset, n=21, show=False)
    silent = replace(dataset, speakers=[], is_test=torch.zeros(60, dtype=torch.bool))
    row = evaluator.score(silent, reference=silent)["mel"]
    assert math.isnan(row["voices"]) and math.isnan(row["memorisation"])


def test_agreement_of_pairs_and_of_all(evaluator):
    found = evaluator.agreement(tones().test)
    assert set(found) == {"mel, mfcc", "mel, distorted", "mfcc, distorted", "all"} and found["all"] <= min(found.values())


def test_saved_and_read_again(evaluator, tmp_path):
    evaluator.save_pretrained(tmp_path)
    same, x = SoundEvaluator.from_pretrained(tmp_path, device=evaluator.classifiers["mel"].device), tones().waveforms
    assert same.accuracy == evaluator.accuracy
    assert all(torch.equal(same.classifiers[kind].embed(x), evaluator.classifiers[kind].embed(x)) for kind in KINDS)
    with pytest.raises(SpecgenError, match="evaluator.json"):
        SoundEvaluator.from_pretrained(tmp_path / "nowhere")


def test_nothing_to_learn_from_and_nothing_to_measure_on():
    dataset = tones()
    with pytest.raises(SpecgenError, match="holds none"):
        SoundEvaluator.fit(replace(dataset, is_test=torch.zeros(60, dtype=torch.bool)), progress=False)
    with pytest.raises(SpecgenError, match="no sounds to train on"):
        SoundClassifier.fit(replace(dataset, is_test=torch.ones(60, dtype=torch.bool)), progress=False)
    with pytest.raises(SpecgenError, match="kind"):
        SoundClassifier.fit(dataset, kind="nose", progress=False)


def test_the_same_seed_gives_the_same_classifier():
    size = SoundClassifier.presets["distorted/words/quick"].changed(training=dict(max_steps=3, batch_size=10, warmup=0))
    assert isinstance(size, Preset)
    models = [SoundClassifier.fit(tones(), preset=size, seed=4, progress=False) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*(m.state_dict().values() for m in models), strict=True))


def test_codecs_keep_length_and_labels():
    few = tones().select([0, 1, 3])
    many = with_codecs(few)
    assert many.waveforms.shape == (9, SAMPLES) and many.labels.tolist() == [0, 1, 1] * 3 and torch.equal(many.waveforms[:3], few.waveforms)
    assert not torch.equal(many.waveforms[3:6], few.waveforms)
