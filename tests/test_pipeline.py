"The digits road as a person meets it: their own folder, kills, two processes, bad input, and the command line."
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from specgen.cli import main
from specgen.corpora import load

ROAD = [sys.executable, "-m", "specgen.cli", "run", "--preset", "quick"]
STAGES = ("filter", "judge", "autoencoder", "flow", "scores", "report")


def specgen(*words):
    return subprocess.run([sys.executable, "-m", "specgen.cli", *map(str, words)], capture_output=True, text=True)


@pytest.fixture(scope="session")
def recordings(tmp_path_factory):
    "Someone's own folder: three words, 44.1 kHz stereo wavs, and some files that cannot be used."
    root = tmp_path_factory.mktemp("words")
    digits, taken = load("digits"), {"1": 0, "6": 0, "8": 0}
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
    done = subprocess.run([*ROAD, "--corpus", recordings, "--out", out], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out, done.stdout


def test_own_folder_walks_the_whole_road(finished):
    out, said = finished
    assert said.rstrip().endswith(f"report: {out / 'report.html'}")
    assert "24, 256)" in said and "6, 64]" in said
    page = (out / "report.html").read_text()
    assert page.count("data:audio/wav") > 9 and page.count("data:image/png") > 6 and 'src="http' not in page
    skipped = (out / "filter" / "skipped.csv").read_text()
    assert "poem.wav" in skipped and "click.wav" in skipped


def test_a_run_killed_in_every_stage_ends_the_same(recordings, finished, tmp_path):
    out, kills = tmp_path / "killed", 0
    for stage in (*STAGES[:-1], None):
        process = subprocess.Popen([*ROAD, "--corpus", recordings, "--out", out], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None:
            if stage and (out / stage).is_dir():
                time.sleep(0.7)
                process.send_signal(signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.05)
        process.wait()
    assert kills >= 3 and process.returncode == 0
    assert (out / "scores.json").read_bytes() == (finished[0] / "scores.json").read_bytes()


def test_two_processes_walk_the_same_road(recordings, finished, tmp_path):
    out = tmp_path / "two"
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0", "-m", "specgen.cli"]
    done = subprocess.run([*launch, *ROAD[3:], "--corpus", recordings, "--out", out], capture_output=True, text=True,
                          env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-2000:]
    ours, theirs = ([float(x) for x in (p / "flow" / "history.csv").read_text().split("\n")[1].split(",")[:2]] for p in (out, finished[0]))
    assert ours[0] == theirs[0] and abs(ours[1] - theirs[1]) < 0.2
    assert done.stdout.count("report: ") == 1 and (out / "report.html").exists()


def test_generate_gives_the_same_bytes(finished, tmp_path):
    for out in ("a", "b"):
        done = specgen("generate", "one,eight", "--out", tmp_path / out, "--model", finished[0], "--seed", 3)
        assert done.returncode == 0, done.stderr
    names = [p.name for p in sorted((tmp_path / "a").iterdir())]
    assert names == ["00_one.wav", "01_eight.wav", "joined.wav", "pictures.png"]
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
    for words in (
        ["run", "--corpus", tmp_path / "nowhere", "--out", out],
        ["run", "--corpus", "fsdd", "--root", tmp_path / "empty", "--out", out],
        ["run", "--corpus", tmp_path / "empty", "--out", out],
        ["run", "--corpus", tmp_path / "lone", "--out", out],
        ["run", "--corpus", recordings, "--strict", "--out", out],
        ["run", "--corpus", recordings, "--out", notes],
        ["run", "--corpus", recordings, "--preset", "quick", "--seed", 1, "--out", finished[0]],
        ["generate", "seven", "--out", out, "--model", finished[0]],
        ["generate", "one", "--out", out, "--model", tmp_path / "empty"],
        ["generate", "one", "--out", out, "--model", finished[0] / "judge" / "model"],
    ):
        with pytest.raises(SystemExit) as stop:
            main([str(word) for word in words])
        said = [line for line in capsys.readouterr().err.splitlines() if line.strip() and "it/s]" not in line]
        assert stop.value.code == 2 and len(said) == 1 and said[0].startswith("specgen: "), (words, said)
        assert not out.exists(), words
    assert [p.name for p in Path(notes).iterdir()] == ["diary.txt"]
