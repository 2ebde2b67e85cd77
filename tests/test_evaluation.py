"Scores against closed forms and brute force; the evaluator on a fake classifier whose every answer is known."
import json
import math

import pytest
import scipy.linalg
import torch
from fakes import CLASSES, FakeGenerator, banded, banded_dataset, fake_evaluator
from torch.nn import functional as F

from specgen.classifier import Classifier
from specgen.core import SpecgenError
from specgen.evaluation import (Evaluator, am_score, choose_clips, class_diversity, diversity, entropy, floor_rows, frechet_distance, hold_out_clips,
                                inception_score, kernel_distance, label_accuracy, modified_inception_score, nearest_neighbour_distance)

SCORES = {"n", "label_accuracy", "frechet_distance", "kernel_distance", "inception_score", "modified_inception_score", "am_score",
          "nearest_neighbour_distance", "diversity", "least_diversity"}


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def some_probs(n=60, k=10, seed=0):
    return (3 * random(n, k, seed=seed)).softmax(1)


# distances of features


@pytest.mark.parametrize("n, m, d", [(300, 200, 16), (40, 300, 64), (300, 40, 64), (20, 30, 64), (2, 2, 8)])
def test_frechet_distance_is_the_formula_of_the_covariances(n, m, d):
    a, b = random(n, d), 1.5 * random(m, d, seed=1) + 0.3
    root = scipy.linalg.sqrtm(a.T.cov().numpy() @ b.T.cov().numpy() + 1e-12 * torch.eye(d).numpy()).real
    expected = (a.mean(0) - b.mean(0)).square().sum() + a.T.cov().trace() + b.T.cov().trace() - 2 * root.trace()
    assert frechet_distance(a, b) == pytest.approx(expected.item(), rel=1e-4)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-9)


def test_frechet_distance_of_itself_is_zero_and_of_a_shift_its_square():
    a = random(100, 128).float()
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, a[torch.randperm(100)]) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, a + 2) == pytest.approx(4 * 128, rel=1e-6)


def test_kernel_distance_is_the_sum_over_pairs():
    x, y = random(9, 5), 0.5 + random(14, 5, seed=1)

    def k(p, q):
        return (p @ q / 5 + 1) ** 3

    among_x = sum(k(x[i], x[j]) for i in range(9) for j in range(9) if i != j) / (9 * 8)
    among_y = sum(k(y[i], y[j]) for i in range(14) for j in range(14) if i != j) / (14 * 13)
    between = sum(k(p, q) for p in x for q in y) / (9 * 14)
    assert kernel_distance(x, y) == pytest.approx((among_x + among_y - 2 * between).item(), rel=1e-12)
    big = random(3000, 5, seed=2)  # more than one block
    gram = (big @ big.T / 5 + 1) ** 3
    expected = 2 * (gram.sum() - gram.trace()) / (3000 * 2999) - 2 * gram.mean()
    assert kernel_distance(big, big) == pytest.approx(expected.item(), rel=1e-9)


def test_kernel_distance_does_not_depend_on_the_number_of_clips_and_frechet_does():
    def mean_of_40(distance, n):
        values = torch.tensor([distance(random(n, 16, seed=2 * s), random(n, 16, seed=2 * s + 1)) for s in range(40)])
        return values.mean().item(), values.std().item() / 40**0.5

    for n in (20, 80):
        mean, error = mean_of_40(kernel_distance, n)
        assert abs(mean) < 3 * error
    assert mean_of_40(frechet_distance, 20)[0] > 3 * mean_of_40(frechet_distance, 80)[0]


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
def test_distances_refuse_single_clips_and_other_features(distance):
    for a, b in ((1, 10), (10, 1), (0, 10)):
        with pytest.raises(SpecgenError, match="at least 2"):
            distance(random(a, 4), random(b, 4))
    with pytest.raises(SpecgenError, match=r"\(5, 4\) and \(5, 3\)"):
        distance(random(5, 4), random(5, 3))


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
def test_distances_take_half_precision(distance):
    a, b = random(30, 4).half(), random(20, 4, seed=1).half()
    assert distance(a, b) == pytest.approx(distance(a.double(), b.double()), rel=1e-12)


# scores of probabilities


