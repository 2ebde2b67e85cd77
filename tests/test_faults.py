"What the operating system refuses, what a kill leaves, and what people delete: one line, and the advice in it works."
import errno
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from made_up import noise
from safetensors import SafetensorError

from specgen import core
from specgen.audio import read_audio, write_audio
from specgen.cli import main
from specgen.core import SpecgenError, append_row, as_path, plainly, read_json, read_table, temporary_name, write_json, write_table, write_tensors
from specgen.datasets import load_recordings
from specgen.filtering import filter_recordings
from specgen.gan import GAN
from specgen.models import fit_recordings
from specgen.saved import shipped_models
from specgen.phase import njit
from specgen.run_folder import RunFolder
from specgen.spectrogram_dataset import SpectrogramDataset
from specgen.training import TrainConfig, train

ROOT = Path(__file__).parents[1]
posix = pytest.mark.skipif(os.name != "posix", reason="file modes, signals and limits of POSIX")


def told(capsys, *words) -> str:
    "The one line that a command ends with; its exit code is 2."
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip() and "it/s]" not in line and "s/it]" not in line]
    assert stop.value.code == 2 and len(lines) == 1 and lines[0].startswith("specgen: "), lines
    return lines[0]


def in_process(code: str, *arguments, **environment) -> subprocess.CompletedProcess:
    "Run some code in a process of its own."
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **environment}
    environment = {name: value for name, value in environment.items() if value is not None}
    return subprocess.run([sys.executable, "-c", code, *map(str, arguments)], env=environment, text=True, capture_output=True)


def run_quick(words, out) -> torch.Tensor:
    "A training of seconds; its weights."
    model = torch.nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(0.5)
    train(model, (noise(32, 4), noise(32, 1, seed=1)), lambda m, b, g: (m(b[0]) - b[1]).square().mean(), TrainConfig(steps=words, batch_size=8), out=out,
          progress=False)
    return model.weight.detach().clone()


# errors of the operating system


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.EIO, errno.ENAMETOOLONG])
@pytest.mark.parametrize("write", [
    lambda place: write_json(place / "a.json", {}), lambda place: write_table(place / "a.csv", [{"a": 1}]), lambda place: write_tensors(place / "a.st", {}),
    lambda place: write_audio(place / "a.wav", noise(100) / 9, 8000), lambda place: append_row(place / "a.csv", {"a": 1})])
def test_every_write_tells_path_reason_and_way_out(tmp_path, monkeypatch, number, write):
    def refuse(*args, **how):
        raise OSError(number, os.strerror(number), "elsewhere")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(SpecgenError, match=r"a\.\w+: cannot be written \(.+\); ") as error:
        write(tmp_path)
    assert os.strerror(number) in str(error.value) and isinstance(error.value, OSError) and error.value.errno == number
    assert not list(tmp_path.iterdir())


@posix
def test_a_disk_that_is_full_is_told(tmp_path):
    code = """
import resource, signal, sys, torch
from pathlib import Path
from specgen.audio import write_audio
from specgen.core import plainly, write_json, write_tensors
from specgen.saved import shipped_models
from specgen.pipeline import DigitGenerator
model = DigitGenerator.from_pretrained("specgen/flow-digits")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
place = Path(sys.argv[1])
for write in (lambda: write_json(place / "a.json", list(range(1000))), lambda: write_tensors(place / "a.st", {"a": torch.zeros(1000)}),
              lambda: write_audio(place / "a.wav", torch.zeros(1000), 8000), lambda: write_audio(place / "a.flac", torch.randn(9999) / 9, 8000),
              lambda: model.save_pretrained(place / "model")):
    try:
        write()
        print("silent")
    except Exception as error:
        print(type(error).__name__, plainly(error))
"""
    done = in_process(code, tmp_path)
    lines = done.stdout.splitlines()
    assert len(lines) == 5 and all(line.startswith("FileError ") and "File too large); make room there" in line for line in lines), done
    assert [p.name for p in tmp_path.rglob("*")] == ["model"]


