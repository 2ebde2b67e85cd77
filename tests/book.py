"""The book's checker: `python tests/book.py` prints what is wrong with the notebooks as something to read, and figures of each.

undefined  a name in a cell, slow ones too, that no cell before it defines and no import finds
silent     a cell that prints, draws or plays, and keeps no output
stale      an output older than its code: the digest kept in the notebook's metadata (`code_hash.py`) is another one, or there is none
number     a number in prose that no output, no code and no named table of the notebook holds (`book_numbers.py`)
link       a link or picture that leads nowhere, or a web address that is none
picture    a picture without alternative text (`alt` in the output's metadata)
long       a code cell of more than 25 lines that are not empty
size       a notebook over 1,000,000 bytes
word       a home-made word where the field has one

`book_known.csv` lists findings that stand, each with the reason; whatever is not listed there fails, and so does a line there that nothing fits any more.
`python tests/book.py list REASON` writes all that is new into it.
"""
import ast
import csv
import io
import json
import re
import subprocess
import sys
import tokenize
from collections import Counter
from pathlib import Path
from statistics import median
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from book_numbers import shown, unshown
from code_hash import digests
from figures import ROOT, imports, python

KNOWN = ROOT / "tests" / "book_known.csv"
MAX_LINES, MAX_BYTES = 25, 1_000_000
UNKNOWN = "?"  # before a digest: the code when checking began; whether the output came from it nobody knows
SHOWING = set("print display show_specs show_waveform player players plot_history plot_confusion latent_scatter".split())
WORDS = {  # the home-made word, as a pattern: the field's
    r"corpus|corpora": "dataset", r"recipes?": "configuration, settings",
    r"(?:an?|the|every|each|our|own|two|three|four|several) judges?": "evaluation classifier",
    r"strangers?": "unseen speaker",
    r"(?:this|next|last|each|every) room": "notebook", r"roads?": "pipeline", r"(?:few|many|more|fewer|\d+|one|two|four|of) looks": "function evaluations",
    r"coins?": "Bernoulli", r"bell(?: curve)?s?": "Gaussian", r"walk(?:s|ed|ing)? (?:from|between)": "interpolate", r"beliefs?": "probabilities",
    **{re.escape(old): new for old, new in {
        "full_scale(": "peak_normalize", "levelled(": "standardize", "fixed_pictures": "pad_or_crop", "DigitSet": "SpectrogramDataset",
        "deal_folds": "stratified_folds", "fit_duration": "adaptive_hop_stft", "draw_corpus": "SpectrogramDataset", "frame_corpus": "SpectrogramDataset",
        "mel_filters(": "mel_filterbank", "invert_filters": "mel_to_stft", "phase_slopes": "phase_gradient", "integrate_slopes": "pghi_integrate",
        "recordings_digest": "folder_sha256", "level_error(": "rmse_db", "linear_code": "pca_procrustes", "first_guess": "pghi_init",
        "follow_peaks": "propagate_peak_phase", "fit_judge": "Evaluator"}.items()},
}


class Finding(NamedTuple):
    kind: str
    notebook: str
    cell: str
    what: str


