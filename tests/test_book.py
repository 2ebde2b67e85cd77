"The book's checker finds nothing new in the notebooks, and each kind of fault when it is planted."
import base64
import io
import json
import shutil
from collections import Counter

import book
import book_keep
import book_numbers
import book_run
import code_hash
import numpy as np
import pytest
from figures import NOTEBOOKS, ROOT
from PIL import Image

GOOD = "21_priors"  # has prose, code and outputs, and nothing wrong


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_nothing_new_is_wrong(path):
    found, stands = Counter(book.findings(path)), Counter({f: n for f, n in book.known().items() if f.notebook == path.stem})
    assert not list((found - stands).elements()), "mend it; after cells were run: python tests/book_keep.py stamp NAME ID ..."
    assert not list((stands - found).elements()), f"mended: take it out of {book.KNOWN.name}"


def test_what_stands_has_a_reason():
    assert all(line.rsplit(",", 1)[1].strip() for line in book.KNOWN.read_text().splitlines())


@pytest.fixture(scope="module")
def before() -> Counter:
    "What is wrong with the notebook that faults are planted in."
    return Counter((f.kind, f.cell) for f in book.findings(ROOT / "nbs" / f"{GOOD}.ipynb"))


@pytest.fixture
def planted(tmp_path, before):
    "A function that plants something in a copy of a notebook; the findings that it causes are returned."
    path = tmp_path / "nbs" / f"{GOOD}.ipynb"
    path.parent.mkdir()
    for other in (ROOT / "nbs").iterdir():
        (path.parent / other.name).symlink_to(other)
    path.unlink()
    notebook = book.load(ROOT / "nbs" / path.name)

    def plant(change) -> list[tuple[str, str]]:
        change(notebook)
        book_keep.save(path, notebook)
        return sorted((Counter((f.kind, f.cell) for f in book.findings(path)) - before).elements())

    return plant


def first(notebook: dict, kind: str, has=lambda cell: True) -> dict:
    return next(cell for cell in notebook["cells"] if cell["cell_type"] == kind and has(cell))


def add(kind: str, text: str):
    "A change: one more cell."
    cell = {"cell_type": kind, "id": "planted", "metadata": {}, "source": text.splitlines(keepends=True)}
    return lambda notebook: notebook["cells"].append(cell | (dict(outputs=[], execution_count=None) if kind == "code" else {}))


@pytest.mark.parametrize("kind, change", [
    ("undefined", add("code", "#| slow\nif False:\n    nobody_has_defined_this()")),
    ("undefined", add("code", "#| slow\nfrom specgen.audio import sounds_that_are_gone")),
    ("silent", add("code", "#| slow\nprint('a result')")),
    ("silent", add("code", "#| slow\n!ls")),
    ("number", add("markdown", "It names 87.31 % of the words rightly.")),
    ("number", add("markdown", "| all | 1,234,567 steps |")),
    ("link", add("markdown", "See [the next one](77_nowhere.ipynb).")),
    ("link", add("markdown", "See [there](20_gan.ipynb#No-such-heading).")),
    ("link", add("markdown", "See [above](#No-such-heading).")),
    ("link", add("markdown", "![a picture](images/nowhere.png)")),
    ("link", add("markdown", "<img src='images/nowhere.png' alt='a picture'>")),
    ("picture", add("markdown", "![](images/README_2_0.png)")),
    ("picture", add("markdown", "<img src='images/README_2_0.png'>")),
    ("link", add("markdown", "[a paper](https://nowhere/paper)")),
    ("link", add("markdown", "[a paper](htp://arxiv.org/abs/1)")),
    ("long", add("code", "\n".join(f"a{k} = {k}" for k in range(26)))),
    ("word", add("markdown", "A corpus of speech.")),
    ("word", add("code", "def deal_folds():\n    return 0")),
    ("word", add("code", "x = 1  # the recipe")),
], ids=str)
def test_a_planted_fault_is_caught(planted, kind, change):
    assert planted(change) == [(kind, "planted")]


@pytest.mark.parametrize("change", [
    add("markdown", "In 2017 an FFT of 1,024, `x = 87.31`, $y = 87.31$; [a paper](https://arxiv.org/abs/2104.01778), [above](20_gan.ipynb), three of 16 rows."),
    add("code", "#| slow\ndef shows():\n    print('not now')"),
], ids=str)
def test_what_is_no_fault_is_left_alone(planted, change):
    assert planted(change) == []