def test_files_in_the_way_are_told(tmp_path, capsys, sounds):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder.wav" / "x").mkdir(parents=True)
    wav = next(sounds.rglob("*.wav"))
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        assert str(out) in told(capsys, "gan", "sample", "--n", 1, "--out", out)
        assert str(out) in told(capsys, "gan", "fit", "--preset", "quick", "--dataset", sounds, "--out", out)
    assert "reassign" not in told(capsys, "reassign", wav, tmp_path / "file" / "x.npz")
    with pytest.raises(SpecgenError, match="folder.wav: cannot be written"):
        write_audio(tmp_path / "folder.wav", noise(100) / 9, 8000)
    assert (tmp_path / "file").read_text() == "mine" and sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.wav"]


def test_what_may_not_be_read_is_told(tmp_path, monkeypatch, capsys):
    model = shutil.copytree(shipped_models()["specgen/gan-digits"], tmp_path / "model")
    real = open

    def closed(path, *args, **how):
        if Path(str(path)).name in ("model.safetensors", "a.json", "a.csv"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, *args, **how)

    monkeypatch.setattr("builtins.open", closed)
    monkeypatch.setattr("io.open", closed)
    said = told(capsys, "gan", "sample", "--n", 1, "--model", model, "--out", tmp_path / "out")
    assert "model.safetensors: cannot be read (Permission denied); change its permissions" in said
    for read, name in ((read_json, "a.json"), (read_table, "a.csv")):
        with pytest.raises(SpecgenError, match="Permission denied"):
            read(tmp_path / name)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"),
                                   RuntimeError("CUDA out of memory. Tried to allocate"), OSError(errno.ENOMEM, "Cannot allocate memory"),
                                   RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 1 bytes."), RuntimeError("std::bad_alloc"),
                                   OSError(errno.ENOSPC, "No space left on device", "x"), PermissionError(errno.EACCES, "Permission denied", "x"),
                                   SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")])
def test_the_system_and_memory_end_in_one_line(tmp_path, capsys, monkeypatch, error):
    def broken(*args, **how):
        raise error

    monkeypatch.setattr("specgen.models.fit_recordings", broken)
    said = told(capsys, "gan", "fit", "--out", tmp_path / "out")
    assert "; " in said and ("not enough memory" in said or "space" in said or "Permission" in said)


def test_mistakes_of_ours_are_no_line():
    assert plainly(KeyError("x")) is None and plainly(RuntimeError("shapes differ")) is None


# no home


def test_the_home_folder_is_meant_by_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    write_json("~/a.json", [1])
    assert read_json("~/a.json") == [1] and (tmp_path / "a.json").exists()
    write_audio("~/a.wav", noise(100) / 9, 8000)
    read_audio("~/a.wav")
    with RunFolder("~/run", {}) as run:
        assert run.path == tmp_path / "run"
    main(["reassign", "~/a.wav", "~/features"])
    main(["gan", "sample", "--n", "1", "--out=~/drawn"])
    assert (tmp_path / "features.npz").exists() and (tmp_path / "drawn" / "spectrograms.png").exists() and as_path("a~") == Path("a~")


def test_without_a_place_for_machine_code_it_is_compiled(monkeypatch):
    def nowhere(self):
        raise RuntimeError("cannot cache function: no locator available")

    monkeypatch.setattr("numba.core.registry.CPUDispatcher.enable_caching", nowhere)
    assert njit(nogil=True)(lambda x: x + 1)(2) == 3


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), AttributeError("Can't get attribute 'Frames'"), EOFError()])
def test_machine_code_that_cannot_be_kept_or_read_again_is_no_error(monkeypatch, error):
    def fails(*args):
        raise error

    monkeypatch.setattr("numba.core.caching.Cache.save_overload", fails)
    monkeypatch.setattr("numba.core.caching.Cache.load_overload", fails)
    exec(compile("def f(x):\n    return x + 2", __file__, "exec"), scope := {})
    assert njit(nogil=True)(scope["f"])(2) == 4


# a changed dataset


def change_class(root):
    (root / "hum").rename(root / "hums")


def change_added(root):
    shutil.copytree(root / "hum", root / "new")


def change_contents(root):
    (root / "hum" / "0.wav").rename(root / "x")
    (root / "hiss" / "0.wav").rename(root / "hum" / "0.wav")
    (root / "x").rename(root / "hiss" / "0.wav")


