"Run folders that never give an old answer, and the digests that tell one question from another."
import functools
import importlib
import json
import linecache
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from specgen.core import SpecgenError, read_json, write_table
from specgen.run_folder import RunFolder, code_digest, fingerprint


def python(code, *arguments):
    "Start a process that runs some code, with the tests' folder to import from."
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(map(str, (Path(__file__).parent, *Path(__file__).parents[1:2])))}
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def test_the_same_call_continues_and_done_stages_are_kept(tmp_path, capsys):
    calls = []

    def two(folder):
        assert not (folder / ".x-0badcafe").exists()
        (folder / ".x-0badcafe").write_text("half")
        calls.append("two")
        return {"n": 1 / (len(calls) - 2)}

    def run():
        with RunFolder(tmp_path / "r", {"a": (1, 2), "b": {"c": 3}}, recordings="x", code="y", stages=2, show=True) as folder:
            folder.stage("one", lambda f: calls.append("one") or {"n": 1})
            folder.stage("two", two)

    with pytest.raises(ZeroDivisionError):
        run()
    run()
    run()
    assert calls == ["one", "two", "two"]
    assert capsys.readouterr().out.splitlines()[-2:] == ["[1/2] one: done before", "[2/2] two: done before"]
    assert read_json(tmp_path / "r" / "one" / "done.json").keys() == {"seconds", "n"}


def test_every_difference_is_named(tmp_path):
    with RunFolder(tmp_path, {"a": 1, "b": {"c": 3, "d": [1]}, "gone": None}, recordings="x", code="y") as run:
        (run.path / "result").write_text("")
    with pytest.raises(SpecgenError) as error, RunFolder(tmp_path, {"a": 2, "b": {"c": 3, "d": [2]}, "new": 5}, recordings="z", code="w"):
        pass
    for words in ("a 1, not 2", "b.d [1], not [2]", "new None, not 5", "other recordings", "another version of the code", "name another folder"):
        assert words in str(error.value)
    assert "b.c" not in str(error.value) and "gone" not in str(error.value)


def test_a_failed_start_leaves_no_claim(tmp_path):
    (tmp_path / "empty").mkdir()
    for out in (tmp_path / "new" / "deep", tmp_path / "empty"):
        with pytest.raises(MemoryError), RunFolder(out, {"a": 1}) as run:
            (run.path / "training").mkdir()
            write_table(run.path / "skipped.csv", [], ["path"])
            raise MemoryError
        assert not out.exists() or sorted(p.name for p in out.iterdir()) == ["skipped.csv", "training"]
        with RunFolder(out, {"a": 2}) as run:
            (run.path / "result").write_text("")
        assert read_json(out / "run.json")["a"] == 2
    assert not list((tmp_path / "new").glob("*/training"))


def test_a_failure_after_results_keeps_the_claim(tmp_path):
    with pytest.raises(MemoryError), RunFolder(tmp_path / "r", {"a": 1}) as run:
        (run.path / "training").mkdir()
        (run.path / "training" / "checkpoint").write_text("")
        raise MemoryError
    with pytest.raises(SpecgenError, match="a 1, not 2"), RunFolder(tmp_path / "r", {"a": 2}):
        pass


def test_a_kill_before_any_result_leaves_no_claim(tmp_path):
    process = python("import os, sys; from specgen.run_folder import RunFolder\nwith RunFolder(sys.argv[1], {'a': 1}): os.kill(os.getpid(), 9)", tmp_path / "r")
    process.communicate()
    assert process.returncode == -9 and read_json(tmp_path / "r" / "run.json")["a"] == 1
    with RunFolder(tmp_path / "r", {"a": 2}):
        pass


def test_other_peoples_folders_are_left_alone(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_text("x")
    (tmp_path / "file").write_text("x")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "run.json").write_text("{")
    (tmp_path / "damaged" / "result").write_text("x")
    reasons = (("photos", "not empty and holds no run"), ("file", "is a file"), ("file/deep", "cannot be written to"), ("damaged", "is damaged, so"))
    for name, reason in reasons:
        with pytest.raises(SpecgenError, match=reason), RunFolder(tmp_path / name, {}):
            pass
    assert [p.name for p in (tmp_path / "photos").iterdir()] == ["a.jpg"]
    assert (tmp_path / "damaged" / "run.json").read_text() == "{"


def test_a_second_process_is_sent_away_and_a_killed_ones_lock_is_free(tmp_path):
    holder = "import sys, time; from specgen.run_folder import RunFolder\nwith RunFolder(sys.argv[1], {}): print('inside', flush=True); time.sleep(99)"
    process = python(holder, tmp_path / "r")
    assert process.stdout.readline() == "inside\n"
    with pytest.raises(SpecgenError, match="another process works there"), RunFolder(tmp_path / "r", {}):
        pass
    assert (tmp_path / "r" / "run.json").exists()
    process.kill()
    process.wait()
    process.stdout.close()
    with RunFolder(tmp_path / "r", {}), pytest.raises(SpecgenError, match="another process works there"), RunFolder(tmp_path / "r", {}):
        pass
    with RunFolder(tmp_path / "r", {}):
        pass


def test_leftovers_of_a_killed_run_are_swept(tmp_path):
    with RunFolder(tmp_path, {}) as run:
        (run.path / "result").write_text("")
        (run.path / ".model-0badcafe").mkdir()
    with RunFolder(tmp_path, {}):
        assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", "result", "run.json"]


