"Edge cases of the training loop that would drown the notebook's story: kills, interrupts, several processes, wrong folders."

import csv
import os
import signal
import subprocess
import sys
import threading
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from specgen import training
from specgen.audio import SpecgenError
from specgen.training import History, TrainConfig, batch_indices, held_signals, learning_rate, train

CONFIG = TrainConfig(steps=40, batch_size=33, lr=1e-2, warmup=5, ema=0.9, precision="fp32", checkpoint_every=7, log_every=4)
DATA = (torch.linspace(-3, 3, 100)[:, None].repeat(1, 4), torch.linspace(-3, 3, 100).sin()[:, None])


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make_model(dropout=0.2, width=16):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.GELU(), nn.Dropout(dropout), nn.Linear(width, 1))


def make_plain():
    "Without dropout and batch statistics, so that two processes must agree with one."
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(4, 16), nn.GELU(), nn.Linear(16, 1))


def loss_fn(model, batch, generator):
    noise = 0.1 * torch.randn(batch[1].shape, generator=generator)
    loss = F.mse_loss(model(batch[0]), batch[1] + noise)
    return loss, {"half": loss / 2}


def plain_loss(model, batch, generator):
    return F.mse_loss(model(batch[0]), batch[1])


def at_call(number, accident):
    "The loss, with an accident in its n-th call."
    calls = []

    def loss(model, batch, generator):
        calls.append(1)
        if len(calls) == number:
            accident()
        return loss_fn(model, batch, generator)

    return loss


def run(folder=None, loss=loss_fn, config=CONFIG, model=None, **kwargs):
    model = make_model() if model is None else model
    history = train(model, DATA, loss, config, folder=folder, progress=False, **kwargs)
    return model, [{k: v for k, v in row.items() if k != "rate"} for row in history.rows]


def assert_same(one, two):
    assert one[1] == two[1]
    for (name, a), b in zip(one[0].state_dict().items(), two[0].state_dict().values(), strict=True):
        assert a.equal(b), name


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("undisturbed")
    result = run(folder)
    torch.set_num_threads(threads)
    return *result, folder


def start(code, *launcher):
    "Start Python on a piece of code, or a launcher on a script."
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, *(launcher or ("-c",)), code]
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


# --- kills and interrupts


def test_kill_9_then_resume_equals_the_undisturbed_run(tmp_path, undisturbed):
    code = f"import os, test_training as t\nt.run({str(tmp_path)!r}, t.at_call(30, lambda: os.kill(os.getpid(), 9)))"
    process = start(code)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == -9, output
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["checkpoint.safetensors", "history.csv"]
    assert_same(run(tmp_path), undisturbed[:2])


def test_kill_9_while_writing_leaves_the_old_checkpoint(tmp_path, undisturbed, monkeypatch):
    real = training.save_file

    def half_written(tensors, path, metadata):
        real(tensors, path, metadata)
        Path(path).write_bytes(Path(path).read_bytes()[:2000])
        if saves.append(1) or len(saves) == 3:
            (tmp_path / ".checkpoint-0badcafe.safetensors").write_bytes(b"half")  # what a kill would leave
            raise MemoryError
        real(tensors, path, metadata)

    saves = []
    with monkeypatch.context() as patch:
        patch.setattr(training, "save_file", half_written)
        with pytest.raises(MemoryError):
            run(tmp_path)
    assert_same(run(tmp_path), undisturbed[:2])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint.safetensors", "history.csv", "history.png"]


