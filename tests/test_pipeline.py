"The digits pipeline as a person meets it: their own folder, kills, two processes, bad input, any number of classes, and the command line."
import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from fakes import fake_evaluator
from made_up import noise

from specgen import __version__, pipeline, report
from specgen.cli import main
from specgen.core import SpecgenError, seeded
from specgen.datasets import load_recordings
from specgen.pipeline import DigitGenerator, Plan, RunBar, encode_again, score_stage, scored_rows, with_floor
from specgen.report import write_report
from specgen.spectrogram import LogSTFT
from specgen.spectrogram_dataset import SpectrogramDataset

RUN = [sys.executable, "-m", "specgen.cli", "run", "--preset", "quick"]
STAGES = ("filter", "evaluator", "generator", "scores", "report")
GRID = LogSTFT(sample_rate=8000, n_fft=512, hop_length=128, n_bins=256, floor=1e-2, mean=-2.0, std=1.5)


def specgen(*words):
    return subprocess.run([sys.executable, "-m", "specgen.cli", *map(str, words)], capture_output=True, text=True)


@pytest.fixture(scope="session")
def recordings(tmp_path_factory):
    "Someone's own folder: three words, 44.1 kHz stereo wavs, and some files that cannot be used."
    root = tmp_path_factory.mktemp("words")
    digits, taken = load_recordings("digits"), {"1": 0, "6": 0, "8": 0}
    for item in digits:
        if taken.get(item.label, 99) < 30 and item.take == 0:
            mono, rate = soundfile.read(item.path)
            positions = np.arange(0, len(mono) - 1, rate / 44100)
            sound = np.interp(positions, np.arange(len(mono)), mono)
            folder = root / {"1": "one", "6": "six", "8": "eight"}[item.label]
            folder.mkdir(exist_ok=True)
            soundfile.write(folder / f"{item.speaker}.wav", np.stack([sound, 0.5 * sound], 1), 44100)
            taken[item.label] += 1
    (root / "one" / "poem.wav").write_text("not a sound")
    soundfile.write(root / "six" / "click.wav", np.ones(1), 44100)
    return root


@pytest.fixture(scope="session")
def finished(recordings, tmp_path_factory):
    "A run that was left in peace."
    out = tmp_path_factory.mktemp("runs") / "peace"
    done = subprocess.run([*RUN, "--dataset", recordings, "--out", out], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out, done.stdout


def test_own_folder_runs_the_whole_pipeline(finished):
    out, said = finished
    assert said.rstrip().endswith(f"report: {out / 'report.html'}")
    assert "256, 24)" in said and "6, 64]" in said
    page = (out / "report.html").read_text()
    assert page.count("data:audio/flac") > 9 and page.count("data:image/png") > 6 and 'src="http' not in page
    with open(out / "filter" / "skipped.csv", newline="") as file:
        skipped = {row["path"]: row["reason"] for row in csv.DictReader(file)}
    assert set(skipped) == {"one/poem.wav", "six/click.wav"} and "too short" in skipped["six/click.wav"]
    rows = json.loads((out / "scores.json").read_text())["rows"]
    assert len({row["n"] for row in rows.values()}) == 1  # Fréchet distances of one table are of one number of clips


def test_a_run_killed_in_every_stage_ends_the_same(recordings, finished, tmp_path):
    out, kills = tmp_path / "killed", 0
    for stage in (*STAGES[1:-1], None):  # the first stage has its own test, in test_filtering
        process = subprocess.Popen([*RUN, "--dataset", recordings, "--out", out], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None:
            if stage and (out / stage).is_dir():
                time.sleep(0.7)
                process.send_signal(signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.05)
        process.wait()
    assert kills >= 3 and process.returncode == 0
    same = (out / "scores.json").read_bytes() == (finished[0] / "scores.json").read_bytes()
    assert same or torch.cuda.is_available()  # which adds in another order every time


def test_two_processes_share_a_run(recordings, finished, tmp_path):
    out = tmp_path / "two"
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0", "-m", "specgen.cli"]
    done = subprocess.run([*launch, *RUN[3:], "--dataset", recordings, "--out", out], capture_output=True, text=True,
                          env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""})
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-6000:]
    ours, theirs = ([float(x) for x in (p / "generator" / "flow" / "history.csv").read_text().split("\n")[1].split(",")[:2]] for p in (out, finished[0]))
    assert ours[0] == theirs[0] and ours[1] == pytest.approx(theirs[1], rel=0.05)
    assert done.stdout.count("report: ") == 1 and (out / "report.html").exists()


