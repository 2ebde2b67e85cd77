"""The site: the notebooks as HTML pages, an API page for every module, a search index. `make docs` writes it into `_site`.

    python docs/build.py [folder]

Every link and picture is checked at the end; a dead one ends the build. Equations become MathML, which browsers set by themselves; where latex2mathml is not
installed they are left to MathJax, which the reader's browser loads from the web, as nbconvert's own pages do. The site works from a folder, without a server.
"""
import ast
import base64
import html
import io
import json
import re
import shutil
import sys
import tokenize
from hashlib import sha256
from pathlib import Path
from urllib.parse import unquote, urlsplit

from jinja2 import Environment, FileSystemLoader
from nbconvert.filters import Highlight2HTML, ansi2html, markdown2html
from pygments.formatters import HtmlFormatter

try:
    from latex2mathml.converter import convert
except ImportError:
    convert = None

HERE = Path(__file__).parent
ROOT = HERE.parent
NOTEBOOKS = sorted((ROOT / "nbs").glob("[0-9]*.ipynb"))
MODULES = {path.stem: path.stem.split("_", 1)[1] for path in NOTEBOOKS}
PARTS = {"Sound and spectrograms": "00", "Recordings and datasets": "06", "Training and scores": "11", "Generators": "17",  # each part's first notebook
         "From spectrograms to sound": "22a", "What does a sound show": "25", "The reassigned spectrogram": "26", "All together": "30"}
MARKS = [({"export", "exporti"}, "in the library", "this cell is part of the module"), ({"slow"}, "long run", "its output is kept; it runs where the data is")]
highlight = Highlight2HTML(pygments_lexer="python")


