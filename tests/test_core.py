"Errors in one line, files that are whole or absent, names that are no paths, seeds, processes."

import csv
import io
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from specgen.core import (
    Bar,
    SpecgenError,
    append_row,
    atomic,
    choose,
    default_device,
    derive_seeds,
    held_signals,
    keep_rows,
    on_main,
    read_json,
    read_table,
    safe_name,
    seeded,
    sweep,
    write_json,
    write_table,
)


def python(code, *arguments):
    "Start a process that runs some code, with the tests' folder to import from."
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(map(str, (Path(__file__).parent, *Path(__file__).parents[1:2])))}
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def launch(tmp_path, code, seconds=100):
    "Two processes that run some code: their output, the exit code and how long it took."
    script, tick = tmp_path / "script.py", time.perf_counter()
    script.write_text(code)
    places = os.pathsep.join(map(str, (Path(__file__).parent, *Path(__file__).parents[1:2])))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": places, "CUDA_VISIBLE_DEVICES": ""}  # or each process would want a GPU of its own
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0", str(script)]
    done = subprocess.run(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=seconds)
    return done.stdout, done.returncode, time.perf_counter() - tick


# files


def test_a_kill_leaves_the_old_file(tmp_path):
    write_json(tmp_path / "a.json", {"old": 1})
    code = "import os, sys; from specgen.core import atomic\nwith atomic(sys.argv[1]) as t: t.write_text('half'); os.kill(os.getpid(), 9)"
    process = python(code, tmp_path / "a.json")
    process.communicate()
    assert process.returncode == -9 and read_json(tmp_path / "a.json") == {"old": 1} and len(list(tmp_path.iterdir())) == 2
    (tmp_path / ".b-0badcafe.json").write_text("half, and of nobody knows whom")
    sweep(tmp_path, older=3600)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".b-0badcafe.json", "a.json"]
    sweep(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("name", ["x", "a" * 250, "é" * 120, ".hidden", "a.b.tar.gz"])
def test_atomic_writes_files_and_folders_of_any_name(tmp_path, name):
    with atomic(tmp_path / "deep" / name) as temporary:
        assert temporary.name.endswith(Path(name).suffix)
        temporary.write_text("whole")
    assert (tmp_path / "deep" / name).read_text() == "whole"
    with atomic(tmp_path / "folder") as temporary:
        temporary.mkdir()
        (temporary / "a").write_text("1")
    with pytest.raises(KeyboardInterrupt), atomic(tmp_path / "other") as temporary:
        (temporary / "deep").mkdir(parents=True)
        raise KeyboardInterrupt
    assert sorted(p.name for p in tmp_path.iterdir()) == ["deep", "folder"] and len(list((tmp_path / "deep").iterdir())) == 1


def test_sweep_takes_only_what_atomic_left(tmp_path):
    kept = [".config", ".x-0badcafe.py~", "a-0badcafe", ".a-0BADCAFE", ".a-0badcaf", ".git-notes"]
    for name in [*kept, ".a-0badcafe", ".a-0badcafe.wav", ".-0badcafe"]:
        (tmp_path / name).write_text("")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "treasure").write_text("")
    (tmp_path / ".link-0badcafe").symlink_to(tmp_path / "outside")
    (tmp_path / ".folder-0badcafe").mkdir()
    sweep(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*kept, "outside"]) and (tmp_path / "outside" / "treasure").exists()


NAMES = ["dog", "Dog", "a b", "a_b", "a/b", "a\\b", "../../x", "/etc/passwd", "..", ".", "", " ", "-rf", ".hidden", "a\0b", "a\nb", "犬" * 300, "犬" * 301,
         "x" * 300, "C:\\x", "con\udcff", "$a_b$", "%s", "e\u0301", "é"]


def test_safe_names_stay_inside_and_differ(tmp_path):
    safe = [safe_name(name) for name in NAMES]
    assert len(set(safe)) == len(NAMES)
    for name in safe:
        path = tmp_path / f"{name}_000.wav"
        path.write_text("")
        assert path.resolve().parent == tmp_path.resolve() and len(name.encode()) < 110 and name[0] not in "-."
    assert safe_name("crying_baby-2.b") == "crying_baby-2.b" and safe_name(7) == "7"


