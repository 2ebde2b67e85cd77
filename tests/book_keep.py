"""What a notebook keeps: outputs within the size budget, and a stamp for each, the digest of the code that made it. `book_run.py` makes all of them anew.

    python tests/book_keep.py stamp NAME ID ... after single cells were run
    python tests/book_keep.py rerun NAME ...    run the fast cells again: what comes again is stamped, what says something else loses its stamp
    python tests/book_keep.py refresh NAME ...  the same, and where the output is another one, it takes the old one's place
    python tests/book_keep.py alt NAME ID TEXT ...  the alternative texts of a cell's pictures, one for each
    python tests/book_keep.py unknown NAME ...  cells without a stamp get the present digest marked as unknown: a later change is noticed, nothing is claimed

NAME is the beginning of a notebook's name, or `all`.
"""
import base64
import io
import json
import math
import re
import sys
from pathlib import Path

import numpy as np
from book import MAX_BYTES, UNKNOWN, code_cells, load
from code_hash import digests
from figures import ROOT
from PIL import Image

COLOURS = (256, 128, 64, 32)  # tried in turn
SMALL_PICTURE = 30_000  # base64 characters: left alone
WIDGET = "application/vnd.jupyter.widget-view+json"  # shows only while its kernel runs: not kept


def save(path: Path, notebook: dict):
    path.write_text(json.dumps(notebook, ensure_ascii=False, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def mark(notebook: dict, ids: set[str], before: str = ""):
    "Stamps for some cells with outputs; stamps of cells that are no more go."
    now, stamps = digests(notebook["cells"]), notebook["metadata"].get("ran", {})
    with_outputs = {cell for cell, _, outputs in code_cells(notebook) if outputs}
    notebook["metadata"]["ran"] = {cell: before + now[cell] if cell in ids else stamps[cell]
                                   for cell in now if cell in with_outputs and (cell in ids or cell in stamps)}


def without_widgets(outputs: list[dict]) -> list[dict]:
    return [output for output in outputs if WIDGET not in output.get("data", {})]


def size_of(notebook: dict) -> int:
    return len(json.dumps(notebook, ensure_ascii=False, indent=1).encode()) + 1


def too_dense(output: dict) -> bool:
    "Whether a picture has more pixels than it is shown with."
    shown = output.get("metadata", {}).get("image/png", {}).get("width", math.inf)
    return Image.open(io.BytesIO(base64.b64decode("".join(output["data"]["image/png"])))).width > shown


def fewer_colours(png: str, colours: int) -> str:
    "A PNG in base64 with a palette, where that is shorter; its density stays."
    image = Image.open(io.BytesIO(base64.b64decode(png)))
    data = io.BytesIO()
    image.convert("RGB").quantize(colours, method=Image.Quantize.MEDIANCUT).save(data, "PNG", optimize=True, dpi=image.info.get("dpi", (72, 72)))
    short = base64.b64encode(data.getvalue()).decode() + "\n" * png.endswith("\n")
    return short if len(short) < len(png) else png


def half_size(png: str) -> str:
    "A PNG in base64 with half the pixels of a side."
    image = Image.open(io.BytesIO(base64.b64decode(png)))
    data = io.BytesIO()
    image.convert("RGB").resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS).quantize(COLOURS[0]).save(data, "PNG", optimize=True)
    return base64.b64encode(data.getvalue()).decode()


def shrink(notebook: dict, limit: int = MAX_BYTES) -> int:
    "Palettes for the large pictures, then as many pixels as they are shown with, the largest first, then fewer colours, until it fits; the notebook's bytes."
    pictures = [o for *_, outputs in code_cells(notebook) for o in outputs if len("".join(o.get("data", {}).get("image/png", ""))) > SMALL_PICTURE]

    def change(output: dict, how, *args) -> int:
        output["data"]["image/png"] = how("".join(output["data"]["image/png"]), *args)
        return size_of(notebook)

    size = size_of(notebook)
    for colours in COLOURS:
        for output in pictures if size > limit else ():
            size = change(output, fewer_colours, colours)
        for output in sorted(pictures, key=lambda output: -len("".join(output["data"]["image/png"]))):
            if size > limit and too_dense(output):
                size = change(output, half_size)
    return size


def is_slow(code: str) -> bool:
    return bool(re.search(r"^#\| *(slow|gpu|eval: *false)", code, re.M))


def parts(outputs: list[dict]) -> tuple[str, list[str]]:
    "The text of some outputs, players with it, and their pictures; how Python names a picture is no text."
    data = [[o.get("text", ""), *(v for k, v in sorted(o.get("data", {}).items()) if not k.startswith("image/") and not (
        k == "text/plain" and "image/png" in o["data"]))] for o in outputs]
    pictures = ["".join(o["data"]["image/png"]) for o in outputs if "image/png" in o.get("data", {})]
    return "".join("".join(text) for texts in data for text in texts).strip(), pictures


def grey(png: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("L").resize((200, 100)), dtype=float)


def difference(a: list[dict], b: list[dict]) -> str:
    "Where two lists of outputs first differ, and nothing if they don't: equal texts and players, pictures that look the same."
    (text, pictures), (other, others) = parts(a), parts(b)
    if text != other:
        lines = zip(f"{text}\n".splitlines(), f"{other}\n".splitlines(), strict=False)
        return next((f"{x[:120]!r}, now {y[:120]!r}" for x, y in lines if x != y), "more or fewer lines")
    if len(pictures) != len(others):
        return f"{len(pictures)} pictures, now {len(others)}"
    far = any(np.abs(grey(one) - grey(two)).mean() > 2 for one, two in zip(pictures, others, strict=True))  # of 255
    return "another picture" if far else ""


def words_of(outputs: list[dict]) -> str:
    "The text of some outputs without numbers and sounds: those of a clock or another processor are not the code's."
    text = re.sub(r"data:[^\"']*|0x\w+|\b[0-9a-f]{12,}\b", "", parts(outputs)[0])
    return re.sub(r"[-+]?\d[\d.,e]*(?:(?<=e)[-+]\d+)?|\s+", " ", text)


def rerun(path: Path) -> tuple[dict[str, list[dict]], dict[str, list[dict]]]:
    "The outputs of the fast cells, kept and made again."
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, 4)
    client = NotebookClient(nbformat.from_dict(notebook), timeout=1200, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}})
    kept = {cell.id: json.loads(json.dumps(cell.outputs)) for cell in notebook.cells if cell.cell_type == "code" and not is_slow(cell.source)}
    with client.setup_kernel():
        for k, cell in enumerate(client.nb.cells):
            if cell.id in kept:
                client.execute_cell(cell, k)
    made = nbformat.v4.rwbase.split_lines(client.nb)
    return kept, {cell.id: without_widgets(json.loads(json.dumps(cell.outputs))) for cell in made.cells if cell.id in kept}


