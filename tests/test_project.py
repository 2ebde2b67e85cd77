"The project itself: notebooks and modules agree, the limits hold, nothing leaks, the command line answers."
import ast
import csv
import importlib
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import figures
import pytest
from figures import MODELS, NOTEBOOKS, NUMBER, ROOT, imports, public_names, source

BIN = Path(sys.executable).parent
HEAVY = ("torch", "librosa", "numpy", "matplotlib", "accelerate", "scipy")


def too_long(lines: dict[str, int], limit: int) -> dict[str, int]:
    return {name: n for name, n in lines.items() if n > limit}


def loaded_by(code: str) -> str:
    "Which heavy libraries a fresh process has loaded after some code."
    probe = f"{code}; import sys; print([m for m in {HEAVY} if m in sys.modules])"
    return subprocess.run([sys.executable, "-c", probe], check=True, capture_output=True, text=True).stdout.strip()


# notebooks and modules


def test_exporting_and_cleaning_change_nothing(tmp_path):
    shutil.copytree(ROOT / "nbs", tmp_path / "nbs", symlinks=True)
    shutil.copytree(ROOT / "specgen", tmp_path / "specgen", ignore=shutil.ignore_patterns("__pycache__", "weights"))
    for name in ("settings.ini", "_quarto.yml"):
        shutil.copy(ROOT / name, tmp_path)
    for command in ("nbdev_export", "nbdev_clean"):
        subprocess.run([BIN / command], cwd=tmp_path, check=True, env={**os.environ, "PYTHONPATH": ""})
    for made in [*tmp_path.glob("specgen/*.py"), *tmp_path.glob("nbs/*.ipynb")]:
        committed = ROOT / made.relative_to(tmp_path)
        assert committed.exists() and made.read_text() == committed.read_text(), f"{committed.name}: run nbdev_export and nbdev_clean, then commit"


def test_every_module_has_its_notebook():
    assert {path.stem for path in (ROOT / "specgen").glob("[a-z]*.py")} == NUMBER.keys()
    for path in NOTEBOOKS:
        exports = re.findall(r"^#\| default_exp (\w+)", "\n".join(figures.code_cells(path)), re.M)
        assert exports == ([path.stem.split("_", 1)[1]] if path.stem[0].isdigit() else [])


def test_readme_is_the_index_notebook(tmp_path):
    subprocess.run(["make", "readme", f"README_DIR={tmp_path}"], cwd=ROOT, check=True, capture_output=True)
    assert (tmp_path / "README.md").read_text() == (ROOT / "README.md").read_text(), "run make readme, then commit"


def test_readme_lists_the_notebooks_in_order():
    assert re.findall(r"^\| \[(\d\d[a-z]?_\w+)\]\(", (ROOT / "README.md").read_text(), re.M) == [p.stem for p in NOTEBOOKS if p.stem[0].isdigit()]


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