def test_inception_score_by_hand_and_at_its_ends():
    probs = some_probs()
    halves = [math.exp((part * (part / part.mean(0)).log()).sum(1).mean()) for part in (probs[:30], probs[30:])]
    assert inception_score(probs) == pytest.approx(sum(halves) / 2, rel=1e-9)
    assert inception_score(torch.eye(10).repeat(4, 1)) == pytest.approx(10)
    assert inception_score(torch.full((20, 10), 0.1)) == pytest.approx(1)


def test_modified_inception_score_is_the_mean_over_all_pairs():
    p = some_probs()
    pairs = torch.stack([F.kl_div(b.log(), a, reduction="sum") for a in p for b in p])
    assert modified_inception_score(p) == pytest.approx(pairs.mean().exp().item(), rel=1e-9)
    assert modified_inception_score(torch.full((20, 10), 0.1)) == pytest.approx(1)


def test_am_score_by_hand_and_at_its_ends():
    train, p = some_probs(seed=1), some_probs()
    t, m = train.mean(0), p.mean(0)
    assert am_score(train, p) == pytest.approx(((t * (t / m).log()).sum() - (p * p.log()).sum(1).mean()).item(), rel=1e-9)
    assert am_score(torch.eye(10), torch.eye(10).repeat(3, 1)) == pytest.approx(0, abs=1e-9)
    assert am_score(torch.eye(10), torch.full((20, 10), 0.1)) == pytest.approx(math.log(10))


def test_certainty_is_finite():
    one_word = torch.eye(10)[torch.zeros(20, dtype=torch.long)]
    assert entropy(one_word).abs().max() == 0
    assert all(map(math.isfinite, (modified_inception_score(torch.eye(10)), am_score(torch.eye(10), one_word), inception_score(one_word))))
    assert am_score(torch.eye(10), one_word) > 1  # one word alone is worse than all ten


def test_label_accuracy_counts():
    assert label_accuracy(torch.eye(4), torch.tensor([0, 1, 2, 0])) == 0.75


# copies and variety


def test_nearest_neighbour_is_the_nearest_and_a_copy_is_exactly_zero():
    a, b = random(700, 5), random(40, 5, seed=1)
    expected = torch.stack([(b - x).norm(dim=1).min() for x in a]).float()
    torch.testing.assert_close(nearest_neighbour_distance(a, b), expected, atol=1e-5, rtol=1e-5)
    assert nearest_neighbour_distance(b, b).max() == 0


def test_diversity_by_hand():
    x, labels = random(30, 5), torch.arange(30) % 3
    per_class = {}
    for k in range(3):
        own = x[labels == k]
        per_class[k] = (sum((own[i] - own[j]).norm() for i in range(10) for j in range(i)) / 45).item()
    assert class_diversity(x, labels) == pytest.approx(per_class, rel=1e-6)
    assert diversity(x, labels) == pytest.approx(sum(per_class.values()) / 3, rel=1e-6)
    assert diversity(x[:1].repeat(6, 1), labels[:6]) == 0


def test_a_class_with_one_clip_is_left_out():
    x, labels = random(5, 3), torch.tensor([0, 0, 0, 1, 2])
    assert list(class_diversity(x, labels)) == [0]
    assert diversity(x, labels) == diversity(x[:3], labels[:3]) > 0
    assert class_diversity(x[3:], labels[3:]) == {} and math.isnan(diversity(x[3:], labels[3:]))


# the evaluator, on a fake classifier


def test_scores_of_known_clips_by_hand():
    known, labels = banded_dataset(n=60, n_test=0), torch.arange(30) % 3
    specs = banded(labels)
    specs[:6] = 0  # six clips show nothing: the fake classifier is as unsure as can be
    found = fake_evaluator().score(specs, labels, reference=known)
    features, probs = 3 * torch.eye(3)[labels], torch.eye(3)[labels].double()
    features[:6], probs[:6] = 0, 1 / 3
    reference = torch.stack([part.mean((1, 2)) for part in known.spectrograms.chunk(3, 1)], 1)
    assert set(found) == SCORES and found["n"] == 30
    assert found["label_accuracy"] == pytest.approx((24 + 2) / 30)  # of three alike the first counts
    assert found["frechet_distance"] == pytest.approx(frechet_distance(reference, features), rel=1e-6)
    assert found["kernel_distance"] == pytest.approx(kernel_distance(reference, features), rel=1e-6)
    assert found["am_score"] == pytest.approx(6 / 30 * math.log(3), abs=1e-6)
    assert found["diversity"] == pytest.approx(2 * 8 / 45 * 3, rel=1e-5)  # of 45 pairs of a class 16 are a clip of level 3 with a silent one
    distances = torch.stack([(reference - x).norm(dim=1).min() for x in features])
    assert found["nearest_neighbour_distance"] == pytest.approx(distances.median().item(), rel=1e-5)
    assert found["least_diversity"] == pytest.approx(min(16 / 15 / v for v in class_diversity(reference, known.labels).values()), rel=1e-5)


