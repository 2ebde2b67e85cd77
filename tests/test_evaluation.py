"Scores against closed forms and brute force, and a judge that can be saved and refuses to judge unmeasured."
import math

import pytest
import scipy.linalg
import torch
from torch.nn import functional as F

from specgen.audio import SpecgenError
from specgen.classifier import Classifier
from specgen.evaluation import (Judge, am_score, diversity, entropy, fid, inception_score, label_accuracy, modified_inception_score,
                                nearest_neighbour_distance)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def some_probs(n=60, k=10, seed=0):
    return (3 * random(n, k, seed=seed)).softmax(1)


@pytest.mark.parametrize("n, m, d", [(300, 200, 16), (40, 300, 64), (300, 40, 64), (20, 30, 64), (2, 2, 8)])
def test_fid_is_the_formula_of_the_covariances(n, m, d):
    a, b = random(n, d), 1.5 * random(m, d, seed=1) + 0.3
    root = scipy.linalg.sqrtm(a.T.cov().numpy() @ b.T.cov().numpy() + 1e-12 * torch.eye(d).numpy()).real
    expected = (a.mean(0) - b.mean(0)).square().sum() + a.T.cov().trace() + b.T.cov().trace() - 2 * root.trace()
    assert fid(a, b) == pytest.approx(expected.item(), rel=1e-4)
    assert fid(a, b) == pytest.approx(fid(b, a), rel=1e-9)


def test_fid_of_itself_is_zero_and_a_shift_is_its_square():
    a = random(100, 128).float()
    assert fid(a, a) == pytest.approx(0, abs=1e-9)
    assert fid(a, a[torch.randperm(100)]) == pytest.approx(0, abs=1e-9)
    assert fid(a, a + 2) == pytest.approx(4 * 128, rel=1e-5)


def test_fid_needs_two_of_each():
    for a, b in ((1, 10), (10, 1), (0, 10)):
        with pytest.raises(SpecgenError, match="at least 2"):
            fid(random(a, 4), random(b, 4))


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


def test_nearest_neighbour_is_the_nearest():
    a, b = random(700, 5), random(40, 5, seed=1)
    expected = torch.stack([(b - x).norm(dim=1).min() for x in a]).float()
    torch.testing.assert_close(nearest_neighbour_distance(a, b), expected, atol=1e-3, rtol=1e-4)
    assert nearest_neighbour_distance(b[:3], b).max() < 2e-3  # copies are found


def test_diversity_by_hand():
    x, labels = random(30, 5), torch.arange(30) % 3
    per_class = []
    for k in range(3):
        own = x[labels == k]
        per_class.append(sum((own[i] - own[j]).norm() for i in range(10) for j in range(i)) / 45)
    assert diversity(x, labels) == pytest.approx((sum(per_class) / 3).item(), rel=1e-5)
    assert diversity(x[:1].repeat(6, 1), labels[:6]) == pytest.approx(0, abs=1e-6)
    assert math.isnan(diversity(x[:3], labels[:3]))  # no class has two clips


def test_label_accuracy_counts():
    assert label_accuracy(torch.eye(4), torch.tensor([0, 1, 2, 0])) == 0.75


@pytest.fixture(scope="module")
def room():
    "A judge of three made-up words, its training pictures and its held-out ones, (N, time, freq)."
    labels = torch.arange(180) % 3
    pictures = random(180, 24, 64).float()
    pictures[torch.arange(180), :, 16 * (labels + 1)] += 3
    train, held = (pictures[:120], labels[:120]), (pictures[120:], labels[120:])
    return Judge.fit(*train, heldout=held, n_classes=3, preset="quick", progress=False), train, held


def test_the_judge_hears_and_its_scores_tell_good_from_bad(room):
    judge, (known, _), (pictures, labels) = room
    assert judge.accuracy > 0.95 and judge.accuracy == label_accuracy(judge.hear(pictures), labels)
    good = judge.scores(pictures, labels, reference=known)
    noise = judge.scores(random(60, 24, 64, seed=5).float(), labels, reference=known)
    copies = judge.scores(known[:60], labels, reference=known)
    one = judge.scores(torch.cat([pictures[:3]] * 20), labels, reference=known)
    assert set(good) == {"label_accuracy", "fid", "is", "mis", "am", "nearest", "diversity"}
    assert all(isinstance(value, float) and math.isfinite(value) for value in good.values())
    assert noise["label_accuracy"] < good["label_accuracy"] and noise["fid"] > good["fid"]
    assert copies["nearest"] < 0.1 * good["nearest"]
    assert one["diversity"] < 1e-3 < good["diversity"] and one["fid"] > good["fid"]


def test_scores_do_not_depend_on_the_call(room):
    judge, (known, _), (pictures, labels) = room
    assert judge.scores(pictures, labels, reference=known) == judge.scores(pictures, labels, reference=known)
    torch.testing.assert_close(judge.features(pictures)[:5], judge.features(pictures[:5]))


def test_a_judge_comes_back_from_its_folder(room, tmp_path):
    judge, _, (pictures, _) = room
    judge.save_pretrained(tmp_path)
    again = Judge.from_pretrained(tmp_path)
    assert again.accuracy == judge.accuracy and torch.equal(again.hear(pictures), judge.hear(pictures))
    assert not [p.name for p in tmp_path.iterdir() if p.suffix in (".pt", ".pkl", ".bin")]


def test_what_is_no_judge_is_refused(tmp_path):
    Classifier(3).save_pretrained(tmp_path)  # a classifier whose hearing nobody measured
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(SpecgenError, match="no judge"):
            Judge.from_pretrained(folder)
    with pytest.raises(SpecgenError, match="held-out"):
        Judge.fit(torch.zeros(4, 24, 64), torch.zeros(4, dtype=torch.long), heldout=(torch.zeros(0, 24, 64), torch.zeros(0)), n_classes=2)