def load(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def plain(page: str) -> str:
    "The text of some HTML."
    page = re.sub(r"<(style|script).*?</\1>|<a class=\"anchor-link\".*?</a>", " ", page, flags=re.S)
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", "", re.sub(r"<(?=/?(?:p|h\d|li|td|th|tr|div|pre)\b)", " <", page)))).strip()


def with_equations(page: str) -> str:
    "Some HTML with its LaTeX as MathML."
    def one(match):
        return match[0] if match[1] is None else convert(html.unescape(match[2]), display="block" if match[1] == "$$" else "inline")
    return re.sub(r"<(?:pre|code)\b.*?</(?:pre|code)>|(\$\$?)([^$]+?)\1", one, page, flags=re.S) if convert else page


def title_of(path: Path) -> tuple[str, str]:
    "A notebook's title and the line under it."
    lines = "".join(load(path)["cells"][0]["source"]).splitlines()
    return lines[0].lstrip("# "), next((line.lstrip("> ") for line in lines if line.startswith(">")), "")


# the library's names


def comments_of(code: str) -> dict[int, str]:
    "The comments of some code by their lines."
    return {t.start[0]: t.string.lstrip("# ") for t in tokenize.generate_tokens(io.StringIO(code).readline) if t.type == tokenize.COMMENT}


def arguments(comments: dict[int, str], node: ast.FunctionDef) -> tuple[list[dict], str]:
    "Each argument with its type, default and comment, which gives shapes and units; and what is returned."
    a, several = node.args, node.lineno < node.body[0].lineno - 1
    defaults = [None] * (len(a.posonlyargs + a.args) - len(a.defaults)) + a.defaults + [None] + a.kw_defaults + [None]
    names = [*((x, "") for x in a.posonlyargs + a.args), (a.vararg, "*"), *((x, "") for x in a.kwonlyargs), (a.kwarg, "**")]
    found = [field(x, star, default, comments.get(x.end_lineno, "") if several else "") | {"keyword": x in a.kwonlyargs}
             for (x, star), default in zip(names, defaults, strict=True) if x and x.arg not in ("self", "cls")]
    returned = ast.unparse(node.returns) if node.returns else ""
    note = comments.get(node.returns.end_lineno, "") if node.returns and several else ""
    return found, ": ".join(filter(None, (returned, note)))


def field(x: ast.arg, star: str, default, note: str) -> dict:
    return {"name": star + x.arg, "type": ast.unparse(x.annotation) if x.annotation else "", "default": ast.unparse(default) if default else "", "note": note}


def signature(name: str, given: list[dict]) -> str:
    words = [x["name"] + ("=" + x["default"] if x["default"] else "") for x in given]
    k = next((k for k, x in enumerate(given) if x.get("keyword")), None)
    if k is not None and not any(x["name"].startswith("*") for x in given[:k]):
        words.insert(k, "*")
    return f"{name}({', '.join(words)})"


def entry(comments: dict[int, str], node: ast.AST, name: str) -> dict:
    "What a page says of a function or method."
    given, returned = arguments(comments, node)
    return {"name": name, "signature": signature(name.split(".")[-1], given), "doc": ast.get_docstring(node) or "", "arguments": given,
            "returned": returned, "methods": []}


def api(module: str) -> list[dict]:
    "All names that a module offers, classes with their public methods, patched ones too."
    code = (ROOT / "specgen" / f"{module}.py").read_text(encoding="utf-8")
    body, comments = ast.parse(code).body, comments_of(code)
    public = next((ast.literal_eval(n.value) for n in body if isinstance(n, ast.Assign) and getattr(n.targets[0], "id", "") == "__all__"), [])
    found = []
    for node in body:
        if getattr(node, "name", None) not in public or any("patch" in ast.unparse(d) for d in node.decorator_list):
            continue
        if isinstance(node, ast.ClassDef):
            inside = [n for n in node.body if isinstance(n, ast.FunctionDef)]
            inside += [n for n in body if isinstance(n, ast.FunctionDef) and n.args.args and any("patch" in ast.unparse(d) for d in n.decorator_list)
                       and re.search(rf"\b{node.name}\b", ast.unparse(n.args.args[0].annotation or ast.Constant(0)))]
            init = next((n for n in inside if n.name == "__init__"), None)
            one = entry(comments, init, node.name) if init else {"name": node.name, "signature": node.name, "arguments": [], "returned": ""}
            fields = [] if init else [{"name": n.target.id, "type": ast.unparse(n.annotation), "default": ast.unparse(n.value) if n.value else "",
                                       "note": comments.get(n.end_lineno, "")} for n in node.body if isinstance(n, ast.AnnAssign)]
            one |= {"doc": ast.get_docstring(node) or "", "arguments": one["arguments"] or fields,
                    "methods": [entry(comments, n, f"{node.name}.{n.name}") for n in inside if not n.name.startswith("_")]}
            found.append(one)
        elif isinstance(node, ast.FunctionDef):
            found.append(entry(comments, node, node.name))
    return found


# a notebook as a page


class Site:
    def __init__(self, out: Path):
        self.out, self.search = out, []
        env = Environment(loader=FileSystemLoader(HERE), autoescape=False, trim_blocks=True, lstrip_blocks=True)
        env.filters["e"] = html.escape
        self.page, self.api_page = env.get_template("page.html.j2"), env.get_template("api.html.j2")
        self.apis = {module: api(module) for module in MODULES.values()}
        self.names = {one["name"]: f"api_{module}.html#{one['name']}" for module, ones in self.apis.items() for one in ones}
        self.titles = {path.stem: title_of(path) for path in NOTEBOOKS}
        starts = sorted(PARTS.items(), key=lambda part: part[1])
        self.parts = [(part, [stem for stem in MODULES if start <= stem.split("_")[0] and (not ends or stem.split("_")[0] < ends[0])])
                      for k, (part, start) in enumerate(starts) for ends in [[s for _, s in starts[k + 1 : k + 2]]]]

    def media(self, data: bytes, kind: str) -> str:
        "A picture or sound as a file of the site: its address."
        name = f"media/{sha256(data).hexdigest()[:16]}.{kind}"
        (self.out / name).write_bytes(data)
        return name

    def linked(self, text: str) -> str:
        "Some HTML of prose: links to notebooks lead to their pages, and so do their bare names, notebook numbers and the library's names."
        text = re.sub(r'href="(?:nbs/)?(\w+)\.ipynb', r'href="\1.html', text)
        numbers = {stem.split("_")[0]: stem for stem in MODULES}
        pieces, inside = re.split(r"(<[^>]+>)", text), 0
        for k, piece in enumerate(pieces):
            inside += bool(re.match(r"<(a|h\d|pre)\b", piece)) - bool(re.match(r"</(a|h\d|pre)>", piece))
            if not piece.startswith("<") and not inside:
                piece = re.sub(r"\b(\d\d[a-z]?_\w+)(?:\.ipynb)?", lambda m: f'<a href="{m[1]}.html">{m[0]}</a>' if m[1] in MODULES else m[0], piece)
                piece = re.sub(r"\b([Nn]otebook )(\d\d[a-z]?)\b", lambda m: f'<a href="{numbers[m[2]]}.html">{m[0]}</a>' if m[2] in numbers else m[0], piece)
                if pieces[k - 1] == "<code>" and piece.split("(")[0] in self.names:
                    piece = f'<a href="{self.names[piece.split("(")[0]]}">{piece}</a>'
                pieces[k] = piece
        return "".join(pieces)

    def note(self, text: str) -> str:
        return self.linked(re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text, quote=False)))

    def output(self, output: dict) -> str:
        data = {kind: "".join(value) for kind, value in output.get("data", {}).items()}
        if "image/png" in data:
            address, about = self.media(base64.b64decode(data["image/png"]), "png"), output.get("metadata", {}).get("image/png", {})
            return f'<figure><img src="{address}" alt="{html.escape(about.get("alt", ""), quote=True)}" loading="lazy"></figure>'
        if "text/html" in data:
            def sound(match):
                return f'src="{self.media(base64.b64decode(match[2]), match[1].replace("x-", "").replace("mpeg", "mp3"))}"'
            page = re.sub(r'src="data:audio/([\w-]+);base64,([^"]+)"', sound, data["text/html"])
            page = re.sub(r"<audio\b(?![^>]*preload)", "<audio preload=metadata", page)
            return f'<div class="rich">{page}</div>'
        if "text/markdown" in data:
            return self.linked(markdown2html(data["text/markdown"]))
        text = "".join(output.get("text", "")) or data.get("text/plain", "")
        return "" if re.fullmatch(r"<\w*Figure size.*>", text.strip()) else f'<pre class="out">{ansi2html(text.rstrip())}</pre>'

    def code(self, cell: dict) -> str:
        "A code cell: directives become marks, cells of imports alone are folded."
        source = "".join(cell["source"])
        marks = re.findall(r"^#\| *(\w+)", source, re.M)
        code = re.sub(r"^#\|.*\n?", "", source, flags=re.M).strip("\n")
        if not code or "hide" in marks:
            return ""
        shown = highlight(code)
        body = ast.parse(re.sub(r"^([ \t]*)[%!].*$", r"\1pass", code, flags=re.M)).body
        if body and all(isinstance(node, ast.Import | ast.ImportFrom) for node in body):
            shown, marks = f"<details class='imports'><summary>imports</summary>{shown}</details>", []
        mark = "".join(f"<span class='mark' title='{why}'>{word}</span>" for names, word, why in MARKS if names & set(marks))
        return f"<div class='cell'>{mark}{shown}{''.join(map(self.output, cell['outputs']))}</div>"

    def remember(self, address: str, title: str, body: str):
        "A page's sections in the search index."
        for section in re.split(r"(?=<h[1-3] )", body):
            heading = re.match(r'<h[1-3] id="([^"]*)"[^>]*>(.*?)</h', section, re.S)
            text = plain(re.sub(r"<div class='cell'>.*?</div>(?=\n|$)|<pre.*?</pre>", " ", section, flags=re.S))
            if text:
                there = f"{address}#{html.unescape(heading[1])}" if heading else address
                self.search.append({"u": there, "t": title, "h": plain(heading[2]) if heading else "", "x": text})

    def write(self, address: str, title: str, body: str, **more):
        contents = [(html.unescape(m[0]), plain(m[1])) for m in re.findall(r'<h2 id="([^"]*)"[^>]*>(.*?)</h2>', body, re.S)]
        self.remember(address, title, body)
        page = self.page.render(title=title, body=body, address=address, contents=contents, mathjax=convert is None and "$" in body, parts=self.parts,
                                titles=self.titles, modules=MODULES, **more)
        (self.out / address).write_text(page, encoding="utf-8")

    def notebook(self, path: Path):
        body = []
        for cell in load(path)["cells"]:
            if cell["cell_type"] == "markdown":
                text = "".join(cell["source"])
                page = self.linked(markdown2html(re.sub(r"^(\|.*\|)\n(?=[^|\n])", r"\1\n\n", text, flags=re.M)))
                body.append(with_equations(page))
            elif cell["cell_type"] == "code":
                body.append(self.code(cell))
        order = ["index", *MODULES]
        k = order.index(path.stem)
        around = [order[j] if 0 <= j < len(order) else None for j in (k - 1, k + 1)]
        title = self.titles[path.stem][0] if path.stem in self.titles else "specgen"
        self.write(f"{path.stem}.html", title, "\n".join(filter(None, body)), before=around[0], after=around[1], module=MODULES.get(path.stem))

    def module(self, stem: str, module: str):
        for one in [x for ones in self.apis[module] for x in (ones, *ones["methods"])]:
            one["html"], one["returned"] = self.linked(markdown2html(one["doc"])), self.note(one["returned"])
            for given in one["arguments"]:
                given["note"] = self.note(given["note"])
        body = self.api_page.render(module=module, stem=stem, title=self.titles[stem], ones=self.apis[module])
        self.write(f"api_{module}.html", f"specgen.{module}", body, before=None, after=None, module=None)

    def build(self):
        shutil.rmtree(self.out, ignore_errors=True)
        (self.out / "media").mkdir(parents=True)
        shutil.copytree(ROOT / "nbs" / "images", self.out / "images")
        for path in [ROOT / "nbs" / "index.ipynb", *NOTEBOOKS]:
            self.notebook(path)
        for stem, module in MODULES.items():
            self.module(stem, module)
        style = (HERE / "style.css").read_text(encoding="utf-8")
        for scheme, name in (("light", "default"), ("dark", "github-dark")):
            style += HtmlFormatter(style=name).get_style_defs(f":root[data-scheme={scheme}] .highlight") + "\n"
        (self.out / "style.css").write_text(style, encoding="utf-8")
        shutil.copy(HERE / "site.js", self.out)
        index = json.dumps(self.search, ensure_ascii=False, separators=(",", ":"))
        (self.out / "search_index.js").write_text(f"window.searchIndex = {index};\n", encoding="utf-8")