def drawn(text: str):
    "A change: a cell with a picture and its alternative text."
    def change(notebook):
        add("code", "1")(notebook)
        about = {"image/png": {"alt": text}} if text else {}
        notebook["cells"][-1]["outputs"] = [{"output_type": "display_data", "data": {"image/png": "aGk=", "text/plain": "<Figure>"}, "metadata": about}]
        book_keep.mark(notebook, {"planted"} | notebook["metadata"]["ran"].keys())
    return change


@pytest.mark.parametrize("text, found", [("", [("picture", "planted")]), (" ", [("picture", "planted")]), ("A falling loss.", [])])
def test_a_picture_without_alternative_text_is_caught(planted, text, found):
    assert planted(drawn(text)) == found


def test_a_picture_that_is_drawn_again_keeps_its_text():
    picture = {"output_type": "display_data", "data": {"image/png": "aGk="}, "metadata": {"image/png": {"alt": "A falling loss.", "width": 3}}}
    again = {"output_type": "display_data", "data": {"image/png": "aGo="}, "metadata": {"image/png": {"alt": "1 panel, curves."}}}
    words = {"output_type": "stream", "text": "x"}
    assert book_keep.keep_texts([words, again], [picture])[1]["metadata"]["image/png"]["alt"] == "A falling loss."
    assert book_keep.keep_texts([{**again, "metadata": {}}] * 2, [picture])[0]["metadata"] == {"image/png": {}}


def test_a_notebook_that_is_too_large_is_caught(planted):
    assert planted(lambda notebook: notebook["metadata"].update(weight="x" * book.MAX_BYTES)) == [("size", "")]


def with_output(cell: dict) -> bool:
    return bool(cell["outputs"])


def test_changed_code_makes_an_output_stale(planted):
    def change(notebook):
        first(notebook, "code", with_output)["source"].append("\nnever_used_again = 1")

    assert [kind for kind, _ in planted(change)].count("stale") >= 1


def test_an_output_without_a_stamp_is_caught(planted):
    assert {kind for kind, _ in planted(lambda notebook: notebook["metadata"].pop("ran"))} == {"stale"}


def test_comments_and_docstrings_make_nothing_stale(planted):
    assert planted(lambda notebook: first(notebook, "code", with_output)["source"].insert(0, "# a remark\n\n")) == []


def test_a_changed_function_makes_those_who_call_it_stale_and_nobody_else(tmp_path, monkeypatch):
    cells = [{"cell_type": "code", "id": str(k), "source": [code]} for k, code in enumerate((
        "from specgen.audio import read_audio\nfrom specgen.core import choose", "x = choose('a', 'b', {'b': 1})", "print(x)", "read_audio('a.wav')",
        "def mine(y):\n    return choose('a', y, {'b': 1})", "mine('b')", "print(1)"))]
    shutil.copytree(ROOT / "specgen", tmp_path / "specgen", ignore=shutil.ignore_patterns("weights", "__pycache__"))
    before = code_hash.digests(cells)
    core = tmp_path / "specgen" / "core.py"
    core.write_text(core.read_text().replace("return choices[name]", "return choices[str(name)]"))
    monkeypatch.setattr(code_hash, "ROOT", tmp_path)
    for known in (code_hash.module, code_hash.offered, code_hash.patches):
        known.cache_clear()
    after = code_hash.digests(cells)
    for known in (code_hash.module, code_hash.offered, code_hash.patches):
        known.cache_clear()
    changed = {cell for cell in before if before[cell] != after[cell]}
    assert {"1", "2", "4", "5"} <= changed and not changed & {"0", "6"}


def test_a_changed_table_makes_what_is_drawn_from_it_stale(tmp_path):
    (tmp_path / "made.csv").write_text("a\n1\n")
    cells = [{"cell_type": "code", "id": "0", "source": ["print(open('../benchmarks/results/made.csv').read())"]}]
    before = code_hash.digests(cells, tmp_path)
    (tmp_path / "made.csv").write_text("a\n2\n")
    assert code_hash.digests(cells, tmp_path) != before


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_made_up_number_is_found_in_no_notebook(path):
    assert book_numbers.unshown("It reaches 87.3149 dB, after 7,654,321 steps.", book_numbers.shown(book.load(path))) == ["87.3149", "7,654,321"]


def test_numbers_may_be_rounded_and_in_other_units():
    pool = sorted(book_numbers.numbers_in("accuracy 0.8731, 1234567 bytes, 0.0421 s, 411 of 500 right"))


    said = "87 % or 87.3 %, 1.2 MB, 42 ms, 82.2 %, 0.87; wrong: 88 %, 1.3 MB, 43 ms"
    assert book_numbers.unshown(said, np.array(pool)) == ["88", "1.3", "43"]