@pytest.mark.parametrize("change", [change_class, change_added, change_contents, shutil.rmtree])
def test_changed_recordings_are_refused(sounds, tmp_path, monkeypatch, change):
    from specgen import pipeline

    root = shutil.copytree(sounds, tmp_path / "in")
    monkeypatch.setattr(pipeline, "run_stages", lambda run, recordings, plan: (run.path / "kept").touch() or {"rows": {}})
    monkeypatch.setattr(pipeline, "describe_scores", lambda scores, path: "")
    run = lambda: pipeline.run_pipeline(root, preset="quick", out=tmp_path / "out", progress=False)  # noqa: E731
    run()
    run()
    change(root)
    with pytest.raises(SpecgenError, match="no such folder" if change is shutil.rmtree else "holds a run with other recordings"):
        run()


# state files that people or disks damage


@pytest.fixture(scope="module")
def filtered(sounds, tmp_path_factory):
    recordings, out = load_recordings(sounds), tmp_path_factory.mktemp("filtered") / "out"
    filter_recordings(recordings, preset="quick", out=out, drop=0.0)
    return recordings, out


@pytest.mark.parametrize("damage", ["[]", "{}", "", "half"])
def test_a_filtering_that_does_not_load_is_made_again(filtered, tmp_path, damage):
    recordings, out = filtered[0], shutil.copytree(filtered[1], tmp_path / "out")
    file = out / "spectrograms.safetensors"
    before = file.read_bytes()
    file.write_bytes(before[: len(before) // 2] if damage == "half" else damage.encode())
    again = filter_recordings(recordings, preset="quick", out=out, drop=0.0)
    assert torch.equal(again.spectrograms, SpectrogramDataset.load(out).spectrograms) and file.read_bytes() == before


@pytest.mark.parametrize("damage", ["[]", "{}", "", "{", None])
@pytest.mark.parametrize("name", ["one/done.json", "one/files.json", "one/deep/result.json", "outside.json"])
def test_a_stage_with_damaged_or_missing_files_is_done_again(tmp_path, damage, name):
    calls = []

    def make(folder):
        calls.append("one")
        assert (folder / "training" / "long").exists() == (len(calls) > 1)
        for path in (folder / "training" / "long", folder / "deep" / "result.json", folder.parent / "outside.json"):
            write_json(path, {"a": 1})
        return {"n": 1}

    for k in range(3):
        with RunFolder(tmp_path / "r", {"a": 1}) as run:
            run.stage("one", make, also=("outside.json",))
        if k == 0:
            file = tmp_path / "r" / name
            file.unlink() if damage is None else file.write_text(damage)
    assert calls == ["one", "one"] and read_json(tmp_path / "r" / "outside.json") == {"a": 1}
    assert read_json(tmp_path / "r" / "one" / "done.json")["n"] == 1


@pytest.mark.parametrize("damage", ["[]", "{}", "", "{", "delete"])
def test_the_advice_for_a_damaged_mark_works(tmp_path, damage):
    with RunFolder(tmp_path / "r", {"a": 1}) as run:
        (run.path / "result").write_text("")
    mark = tmp_path / "r" / "run.json"
    mark.unlink() if damage == "delete" else mark.write_text(damage)
    with pytest.raises(SpecgenError, match=r"delete (the folder .*r|this one) to begin anew"), RunFolder(tmp_path / "r", {"a": 1}):
        pass
    shutil.rmtree(tmp_path / "r")
    with RunFolder(tmp_path / "r", {"a": 1}):
        pass


@pytest.mark.parametrize("damage", ["half", "[]", "{}", "no sums", "other tensors"])
def test_the_advice_for_a_damaged_checkpoint_works(tmp_path, damage):
    import json

    from safetensors import safe_open
    from safetensors.torch import save_file

    weights, file = run_quick(20, tmp_path), tmp_path / "checkpoint.safetensors"
    with safe_open(file, "pt") as opened:
        record, tensors = json.loads(opened.metadata()["record"]), {name: opened.get_tensor(name) for name in opened.keys()}
    if damage == "half":
        file.write_bytes(file.read_bytes()[:-10])
    elif damage == "other tensors":
        save_file({"model.other": torch.zeros(2)}, file, {"record": json.dumps(record)})
    else:
        said = {"[]": "[]", "{}": json.dumps({"run": {}}), "no sums": json.dumps({k: v for k, v in record.items() if k != "sums"})}[damage]
        save_file(tensors, file, {"record": said})
    with pytest.raises(SpecgenError, match="is damaged or not a training checkpoint: delete it to train anew"):
        run_quick(20, tmp_path)
    file.unlink()
    assert torch.equal(run_quick(20, tmp_path), weights)


def test_the_advice_for_missing_rows_works(tmp_path):
    weights = run_quick(20, tmp_path / "t")
    (tmp_path / "t" / "history.csv").unlink()
    with pytest.raises(SpecgenError, match="delete its folder to begin anew"):
        run_quick(20, tmp_path / "t")
    shutil.rmtree(tmp_path / "t")
    assert torch.equal(run_quick(20, tmp_path / "t"), weights)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "scores.json", "finished.json"])
