"""Numbers in a notebook's prose: which of them no output, no code and no named table of the notebook holds.

A number in prose is taken as rounded where its last digit stands. Numbers of one's own words (years, powers of two, small whole numbers, what stands in
code, equations, links or references) are not looked for.
"""
import csv
import re
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
from code_hash import tables
from figures import ROOT

NUMBER = re.compile(r"(?<![\w.,/#^-])([−-]?)(\d{1,3}(?:,\d{3})+|\d+)(\.\d+)?(?:e([-−+]?\d+))?(?![\w/^]|\.\d|,\d{3})")
EXEMPT = [re.compile(pattern, re.S) for pattern in (
    r"```.*?```", r"`[^`]*`", r"\$\$.*?\$\$", r"\$[^$]+\$", r"<!--.*?-->", r"<[^>]+>",  # code, equations, comments, tags
    r"\]\([^)]*\)", r"Python 3\.\d+ (?:to|and) 3\.\d+", r"https?://\S+", r"arXiv:? ?\d+\.\d+",  # links
    r"[Nn]otebooks? \d+\w?(?:(?:,| and| to) \d+\w?)*", r"\b\d\d[a-z]?_\w+",  # references
    r"\b(?:equation|eq\.|section|figure|fig\.|table|algorithm|source|step|exercise|part|seed|take|fold|epoch|chapter)s? \(?\d+\)?(?:(?:,| and| to) \d+)*",
    r"\b(?:19|20)\d\d\b", r"(?m)^\s*\d+\. ", r"10[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+", r"[A-Za-z]+[- ]?\d+(?:\.\d+)?[A-Z]?\b(?= \()",  # years, lists, powers
    r"\b(?:Python|CUDA|ESC|AVX|GPL|BY-SA|Apache|CC BY|version|PCM|µ-law|MP3|UTF|ISO|SHA|Adam|V|SC|H|A|T)-?\s?\d+(?:\.\d+)*\b",
    r"\d+(?:\.\d+)? ?×(?: ?\d+)+", r"\d+ by \d+", r"\b(?:22\.05|44\.1|11\.025) kHz", r"\d+-bit|\d+ bits?",  # shapes
)]
NEARLY = re.compile(r"(?:about|some|nearly|almost|around|roughly|over|under|hardly|≈|~|more than|less than|up to|at most|at least)\s*$")
UNITS = {"%": 100, "per cent": 100, "points": 100, "ms": 1e3, "thousand": 1e-3, "million": 1e-6, "M": 1e-6, "k": 1e-3, "kHz": 1e-3, "min": 1 / 60,
         "minutes": 1 / 60, "hours": 1 / 3600, "h": 1 / 3600, "KB": 1e-3, "kB": 1e-3, "MB": 1e-6, "GB": 1e-9, "µs": 1e6, "×": 1, "times": 1}
UNIT = re.compile(r"\s?(" + "|".join(sorted(map(re.escape, UNITS), key=len, reverse=True)) + r")(?![\w])")
LOOSE = re.compile(r"\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")
AT_A_GLANCE = 200  # numbers of a table
OWN_WORDS = 20  # whole numbers up to this one count things


def numbers_in(text: str) -> set[float]:
    "All numbers of an output or of code, as they stand, and the ratios of `a of b` and `a/b`."
    found = set()
    for word in LOOSE.findall(text):
        for form in (word.replace(",", ""), *word.split(",")):
            try:
                found.add(float(form))
            except ValueError:
                pass
    for a, b in re.findall(r"(\d+)(?: of |/| out of )(\d+)", text):
        found |= {int(a) / int(b)} if int(b) else set()
    return found


@cache
def table_numbers(path: Path) -> set[float]:
    "The numbers of a table that can be read at a glance, and the mean of each column over each name; of a longer table these means alone."
    with path.open(newline="", encoding="utf-8") as file:
        head, *rows = csv.reader(file)
    found, groups = {x for row in rows for cell in row for x in numbers_in(cell)}, {}
    for row in rows:
        for column, name in enumerate(row):
            for k, cell in enumerate(row):
                if not numbers_in(name) and re.fullmatch(r"-?[\d.]+(e-?\d+)?", cell):
                    groups.setdefault((column, name, k), []).append(float(cell))
    names = Counter((column, k) for column, _, k in groups)
    means = {sum(values) / len(values) for (column, _, k), values in groups.items() if names[column, k] <= 9}
    return means | (found if len(found) <= AT_A_GLANCE else set())


def shown(notebook: dict) -> np.ndarray:
    "What the outputs, the code and the named tables of a notebook hold, sorted."
    found, words = set(), []
    for cell in notebook["cells"]:
        words.append("".join(cell["source"]))
        found |= numbers_in(words[-1]) if cell["cell_type"] == "code" else set()
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            texts = [output.get("text", ""), *(data.get(kind, "") for kind in ("text/plain", "text/markdown", "text/html"))]
            found |= numbers_in(re.sub(r"data:[^\"']*|<[^>]*>", " ", " ".join("".join(text) for text in texts)))
    text = "\n".join(words)
    for name in set(re.findall(r"benchmarks/\w+\.py", text)):  # the settings of a benchmark that is named
        found |= numbers_in((ROOT / name).read_text(encoding="utf-8")) if (ROOT / name).exists() else set()
    return np.array(sorted(found.union(*map(table_numbers, tables([text])))))


def prose_numbers(text: str):
    "Each number of some prose: as written, its value, half a unit of its last digit, the factor of its unit."
    for pattern in EXEMPT:
        text = pattern.sub(lambda m: "\0" * len(m[0]), text)
    for m in NUMBER.finditer(text):
        sign, whole, fraction, power = m.groups()
        value = float(whole.replace(",", "") + (fraction or "")) * 10.0 ** int((power or "0").replace("−", "-"))
        last = 10.0 ** (int((power or "0").replace("−", "-")) - len(fraction or ".") + 1)
        if NEARLY.search(text[: m.start()]) and not fraction and whole.endswith("0"):
            digits = whole.replace(",", "")
            last = 10.0 ** (len(digits) - len(digits.rstrip("0")))
        unit = UNIT.match(text, m.end())
        if unit is None and not fraction and not power and (value <= OWN_WORDS or float(value).is_integer() and int(value) & (int(value) - 1) == 0):
            continue
        yield m[0], value, last / 2, UNITS[unit[1]] if unit else 1


def unshown(text: str, pool: np.ndarray) -> list[str]:
    "The numbers of some prose that a pool of numbers does not hold."
    missing = []
    for word, value, half, factor in prose_numbers(text):
        for scale in {factor, 1}:
            k = np.searchsorted(pool, (value - half * 1.001) / scale)
            if k < len(pool) and pool[k] <= (value + half * 1.001) / scale:
                break
        else:
            missing.append(word)
    return missing