def dead_links(folder: Path) -> list[str]:
    "The addresses in all pages of a folder that lead nowhere; of the web's only the form is looked at."
    pages = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.html")}
    ids = {name: {html.unescape(x) for _, x in re.findall(r"\bid=([\"'])(.*?)\1", text)} for name, text in pages.items()}
    found = []
    for name, text in pages.items():
        for _, link in re.findall(r"\b(?:href|src)=([\"'])(.*?)\1", re.sub(r"<(pre|script)>.*?</\1>", "", text, flags=re.S)):
            parts = urlsplit(link := html.unescape(link))
            there = unquote(parts.path) or name
            if parts.scheme in ("http", "https"):
                good = re.fullmatch(r"[\w-]+(\.[\w-]+)+", parts.netloc)
            else:
                heading = not parts.fragment or {parts.fragment, unquote(parts.fragment)} & ids.get(there, set())
                good = not parts.scheme and (folder / there).is_file() and heading
            found += [] if good or parts.scheme == "data" else [f"{name}: {link}"]
    return found


def main(out: Path):
    Site(out).build()
    dead = dead_links(out)
    files = [path for path in out.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files) / 1e6
    kind = "MathML" if convert else "MathJax"
    print(f"{len(list(out.glob('*.html')))} pages, {len(files)} files, {size:.1f} MB in {out}; equations by {kind}; dead links: {dead or 'none'}")
    sys.exit(bool(dead))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "_site")