def test_generated_clips_are_scored_and_not_the_held_out_ones():
    "A table that scored held-out clips under the name 'generated' would say 1.0 where exactly three in four are right."
    dataset, asked = banded_dataset(n=120, n_test=60), torch.arange(60) % 3
    generated = FakeGenerator(wrong=4).sample(asked, seed=0)
    rows = {"held out": dataset.test, "generated": (generated, asked)}
    held, made = fake_evaluator().score_table(rows, dataset, show=False)
    assert (held["label_accuracy"], made["label_accuracy"]) == (1.0, 0.75)
    assert made["diversity"] > 3 * held["diversity"]  # the wrong quarter lies elsewhere
    assert made["nearest_neighbour_distance"] == pytest.approx(
        nearest_neighbour_distance(*(fake_evaluator().embed(x) for x in (generated, dataset.train.spectrograms))).median().item(), rel=1e-6)


def test_copies_and_one_clip_a_word_are_noticed():
    dataset = banded_dataset(n=90, n_test=30)
    known = dataset.train
    rows = {"held out": dataset.test, "copies": known, "one": (known.spectrograms[:3].repeat(10, 1, 1), known.labels[:3].repeat(10))}
    held, copies, one = fake_evaluator().score_table(rows, dataset, show=False)
    assert copies["nearest_neighbour_distance"] == 0 < held["nearest_neighbour_distance"]
    assert one["diversity"] == one["least_diversity"] == 0 < held["least_diversity"]
    assert held["label_accuracy"] == copies["label_accuracy"] == one["label_accuracy"] == 1


def test_missing_words_are_noticed():
    dataset = banded_dataset(n=90, n_test=30)
    two = dataset.test.select(dataset.test.labels < 2)
    held, few = fake_evaluator().score_table({"held out": dataset.test, "two words": two}, dataset, show=False)
    assert (held["n"], few["n"]) == (20, 20)
    assert held["inception_score"] == pytest.approx(3, rel=0.1) and few["inception_score"] == pytest.approx(2, rel=0.1)
    assert few["am_score"] > held["am_score"] + 0.2


# one number of clips for all


def test_all_rows_of_a_table_have_the_smallest_number_of_clips(capsys):
    dataset = banded_dataset(n=120, n_test=60)
    rows = {"many": (dataset.train.spectrograms, dataset.train.labels), "few": dataset.test.select(range(16))}
    table = fake_evaluator(accuracy=0.975).score_table(rows, dataset)
    text = capsys.readouterr().out
    assert [row["n"] for row in table] == [16, 16] and [row["name"] for row in table] == ["many", "few"]
    assert text.startswith("16 clips of each row against 60 reference clips") and "97.5%" in text
    assert table[0] == {"name": "many", **fake_evaluator().score(*rows["many"], reference=dataset, n=16)}
    assert [row["n"] for row in fake_evaluator().score_table(rows, dataset, 12, show=False)] == [12, 12]


def test_the_clips_that_count_are_chosen_by_the_seed():
    dataset = banded_dataset(n=120, n_test=60)
    first, again, other = (fake_evaluator().score(*dataset.test.tensors, reference=dataset, n=20, seed=seed) for seed in (0, 0, 1))
    assert first == again != other and first["n"] == 20


@pytest.mark.parametrize("how, word", [
    (dict(n=31), "31 clips of 30"),
    (dict(n=0), "0 clips of 30"),
    (dict(labels=torch.zeros(29, dtype=torch.long)), "30 spectrograms with 29 labels"),
    (dict(n=1), "at least 2"),
])
def test_impossible_scores_are_refused(how, word):
    dataset = banded_dataset(n=60, n_test=30)
    arguments = dict(labels=dataset.test.labels, reference=dataset) | how
    with pytest.raises(SpecgenError, match=word):
        fake_evaluator().score(dataset.test.spectrograms, arguments.pop("labels"), **arguments)