def test_stamps_are_kept_and_unknown_ones_counted():
    notebook = json.loads(json.dumps(book.load(ROOT / "nbs" / f"{GOOD}.ipynb")))
    ids = {cell for cell, _, outputs in book.code_cells(notebook) if outputs}
    notebook["metadata"].pop("ran", None)
    assert set(book.unstamped(notebook)) == ids
    book_keep.mark(notebook, ids, book.UNKNOWN)
    assert set(book.unstamped(notebook)) == ids and not list(book.stale(notebook))
    book_keep.mark(notebook, ids)
    assert not book.unstamped(notebook) and not list(book.stale(notebook))


def cell(id: str, source: str, *outputs: dict) -> dict:
    return {"cell_type": "code", "id": id, "metadata": {}, "execution_count": None, "source": [source], "outputs": list(outputs)}


def said(text: str) -> dict:
    return {"output_type": "stream", "name": "stdout", "text": [text]}


def book_of(*cells: dict, **metadata) -> dict:
    return {"cells": list(cells), "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def test_widgets_are_not_kept(tmp_path):
    shown = {"output_type": "execute_result", "execution_count": 3, "metadata": {}, "data": {"text/plain": "VBox()", book_keep.WIDGET: {}}}
    book_keep.save(path := tmp_path / "99_panel.ipynb", book_of(cell("panel", "panel"), widgets={}))
    book_run.keep(path, book_of(cell("panel", "panel", shown)))
    kept = book.load(path)
    assert kept["cells"][0]["outputs"] == [] and kept["metadata"] == {"ran": {}}


def test_what_was_left_out_keeps_its_output_and_claims_no_new_stamp(tmp_path):
    codes = {"fast": "print(1)", "slow": "#| slow\nneeds('no_such')\nprint(2)", "same": "#| slow\nneeds('no_such')\nprint(3)"}
    old = book_of(*(cell(id, code, said("old")) for id, code in codes.items()))
    old["metadata"]["ran"] = {"fast": "0", "slow": "0", "same": code_hash.digests(old["cells"])["same"]}
    book_keep.save(path := tmp_path / "99_left.ipynb", old)
    told = book_run.keep(path, book_of(*(cell(id, code, said("new" if id == "fast" else "Left out: no_such is not here.\nold")) for id, code in codes.items())))
    kept, now = book.load(path), code_hash.digests(old["cells"])
    assert [one["outputs"][0]["text"] for one in kept["cells"]] == [["new"], ["old"], ["old"]] and "2 left out" in told
    assert kept["metadata"]["ran"] == {"fast": now["fast"], "slow": book.UNKNOWN + now["slow"], "same": now["same"]}


def test_progress_bars_are_not_kept(tmp_path):
    bar = {"output_type": "stream", "name": "stderr", "text": ["\rtrain:   0%|      | 0/9\rtrain: 100%|##| 9/9 [00:01]\n", "filter  2% |▌   | 00:00 gone\n"]}
    warning = {"output_type": "stream", "name": "stderr", "text": ["a.wav: left out\n", "\rtrain:   0%|      | 0/9\n"]}
    book_keep.save(path := tmp_path / "99_bars.ipynb", book_of(cell("a", "print(1)")))
    book_run.keep(path, book_of(cell("a", "print(1)", bar, warning, said("1"))))
    assert ["".join(o["text"]) for o in book.load(path)["cells"][0]["outputs"]] == ["a.wav: left out", "1"]


def test_pictures_are_kept_dense_where_there_is_room():
    rng = np.random.default_rng(0)
    pictures = []
    for size in (300, 400):
        Image.fromarray(rng.integers(0, 255, (size, size), dtype=np.uint8)).save(data := io.BytesIO(), "PNG")
        about = {"image/png": {"width": size // 2, "height": size // 2, "alt": "noise"}}
        pictures.append({"output_type": "display_data", "data": {"image/png": base64.b64encode(data.getvalue()).decode()}, "metadata": about})
    notebook = book_of(cell("a", "show()", *pictures))

    def widths():
        return [Image.open(io.BytesIO(base64.b64decode(picture["data"]["image/png"]))).width for picture in pictures]

    size = book_keep.size_of(notebook)
    assert book_keep.shrink(notebook, size) == size and widths() == [300, 400]
    assert book_keep.shrink(notebook, size - 100_000) <= size - 100_000 and widths() == [300, 200]
    assert book_keep.shrink(notebook, 0) < size // 3 and widths() == [150, 200]


def test_pictures_shrink_until_a_notebook_is_small_enough():
    big = max(NOTEBOOKS, key=lambda path: path.stat().st_size)
    notebook = book.load(big)
    before = big.stat().st_size
    assert book_keep.shrink(notebook, limit=before - 1) < before
