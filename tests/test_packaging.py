"What an installation holds: the wheel is built from the source distribution, without a network."
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_string
from pathlib import Path

import pytest
from figures import NUMBER, ROOT

WEIGHTS = sorted(folder.name for folder in (ROOT / "specgen" / "weights").glob("*/"))


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> dict[str, Path]:
    "The two files that an index would be given, made from a copy of the sources."
    place = tmp_path_factory.mktemp("built")
    skip = shutil.ignore_patterns(".*", "nbs", "benchmarks", "tests", "runs", "__pycache__", "*.egg-info", "build", "dist")
    shutil.copytree(ROOT, place / "source", ignore=skip)
    done = subprocess.run([sys.executable, "-m", "build", "--no-isolation", "--outdir", place / "dist", place / "source"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return {path.suffix: path for path in (place / "dist").iterdir()}


@pytest.fixture(scope="module")
def wheel(built) -> dict[str, str]:
    "The names in the wheel, with the text of those that are short."
    with zipfile.ZipFile(built[".whl"]) as file:
        return {info.filename: file.read(info).decode("utf-8", "replace") if info.file_size < 100_000 else "" for info in file.infolist()}


def metadata(wheel: dict[str, str]):
    return message_from_string(next(text for name, text in wheel.items() if name.endswith(".dist-info/METADATA")))


def test_the_source_distribution_holds_what_a_build_reads(built):
    with tarfile.open(built[".gz"]) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    assert {"setup.py", "settings.ini", "README.md", "LICENSE", "NOTICE", "specgen/py.typed",
            "specgen/weights/flow-digits/model.safetensors", "specgen/speech/LJ006-0114.wav"} <= names


def test_the_wheel_holds_the_library_and_nothing_else(wheel):
    own = {name for name in wheel if not name.split("/")[0].endswith(".dist-info")}
    assert {f"specgen/{name}.py" for name in (*NUMBER, "__init__", "__main__", "_modidx")} | {"specgen/py.typed", "specgen/report.html.j2"} <= own
    assert {name.split("/")[2] for name in own if name.startswith("specgen/weights/")} == set(WEIGHTS)
    assert all(f"specgen/weights/{name}/{part}" in own for name in WEIGHTS for part in ("README.md", "model.safetensors"))
    assert {"specgen/speech/LJ006-0114.wav", "specgen/speech/README.md"} <= own
    assert all(name.startswith("specgen/") for name in own) and not [name for name in own if "__pycache__" in name or name.endswith(".ipynb")]


def test_an_index_is_told_what_it_shows(wheel):
    about = metadata(wheel)
    assert about["License-Expression"] == "Apache-2.0 AND CC-BY-3.0 AND CC-BY-4.0 AND CC-BY-SA-4.0"
    assert sorted(about.get_all("License-File")) == ["LICENSE", "NOTICE"] and about["Requires-Python"] == ">=3.11"
    assert {line.partition(",")[0] for line in about.get_all("Project-URL")} >= {"Source", "Issues"} and len(about.get_all("Classifier")) >= 10
    assert "specgen = specgen.cli:main" in next(text for name, text in wheel.items() if name.endswith("entry_points.txt"))
    text = about.get_payload()
    assert about["Description-Content-Type"] == "text/markdown" and text.startswith("# specgen")
    assert "](nbs/" not in text and "data:" not in text, "pictures by a relative path or inside the text show nowhere on an index"


@pytest.mark.parametrize("name", WEIGHTS)
def test_every_weight_has_a_licence_a_source_and_a_recipe(name):
    text = (ROOT / "specgen" / "weights" / name / "README.md").read_text(encoding="utf-8")
    said = next(re.split(" {2,}", line)[1] for line in (ROOT / "NOTICE").read_text(encoding="utf-8").splitlines() if line.startswith(f"{name} "))
    assert text.startswith("---\n") and f"\nlicense: {said.lower().replace(' ', '-')}\n" in text and "**Licence**" in text
    recipe = "**Dataset**" in text and "seed 0" in text and re.search("`(python benchmarks/|specgen run )", text)
    assert recipe or name == "speech-embedding"  # which Google trained


def test_it_runs_from_the_wheel(built, tmp_path):
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-compile", "--target", tmp_path, built[".whl"]]
    subprocess.run(install, check=True, capture_output=True)
    env = {**os.environ, "PYTHONPATH": str(tmp_path), "COLUMNS": "100"}
    for words in (["--version"], ["--help"]):
        done = subprocess.run([sys.executable, "-m", "specgen", *words], cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0 and "specgen" in done.stdout, done.stderr
    probe = "import specgen, specgen.saved as m; print(specgen.__file__); print(*m.shipped_models())"
    done = subprocess.run([sys.executable, "-c", probe], cwd=tmp_path, env=env, check=True, capture_output=True, text=True)
    place, names = done.stdout.splitlines()
    assert place.startswith(str(tmp_path)) and names.split() == [f"specgen/{name}" for name in WEIGHTS]