def test_a_row_with_too_few_clips_is_named():
    dataset = banded_dataset()
    for n, few in ((20, 12), (None, 1)):
        with pytest.raises(SpecgenError, match=f"row 'generated': {few} clips"):
            fake_evaluator().score_table({"real": dataset.train, "generated": dataset.test.select(range(few))}, dataset, n, show=False)


# the reference


def test_ten_rows_cost_one_pass_over_the_reference():
    dataset, evaluator = banded_dataset(n=120, n_test=60), fake_evaluator()
    evaluator.score_table({str(k): dataset.test for k in range(10)}, dataset, 30, show=False)
    assert evaluator.classifier.embedded == 60 + 10 * 30


def test_another_reference_is_never_answered_from_the_old_one():
    dataset, evaluator = banded_dataset(n=60, n_test=30), fake_evaluator()
    before = evaluator.score(*dataset.test.tensors, reference=dataset)
    dataset.spectrograms[:30] += 1.0  # in place: the same tensor with other values
    after = evaluator.score(*dataset.test.tensors, reference=dataset)
    assert after["frechet_distance"] > before["frechet_distance"] + 2.5  # 1 in each of three features
    assert after == fake_evaluator().score(*dataset.test.tensors, reference=dataset)


def test_only_training_clips_are_the_reference():
    dataset = banded_dataset(n=60, n_test=30)
    whole, train = (fake_evaluator().score(*dataset.test.tensors, reference=part) for part in (dataset, dataset.train))
    assert whole == train


def test_scores_are_computed_where_float64_is():
    "Features leave the device first: some have no float64."
    dataset = banded_dataset()
    found = fake_evaluator().reference(dataset)
    assert found.features.device.type == found.probs.device.type == "cpu"


# floors


def test_floors_tell_seen_speakers_from_unseen_ones():
    dataset = banded_dataset(n=90, n_test=0, speakers=("ann", "bob", "cid"))
    dataset.is_test[:] = torch.tensor([s == "cid" for s in dataset.speakers])
    more = hold_out_clips(dataset, 0.2)
    rows = floor_rows(more)
    assert list(rows) == ["held out, seen speakers", "held out, unseen speakers"]
    seen, unseen = rows.values()
    assert set(seen.speakers) == {"ann", "bob"} and set(unseen.speakers) == {"cid"}
    assert (len(seen), len(unseen), len(more.train)) == (12, 30, 48)
    assert [int((seen.labels == k).sum()) for k in range(3)] == [4, 4, 4]
    assert not dataset.is_test[torch.tensor([s != "cid" for s in dataset.speakers])].any()  # the caller's own dataset is as it was


def test_without_speakers_there_is_one_floor():
    assert list(floor_rows(banded_dataset(speakers=()))) == ["held out"]
    assert list(floor_rows(banded_dataset())) == ["held out, seen speakers"]
    with pytest.raises(SpecgenError, match="hold_out_clips"):
        floor_rows(banded_dataset(n_test=0))


@pytest.mark.parametrize("fraction", [0.05, 0.5, 0.95])
def test_holding_out_leaves_every_class_and_speaker_something_to_learn_from(fraction):
    dataset = banded_dataset(n=30, n_test=0, speakers=("ann", "bob", "cid", "dan", "eve"))
    more = hold_out_clips(dataset, fraction, seed=3)
    assert 0 < int(more.is_test.sum()) < 30 and set(more.train.labels.tolist()) == {0, 1, 2}
    assert set(more.test.speakers) <= set(more.train.speakers)
    assert torch.equal(more.is_test, hold_out_clips(dataset, fraction, seed=3).is_test)


def test_a_class_with_one_clip_is_never_held_out():
    dataset = banded_dataset(n=10, n_test=0, speakers=())
    dataset.labels[:] = torch.tensor([0] * 9 + [1])
    assert not hold_out_clips(dataset, 0.5).is_test[-1]
    for fraction in (0, 1):
        with pytest.raises(SpecgenError, match="between 0 and 1"):
            hold_out_clips(dataset, fraction)


