"""The library's figures: `python tests/figures.py` prints them, `tests/test_project.py` keeps them within their limits."""
import ast
import json
import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "nbs").glob("*.ipynb"))
NUMBER = {path.stem.split("_", 1)[1]: k for k, path in enumerate(NOTEBOOKS) if path.stem[0].isdigit()}  # the place of each module
MODELS = set("classifier autoencoder flow_matching gan vae vocoder spectral_vocoder audio_transformer".split())  # they share nothing but what lies below them


def source(module: str) -> str:
    return (ROOT / "specgen" / f"{module}.py").read_text(encoding="utf-8")


def imports(code: str) -> set[str]:
    "The modules of specgen that some code imports, wherever in it."
    found = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom):
            place = (node.module or "").split(".")
            inside = node.level == 1 or place.pop(0) == "specgen"
            found |= {place[0]} if inside and place and place[0] else {alias.name for alias in node.names} if inside else set()
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("specgen.")}
    return found & NUMBER.keys()


def public_names(module: str) -> list[str]:
    "What `__all__` lists."
    for node in ast.parse(source(module)).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return ast.literal_eval(node.value)
    return []


def module_lines() -> dict[str, int]:
    return {name: len(source(name).splitlines()) for name in NUMBER}


def definition_lines() -> dict[str, int]:
    "Lines of every function, method and class, decorators with them."
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    found = {}
    for module in NUMBER:
        for node in ast.walk(ast.parse(source(module))):
            if isinstance(node, kinds):
                first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
                found[f"{module}.{node.name}:{node.lineno}"] = node.end_lineno - first + 1
    return found


def code_cells(path: Path) -> list[str]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def cell_lines() -> dict[str, int]:
    "Lines of every code cell that are not empty."
    return {f"{path.stem}[{k}]": sum(bool(line.strip()) for line in code.splitlines())
            for path in NOTEBOOKS for k, code in enumerate(code_cells(path))}


def python(code: str) -> str:
    "A cell without Jupyter's own commands."
    return re.sub(r"^(\s*)[%!].*$", r"\1pass", code, flags=re.M)


def longest(lines: dict[str, int], n: int = 3) -> str:
    return ", ".join(f"{name} {lines[name]}" for name in sorted(lines, key=lines.get, reverse=True)[:n])


def main():
    names = Counter(name for module in NUMBER for name in public_names(module))
    print(f"modules      {len(NUMBER)}; longest: {longest(module_lines())}")
    print(f"definitions  {len(definition_lines())}; longest: {longest(definition_lines())}")
    print(f"code cells   {len(cell_lines())}; longest: {longest(cell_lines())}")
    print(f"public names {len(names)}; in two modules: {sum(n > 1 for n in names.values())}")
    arrows = [(module, used) for module in NUMBER for used in imports(source(module))]
    upwards = [f"{a} -> {b}" for a, b in arrows if NUMBER[b] >= NUMBER[a]]
    sideways = [f"{a} -> {b}" for a, b in arrows if {a, b} <= MODELS]
    print(f"imports      {len(arrows)}; to the same or a higher number: {upwards or 0}; from model to model: {sideways or 0}")
    for module in NUMBER:
        print(f"  {NUMBER[module]:02d} {module:20s} {module_lines()[module]:4d} lines, {len(public_names(module)):3d} public names")


if __name__ == "__main__":
    main()