def test_json_and_tables_say_what_is_wrong(tmp_path):
    (tmp_path / "bad.json").write_bytes(b"{\xff")
    (tmp_path / "ragged.csv").write_text("a,b\n1,2,3\n")
    for read, name, reason in ((read_json, "none.json", "cannot be read"), (read_json, "bad.json", "no JSON"), (read_json, ".", "cannot be read"),
                               (read_table, "none.csv", "cannot be read"), (read_table, "ragged.csv", "more values")):
        with pytest.raises(SpecgenError, match=reason) as error:
            read(tmp_path / name)
        assert "\n" not in str(error.value)
    rows = [{"a": "1", "name": "bad\udcff"}, {"b": "x,\"y\"\nz"}]
    assert read_table(write_table(tmp_path / "t.csv", rows)) == [{"a": "1", "name": "bad\udcff", "b": ""}, {"a": "", "name": "", "b": "x,\"y\"\nz"}]
    assert write_table(tmp_path / "e.csv", [], ["a"]).read_text() == "a\n" and read_table(tmp_path / "e.csv") == []
    with pytest.raises(SpecgenError, match="preset 'x': unknown; choose one of a, b"):
        choose("preset", "x", {"a": 1, "b": 2})


def test_rows_are_appended_and_taken_back(tmp_path):
    path, rows = tmp_path / "h.csv", [{"step": i, "loss": 0.1 * i} for i in range(5)] + [{"step": 5, "val": 1 / 3}]
    for row in rows:
        append_row(path, row)
    with open(path) as file:
        assert [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)] == rows
    with open(path, "a") as file:
        file.write("6,0.")  # a kill in the middle of a row
    assert [row["step"] for row in keep_rows(path, 3)] == ["0", "1", "2"] and path.read_text() == "step,loss,val\n0,0.0,\n1,0.1,\n2,0.2,\n"
    with pytest.raises(SpecgenError, match="has 3 rows where 4 were written"):
        keep_rows(path, 4)
    assert keep_rows(path, 0) == [] and not path.exists() and keep_rows(path, 0) == []


# randomness and signals


def test_seeds_are_those_of_every_version():
    assert derive_seeds(0, 1, 0) == [7165353359696448611, 3524507637230204677]
    assert derive_seeds(0, 1) != derive_seeds("0", 1) and derive_seeds(1, 2) != derive_seeds(12)


def test_seeded_restores_nests_and_leaves_gpus_alone(monkeypatch):
    def forbidden(*_):
        raise AssertionError("a GPU's state was touched")

    for name in ("manual_seed", "manual_seed_all", "set_rng_state", "set_rng_state_all", "get_rng_state", "_lazy_call", "init"):
        monkeypatch.setattr(torch.cuda, name, forbidden)
    before = torch.get_rng_state()
    with pytest.raises(MemoryError), seeded(3):
        first = torch.rand(2)
        with seeded(4):
            torch.rand(5)
        rest = torch.rand(2)
        raise MemoryError
    assert torch.get_rng_state().equal(before)
    with seeded(3):
        assert torch.rand(4).equal(torch.cat([first, rest]))


def test_only_the_device_in_use_is_seeded(monkeypatch):
    class Card:
        state = torch.Generator().manual_seed(5).get_state()

        def get_state(self):
            return self.state

        def set_state(self, state):
            self.state = state

        def manual_seed(self, seed):
            self.state = seed

    cards = [Card(), Card()]
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch.cuda, "default_generators", cards)
    with seeded(7, "cuda:1"):
        assert cards[1].state == 7 and cards[0].state is Card.state
    assert cards[1].state is Card.state


def test_threads_draw_as_if_alone():
    def draw(seed):
        numbers = []
        for k in range(200):
            with seeded(derive_seeds(seed, k)[0]):
                numbers.append(torch.rand(50).sum().item())
        results[seed] = numbers

    results = {}
    threads = [threading.Thread(target=draw, args=(seed,)) for seed in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    together = dict(results)
    for seed in range(2):
        draw(seed)
        assert results[seed] == together[seed]


def test_second_ctrl_c_does_not_wait():
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), held_signals() as caught:
        signal.raise_signal(signal.SIGINT)
        assert caught == [signal.SIGINT]
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is handler


# devices and processes


@pytest.mark.parametrize("name", ["cuda:99", "teapot", "cpu:x", -3, 2.5])
def test_devices_that_are_not_there(name):
    with pytest.raises(SpecgenError, match="this machine has none"):
        default_device(name)
    assert default_device("cpu") == default_device(torch.device("cpu")) == torch.device("cpu")


