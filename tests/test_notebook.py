"Notebooks anywhere: slow cells that lack something, notebooks beside a plain install, and in JupyterLab."
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import ui
from figures import NOTEBOOKS, ROOT
from IPython.core.interactiveshell import InteractiveShell

import specgen.notebook as notebook
from specgen.audio import read_audio
from specgen.notebook import data_folder, needs, results_file, runs_folder

sys.path.append(str(ROOT / "kaggle"))
import make  # noqa: E402

NOTHING = 'needs("no_such_corpus")\n'


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    "Run cells in a shell of their own: what is printed, and whether each succeeded."
    for name in ("SPECGEN_DATA", "SPECGEN_TRAIN", "JPY_SESSION_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SPECGEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    shell = InteractiveShell()
    shell.user_ns["needs"] = needs
    notebook.Guard(shell)

    def cells(*sources):
        fine = [shell.run_cell(source).success for source in sources]
        return capsys.readouterr().out, fine
    return cells


def test_what_depends_on_a_cell_that_was_left_out_is_left_out(run):
    slow = ["print('slow', x)", "y = 3\nprint('own', y)", "print(y)"]
    out, fine = run("x = 1", f"#| slow\n{NOTHING}x = y = 2", "print('fast', x)", *("#| slow\n" + cell for cell in slow))
    assert all(fine) and "fast 1" in out and "own 3" in out and "slow" not in out
    assert out.splitlines()[-1] == "3" and out.count("Left out: ") == 2 and "it uses x of a cell above" in out


def test_only_marked_cells_that_begin_with_needs_are_left_out(run):
    out, fine = run(f"{NOTHING}print('plain')", "#| slow\nprint('slow')", f"#| slow\nprint('later')\n{NOTHING}", "#| slow\nneeds(1 / 0)\nprint('wrong')")
    assert fine == [True, True, True, False] and all(word in out for word in ("plain", "slow", "later")) and "wrong\n" not in out.split("ZeroDivisionError")[-1]


def test_a_long_training_waits_until_it_is_asked_for(run, monkeypatch, tmp_path):
    cell = "#| slow\nneeds(minutes=30)\nprint('trained')"
    assert "SPECGEN_TRAIN=1" in run(cell)[0]
    assert run(cell.replace("minutes=30", "minutes=30, done=__import__('pathlib').Path('.')"))[0] == "trained\n"
    monkeypatch.setenv("SPECGEN_TRAIN", "1")
    assert run(cell)[0] == "trained\n"


def test_kept_outputs_are_shown_again_and_stay_one(run, tmp_path):
    kept = [nbformat.v4.new_output("stream", text="kept\n"), nbformat.v4.new_output("display_data", {"text/plain": "a picture"})]
    cell = f"#| slow\n{NOTHING}print(2)"
    for _ in range(2):
        nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell, outputs=kept)]), tmp_path / "book.ipynb")
        out, _ = run(cell)
        assert out.count("Left out: ") == 1 and out.count("kept") == 1 and out.count("a picture") == 1
        kept[0] = nbformat.v4.new_output("stream", text="".join(out.partition("kept\n")[:2]))


@pytest.mark.parametrize("below", ["speech", "mine/speech", "datasets/someone/speech"])
def test_folders_are_found_as_kaggle_mounts_them(monkeypatch, tmp_path, below):
    monkeypatch.setenv("SPECGEN_DATA", str(tmp_path))
    (tmp_path / below).mkdir(parents=True)
    assert data_folder("speech") == tmp_path / below and data_folder("no_such_corpus") is None


def test_one_sentence_is_there_for_everybody(monkeypatch, tmp_path):
    monkeypatch.delenv("SPECGEN_DATA", raising=False)
    monkeypatch.setenv("SPECGEN_CACHE", str(tmp_path))
    sentence, rate = read_audio(next(data_folder("speech").glob("LJ*.wav")), check=True)
    assert 5 < len(sentence) / rate < 6 and notebook.needs("speech")


def test_runs_lie_in_the_repository_or_in_the_working_directory(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert runs_folder("vae", "a") == Path("runs/vae/a")
    monkeypatch.chdir(ROOT / "nbs")
    assert runs_folder("vae") == Path("../runs/vae")


def test_every_table_that_a_notebook_names_is_there():
    for path in NOTEBOOKS:
        for cell in nbformat.read(path, 4).cells:
            for name in re.findall(r'results_file\("([\w.]+)"\)', cell.source):
                assert results_file(name).is_file(), f"{path.stem}: {name}"


def test_no_notebook_keeps_the_line_of_a_cell_that_was_left_out():
    for path in (p for p in NOTEBOOKS if p.stem != "08a_notebook"):
        told = [o.get("text", "") for cell in nbformat.read(path, 4).cells for o in cell.get("outputs", [])]
        assert not any(notebook.LEFT_OUT in text for text in told), f"{path.stem}: run it where its data are, or restore its outputs"


def test_kaggle_gets_what_its_client_asks_for(tmp_path):
    for path in (p for p in NOTEBOOKS if p.stem[0].isdigit()):
        found = make.metadata(path, "me")
        assert found["id"] == "me/" + found["title"].replace(" ", "-") and 5 <= len(found["title"]) <= 50
    assert make.metadata(ROOT / "nbs" / "25_audio_transformer.ipynb", "me")["dataset_sources"] == [make.DATASETS["esc10"]]


# beside a plain install


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    "The folder that a wheel of this project was installed into."
    place = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    ignored = shutil.ignore_patterns(".*", "runs", "build", "dist", "nbs", "tests", "*.egg-info", "__pycache__", "_docs", "_proc")
    shutil.copytree(ROOT, place / "source", symlinks=True, ignore=ignored)
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", place, place / "source"], check=True, cwd=place)
    subprocess.run([*pip, "install", "--no-deps", "--no-compile", "--target", place / "site", next(place.glob("*.whl"))], check=True)
    return place / "site"


@pytest.mark.parametrize("name", ui.QUICK)
def test_a_notebook_alone_beside_a_plain_install(installed, tmp_path, name):
    (data := tmp_path / "input").mkdir()
    data.chmod(0o555)
    work = tmp_path / "working"
    work.mkdir()
    book = nbformat.read(ROOT / "nbs" / f"{name}.ipynb", 4)
    book.cells.append(nbformat.v4.new_code_cell("import specgen\nprint(specgen.__file__)"))
    nbformat.write(book, work / "book.ipynb")
    env = {**os.environ, "PYTHONPATH": str(installed), "SPECGEN_DATA": str(data), "SPECGEN_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    env.pop("MPLBACKEND", None)  # a kernel draws into its notebook
    command = [sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute", "--output", "done", "book.ipynb"]
    done = subprocess.run(command, cwd=work, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    cells = [cell for cell in json.loads((work / "done.ipynb").read_text())["cells"] if cell["cell_type"] == "code"]
    assert str(installed) in "".join(cells[-1]["outputs"][0]["text"]) and not list(data.iterdir())
    for old, new in zip(book.cells, nbformat.read(work / "done.ipynb", 4).cells, strict=True):
        assert not old.get("outputs") or new.outputs, f"lost an output: {old.source[:80]}"


# in JupyterLab


@pytest.mark.skipif(not ui.CHROMIUM, reason="no Chromium here")
def test_run_all_in_jupyterlab():
    with ui.lab(list(ui.QUICK)) as (address, folder, page):
        assert {name: ui.problems(ui.run_notebook(name, address, folder, page)) for name in ui.QUICK} == dict.fromkeys(ui.QUICK, [])
