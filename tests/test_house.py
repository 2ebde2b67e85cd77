"The house itself: notebooks and modules agree, nothing leaks, the command line answers."
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "nbs").glob("*.ipynb"))
BIN = Path(sys.executable).parent


def test_exporting_and_cleaning_change_nothing(tmp_path):
    shutil.copytree(ROOT / "nbs", tmp_path / "nbs", symlinks=True)
    shutil.copytree(ROOT / "specgen", tmp_path / "specgen", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("settings.ini", "_quarto.yml"):
        shutil.copy(ROOT / name, tmp_path)
    for command in ("nbdev_export", "nbdev_clean"):
        subprocess.run([BIN / command], cwd=tmp_path, check=True, env={**os.environ, "PYTHONPATH": ""})
    for made in [*tmp_path.glob("specgen/*.py"), *tmp_path.glob("nbs/*.ipynb")]:
        committed = ROOT / made.relative_to(tmp_path)
        assert committed.exists() and made.read_text() == committed.read_text(), f"{committed.name}: run nbdev_export and nbdev_clean, then commit"


def test_readme_is_the_index_notebook(tmp_path):
    subprocess.run(["make", "readme", f"README_DIR={tmp_path}"], cwd=ROOT, check=True, capture_output=True)
    assert (tmp_path / "README.md").read_text() == (ROOT / "README.md").read_text(), "run make readme, then commit"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_is_fit_to_read(path):
    text = path.read_text()
    cells = json.loads(text)["cells"]
    outputs = [o for c in cells if c["cell_type"] == "code" for o in c["outputs"]]
    assert path.stat().st_size <= 1_000_000, "over 1 MB: lower dpi, shorter sounds"
    assert not [o for o in outputs if o["output_type"] == "error"]
    assert "application/vnd.jupyter.widget" not in text, "widget state does not render for a reader"
    assert not re.search(r"(?<![\w.])/(root|home|tmp|work)/", "".join("".join(c["source"]) for c in cells) + json.dumps(
        [o.get("text") or o.get("data", {}).get("text/plain") for o in outputs])), "a path of one machine"
    title = "".join(cells[0]["source"])
    assert re.fullmatch(r"# [^\n]+\n+> [^\n]+", title.strip()), "the first cell is a title and a subtitle alone"


def test_a_module_imports_only_lower_rooms():
    order = {p.stem.split("_", 1)[1]: int(p.stem[:2]) for p in NOTEBOOKS if p.stem[0].isdigit()}
    top = {"pipeline", "cli", "explorer"}
    for name, number in order.items():
        for used in re.findall(r"from (?:specgen)?\.(\w+) import", (ROOT / "specgen" / f"{name}.py").read_text()):
            assert order[used] < number or name in top and used == "pipeline", f"{name} imports {used}"
            assert used not in top or name in top, f"{name} imports {used}"


def test_every_module_imports_outside_its_notebook():
    modules = ", ".join(f"specgen.{path.stem}" for path in sorted((ROOT / "specgen").glob("[a-z]*.py")))
    subprocess.run([sys.executable, "-c", f"import {modules}"], check=True)


def test_help_opens_no_heavy_room():
    probe = "import sys, specgen.cli; print([m for m in ('torch', 'librosa', 'numpy', 'matplotlib') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", probe], check=True, capture_output=True, text=True).stdout.strip() == "[]"