def test_one_process_calls_directly():
    assert on_main(lambda a, b: a + b, 1, 2) == 3
    with pytest.raises(ZeroDivisionError):
        on_main(lambda: 1 / 0)


TWO = """
import sys
from pathlib import Path
from specgen.run_folder import RunFolder
from specgen.core import SpecgenError, main_process, on_main, process_state
out = Path(sys.argv[0]).parent / "run"
rank = process_state().process_index
with RunFolder(out, {"a": 1}, stages=2) as run:
    folder = run.stage("one", lambda f: (f / f"by {rank}").write_text("") and {} or {"rank": rank})
    run.stage("two", lambda f: (f / f"by {rank}").write_text("") and None, alone=True)
told = on_main(lambda: "word from %d" % rank, tell=True)
print(f"{rank} heard {told}", flush=True)
try:
    with RunFolder(out, {"a": 2}): pass
except SpecgenError as error: print(f"{rank} refused: {error}", flush=True)
try:
    with RunFolder(out, {"a": 1}) as run: run.stage("three", lambda f: 1 / 0, alone=True)
except (ZeroDivisionError, SpecgenError) as error: print(f"{rank} ended: {error}", flush=True)
"""


def test_two_processes_share_a_folder_and_its_errors(tmp_path):
    output, code, seconds = launch(tmp_path, TWO)
    assert code == 0, output
    assert sorted(p.name for p in (tmp_path / "run").rglob("by *")) == ["by 0", "by 0", "by 1"]
    for line in ("0 heard word from 0", "1 heard word from 0", "0 refused: ", "1 refused: the main process stopped: SpecgenError: ",
                 "0 ended: division by zero", "1 ended: the main process stopped: ZeroDivisionError: division by zero"):
        assert line in output, output


def promises(plan, truth):
    "A bar of parts, planned to take so many seconds each, that take others in truth: share of the time, seconds said to be left, seconds left."
    now, rows, end = 0.0, [], sum(truth)
    bar = Bar(total=sum(plan), file=io.StringIO())
    bar._time, bar.start_t = (lambda: now), now
    for planned, seconds in zip(plan, truth, strict=True):
        for _ in range(100):
            now += seconds / 100
            bar.update(planned / 100)
            rows.append((now / end, bar.left, end - now))
    bar.close()
    return rows


@pytest.mark.parametrize("plan, truth, worst", [
    ([1000], [1000], 1.001),  # steady
    ([300] * 4, [300, 300, 600, 600], 2.0),  # from the half on all takes twice as long: nobody can know it before
    ([60, 45, 75, 90, 10], [60, 45, 75, 90, 10], 1.001),  # parts of unequal cost, as planned
    ([60, 45, 75, 90, 10], [240, 180, 300, 360, 40], 1.001),  # on a machine a quarter as fast
    ([90, 47, 70, 82, 9], [389, 175, 262, 328, 31], 1.2),  # AudioMNIST's stages: processor seconds, and what they took when other trainings shared the cores
    ([150, 66, 130, 93, 10], [389, 175, 262, 328, 31], 1.6),  # the same with a plan that is wrong by half
])
def test_the_time_left_is_honest(plan, truth, worst):
    "From a tenth of the time on, until a twentieth is left."
    off = [max(said / left, left / said) for share, said, left in promises(plan, truth) if 0.1 <= share <= 0.95]
    assert max(off) <= worst


def test_a_change_of_speed_is_believed_by_its_root():
    "Once a doubling is a quarter of the time old, the time left is wrong by no more than the square root of two."
    for share, said, left in promises([500, 500], [500, 1000]):
        if share < 1 / 3:
            continue
        if 4 / 9 + 0.01 < share < 0.98:  # 500 s, and a third of that again
            assert 1 / 2**0.5 - 0.01 <= said / left <= 1.01


def test_a_bar_knows_nothing_at_its_start_and_passes_over_what_was_done():
    bar = Bar(total=10, initial=4, file=io.StringIO())
    assert bar.left is None and "?" in str(bar)
    now = [bar.start_t]
    bar._time = lambda: now[0]
    for _ in range(3):
        now[0] += 2
        bar.update()
    assert bar.left == pytest.approx(6) and "00:06<00:06" in str(bar)
    bar.close()
    silent = Bar(total=10, disable=True)
    silent.update(3)
    assert silent.format_dict["rate"] is None