def running(node: ast.AST):
    "What runs with a cell: all nodes outside the functions and classes that it defines."
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, (ast.FunctionDef, ast.ClassDef, ast.Lambda)):
            yield child
            yield from running(child)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_outputs_stand_under_the_cell_that_made_them(path):
    for i, cell in enumerate(json.loads(path.read_text())["cells"]):
        if cell["cell_type"] == "code":
            tree = ast.parse(figures.python("".join(cell["source"])))
            body = tree.body or [ast.Pass()]
            prints = any(isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print" for node in running(tree))
            assert cell["outputs"] or not prints, f"cell {i} prints, and keeps no output: run it"
            silent = isinstance(body[-1], (ast.FunctionDef, ast.ClassDef)) and not prints
            assert not (cell["outputs"] and silent), f"cell {i} ends with a definition, and has another cell's output"


@pytest.mark.parametrize("path", [p for p in NOTEBOOKS if p.stem[0].isdigit()], ids=lambda p: p.stem)
def test_a_notebook_does_not_import_what_it_writes(path):
    own, begun = path.stem.split("_", 1)[1], False  # the picture at the top may come from the module as it is
    for code in figures.code_cells(path):
        begun |= bool(re.match(r"#\| exporti?\b", code) and re.search(r"^(def|class) ", code, re.M))
        assert not begun or own not in imports(figures.python(code)), f"an edit would show nothing until it is exported:\n{code}"


def test_no_undefined_names_in_slow_cells_either():
    done = subprocess.run([BIN / "ruff", "check", "--select", "F821", "nbs", "specgen"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


# what may import what


@pytest.mark.parametrize("module", NUMBER)
def test_a_module_imports_only_lower_numbers(module):
    assert not {used for used in imports(source(module)) if NUMBER[used] >= NUMBER[module]}


@pytest.mark.parametrize("module", sorted(MODELS))
def test_no_model_imports_another_model(module):
    assert not imports(source(module)) & MODELS


def test_imports_are_found_in_every_form():
    code = "def f():\n    from .audio import x\n    import specgen.stft\n    from specgen.core import y\n    from . import plot\n"
    code += "from specgen import phase\nimport audio"
    assert imports(code) == {"audio", "stft", "core", "plot", "phase"}


# limits


def test_no_module_over_500_lines():
    assert not too_long(figures.module_lines(), 500)


def test_no_definition_over_60_lines():
    assert not too_long(figures.definition_lines(), 60)


def test_no_cell_over_25_lines():
    assert not too_long(figures.cell_lines(), 25)


def test_no_public_name_in_two_modules_and_not_too_many():
    names = Counter(name for module in NUMBER for name in public_names(module))
    assert not [name for name, n in names.items() if n > 1]
    assert len(names) <= 170


def test_every_public_name_is_described():
    bare = []
    for module in NUMBER:
        tree, names = ast.parse(source(module)), public_names(module)
        bare += [f"{module}.{n.name}" for n in tree.body if getattr(n, "name", None) in names and not ast.get_docstring(n)]
    assert not bare


# from outside


def test_every_module_imports_outside_its_notebook():
    subprocess.run([sys.executable, "-c", f"import {', '.join(f'specgen.{name}' for name in NUMBER)}"], check=True)


def test_importing_specgen_is_light():
    assert loaded_by("import specgen; dir(specgen); specgen.__version__") == "[]"
    probe = "import time; t = time.perf_counter(); import specgen; print(time.perf_counter() - t)"
    seconds = [float(subprocess.run([sys.executable, "-c", probe], check=True, capture_output=True, text=True).stdout) for _ in range(3)]
    assert min(seconds) < 0.1


def test_the_dozen_names_are_there():
    import specgen

    assert 12 <= len(specgen.__all__) <= 24 and set(specgen.__all__) <= set(dir(specgen))
    for name, module in specgen._MODULE_OF.items():
        assert name in public_names(module), f"{name} is no public name of {module}"
        assert getattr(specgen, name).__module__ == f"specgen.{module}"
    with pytest.raises(AttributeError, match="no attribute 'teapot'"):
        specgen.teapot  # noqa: B018
    with pytest.raises(ImportError):
        from specgen import teapot  # noqa: F401


def test_help_opens_nothing_heavy():
    assert loaded_by("import specgen.cli") == "[]"
    for words in (["--help"], ["run", "--help"], ["vae", "--help"], ["transformer", "cv", "--help"], ["--version"], ["models"], ["models", "--json"]):
        probe = f"import specgen.cli\ntry: specgen.cli.main({words})\nexcept SystemExit: pass\nimport sys\nprint([m for m in {HEAVY} if m in sys.modules])"
        done = subprocess.run([sys.executable, "-c", probe], check=True, capture_output=True, text=True)
        assert done.stdout.splitlines()[-1] == "[]"


def kinds() -> list[type]:
    "Every class of model, by its module and name."
    from specgen.models import Model

    for module in NUMBER:
        importlib.import_module(f"specgen.{module}")
    found, queue = [], [Model]
    while queue:
        for kind in queue.pop().__subclasses__():
            queue.append(kind)
            found += [kind] if kind.__module__.startswith("specgen.") and hasattr(kind, "fit") else []
    return sorted(found, key=lambda kind: (NUMBER[kind.__module__.split(".")[1]], kind.__name__))


def test_every_model_reads_alike():
    same = {  # keyword arguments and their defaults
        "prepare": dict(preset="small", by="official", test=None, progress=False),
        "fit": dict(preset="small", out=None, seed=0, device=None, precision="auto", progress=True),
        "sample": dict(generator=None, seed=None),
        "from_pretrained": dict(revision=None, token=None, cache_dir=None, local_files_only=False, force_download=False, device=None),
        "predict_files": dict(progress=False),
    }
    first = {"prepare": ["recordings"], "predict_proba": ["self", "spectrograms"], "predict": ["self", "spectrograms"],
             "predict_files": ["self", "files", "top"], "sample": ["self", "labels"], "reconstruct": ["self", "spectrograms"],
             "to_audio": ["self", "spectrograms"], "from_pretrained": ["source"], "save_pretrained": ["self", "folder"]}
    sounds = {"spectrograms": "sounds"}  # of the one that hears
    assert len(kinds()) >= 8
    for kind in kinds():
        assert kind.family and "small" in {name.split("/")[-1] for name in kind.presets}, kind
        for name in same.keys() | first.keys():
            if hasattr(kind, name):
                known = inspect.signature(getattr(kind, name)).parameters
                wanted = [sounds.get(word, word) if kind.__name__ == "SoundClassifier" else word for word in first.get(name, [])]
                assert list(known)[: len(wanted)] == wanted, f"{kind.__name__}.{name}"
                for option, default in same.get(name, {}).items():
                    assert option in known and known[option].default == default, f"{kind.__name__}.{name}: {option}"
                    assert known[option].kind is inspect.Parameter.KEYWORD_ONLY, f"{kind.__name__}.{name}: {option}"


def test_curves_go_from_step_to_step():
    curves = {}
    with (ROOT / "benchmarks" / "results" / "source_curves.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            curves.setdefault((row["training"], row["name"]), []).append(int(row["step"]))
    assert curves and all(steps == sorted(set(steps)) for steps in curves.values())
