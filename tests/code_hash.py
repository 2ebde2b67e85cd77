"""A digest of a notebook's cell and of all code it leads to: earlier cells, definitions in specgen's modules, committed tables.

Only what is reached counts: a change in a function that a cell never calls leaves its digest. Comments, docstrings and empty lines don't count either.
"""
import ast
import io
import re
import tokenize
from functools import cache
from hashlib import sha256
from pathlib import Path

from figures import ROOT, python

DEFINITIONS = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
TABLES = ROOT / "benchmarks" / "results"


def bare(code: str) -> list[str]:
    "The lines of some code without comments and docstrings; the lines' numbers stay."
    lines = code.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        if token.type == tokenize.COMMENT:
            lines[token.start[0] - 1] = lines[token.start[0] - 1][: token.start[1]]
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, DEFINITIONS) and ast.get_docstring(node, clean=False) is not None:
            for k in range(node.body[0].lineno - 1, node.body[0].end_lineno):
                lines[k] = ""
    return lines


def text_of(lines: list[str], node: ast.AST) -> str:
    first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
    return "\n".join(line.rstrip() for line in lines[first - 1 : node.end_lineno] if line.strip())


def loaded(nodes: list[ast.AST]) -> set[str]:
    "All names that some code reads."
    return {n.id for node in nodes for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}


def bound(node: ast.AST) -> set[str]:
    "The names that a statement outside functions and classes gives a value."
    if isinstance(node, DEFINITIONS):
        return {node.name}
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)} | {
        n.name for n in ast.walk(node) if isinstance(n, DEFINITIONS)}


def patched(node: ast.AST) -> set[str]:
    "The classes that fastcore's `patch` gives a method to."
    if not isinstance(node, ast.FunctionDef) or not any("patch" in ast.unparse(d) for d in node.decorator_list) or not node.args.args:
        return set()
    note = node.args.args[0].annotation
    return {n.id for n in ast.walk(note) if isinstance(n, ast.Name)} if note else set()


class Unit:
    "Some lines that count together: a definition, or a cell's other statements."

    def __init__(self, text: str, names: set[str]):
        self.text, self.names = text, names


class Scope:
    "What names stand for in a module or a notebook: units of their own, or names of specgen's modules."

    def __init__(self):
        self.units: dict[str, list[Unit]] = {}  # a class has several: its methods may be patched
        self.imports: dict[str, tuple[str, str | None]] = {}

    def add(self, code: str, single: bool = False) -> Unit:
        "Some code, after what is there, its statements as one unit or each by itself; all of it is returned."
        tree, lines = ast.parse(code), bare(code)
        rest = [n for n in tree.body if not isinstance(n, DEFINITIONS | ast.Import | ast.ImportFrom)]
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").split(".")[0] == "specgen"):
                module = (node.module or "").split(".")[-1] if node.level or "." in node.module else ""
                for alias in node.names:
                    name = alias.asname or alias.name
                    self.imports[name] = (module, alias.name) if module else (alias.name, None)
                    self.units.pop(name, None)
        for node in tree.body:
            if isinstance(node, DEFINITIONS):
                unit = Unit(text_of(lines, node), loaded([node]))
                if patched(node):
                    for name in patched(node):
                        self.units.setdefault(name, []).append(unit)
                else:
                    self.units[node.name] = [unit]
                    self.imports.pop(node.name, None)
        for group in [[n] for n in rest] if single else [rest]:
            unit = Unit("\n".join(text_of(lines, n) for n in group), loaded(group))
            for name in set().union(*map(bound, group)):
                self.units[name] = [unit]
                self.imports.pop(name, None)
        return Unit("\n".join(text_of(lines, n) for n in tree.body if not isinstance(n, ast.Import | ast.ImportFrom)), loaded(tree.body))


@cache
def module(name: str) -> Scope:
    "A module of specgen; `__init__`'s names lead to their modules."
    scope, path = Scope(), ROOT / "specgen" / f"{name}.py"
    if path.exists():
        scope.add(path.read_text(encoding="utf-8"), single=True)
    return scope


@cache
def offered() -> dict[str, str]:
    "The module of each name that `import specgen` offers."
    tree = ast.parse((ROOT / "specgen" / "__init__.py").read_text(encoding="utf-8"))
    found = next((n.value for n in tree.body if isinstance(n, ast.Assign) and n.targets[0].id == "_MODULE_OF"), None)
    return ast.literal_eval(found) if found else {}


@cache
def patches() -> dict[str, list[tuple[str, Unit]]]:
    "Methods that a module gives to a class of another one."
    found = {}
    for path in sorted((ROOT / "specgen").glob("[a-z]*.py")):
        scope = module(path.stem)
        for name in scope.units.keys() & scope.imports.keys():
            found.setdefault(name, []).extend((path.stem, unit) for unit in scope.units[name])
    return found


def reached(start: Unit, here: Scope) -> set[str]:
    "The texts of all units that a unit leads to, itself included."
    texts, seen, queue = {start.text}, set(), [(here, name) for name in start.names]
    while queue:
        scope, name = queue.pop()
        if (id(scope), name) in seen:
            continue
        seen.add((id(scope), name))
        for unit in scope.units.get(name, []):
            texts.add(unit.text)
            queue += [(scope, n) for n in unit.names]
        if name in scope.imports:
            place, original = scope.imports[name]
            place = offered().get(place, place) if original is None else place
            there = module(place)
            queue += [(there, n) for n in ([original or name] if (original or name) in there.units.keys() | there.imports.keys() else there.units)]
        if scope is not here:
            for place, unit in patches().get(name, []):
                texts.add(unit.text)
                queue += [(module(place), n) for n in unit.names]
    return texts


@cache
def table_names(code: str) -> frozenset[str]:
    "The names of tables in some code or prose, as patterns: `gan_{name}.csv` is `gan_*.csv`."
    names = re.findall(r"([\w{}]+)\.csv", code) if ".csv" in code else []
    return frozenset(re.sub(r"\{[^}]*\}", "*", name) + ".csv" for name in names if re.sub(r"\{[^}]*\}", "", name).strip("_{}"))


def tables(texts: list[str], folder: Path = TABLES) -> list[Path]:
    "The committed tables that some texts name."
    return sorted({path for names in map(table_names, texts) for name in names for path in folder.glob(name)})


def digests(cells: list[dict], folder: Path = TABLES) -> dict[str, str]:
    "The digest of every code cell of a notebook, by its id."
    here, found = Scope(), {}
    for cell in cells:
        if cell["cell_type"] == "code":
            code = python("".join(cell["source"]))
            texts = sorted(reached(here.add(code), here))
            whole = "\0".join(texts + re.findall(r"^\s*[%!].*$", "".join(cell["source"]), re.M))
            data = b"".join(path.read_bytes() for path in tables(texts, folder))
            found[cell["id"]] = sha256(whole.encode() + data).hexdigest()[:12]
    return found