def test_a_finished_model_that_is_damaged_is_saved_again(sounds, tmp_path_factory, tmp_path, name):
    from specgen.classifier import Classifier

    done = tmp_path_factory.getbasetemp() / "finished_model"
    how = dict(preset="quick", progress=False)
    if not done.exists():
        fit_recordings(Classifier, sounds, out=done, **how)
    out = shutil.copytree(done, tmp_path / "out")
    before = {p.name: p.read_bytes() for p in out.glob("*.*")}
    (out / name).write_bytes(b"[]")
    fit_recordings(Classifier, sounds, out=out, **how)
    for kept in ("model.safetensors", "config.json", "scores.json", "finished.json"):
        assert (out / kept).read_bytes() == before[kept]


# company


def test_trainings_keep_others_out_of_their_folder(tmp_path):
    code = "import sys, time, torch\nfrom specgen.training import *\nm = torch.nn.Linear(1, 1)\n" \
           "def loss(m, b, g):\n    print('inside', flush=True); time.sleep(99)\ntrain(m, torch.zeros(8, 1), loss, TrainConfig(steps=1), out=sys.argv[1])"
    process = subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        assert process.stdout.readline() == "inside\n"
        with pytest.raises(SpecgenError, match="another process works there"):
            run_quick(10, tmp_path)
    finally:
        process.kill()
        process.communicate()
    run_quick(10, tmp_path)


@pytest.mark.parametrize("when", ["stage", "end"])
def test_a_folder_deleted_while_running_is_one_line(tmp_path, when):
    with pytest.raises(SpecgenError, match="was deleted while the run worked there; run again"), RunFolder(tmp_path / "r", {"a": 1}) as run:
        if when == "stage":
            run.stage("one", lambda folder: shutil.rmtree(tmp_path / "r"))
        shutil.rmtree(tmp_path / "r")
        write_json(tmp_path / "r" / "result.json", 1)


def test_a_training_whose_folder_is_deleted_is_one_line(tmp_path):
    def loss(model, batch, generator):
        shutil.rmtree(tmp_path / "t", ignore_errors=True)
        return model(batch[0]).square().mean()

    with pytest.raises(SpecgenError, match=r"history\.csv: cannot be written .*its folder was deleted meanwhile"):
        train(torch.nn.Linear(4, 1), noise(32, 4), loss, TrainConfig(steps=30), out=tmp_path / "t", progress=False)


def test_threads_are_kept_and_another_number_is_told(tmp_path, capsys, monkeypatch):
    for threads in (3, 3, 5):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        with RunFolder(tmp_path / "r", {"a": 1}, show=True) as run:
            (run.path / "result").write_text("")
    said = capsys.readouterr().out
    assert read_json(tmp_path / "r" / "run.json")["threads"] == 3 and said.count("begun with 3 threads, 5 now") == 1


# leftovers


@posix
def test_what_a_kill_leaves_is_swept_by_the_next_write(tmp_path):
    killed = in_process("import os, sys, torch; from pathlib import Path; from specgen import core\nos.replace = lambda *a: os.kill(os.getpid(), 9)\n"
                        "core.write_tensors(Path(sys.argv[1]) / 'history.safetensors', {'a': torch.zeros(3)})", tmp_path)
    assert killed.returncode == -9 and len(left := list(tmp_path.iterdir())) >= 1 and all(p.name.startswith(".history-") for p in left)
    ours = temporary_name(tmp_path / "alive.csv")
    for keep in (ours, tmp_path / ".config-0badcafe", tmp_path / ".env"):
        keep.write_text("a user's, or a living process's")
    core.sweep_once.cache_clear()
    write_json(tmp_path / "a.json", 1)
    assert {p.name for p in tmp_path.iterdir()} == {"a.json", ours.name, ".config-0badcafe", ".env"}