def test_a_copy_that_was_not_installed_knows_its_version(monkeypatch):
    def missing(name):
        raise PackageNotFoundError(name)

    assert report.version_of("numpy") == np.__version__
    monkeypatch.setattr(report, "version", missing)
    assert report.version_of("specgen") == __version__


def test_generate_gives_the_same_bytes(finished, tmp_path):
    for out in ("a", "b"):
        done = specgen("generate", "one,eight", "--out", tmp_path / out, "--model", finished[0], "--seed", 3)
        assert done.returncode == 0, done.stderr
    names = [p.name for p in sorted((tmp_path / "a").iterdir())]
    assert names == ["eight_001.wav", "joined.wav", "one_000.wav", "spectrograms.png"]
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_bad_input_is_one_line_and_code_2(finished, recordings, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "lone" / "word").mkdir(parents=True)
    (tmp_path / "lone" / "word" / "poem.wav").write_text("not a sound")
    soundfile.write(tmp_path / "lone" / "word" / "click.wav", np.ones(1), 44100)
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "diary.txt").write_text("mine")
    out = tmp_path / "out"
    for words, reason in (
        (["run", "--dataset", tmp_path / "nowhere", "--out", out], "no such folder"),
        (["run", "--dataset", "fsdd", "--root", tmp_path / "empty", "--out", out], "not found"),
        (["run", "--dataset", tmp_path / "empty", "--out", out], "no sound files"),
        (["run", "--dataset", tmp_path / "lone", "--out", out], "can be used"),
        (["run", "--dataset", recordings, "--strict", "--out", out], "poem.wav"),
        (["run", "--dataset", recordings, "--out", notes], "is not empty"),
        (["run", "--dataset", recordings, "--preset", "quick", "--seed", 1, "--out", finished[0]], "seed 0, not 1"),
        (["generate", "seven", "--out", out, "--model", finished[0]], "'seven'"),
        (["generate", "one", "--out", out, "--model", tmp_path / "empty"], "no saved model"),
        (["generate", "one", "--out", out, "--model", finished[0] / "evaluator" / "model"], "another model"),
    ):
        with pytest.raises(SystemExit) as stop:
            main([str(word) for word in words])
        said = [line for line in capsys.readouterr().err.splitlines() if line.strip() and "it/s]" not in line]
        assert stop.value.code == 2 and len(said) == 1 and said[0].startswith("specgen: ") and reason in said[0], (words, said)
        assert not out.exists(), words
    assert [p.name for p in Path(notes).iterdir()] == ["diary.txt"]