# what decides a result


def test_fingerprints_of_contents():
    x = torch.arange(6.0)
    nearly = x + torch.eye(6)[5] * 1e-6
    contents = [x, x.double(), x.view(2, 3), x.bfloat16(), nearly, x[:5], {"x": x}, [x], [x, x], x.tolist(), "x", {"x": None}, torch.tensor(1), torch.zeros(0),
                x > 1, 1, 1.0, "1", float("nan")]
    seen = [fingerprint(c) for c in contents]
    assert len(set(seen)) == len(seen) and all(len(f) == 16 for f in seen)
    assert fingerprint({"a": x, "b": (1, 2)}) == fingerprint({"b": [1, 2], "a": x.clone()})
    assert fingerprint(x.view(2, 3).T) == fingerprint(x.view(2, 3).T.contiguous())


def digests(tmp_path, monkeypatch, **change):
    "The digest of a class in a module of a user's own, freshly imported."
    (tmp_path / "mine.py").write_text(CODE.format(**{**SAME, **change}))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    sys.modules.pop("mine", None)
    linecache.clearcache()
    importlib.invalidate_caches()
    found = importlib.import_module("mine")
    before = code_digest(found.Thing)
    found.Thing().step()
    assert code_digest(found.Thing) == before
    return before


CODE = '''
import math
SIZE = {size}
TABLE = {{"one": {table}}}
FUNCTIONS = (math.sqrt, len, lambda: 1)
_cache = {{}}
CACHE = {{}}

def helper(x{hint}):
    {doc}
    if x < 0:
        raise ValueError("{word}")
    return x {sign} 1  # {word}

class Base:
    rate = {rate}
    def step(self):
        _cache["x"] = CACHE[1, 2] = FUNCTIONS
        return self.rate {sign2} SIZE * TABLE["one"]

class Thing(Base):
    @classmethod
    def fit(cls, x):
        return helper(math.sqrt(x))
    @property
    def size(self):
        return [k {sign3} 2 for k in range(3)]
'''
SAME = dict(size=3, table=1, hint="", doc='"old"', word="bad", sign="+", sign2="*", sign3="+", rate=0.5)


@pytest.mark.parametrize("change", [dict(hint=": int"), dict(doc='"new"'), dict(doc=""), dict(word="worse")])
def test_words_and_hints_change_no_digest(tmp_path, monkeypatch, change):
    assert digests(tmp_path, monkeypatch, **change) == digests(tmp_path, monkeypatch)


@pytest.mark.parametrize("change", [dict(size=4), dict(table=2), dict(sign="-"), dict(sign2="+"), dict(sign3="*"), dict(rate=0.6)])
def test_code_called_and_constants_change_the_digest(tmp_path, monkeypatch, change):
    assert digests(tmp_path, monkeypatch, **change) != digests(tmp_path, monkeypatch)


def test_a_digest_is_the_same_in_every_version_of_python():
    "A run that was begun under one version goes on under another: the digest is that of every version, not of the one that runs."
    def spread(values, by=lambda x: None, *rest, **more):
        for k, v in enumerate(values):
            yield f"{k:03d} {v!r}", [x for x in rest if x is not None], {**more, "by": by}, values[1:, ::2]

    assert code_digest(spread) == "eddbf03771fa1aa2"


def test_digests_of_patched_partial_and_wrapped_functions():
    from fastcore.basics import patch

    class Thing:
        def a(self):
            return 1

    before = code_digest(Thing)

    @patch
    def b(self: Thing):
        return 2

    assert code_digest(Thing) != before

    def power(x, n):
        return x**n

    @functools.lru_cache
    def cached(x):
        return x

    assert code_digest(functools.partial(power, n=2)) == code_digest(power) != code_digest(cached)
    assert code_digest(power, cached) == code_digest(cached, power)
    more = lambda x: x + 1  # noqa: E731
    less = lambda x: x - 1  # noqa: E731
    assert len({code_digest(more), code_digest(less), code_digest(more, less)}) == 3


def test_a_notebooks_function_has_the_digest_of_every_run(tmp_path):
    code = "def f(x):\n    return g(x) + 1\n\ndef g(x):\n    return 2 * x\n\nfrom specgen.run_folder import code_digest\nprint(code_digest(f))\n"
    changed = code.replace("2 * x", "3 * x")
    run = "import json, sys\nfrom IPython.core.interactiveshell import InteractiveShell as S\nfor c in json.loads(sys.argv[1]): S.instance().run_cell(c)"
    cells = [code[: code.index("from")], code[code.index("from") :]]
    outputs = [python(run, json.dumps(c)).communicate()[0].split() for c in (cells, cells, [changed[: changed.index("from")], cells[1]])]
    assert outputs[0] == outputs[1] != outputs[2] and all(len(o) == 1 and len(o[0]) == 16 for o in outputs), outputs


def test_a_function_in_its_notebook_is_the_one_in_its_module():
    "A run that the command line began goes on in the notebook; a variable of the notebook that is named like an attribute changes nothing."
    import specgen.filtering as module

    cells = {"__name__": "__main__", "stage": "a notebook's variable", "settings": 3, "labels": lambda: 0}
    source = Path(module.__file__).read_text(encoding="utf-8").replace("from .", "from specgen.")
    lines = compile(source, module.__file__, "exec")
    exec(lines, cells)
    assert code_digest(cells["run_filter"]) == code_digest(module.run_filter)