@posix
def test_a_run_sweeps_the_folders_below(tmp_path):
    (tmp_path / "r" / "deep" / ".fit-0badcafe").mkdir(parents=True)
    write_json(tmp_path / "r" / "run.json", {"recordings": None, "code": None})
    (tmp_path / "r" / "deep" / ".skipped-0badcafe.csv").write_text("half")
    with RunFolder(tmp_path / "r", {}):
        assert not list((tmp_path / "r" / "deep").iterdir())


def test_the_synthesiser_leaves_no_folder_behind(tmp_path):
    pytest.importorskip("espeakng_loader")
    code = "import os; from specgen.synthetic_digits import Synthesizer\nwith Synthesizer() as s:\n" \
           "    print(len(s.say('one')) > 0, flush=True)\n    os.kill(os.getpid(), 9)"
    done = in_process(code, TMPDIR=str(tmp_path))
    assert done.stdout == "True\n" and not list(tmp_path.iterdir())


def test_no_place_for_temporary_files_is_told(monkeypatch):
    pytest.importorskip("espeakng_loader")
    from specgen import synthetic_digits

    def nowhere():
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(synthetic_digits.tempfile, "gettempdir", nowhere)
    with pytest.raises(SpecgenError, match="set TMPDIR to a folder that can be written to"):
        synthetic_digits.Synthesizer()


def test_pythons_own_words_for_no_temporary_folder_are_kept():
    error = FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")
    assert plainly(error) == "No usable temporary directory found in ['/tmp']; set TMPDIR to a folder that can be written to"


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")])
def test_a_lack_of_memory_is_no_damaged_model(monkeypatch, error):
    def full(self, *args, **settings):
        raise error

    monkeypatch.setattr(GAN, "build", full)
    with pytest.raises(type(error)):
        GAN.from_pretrained("specgen/gan-digits")


def test_a_download_says_what_the_system_says(monkeypatch, tmp_path):
    from specgen import datasets

    def full(*args, **settings):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setenv("SPECGEN_CACHE", str(tmp_path))
    monkeypatch.setattr(datasets.pooch, "retrieve", full)
    with pytest.raises(SpecgenError, match="failed .No space left on device"):
        datasets.download("fsdd")


@posix
@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_tensors_follow_the_umask(tmp_path, umask, filtered):
    from specgen.pipeline import DigitGenerator

    before = os.umask(umask)
    try:
        run_quick(10, tmp_path / "t")
        filtered_set = SpectrogramDataset.load(filtered[1])
        filtered_set.save(tmp_path / "d")
        DigitGenerator.from_pretrained("specgen/flow-digits").save_pretrained(tmp_path / "m")
    finally:
        os.umask(before)
    files = [p for p in tmp_path.rglob("*") if p.is_file() and p.name != ".lock"]
    assert len(files) > 5 and {stat.S_IMODE(p.stat().st_mode) for p in files} == {0o666 & ~umask}


# a failed start


def test_a_failed_start_leaves_nothing(tmp_path, monkeypatch, sounds):
    from specgen.classifier import Classifier

    def refuse(*args, **how):
        raise OSError(errno.ENOSPC, "No space left on device")

    out = tmp_path / "out"
    with monkeypatch.context() as patch, pytest.raises(SpecgenError, match="No space left"):
        patch.setattr(os, "replace", refuse)
        with RunFolder(out, {"a": 1}):
            pass
    assert not out.exists()
    with monkeypatch.context() as patch, pytest.raises(SpecgenError, match="unreadable after the check"):
        patch.setattr(Classifier, "prepare", lambda *a, **k: (_ for _ in ()).throw(SpecgenError("unreadable after the check")))
        fit_recordings(Classifier, sounds, out=out, preset="quick", progress=False)
    assert not out.exists()
    with RunFolder(out, {"a": 2}):
        pass