def spoken(n_classes, n=None, speakers=("ann", "bob"), unseen=()):
    "A dataset as the filter leaves it: random spectrograms; the last fifth is held out, or the unseen speakers' clips."
    n = n or 3 * n_classes
    labels, who = torch.arange(n) % n_classes, [[*speakers, *unseen][i // n_classes % (len(speakers) + len(unseen))] for i in range(n)]
    is_test = torch.tensor([s in unseen for s in who]) if unseen else torch.arange(n) >= n - max(n // 5, 2)
    classes = [f"$word_{k}$" for k in range(n_classes)]
    row = dict.fromkeys(("path", "why", "prediction"), "") | dict(kept="yes", stretch=1.0, loss=0.1)
    rows = [row | dict(label=classes[k], speaker=s, split="test" if t else "train") for k, s, t in zip(labels.tolist(), who, is_test.tolist(), strict=True)]
    return SpectrogramDataset(noise(n, 256, 24), labels, classes, GRID, is_test, who, about={"rows": rows})


def untrained(n_classes):
    with seeded(0):
        flow = dict(n_classes=n_classes, size=dict(width=16, hidden=16, depth=1), embedding=16)
        model = DigitGenerator(flow, {}, GRID.to_dict(), [f"$word_{k}$" for k in range(n_classes)], steps=1, n_iter=1).eval()
    model.autoencoder.start_linear(noise(20, 256, 24))
    return model


@pytest.mark.parametrize("n_classes", [2, 1000])
def test_scores_and_report_of_any_number_of_classes(n_classes, tmp_path, monkeypatch):
    monkeypatch.setitem(pipeline.PIPELINE_PRESETS, "quick", pipeline.PIPELINE_PRESETS["quick"].changed(training=dict(n_samples=7)))
    dataset, model, evaluator, plan = spoken(n_classes), untrained(n_classes), fake_evaluator(n_classes=min(n_classes, 256)), Plan("quick", 0, False)

    class FinishedRun:
        path, settings = tmp_path, {"dataset": "made up", "preset": "quick", "seed": 0}

    for name in ("scores", "filter", "generator/autoencoder", "generator/flow"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("autoencoder", "flow"):
        (tmp_path / "generator" / name / "history.csv").write_text("step,loss\n1,2.0\n2,1.0\n")
    pipeline.save_tensors(tmp_path / "filter" / "real.safetensors", **{str(int(dataset.test.labels[0])): torch.zeros(800)})
    score_stage(dataset, evaluator, model, plan, tmp_path / "scores", tmp_path)
    write_report(FinishedRun(), dataset, model, plan.size)
    page = (tmp_path / "report.html").read_text()
    assert f"{n_classes} words" in page
    texts = re.findall(r'<img alt="([^"]*)" width="\d+" src="data:image/png', page)
    assert len(texts) == page.count("<img") > 3 and all(texts) and "5 panels, spectrogram: original, up_forward, down_back, faster, slower" in texts[1]


def test_what_is_scored_as_generated_is_what_the_generator_made():
    "Scoring held-out clips as generated ones, or anything else, would show here."
    dataset, model = spoken(3, 30), untrained(3)
    rows, sounds = scored_rows(model, dataset, 12, seed=5)
    drawn, asked = rows["generated spectrograms"]
    assert torch.equal(drawn, model.sample(asked, seed=5)) and asked.tolist() == [0, 1, 2] * 4
    assert torch.equal(sounds, model.to_audio(drawn)) and torch.equal(rows["generated sounds"][0], encode_again(sounds, GRID))
    held, labels = rows["held out, seen speakers"]
    assert torch.equal(held, dataset.test.spectrograms) and torch.equal(labels, dataset.test.labels)
    assert torch.equal(rows["held out, after the autoencoder"][0], model.autoencoder.reconstruct(held))
    names = list(rows)
    assert all(not torch.equal(rows[a][0][:5], rows[b][0][:5]) for i, a in enumerate(names) for b in names[:i])


def test_the_floor_is_of_known_voices_where_the_split_holds_out_whole_voices():
    dataset = spoken(3, 60, unseen=("cid",))
    floored = with_floor(dataset, 0)
    held = set(floored.test.speakers)
    assert held == {"ann", "bob", "cid"} and set(dataset.test.speakers) == {"cid"} and set(floored.train.speakers) == {"ann", "bob"}
    assert torch.equal(floored.is_test, with_floor(dataset, 0).is_test)
    rows, _ = scored_rows(untrained(3), floored, 6, 0)
    assert list(rows)[:2] == ["held out, seen speakers", "held out, unseen speakers"]
    same = spoken(3, 60)
    assert with_floor(same, 0) is same


def test_sounds_are_heard_as_16_bit_files_would_keep_them():
    sound = 0.3 * torch.sin(torch.arange(2944) * 0.2)[None]
    kept = (sound * 32767).round() / 32767
    torch.testing.assert_close(encode_again(0.01 * sound, GRID), encode_again(0.01 * kept, GRID), atol=0.5, rtol=0)
    torch.testing.assert_close(encode_again(sound, GRID), GRID.encode(0.5 * kept / kept.abs().max()), atol=1e-4, rtol=0)


def test_one_bar_shows_the_whole_run():
    bar = RunBar("small", 3000, show=True)
    total, seen = bar.bar.total, []
    bar.begin("filter", done=True)
    assert bar.bar.n == bar.bar.initial == pytest.approx(bar.seconds["filter"])  # what was done before takes no time, so that the time left stays true
    bar.begin("evaluator", done=False)
    for step in (100, 200):
        bar(step, 200)
        seen.append(bar.bar.n)
    assert seen == pytest.approx([bar.seconds["filter"] + bar.seconds["evaluator"] / 2, bar.seconds["filter"] + bar.seconds["evaluator"]])
    for name in ("generator", "scores", "report"):
        bar.begin(name, done=False)
    assert bar.bar.n == pytest.approx(total - bar.seconds["report"])
    bar.bar.close()


def test_the_bar_knows_how_many_recordings_there_are():
    few, many = (RunBar("small", n, show=False).seconds for n in (3000, 30_000))
    assert many["filter"] > 3 * few["filter"] and many["report"] == few["report"]


def test_a_bar_that_is_not_shown_does_nothing():
    bar = RunBar("quick", 400, show=False)
    for done in (True, False):
        bar.begin("filter", done)
        bar(1, 2)
    bar.bar.close()


def test_two_trainings_of_a_stage_share_its_part_of_the_bar():
    bar = RunBar("small", 3000, show=True)
    bar.begin("filter", done=False)
    for step in (1, 2) * 5:  # reading, cropping, fitting, two folds
        bar(step, 2)
    assert bar.bar.n == pytest.approx(bar.seconds["filter"])
    bar.bar.close()


def test_new_recordings_under_old_names_get_no_old_answer(tmp_path, monkeypatch):
    root = tmp_path / "in"
    for name, hertz in (("high", 900), ("low", 300)):
        (root / name).mkdir(parents=True)
        for i in range(3):
            t = np.arange(3200) / 8000
            soundfile.write(root / name / f"{i}.wav", 0.3 * np.sin(2 * np.pi * (hertz + i) * t), 8000)
    monkeypatch.setattr(pipeline, "run_stages", lambda run, recordings, plan: (run.path / "kept").touch() or {"rows": {}})
    monkeypatch.setattr(pipeline, "describe_scores", lambda scores, path: "")
    pipeline.run_pipeline(root, preset="quick", out=tmp_path / "out", progress=False)
    pipeline.run_pipeline(root, preset="quick", out=tmp_path / "out", progress=False)
    soundfile.write(root / "low" / "2.wav", 0.2 * np.sin(np.arange(3200)), 8000)
    with pytest.raises(SpecgenError, match="other recordings"):
        pipeline.run_pipeline(root, preset="quick", out=tmp_path / "out", progress=False)


@pytest.mark.parametrize("preset", ["quick", "small", "source"])
def test_every_part_of_a_run_moves_the_bar(preset):
    bar = RunBar(preset, 3000, show=True)
    for name in pipeline.STAGES:
        bar.begin(name, done=False)
        for k, seconds in enumerate(bar.parts[name]):
            before = bar.bar.n
            bar(1, 2)
            bar(2, 2)
            assert bar.bar.n - before == pytest.approx(seconds) and bar.finished == k + 1
        bar(1, 1)  # one more than planned moves nothing
        assert bar.bar.n == pytest.approx(sum(bar.seconds[s] for s in pipeline.STAGES[: pipeline.STAGES.index(name) + 1]))
    assert bar.bar.n == pytest.approx(bar.bar.total)
    bar.bar.close()
