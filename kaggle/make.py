"""Folders to push to Kaggle: a notebook and its kernel-metadata.json in each.

`python kaggle/make.py OUT --user NAME` makes one for every notebook, words pick those whose names hold one of them; then `kaggle kernels push -p OUT/03_phase`.
The datasets that a notebook's slow cells need are attached as Kaggle's datasets, the notebooks that train get a GPU, and the internet is on, since the first
cell installs what is missing.
"""
import argparse
import json
import re
import shutil
from pathlib import Path

NOTEBOOKS = sorted((Path(__file__).parents[1] / "nbs").glob("[0-9]*.ipynb"))
DATASETS = {
    "fsdd": "joserzapata/free-spoken-digit-dataset-fsdd",
    "esc10": "mmoreaux/environmental-sound-classification-50",
    "audiomnist": "sripaadsrinivasan/audio-mnist",
}


def metadata(notebook: Path, user: str) -> dict:
    "What Kaggle's client reads: https://github.com/Kaggle/kaggle-api/wiki/Kernel-Metadata. The title gives the id, as Kaggle demands it."
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    slow = [code for code in ("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code") if code.startswith("#| slow")]
    asked = set(re.findall(r'"(\w+)"', " ".join(line for code in slow for line in code.splitlines() if line.startswith("needs("))))
    title = "specgen " + notebook.stem.replace("_", " ")
    return {
        "id": f"{user}/{title.replace(' ', '-')}",
        "title": title,
        "code_file": notebook.name,
        "language": "python",
        "kernel_type": "notebook",
        "is_private": True,
        "enable_gpu": any(re.search(r"\.fit\(|cross_validate\(|score_generators\(|run_pipeline\(", code) for code in slow),
        "enable_internet": True,
        "dataset_sources": [handle for name, handle in DATASETS.items() if name in asked],
        "competition_sources": [],
        "kernel_sources": [],
        "model_sources": [],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--user", required=True, help="your name at Kaggle")
    args = parser.parse_args()
    for notebook in (n for n in NOTEBOOKS if not args.words or any(word in n.stem for word in args.words)):
        folder = args.out / notebook.stem
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(notebook, folder)
        (folder / "kernel-metadata.json").write_text(json.dumps(metadata(notebook, args.user), indent=2) + "\n", encoding="utf-8")
        print(folder)


if __name__ == "__main__":
    main()