def test_ctrl_c_from_outside_saves_at_once(tmp_path, undisturbed):
    code = f"import time, test_training as t\nt.run({str(tmp_path)!r}, t.at_call(10, lambda: (print('ready', flush=True), time.sleep(1))))"
    process = start(code)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in output and process.returncode in (1, -2, 130)
    with open(tmp_path / "history.csv") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["4", "8"]
    calls = []
    assert_same(run(tmp_path, at_call(1, lambda: calls.append(1))), undisturbed[:2])
    assert (tmp_path / "history.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_in_every_phase(tmp_path, undisturbed, number):
    def stop(*_):
        raise SystemExit("stopped")

    before = signal.signal(number, stop)
    try:
        for call in (1, 6, 33):  # the first step, the one before a checkpoint, the last
            with pytest.raises(SystemExit):
                run(tmp_path, at_call(call, lambda: signal.raise_signal(number)))
            assert signal.getsignal(number) is stop
    finally:
        signal.signal(number, before)
    assert_same(run(tmp_path), undisturbed[:2])


def test_second_ctrl_c_does_not_wait():
    with pytest.raises(KeyboardInterrupt), held_signals() as caught:
        signal.raise_signal(signal.SIGINT)
        assert caught == [signal.SIGINT]
        signal.raise_signal(signal.SIGINT)


def test_works_outside_the_main_thread(undisturbed):
    results = []
    thread = threading.Thread(target=lambda: results.append(run()))
    thread.start()
    thread.join()
    assert_same(results[0], undisturbed[:2])


def test_finished_folder_returns_at_once(undisturbed):
    def forbidden(*_):
        raise AssertionError("a finished run was trained")

    assert_same(run(undisturbed[2], forbidden), undisturbed[:2])


def test_rows_and_saving_habits_may_change(tmp_path, undisturbed):
    with pytest.raises(MemoryError):
        run(tmp_path, at_call(20, lambda: exec("raise MemoryError")))
    model, _ = run(tmp_path, config=replace(CONFIG, checkpoint_every=3, log_every=9, validate_every=10), validate=lambda m: {"one": 1})
    assert_same((model, 0), (undisturbed[0], 0))


# --- several processes


def two_processes(folder):
    "What each process of the launch runs: two trainings of one model, and a finished one again."
    torch.set_num_threads(1)
    seen = []
    config = replace(CONFIG, validate_every=8)
    model, _ = run(folder / "a", plain_loss, config, make_plain(), validate=lambda m: seen.append(1) or {"seen": len(seen)})
    first = deepcopy(model)
    run(folder / "b", plain_loss, config, model)
    again, _ = run(folder / "a", plain_loss, config, make_plain())
    assert bool(seen) == training.main_process()
    assert all(a.equal(b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    print("process done", flush=True)


def test_two_processes_follow_the_run_of_one(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(f"import pathlib, test_training as t\nt.two_processes(pathlib.Path({str(tmp_path)!r}))\n")
    process = start(str(script), "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0")
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 0 and output.count("process done") == 2, output
    alone, rows = run(tmp_path / "alone", plain_loss, CONFIG, make_plain())
    run(tmp_path / "twice", plain_loss, CONFIG, alone)
    for one, two in (("alone", "a"), ("twice", "b")):
        mine, theirs = (load_file(tmp_path / name / "checkpoint.safetensors") for name in (one, two))
        for name in mine:
            torch.testing.assert_close(mine[name], theirs[name], rtol=1e-4, atol=1e-5)
    expected = training.describe_run(CONFIG, make_plain(), 100)
    history = training.read_checkpoint(tmp_path / "a" / "checkpoint.safetensors", expected)[0]["rows"]
    assert [r["loss"] for r in rows] == pytest.approx([r["loss"] for r in history if r["step"] % 4 == 0], rel=1e-4)
    assert [r["val_seen"] for r in history if "val_seen" in r] == [1, 2, 3, 4, 5]


# --- what must be refused


@pytest.mark.parametrize(
    "change", [{"steps": 50}, {"lr": 0.5}, {"batch_size": 32}, {"ema": None}, {"seed": 7}, {"schedule": "constant"}, {"precision": "bf16"}]
)
def test_other_settings_in_the_folder(undisturbed, change):
    with pytest.raises(SpecgenError, match=f"{next(iter(change))} .*, not .*another folder"):
        run(undisturbed[2], config=replace(CONFIG, **change))


def test_other_model_or_data_in_the_folder(undisturbed):
    for model in (make_model(width=8), make_plain(), nn.Linear(4, 1)):
        with pytest.raises(SpecgenError, match="another model"):
            run(undisturbed[2], model=model)
    with pytest.raises(SpecgenError, match="examples 100, not 50"):
        train(make_model(), tuple(t[:50] for t in DATA), loss_fn, CONFIG, folder=undisturbed[2])


DAMAGES = [lambda b: b[: len(b) // 2], lambda b: b[:5], lambda b: b"", lambda b: b"\xff" * 99, lambda b: b + b"tail"]


@pytest.mark.parametrize("damage", DAMAGES, ids=["half", "start", "empty", "noise", "tail"])
def test_damaged_checkpoint(tmp_path, undisturbed, damage):
    whole = (undisturbed[2] / "checkpoint.safetensors").read_bytes()
    (tmp_path / "checkpoint.safetensors").write_bytes(damage(whole))
    with pytest.raises(SpecgenError, match="damaged .*delete it") as error:
        run(tmp_path)
    assert "\n" not in str(error.value)


def test_weights_of_something_else_as_a_checkpoint(tmp_path):
    for metadata in (None, {"format": "pt"}, {"record": "[]"}, {"record": "{"}):
        save_file({"w": torch.zeros(2)}, tmp_path / "checkpoint.safetensors", metadata)
        with pytest.raises(SpecgenError, match="not a training checkpoint"):
            run(tmp_path)


def test_not_finite_names_the_step_and_spoils_nothing(tmp_path, undisturbed):
    def spoiled(model, batch, generator):
        calls.append(1)
        return loss_fn(model, batch, generator)[0] * (float("inf") if len(calls) == 14 else 1), {"half": 0.0}

    calls = []
    with pytest.raises(SpecgenError, match="loss is inf at step 14:"):
        run(tmp_path, spoiled)
    with pytest.raises(SpecgenError, match="half is nan at step 3:"):
        run(None, lambda m, b, g: (loss_fn(m, b, g)[0], {"half": torch.nan if calls.append(1) or len(calls) == 17 else 0.0}))
    _, rows = run(tmp_path)
    assert rows[2:] == undisturbed[1][2:]


@pytest.mark.parametrize("data", [(), (DATA[0], DATA[1][:5]), (DATA[0][:0], DATA[1][:0])])
def test_unusable_data(data):
    with pytest.raises(SpecgenError, match="examples: give"):
        train(make_model(), data, loss_fn, CONFIG)


@pytest.mark.parametrize(
    "name, value",
    [("steps", 0), ("batch_size", -1), ("log_every", 0), ("schedule", "sine"), ("precision", "fp16"), ("ema", 1.0), ("seed", -1)],
)
def test_impossible_settings(name, value):
    with pytest.raises(SpecgenError, match=name):
        replace(CONFIG, **{name: value})


# --- the parts


def test_global_state_is_untouched_and_irrelevant(undisturbed):
    torch.manual_seed(99)
    before, handlers = torch.get_rng_state(), signal.getsignal(signal.SIGINT)
    assert_same(run(), undisturbed[:2])
    assert torch.get_rng_state().equal(before) and signal.getsignal(signal.SIGINT) is handlers


def test_average_follows_the_closed_form():
    "One weight, gradient 1, constant learning rate, no decay: AdamW moves it by lr a step, and the average is a known sum."
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    config = TrainConfig(steps=50, lr=0.1, weight_decay=0, schedule="constant", ema=0.8, precision="fp32")
    train(model, (torch.ones(4, 1),), lambda m, b, g: -m(b[0]).mean(), config, progress=False)
    expected = 0.0
    for step in range(1, 51):
        decay = min(0.8, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * 0.1 * step
    assert model.weight.item() == pytest.approx(expected, rel=1e-4)
    assert not model.training


def test_average_copies_counters_and_keeps_tied_weights(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.norm = nn.Linear(4, 4), nn.Linear(4, 4), nn.BatchNorm1d(4)
            self.b.weight = self.a.weight
            self.register_buffer("table", torch.tensor([7, 3]))

        def forward(self, x):
            return self.norm(self.b(self.a(x))).mean(1, keepdim=True)

    model = Tied()
    train(model, DATA, plain_loss, CONFIG, folder=tmp_path, progress=False)
    assert model.table.tolist() == [7, 3] and model.norm.num_batches_tracked == 40
    again = Tied()
    train(again, DATA, plain_loss, CONFIG, folder=tmp_path, progress=False)
    assert again.a.weight.equal(model.a.weight) and again.b.weight is again.a.weight


def test_batches_of_an_epoch_are_all_examples():
    for n, size in ((100, 33), (10, 10), (7, 64), (1, 1)):
        row = torch.cat([batch_indices(step, n, size, seed=3) for step in range(2 * n)])
        assert all(row[i * n : (i + 1) * n].sort().values.equal(torch.arange(n)) for i in range(len(row) // n))
    assert not batch_indices(0, 100, 100, 0).equal(batch_indices(0, 100, 100, 1))


def test_schedule():
    config = TrainConfig(steps=100, lr=1.0, warmup=10)
    rates = [learning_rate(step, config) for step in range(100)]
    assert rates[:10] == pytest.approx([(k + 1) / 10 for k in range(10)])
    assert rates[55] == pytest.approx(0.5) and 0 < rates[-1] < 1e-3
    assert learning_rate(99, replace(config, schedule="constant")) == 1.0


def test_dataset_with_batched_indexing_and_bf16(undisturbed):
    class Pairs(torch.utils.data.Dataset):
        def __len__(self):
            return 100

        def __getitem__(self, indices):
            assert isinstance(indices, list)
            return DATA[0][indices], DATA[1][indices]

    model = make_model()
    train(model, Pairs(), loss_fn, CONFIG, progress=False)
    assert all(a.equal(b) for a, b in zip(model.state_dict().values(), undisturbed[0].state_dict().values(), strict=True))
    rough = make_model()
    history = train(rough, Pairs(), loss_fn, replace(CONFIG, precision="bf16"), progress=False)
    assert all(p.dtype == torch.float32 for p in rough.parameters())
    assert history["loss"][1][-1] == pytest.approx(undisturbed[1][-1]["loss"], rel=0.1)


def test_frozen_weights_and_other_methods_than_forward():
    class Coder(nn.Module):
        def __init__(self):
            super().__init__()
            self.encode, self.decode = nn.Linear(4, 2), nn.Linear(2, 4)
            self.encode.requires_grad_(False)

    model = Coder()
    before = deepcopy(model.state_dict())
    train(model, DATA[:1], lambda m, b, g: F.mse_loss(m.decode(m.encode(b[0])), b[0]), replace(CONFIG, clip=None, ema=None), progress=False)
    assert model.encode.weight.equal(before["encode.weight"]) and not model.decode.weight.equal(before["decode.weight"])
    assert not model.encode.weight.requires_grad and all(p.grad is None for p in model.parameters())


def test_history_table(tmp_path):
    history = History([{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25, "val_loss": 1.0}])
    history.to_csv(tmp_path / "deep" / "history.csv")
    assert (tmp_path / "deep" / "history.csv").read_text().splitlines() == ["step,loss,val_loss", "1,0.5,", "2,0.25,1.0"]
    assert history["val_loss"] == ([2], [1.0])


def test_progress_is_plain_text(capsys):
    train(make_model(), DATA, loss_fn, CONFIG, title="tiny")
    assert "tiny: 100%" in capsys.readouterr().err