def texts_of(outputs: list[dict]) -> list[dict]:
    "The metadata of all pictures of some outputs: their alternative texts stand there."
    return [output.setdefault("metadata", {}).setdefault("image/png", {}) for output in outputs if "image/png" in output.get("data", {})]


def keep_texts(outputs: list[dict], kept: list[dict]) -> list[dict]:
    "New outputs with the alternative texts of the old pictures, where there are as many."
    new, old = texts_of(outputs), texts_of(kept)
    for one, other in zip(new, old, strict=True) if len(new) == len(old) else ():
        one.update(other)
    return outputs


def compare(path: Path, keep: bool) -> dict:
    "Run a notebook's fast cells, stamp what came again and say what did not; the notebook with its stamps, and with new outputs where they are to be kept."
    kept, made = rerun(path)
    notebook = load(path)  # it may have been edited meanwhile
    wrong = {cell: difference(kept[cell], made[cell]) for cell in kept if kept[cell] or made[cell]}
    for cell in notebook["cells"]:
        if keep and wrong.get(cell["id"]):
            new = keep_texts(made[cell["id"]], kept[cell["id"]])
            cell["outputs"] = [{k: None if k == "execution_count" else v for k, v in output.items()} for output in new]
    if keep:
        shrink(notebook)
    mark(notebook, wrong.keys() if keep else {cell for cell, what in wrong.items() if not what})
    for cell, what in wrong.items():
        if what and not keep and words_of(kept[cell]) != words_of(made[cell]):
            notebook["metadata"]["ran"].pop(cell, None)
            wrong[cell] = "OTHER WORDS: " + what
    print(f"{path.name}: {sum(not what for what in wrong.values())} came again, {sum(map(bool, wrong.values()))} did not",
          *(f"  [{cell}] {what}" for cell, what in wrong.items() if what), sep="\n", flush=True)
    return notebook


def main(command: str, names: list[str]):
    ids = names[1:] if command in ("stamp", "alt") else []
    chosen = names[:1] if command in ("stamp", "alt") else names
    for path in sorted((ROOT / "nbs").glob("*.ipynb")):
        if not any(name == "all" or path.name.startswith(name) for name in chosen):
            continue
        notebook = load(path)
        everything = {cell for cell, *_ in code_cells(notebook)}
        if command == "stamp":
            mark(notebook, everything & set(ids))
        elif command == "alt":
            cell, *texts = ids
            for about, text in zip(texts_of(next(outputs for one, _, outputs in code_cells(notebook) if one == cell)), texts, strict=True):
                about["alt"] = text
        elif command == "unknown":
            mark(notebook, everything - notebook["metadata"].get("ran", {}).keys(), UNKNOWN)
        elif command in ("rerun", "refresh"):
            notebook = compare(path, command == "refresh")
        else:
            sys.exit(__doc__)
        save(path, notebook)


if __name__ == "__main__":
    main(*sys.argv[1:2] or [""], sys.argv[2:])