# trained for real


@pytest.fixture(scope="module")
def trained():
    dataset = banded_dataset(n=180, n_test=60, noise=1.0)
    return Evaluator.fit(dataset, preset="quick", progress=False), dataset


def test_it_is_measured_on_the_held_out_clips(trained):
    evaluator, dataset = trained
    assert evaluator.accuracy > 0.95 and evaluator.accuracy == label_accuracy(evaluator.predict_proba(dataset.test.spectrograms), dataset.test.labels)
    assert evaluator.classifier.classes == CLASSES and not evaluator.classifier.training


def test_its_scores_tell_good_from_bad(trained):
    evaluator, dataset = trained
    x, labels = dataset.test.tensors
    rows = {"good": (x, labels), "noise": (random(*x.shape, seed=5).float(), labels), "worse": (x + 2 * random(*x.shape, seed=6).float(), labels)}
    good, noise, worse = evaluator.score_table(rows, dataset, show=False)
    assert all(math.isfinite(value) for name, value in good.items() if name != "name")
    for name in ("frechet_distance", "kernel_distance"):
        assert good[name] < worse[name] < noise[name]
    assert noise["label_accuracy"] < worse["label_accuracy"] <= good["label_accuracy"]


def test_scores_do_not_depend_on_the_call_or_the_callers_mode(trained):
    evaluator, dataset = trained
    first = evaluator.score(*dataset.test.tensors, reference=dataset)
    evaluator.known.clear()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    evaluator.classifier.train()
    again = evaluator.score(*dataset.test.tensors, reference=dataset)
    assert evaluator.classifier.training and torch.equal(torch.rand(3), expected)
    evaluator.classifier.eval()
    assert again == first


def test_it_comes_back_from_its_folder(trained, tmp_path):
    evaluator, dataset = trained
    evaluator.save_pretrained(tmp_path)
    again = Evaluator.from_pretrained(tmp_path, device=evaluator.classifier.device)
    assert again.accuracy == evaluator.accuracy
    assert again.score(*dataset.test.tensors, reference=dataset) == evaluator.score(*dataset.test.tensors, reference=dataset)
    assert json.loads((tmp_path / "evaluator.json").read_text()) == {"accuracy": evaluator.accuracy}


def test_it_comes_from_the_hub_too(trained, tmp_path, monkeypatch):
    trained[0].save_pretrained(tmp_path)
    asked = []

    def download(repo, name, **hub):
        asked.append((repo, name, hub))
        return tmp_path / name

    monkeypatch.setattr("specgen.evaluation.hf_hub_download", download)
    monkeypatch.setattr(Classifier, "from_pretrained", lambda source, device=None, **hub: trained[0].classifier)
    assert Evaluator.from_pretrained("somebody/digits", revision="v1").accuracy == trained[0].accuracy
    assert asked == [("somebody/digits", "evaluator.json", {"revision": "v1"})]


def test_an_unmeasured_classifier_is_no_evaluator(trained, tmp_path):
    trained[0].classifier.save_pretrained(tmp_path)
    for folder, word in ((tmp_path, "no evaluator.json"), (tmp_path / "missing", "no such folder")):
        with pytest.raises(SpecgenError, match=word):
            Evaluator.from_pretrained(folder)
    with pytest.raises(SpecgenError, match="held-out clips"):
        Evaluator.fit(banded_dataset(n_test=0), preset="quick")
    with pytest.raises(SpecgenError, match="preset 'huge'"):
        Evaluator.fit(banded_dataset(), preset="huge")


def test_of_fewer_clips_every_class_has_its_share():
    labels = torch.tensor([0] * 50 + [1] * 50 + [2] * 7)
    for seed in range(5):
        chosen = choose_clips(labels, 30, seed)
        assert torch.bincount(labels[chosen]).tolist() in ([12, 11, 7], [11, 12, 7]) and len(chosen.unique()) == 30
    assert torch.equal(choose_clips(labels, None, 0).sort().values, torch.arange(107))
    assert torch.equal(choose_clips(labels, 9, 3), choose_clips(labels, 9, 3)) and not torch.equal(choose_clips(labels, 9, 3), choose_clips(labels, 9, 4))