def load(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def code_cells(notebook: dict):
    "The id, the code and the outputs of every code cell."
    return ((cell["id"], "".join(cell["source"]), cell["outputs"]) for cell in notebook["cells"] if cell["cell_type"] == "code")


def prose_cells(notebook: dict):
    return ((cell["id"], "".join(cell["source"])) for cell in notebook["cells"] if cell["cell_type"] == "markdown")


def undefined(path: Path, notebook: dict):
    "Ruff's undefined names; and names that a module of specgen no longer has."
    done = subprocess.run([Path(sys.executable).parent / "ruff", "check", "--no-cache", "--select", "F821", "--output-format", "json", path],
                          capture_output=True, text=True)
    for found in json.loads(done.stdout or "[]"):
        yield notebook["cells"][found["cell"] - 1]["id"], found["message"]
    for cell, code, _ in code_cells(notebook):
        for node in ast.walk(ast.parse(python(code))):
            if isinstance(node, ast.ImportFrom) and re.fullmatch(r"specgen\.\w+", node.module or "") and imports(ast.unparse(node)):
                text = (ROOT / "specgen" / f"{node.module[8:]}.py").read_text(encoding="utf-8")
                for alias in node.names:
                    if not re.search(rf"\b{alias.name}\b", text):
                        yield cell, f"{node.module} has no {alias.name}"


def running(node: ast.AST):
    "What runs with a cell: all nodes outside the functions and classes that it defines."
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            yield child
            yield from running(child)


def silent(notebook: dict):
    for cell, code, outputs in code_cells(notebook):
        calls = {getattr(n.func, "id", "") for n in running(ast.parse(python(code))) if isinstance(n, ast.Call)}
        if not outputs and (calls & SHOWING or re.search(r"^\s*!", code, re.M)):
            yield cell, f"{', '.join(sorted(calls & SHOWING)) or 'a command'} and no output: run it"


def stale(notebook: dict):
    "Cells whose output is older than the code it came from."
    now, stamps = digests(notebook["cells"]), notebook["metadata"].get("ran", {})
    for cell, _, outputs in code_cells(notebook):
        if outputs and stamps.get(cell, "none").removeprefix(UNKNOWN) != now[cell]:
            yield cell, "the code has changed since: run it" if cell in stamps else "never stamped: run it"


def unstamped(notebook: dict) -> list[str]:
    "The cells with outputs of which nobody knows whether they came from the code that stands there."
    stamps = notebook["metadata"].get("ran", {})
    return [cell for cell, _, outputs in code_cells(notebook) if outputs and stamps.get(cell, UNKNOWN).startswith(UNKNOWN)]


def numbers(notebook: dict):
    pool = shown(notebook)
    for cell, text in prose_cells(notebook):
        for word in unshown(text, pool):
            yield cell, word


def anchors(path: Path) -> set[str]:
    "The names that a notebook's headings get."
    headings = re.findall(r"^#+ +(.+?) *$", "\n".join(text for _, text in prose_cells(load(path))), re.M)
    return {form for heading in headings for form in (heading.replace(" ", "-"), re.sub(r"[^\w -]", "", heading).replace(" ", "-").lower())}


def links_in(text: str) -> list[str]:
    text = re.sub(r"```.*?```|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]+\$", " ", text, flags=re.S)
    return re.findall(r"\]\(<?([^)>\s]*(?:\([^)\s]*\)[^)\s]*)*)>?[^)]*\)", text) + re.findall(
        r"<(?:img|audio|a|source)\b[^>]*?(?:src|href)=[\"']([^\"']*)", text)


def dead(link: str, folder: Path) -> str | None:
    "What is wrong with a link of a notebook in some folder."
    parts = urlsplit(link)
    if parts.scheme in ("http", "https"):
        return None if re.fullmatch(r"[\w-]+(\.[\w-]+)+(:\d+)?", parts.netloc) and not re.search(r"[\s<>\"]", link) else "no web address"
    if parts.scheme in ("data", "mailto"):
        return None
    if parts.scheme or not link:
        return "no address"
    there = folder / unquote(parts.path) if parts.path else None
    if there is not None and not there.exists():
        return "not there"
    if parts.fragment and there is not None and there.suffix == ".ipynb" and unquote(parts.fragment) not in anchors(there):
        return "no such heading"
    return None


def links(path: Path, notebook: dict):
    for cell, text in prose_cells(notebook):
        for link in links_in(text):
            wrong = dead(link, path.parent) if not link.startswith("#") else None if unquote(link[1:]) in anchors(path) else "no such heading"
            if wrong:
                yield cell, f"{link}: {wrong}"


def long(notebook: dict):
    for cell, code, _ in code_cells(notebook):
        lines = sum(bool(line.strip()) for line in code.splitlines())
        if lines > MAX_LINES:
            yield cell, f"{lines} lines"


def pictures(notebook: dict):
    "Pictures that say nothing to those who can't see them."
    for cell, _, outputs in code_cells(notebook):
        for output in outputs:
            for kind in output.get("data", {}):
                if kind.startswith("image/") and not output.get("metadata", {}).get(kind, {}).get("alt", "").strip():
                    yield cell, "without alternative text: write fig.alt, or python tests/book_keep.py alt NAME ID TEXT"
    for cell, text in prose_cells(notebook):
        for found in re.findall(r"!\[\s*\]\([^)]*\)|<img\b(?![^>]*\balt=[\"'][^\"'])[^>]*>", text):
            yield cell, f"{found}: without alternative text"


def said(code: str) -> str:
    "The comments and docstrings of some code, and its names."
    tokens = tokenize.generate_tokens(io.StringIO(code).readline)
    words = [t.string for t in tokens if t.type == tokenize.COMMENT]
    tree = ast.parse(code)
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    return "\n".join(words + [ast.get_docstring(n) or "" for n in ast.walk(tree) if isinstance(n, kinds)] + [
        f"{n.name}(" for n in ast.walk(tree) if isinstance(n, kinds)])


def words(notebook: dict):
    texts = [(cell, re.sub(r"`[^`\n]*[./][^`\n]*`|\]\([^)]*\)", " ", text)) for cell, text in prose_cells(notebook)]
    for cell, text in texts + [(cell, said(python(code))) for cell, code, _ in code_cells(notebook)]:
        for pattern, better in WORDS.items():
            for match in re.finditer(rf"(?<![\w-])(?:{pattern})(?![\w-])" if not pattern.endswith("\\(") else rf"\b{pattern}", text, re.I):
                yield cell, f"{match[0]}: {better}"


def findings(path: Path) -> list[Finding]:
    "All that is wrong with a notebook."
    notebook = load(path)
    checks = {"undefined": undefined(path, notebook), "silent": silent(notebook), "stale": stale(notebook), "number": numbers(notebook),
              "link": links(path, notebook), "picture": pictures(notebook), "long": long(notebook), "word": words(notebook)}
    found = [Finding(kind, path.stem, cell, what) for kind, check in checks.items() for cell, what in check]
    size = path.stat().st_size
    return found + ([Finding("size", path.stem, "", f"{size:,} bytes")] if size > MAX_BYTES else [])


def known(path: Path = KNOWN) -> Counter:
    "The findings that stand."
    with path.open(newline="", encoding="utf-8") as file:
        return Counter(Finding(*(row[field] for field in Finding._fields)) for row in csv.DictReader(file))


def portrait(path: Path) -> dict[str, int]:
    "What a notebook has, in numbers."
    notebook = load(path)
    prose, code = "\n".join(text for _, text in prose_cells(notebook)), list(code_cells(notebook))
    lines = [sum(bool(line.strip()) for line in text.splitlines()) for _, text, _ in code]
    data = [output.get("data", {}) for *_, outputs in code for output in outputs]
    return {"words": len(prose.split()), "cells": len(notebook["cells"]), "median": int(median(lines)), "longest": max(lines),
            "pictures": sum("image/png" in d or "image/svg+xml" in d for d in data),
            "sounds": sum("".join(d.get("text/html", "")).count("<audio") for d in data),
            "equations": len(re.findall(r"\$\$.+?\$\$", prose, re.S)), "exercises": len(re.findall(r"exercise", prose, re.I)), "links": len(links_in(prose)),
            "outputs": sum(bool(outputs) for *_, outputs in code), "unstamped": len(unstamped(notebook)), "KB": path.stat().st_size // 1000}


def add_to_known(found: Counter, why: str):
    "Write findings into the list of those that stand."
    with KNOWN.open(newline="", encoding="utf-8") as file:
        rows = [*csv.reader(file)]
    with KNOWN.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([rows[0], *sorted(rows[1:] + [[*finding, why] for finding in found.elements()])])


def main():
    paths = sorted((ROOT / "nbs").glob("*.ipynb"))
    table = {path.stem: portrait(path) for path in paths}
    heads = list(table["index"])
    print(f"{'notebook':24}" + "".join(f"{head:>10}" for head in heads))
    for name, row in table.items():
        print(f"{name:24}" + "".join(f"{row[head]:10,}" for head in heads))
    print(f"{'all':24}" + "".join(f"{sum(row[head] for row in table.values()) if head not in ('median', 'longest') else '':>10,}"
                                  if head not in ("median", "longest") else f"{'':10}" for head in heads))
    found, stands = Counter(f for path in paths for f in findings(path)), known()
    for finding in sorted((found - stands).elements()):
        print(f"{finding.kind:9} {finding.notebook} [{finding.cell}] {finding.what}")
    for finding in sorted((stands - found).elements()):
        print(f"gone      {finding.kind} {finding.notebook} [{finding.cell}] {finding.what}: take it out of {KNOWN.name}")
    kinds = Counter(finding.kind for finding in (found - stands).elements())
    print(f"{sum(kinds.values())} findings {dict(kinds) or ''}; {sum((found & stands).values())} more are listed in {KNOWN.name}; unstamped cells "
          f"{sum(row['unstamped'] for row in table.values())} of {sum(row['outputs'] for row in table.values())} with outputs")
    if sys.argv[1:2] == ["list"]:
        add_to_known(found - stands, " ".join(sys.argv[2:]) or sys.exit("give a reason"))
    sys.exit(bool(found - stands or stands - found))


if __name__ == "__main__":
    main()
