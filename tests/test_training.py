"Edge cases of the training loop that would drown the notebook's story: kills, interrupts, several processes, wrong folders."

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from made_up import noise, two_classes
from pretend import PRETENDING
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, StackDataset, TensorDataset

from specgen import training
from specgen.batches import Batches, Rows, batch_indices
from specgen.core import SpecgenError, main_process
from specgen.spectrogram import LogSTFT
from specgen.training import History, Meter, Run, TrainConfig, learning_rate, train, train_adversarial

CONFIG = TrainConfig(steps=40, batch_size=33, lr=1e-2, warmup=5, ema=0.9, precision="fp32", checkpoint_every=7, log_every=4)
DATA = (torch.linspace(-3, 3, 100)[:, None].repeat(1, 4), torch.linspace(-3, 3, 100).sin()[:, None])
real_device = pytest.mark.skipif(PRETENDING, reason="the pretence ends at the process and at the thread, and float16 is float32 there")


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
    noise = 0.1 * torch.randn(batch[1].shape, generator=generator, device=batch[1].device)
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
    history = train(model, DATA, loss, config, out=folder, progress=False, **kwargs)
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


LAUNCH = ("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0")  # of two processes
NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}  # or each process would want one of its own


def start(code, *launcher, **environment):
    "Start Python on a piece of code, or a launcher on a script."
    places = os.pathsep.join(map(str, (Path(__file__).parent, *Path(__file__).parents[1:2])))
    environment = {**os.environ, **environment, "OMP_NUM_THREADS": "1", "PYTHONPATH": places}
    command = [sys.executable, *(launcher or ("-c",)), code]
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


# --- kills and interrupts


def test_a_function_is_told_how_far_it_is():
    told = []
    train(make_model(), DATA, loss_fn, CONFIG, progress=lambda step, steps: told.append((step, steps)))
    assert told[-1] == (40, 40) and [step for step, _ in told] == list(range(4, 41, 4))


@real_device
def test_kill_9_then_resume_equals_the_undisturbed_run(tmp_path, undisturbed):
    code = f"import os, test_training as t\nt.run({str(tmp_path)!r}, t.at_call(30, lambda: os.kill(os.getpid(), 9)))"
    process = start(code)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == -9, output
    assert [p.name for p in sorted(tmp_path.iterdir())] == [".lock", "checkpoint.safetensors", "history.csv"]
    assert_same(run(tmp_path), undisturbed[:2])


def test_kill_9_while_writing_leaves_the_old_checkpoint(tmp_path, undisturbed, monkeypatch):
    real = save_file

    def half_written(tensors, path, metadata):
        real(tensors, path, metadata)
        Path(path).write_bytes(Path(path).read_bytes()[:2000])
        if saves.append(1) or len(saves) == 3:
            (tmp_path / ".checkpoint-0badcafe.safetensors").write_bytes(b"half")  # what a kill would leave
            raise MemoryError
        real(tensors, path, metadata)

    saves = []
    with monkeypatch.context() as patch:
        patch.setattr("safetensors.torch.save_file", half_written)
        with pytest.raises(MemoryError):
            run(tmp_path)
    assert_same(run(tmp_path), undisturbed[:2])
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", "checkpoint.safetensors", "history.csv", "history.png"]


@real_device
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


@real_device
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
    assert bool(seen) == main_process()
    assert all(a.equal(b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    print("process done", flush=True)


def test_two_processes_follow_the_run_of_one(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(f"import pathlib, test_training as t\nt.two_processes(pathlib.Path({str(tmp_path)!r}))\n")
    process = start(str(script), *LAUNCH, **NO_GPU)
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 0 and output.count("process done") == 2, output
    alone, rows = run(tmp_path / "alone", plain_loss, CONFIG, make_plain(), device="cpu")
    run(tmp_path / "twice", plain_loss, CONFIG, alone, device="cpu")
    for one, two in (("alone", "a"), ("twice", "b")):
        mine, theirs = (load_file(tmp_path / name / "checkpoint.safetensors") for name in (one, two))
        for name in mine:
            torch.testing.assert_close(mine[name], theirs[name], rtol=1e-4, atol=1e-5)
    with open(tmp_path / "a" / "history.csv") as file:
        history = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
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
        train(make_model(), tuple(t[:50] for t in DATA), loss_fn, CONFIG, out=undisturbed[2])


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


UNUSABLE = [(), [], {}, (DATA[0], DATA[1][:5]), (DATA[0][:0], DATA[1][:0]), "sounds/", 5, None, torch.tensor(1.0), DATA[0].numpy(), (DATA[0], "y"), iter(DATA)]


@pytest.mark.parametrize("data", UNUSABLE, ids=[str(i) for i in range(len(UNUSABLE))])
def test_unusable_data(data):
    model = make_model().eval()
    with pytest.raises(SpecgenError, match="training data of"):
        train(model, data, loss_fn, CONFIG)
    assert not model.training


class Strange(torch.utils.data.Dataset):
    def __init__(self, example):
        self.example = example

    def __len__(self):
        return 10

    def __getitem__(self, i):
        return self.example


@pytest.mark.parametrize("example", ["word", (torch.zeros(3), "word"), {"x": torch.zeros(3), "name": "word"}, []])
def test_datasets_that_give_no_tensors(example):
    for data in (Strange(example), DataLoader(Strange(example), batch_size=2)):
        with pytest.raises(SpecgenError, match="a batch of type"):
            train(make_model(), data, loss_fn, CONFIG, progress=False)


def test_a_loader_without_batches():
    loader = DataLoader(TensorDataset(*DATA), batch_size=200, drop_last=True)
    with pytest.raises(SpecgenError, match="gives no batch"):
        train(make_model(), loader, loss_fn, CONFIG, progress=False)


@pytest.mark.parametrize(
    "name, value",
    [("steps", 0), ("batch_size", -1), ("log_every", 0), ("schedule", "sine"), ("precision", "fp8"), ("lr_decay", 0), ("ema", 1.0), ("seed", -1)],
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
    train(model, DATA, plain_loss, CONFIG, out=tmp_path, progress=False)
    assert model.table.tolist() == [7, 3] and model.norm.num_batches_tracked == 40
    again = Tied()
    train(again, DATA, plain_loss, CONFIG, out=tmp_path, progress=False)
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


def test_dataset_and_bf16(undisturbed):
    class Pairs(torch.utils.data.Dataset):
        def __len__(self):
            return 100

        def __getitem__(self, i):
            return DATA[0][i], DATA[1][i]

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
    train(model, DATA[:1], lambda m, b, g: F.mse_loss(m.decode(m.encode(b[0])), b[0]), replace(CONFIG, grad_clip=None, ema=None), progress=False)
    model.cpu()
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


# --- what may be trained on


def test_every_form_of_the_same_data_gives_the_same_weights(undisturbed):
    def named(model, batch, generator):
        assert batch.keys() == {"x", "y"}
        return loss_fn(model, (batch["x"], batch["y"]), generator)

    forms = [(DATA, loss_fn), (list(DATA), loss_fn), (TensorDataset(*DATA), loss_fn), (StackDataset(*DATA), loss_fn), (dict(x=DATA[0], y=DATA[1]), named),
             (StackDataset(x=DATA[0], y=DATA[1]), named)]
    for data, loss in forms:
        model = make_model()
        train(model, data, loss, CONFIG, progress=False)
        assert_same((model, 0), (undisturbed[0], 0))


def test_a_tensor_alone_is_one_column():
    shapes = []

    def loss(model, batch, generator):
        shapes.append([tuple(t.shape) for t in batch])
        return model(batch[0]).square().mean()

    for data in (DATA[0], (DATA[0],), DataLoader(DATA[0], batch_size=33)):
        train(make_model(), data, loss, replace(CONFIG, steps=1), progress=False)
    assert shapes == [[(33, 4)]] * 3


def test_spectrogram_datasets_are_pairs_and_their_own_augmentation_is_kept():
    dataset, seen = two_classes(LogSTFT(sample_rate=8000, n_fft=16, hop_length=16), 9, 4, 20, 4), []

    def loss(model, batch, generator):
        seen.append([tuple(t.shape) for t in batch])
        return model(batch[0].flatten(1)[:, :4]).square().mean()

    class Louder(TensorDataset):
        def __getitem__(self, i):
            seen.append("asked one by one")
            return super().__getitem__(i)

    train(make_model(), dataset.train, loss, replace(CONFIG, steps=1, batch_size=7), progress=False)
    assert seen == [[(7, 9, 4), (7,)]]


LOADERS = {
    "plain": lambda: DataLoader(TensorDataset(*DATA), batch_size=30),
    "shuffled": lambda: DataLoader(TensorDataset(*DATA), batch_size=30, shuffle=True),
    "its own generator": lambda: DataLoader(TensorDataset(*DATA), batch_size=40, shuffle=True, drop_last=True, generator=torch.Generator()),
    "dicts": lambda: DataLoader(StackDataset(x=DATA[0], y=DATA[1]), batch_size=64, shuffle=True),
    "iterable": lambda: DataLoader([(DATA[0][i], DATA[1][i]) for i in range(100)], batch_size=50, shuffle=True),
}


@pytest.mark.parametrize("kind", LOADERS)
def test_a_loader_is_continued_bit_for_bit(tmp_path, kind):
    def loss(model, batch, generator):
        return loss_fn(model, tuple(batch.values()) if isinstance(batch, dict) else batch, generator)

    def killed(model, batch, generator):
        calls.append(1)
        if len(calls) == 25:
            raise MemoryError
        return loss(model, batch, generator)

    calls, whole, parts = [], make_model(), make_model()
    train(whole, LOADERS[kind](), loss, CONFIG, progress=False)
    with pytest.raises(MemoryError):
        train(parts, LOADERS[kind](), killed, CONFIG, out=tmp_path, progress=False)
    train(parts, LOADERS[kind](), loss, CONFIG, out=tmp_path, progress=False)
    assert_same((parts, 0), (whole, 0))


def test_batches_lie_on_the_device_where_they_fit(monkeypatch):
    "Pretend cards: what is moved and what is pinned, without one."
    batches = Batches(DATA, 10, 0, torch.device("meta"))
    batches.settle()
    assert all(t.device.type == "meta" for t in batches.columns) and batches.share(0)[0][0].device.type == "meta"
    moved, size = [], sum(t.nbytes for t in DATA)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda t: moved.append("pinned") or t)
    monkeypatch.setattr(torch.Tensor, "to", lambda t, device: moved.append(device.type) or t)
    for free, expected in ((2 * size, ["cuda", "cuda"]), (2 * size - 1, ["pinned", "pinned"])):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, free))
        for data in (DATA, dict(x=DATA[0], y=DATA[1])):
            batches = Batches(data, 10, 0, torch.device("cuda"))
            batches.settle()
            assert moved == expected
            moved.clear()


def test_rows_are_learnt_as_a_copy_of_them(tmp_path):
    index = torch.arange(0, len(DATA[0]), 3)
    copies, rows = tuple(t[index] for t in DATA), Rows(DATA, index)
    wanted, seen = ([Batches(data, 4, 1, torch.device("cpu")).share(step) for step in range(30)] for data in (copies, rows))
    assert all(w == v and all(map(torch.equal, a, b)) for (a, w), (b, v) in zip(seen, wanted, strict=True))
    changed = Rows((DATA[0].clone().index_fill_(0, index[1], 7.0), DATA[1]), index)
    known, other = (Batches(data, 4, 1, torch.device("cpu")).identity() for data in (rows, changed))
    assert known != other and known == Batches(rows, 4, 1, torch.device("cpu")).identity()
    moved = Batches(rows, 10, 0, torch.device("meta"))
    moved.settle()
    assert moved.rows is None and moved.share(0)[0][0].device.type == "meta" and len(moved.columns[0]) == len(index)


def test_one_step_on_a_device_that_refuses_the_cpu():
    "The meta device mixes with nothing: all that a step needs must have been moved."
    run = Run(make_model(), DATA, lambda m, b, g: F.mse_loss(m(b[0]), b[1]), replace(CONFIG, precision="fp32"), None, device="meta", lr_scales={"0": 0.1})
    run.data.settle()
    run.update()
    assert run.step == 1 and all(p.device.type == "meta" for p in run.average.module.parameters())
    with pytest.raises(SpecgenError, match="device 'cuda:7'"):
        train(make_model(), DATA, loss_fn, CONFIG, device="cuda:7")


# --- the same names, other contents


def test_new_contents_under_old_names_are_refused(tmp_path, undisturbed):
    changed = DATA[0].clone()
    changed[50, 2] += 1e-6
    for data in ((changed, DATA[1]), (DATA[0].double(), DATA[1])):
        with pytest.raises(SpecgenError, match="other training examples"):
            train(make_model(), data, loss_fn, CONFIG, out=undisturbed[2], progress=False)

    train(make_model(), StackDataset(*DATA), loss_fn, CONFIG, out=tmp_path, progress=False)
    for data in (DATA, DataLoader(StackDataset(*DATA), batch_size=33)):
        with pytest.raises(SpecgenError, match="other training examples"):
            train(make_model(), data, loss_fn, CONFIG, out=tmp_path, progress=False)


def test_a_datasets_own_digest_tells_its_contents(tmp_path):
    class Known(Strange):
        digest = lambda self: str(self.example[0][0].item())  # noqa: E731

    config, loss = replace(CONFIG, steps=2), lambda m, b, g: m(b[0]).square().mean()
    train(make_plain(), Known([torch.ones(4)]), loss, config, out=tmp_path, progress=False)
    train(make_plain(), Known([torch.ones(4)]), loss, config, out=tmp_path, progress=False)
    with pytest.raises(SpecgenError, match="other training examples"):
        train(make_plain(), Known([torch.zeros(4)]), loss, config, out=tmp_path, progress=False)


# --- the history


def test_parts_are_averaged_by_name():
    def loss(model, batch, generator):
        value = loss_fn(model, batch, generator)[0]
        calls.append(1)
        parts = {"one": 1.0, "two": torch.tensor(2.0)} if len(calls) % 2 else {"two": 2.0, "one": 1.0}
        return value, parts | ({"rare": 5.0} if len(calls) == 3 else {})

    calls = []
    _, rows = run(loss=loss)
    assert all(row["one"] == 1.0 and row["two"] == 2.0 for row in rows) and [row.get("rare") for row in rows] == [5.0] + [None] * 9


def test_a_meter_weighs_and_names_what_is_not_finite():
    meter = Meter(half=True)
    for k in range(3):
        meter.add({"loss": float(k), "gradient": float("inf") if k == 1 else 1.0})
    meter.settle(3)
    assert meter.means() == {"loss": 1.0, "gradient": 1.0} and meter.means() == {}


def test_a_save_does_not_grow_with_the_history(tmp_path):
    row = {"step": 1, "loss": 0.123456789, "gradient": 1.0, "lr": 1e-3, "rate": 5.0}
    sizes = []
    for n in (10, 400_000):
        run = Run(make_model(), DATA, loss_fn, replace(CONFIG, steps=500_000), tmp_path / str(n))
        run.update()
        run.meter.settle(1)
        run.history.rows = [row] * n
        tick = time.perf_counter()
        run.save()
        sizes.append((tmp_path / str(n) / "checkpoint.safetensors").stat().st_size)
        assert time.perf_counter() - tick < 1
    assert abs(sizes[0] - sizes[1]) < 64


def test_a_long_history_is_continued(tmp_path):
    config, model = replace(CONFIG, steps=12, log_every=2), make_model()
    with pytest.raises(MemoryError):
        run(tmp_path, at_call(9, lambda: exec("raise MemoryError")), config, model)
    with open(tmp_path / "history.csv") as file:
        header, *rows = file.read().splitlines()
    assert len(rows) == 4
    path = tmp_path / "checkpoint.safetensors"
    with safe_open(path, "pt") as file:
        record = json.loads(file.metadata()["record"])
    assert record["rows"] == 3 and len(json.dumps(record)) < 1500
    (tmp_path / "history.csv").write_text("\n".join([header, *rows[:3] * 50_000, *rows[3:]]) + "\n")
    save_file(load_file(path), path, {"record": json.dumps({**record, "rows": 150_000})})
    tick = time.perf_counter()
    history = train(model, DATA, loss_fn, config, out=tmp_path, progress=False)
    assert len(history.rows) == 150_003 and time.perf_counter() - tick < 20
    with open(tmp_path / "history.csv") as file:
        assert [row["step"] for row in csv.DictReader(file)][-4:] == ["6", "8", "10", "12"]


def test_a_history_with_missing_rows_is_refused(tmp_path):
    with pytest.raises(MemoryError):
        run(tmp_path, at_call(20, lambda: exec("raise MemoryError")))
    (tmp_path / "history.csv").unlink()
    with pytest.raises(SpecgenError, match="has 0 rows where 3 were written"):
        run(tmp_path)


def test_checkpoints_by_time(tmp_path, undisturbed):
    config = replace(CONFIG, checkpoint_every=1000, checkpoint_minutes=0.0)
    with pytest.raises(MemoryError):
        run(tmp_path, at_call(15, lambda: exec("raise MemoryError")), config)
    with safe_open(tmp_path / "checkpoint.safetensors", "pt") as file:
        assert json.loads(file.metadata()["record"])["step"] == 12
    assert_same(run(tmp_path, config=config), undisturbed[:2])


def test_the_figure_of_a_long_history_keeps_every_validation(tmp_path, monkeypatch):
    import specgen.plot as plot

    seen = []
    monkeypatch.setattr(plot, "plot_history", lambda rows: seen.append(rows))
    monkeypatch.setattr(plot, "figure_png", lambda figure: b"")
    History([{"step": i, "loss": 1.0} | ({"val_loss": 1.0} if i % 9999 == 0 else {}) for i in range(1, 100_000)]).to_png(tmp_path / "h.png")
    assert len(seen[0]) <= 1010 and sum("val_loss" in row for row in seen[0]) == 10


# --- randomness


@real_device
def test_two_threads_train_as_if_alone(undisturbed):
    def work(k):
        results[k] = run(config=replace(CONFIG, seed=k), model=models[k])

    models, results = [make_model() for _ in range(2)], {}
    alone = [run(config=replace(CONFIG, seed=k)) for k in range(2)]
    threads = [threading.Thread(target=work, args=(k,)) for k in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k in range(2):
        assert_same(results[k], alone[k])
    assert_same(alone[0], undisturbed[:2])


def test_seeding_touches_no_gpu(monkeypatch):
    def forbidden(*_, **__):
        raise AssertionError("a GPU's state was touched")

    undisturbed, model = run(device="cpu"), make_model()
    for name in ("manual_seed", "manual_seed_all", "set_rng_state", "set_rng_state_all", "get_rng_state", "get_rng_state_all"):
        monkeypatch.setattr(torch.cuda, name, forbidden)
    assert_same(run(device="cpu", model=model, validate=lambda model: {"drawn": torch.rand(1)})[0:1] + (0,), (undisturbed[0], 0))


def test_validation_draws_the_same_and_disturbs_nothing(undisturbed):
    def drawn(model):
        assert not model.training and not torch.is_grad_enabled()
        return {"drawn": torch.rand(1)}

    config = replace(CONFIG, validate_every=7)
    one, two = (run(config=config, validate=drawn) for _ in range(2))
    assert_same(one, two)
    assert_same((one[0], 0), (undisturbed[0], 0))
    assert len({row["val_drawn"] for row in one[1] if "val_drawn" in row}) == 6


# --- precision


def test_fp16_scales_its_loss_and_is_continued_bit_for_bit(tmp_path):
    config = replace(CONFIG, precision="fp16")
    whole = run(config=config)
    assert all(p.dtype == torch.float32 for p in whole[0].parameters())
    with pytest.raises(MemoryError):
        run(tmp_path, at_call(30, lambda: exec("raise MemoryError")), config)
    with safe_open(tmp_path / "checkpoint.safetensors", "pt") as file:
        assert json.loads(file.metadata()["record"])["scaler"]["scale"] > 1
    assert_same(run(tmp_path, config=config), whole)
    assert whole[1][-1]["loss"] == pytest.approx(run()[1][-1]["loss"], rel=0.05)


@real_device
def test_fp16_passes_over_steps_that_overflow():
    def loss(model, batch, generator):
        return (model(batch[0]).float() * 1e4).square().mean()  # times the first scale, 65536, its gradient is infinite in float16

    model = make_plain()
    r = Run(model, DATA, loss, replace(CONFIG, precision="fp16", ema=None), None)
    before = deepcopy(model)
    r.update()
    assert all(a.equal(b) for a, b in zip(model.parameters(), before.parameters(), strict=True)) and r.scaler.get_scale() == 32768.0
    for _ in range(30):
        r.update()
    r.meter.settle(31)
    assert not model[0].weight.equal(before[0].weight) and r.meter.means().keys() == {"loss", "gradient"}


def test_fp16_that_never_has_a_gradient_is_an_error():
    r = Run(make_plain(), DATA, plain_loss, replace(CONFIG, precision="fp16"), None)
    r.scaler = torch.amp.GradScaler(r.device.type, init_scale=1e-7)
    for _ in range(4):
        r.update()
    with pytest.raises(SpecgenError, match="fp16 has no finite gradient at step 4"):
        r.end_row(None)


def test_the_launchers_and_an_accelerators_precision_are_respected(monkeypatch):
    def loss(model, batch, generator):
        seen.append(torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None)
        return plain_loss(model, batch, generator)

    seen, accelerator = [], type("Accelerator", (), {"mixed_precision": "fp16"})()
    config, how = replace(CONFIG, steps=1, precision="auto"), dict(device="cpu", progress=False)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    train(make_plain(), DATA, loss, config, **how)
    train(make_plain(), DATA, loss, config, **how, accelerator=accelerator)
    train(make_plain(), DATA, loss, replace(config, precision="fp32"), **how, accelerator=accelerator)
    assert seen == [torch.bfloat16, torch.float16, None]


def test_train_needs_no_accelerator_and_takes_the_callers():
    code = """
import torch, test_training as t
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch.nn import functional as F
a, _ = t.run(config=t.replace(t.CONFIG, precision="auto"))
assert AcceleratorState._shared_state == {}, "a second Accelerator could not have chosen its own settings"
accelerator = Accelerator(cpu=True, mixed_precision="bf16")
b, _ = t.run(config=t.replace(t.CONFIG, precision="fp32"), accelerator=accelerator)
c, _ = t.run(config=t.replace(t.CONFIG, precision="auto"), accelerator=accelerator)
d, _ = t.run(config=t.replace(t.CONFIG, precision="bf16"))
assert all(x.equal(y) for x, y in zip(c.parameters(), d.parameters())) and not all(x.equal(y) for x, y in zip(b.parameters(), d.parameters()))
print("fine")
"""
    output, _ = start(code, **NO_GPU).communicate(timeout=100)
    assert output.strip().endswith("fine"), output


# --- layers at their own pace


@pytest.mark.parametrize("grad_clip", [None, 0.3])
def test_lr_scales_equal_weights_stored_divided(grad_clip):
    "Weights w = f u under a factor f move as u does under plain settings, to rounding in double precision."
    class Stored(nn.Module):
        def __init__(self, layer, factor):
            super().__init__()
            self.u, self.b, self.factor = nn.Parameter(layer.weight.detach() / factor), nn.Parameter(layer.bias.detach() / factor), factor

        def forward(self, x):
            return F.linear(x, self.factor * self.u, self.factor * self.b)

    def loss(model, batch, generator):
        return F.mse_loss(model(batch[0]), batch[1])

    data = tuple(t.double() for t in DATA)
    config = replace(CONFIG, weight_decay=0.3, grad_clip=grad_clip, ema=None, lr=0.03)
    plain = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    divided = deepcopy(plain)
    divided[0], divided[2] = Stored(plain[0], 0.01), Stored(plain[2], 4.0)
    first = plain[0].weight.clone()
    one = train(plain, data, loss, config, progress=False, lr_scales={"0": 0.01, "2.": 4.0})
    two = train(divided, data, loss, config, progress=False)
    for k, f in ((0, 0.01), (2, 4.0)):
        torch.testing.assert_close(plain[k].weight, f * divided[k].u, rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(plain[k].bias, f * divided[k].b, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(plain[4].weight, divided[4].weight, rtol=1e-6, atol=1e-9)
    assert (plain[0].weight.cpu() - first).abs().max() > 1e-4
    assert one["loss"][1] == pytest.approx(two["loss"][1], rel=1e-6) and one["gradient"][1] == pytest.approx(two["gradient"][1], rel=1e-6)


def test_lr_scales_take_whole_words_and_the_longest():
    model = nn.ModuleDict({"enc": nn.ModuleDict({"input": nn.Linear(1, 1), "out": nn.Linear(1, 1)}), "encoder": nn.Linear(1, 1)})
    groups = training.parameter_groups(model, CONFIG, {"enc": 0.5, "enc.input": 0.1, "encoder.bias": 2.0})
    factors = {id(p): g["factor"] for g in groups for p in g["params"]}
    found = {name: factors[id(p)] for name, p in model.named_parameters()}
    assert found == {"enc.input.weight": 0.1, "enc.input.bias": 0.1, "enc.out.weight": 0.5, "enc.out.bias": 0.5, "encoder.weight": 1.0, "encoder.bias": 2.0}
    model["encoder"].requires_grad_(False)
    for scales in ({"decoder": 0.1}, {"en": 0.1}, {"enc": 0.0}, {"enc": -1}, {"encoder": 0.1}):
        with pytest.raises(SpecgenError, match="lr_scales"):
            training.parameter_groups(model, CONFIG, scales)


def test_lr_scales_belong_to_the_run_and_are_continued(tmp_path):
    whole = run(lr_scales={"0": 0.1, "4.weight": 3.0})
    with pytest.raises(MemoryError):
        run(tmp_path, at_call(30, lambda: exec("raise MemoryError")), lr_scales={"0": 0.1, "4.weight": 3.0})
    for other in (None, {"0": 0.2, "4.weight": 3.0}):
        with pytest.raises(SpecgenError, match="lr_scales"):
            run(tmp_path, lr_scales=other)
    assert_same(run(tmp_path, lr_scales={"0": 0.1, "4.weight": 3.0}), whole)


def test_moments_lie_in_memory_as_the_weights_do(tmp_path):
    "The fused kernels go through weights and moments at once; channels_last is another order in memory."
    def images():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1)).to(memory_format=torch.channels_last)

    def loss(model, batch, generator):
        return (model(batch[0]) - batch[0]).square().mean()

    data, results = (noise(40, 3, 6, 6),), []
    for folder in (tmp_path / "whole", tmp_path / "parts"):
        model, calls = images(), []
        for _ in range(2 if folder.name == "parts" else 1):
            def killed(model, batch, generator, calls=calls, limit=20 if folder.name == "parts" else 0):
                calls.append(1)
                if len(calls) == limit:
                    raise MemoryError
                return loss(model, batch, generator)

            try:
                train(model, data, killed, CONFIG, out=folder, progress=False)
            except MemoryError:
                model = images()
        results.append(model)
    assert all(a.equal(b) for a, b in zip(results[0].parameters(), results[1].parameters(), strict=True))


# --- two opponents


def test_opponents_move_as_with_an_optimizer_each():
    "Generator and discriminator of one number each against two AdamW's by hand."
    def number(value):
        layer = nn.Linear(1, 1, bias=False)
        layer.weight.data.fill_(value)
        return layer

    config = TrainConfig(steps=30, batch_size=10, lr=0.01, weight_decay=0.1, grad_clip=None, schedule="constant", precision="fp32")
    generator, discriminator, data = number(1.0), number(0.5), (torch.ones(10, 1),)

    def d_loss(d, real, made, batch):
        return d(made).mean() - d(real).mean() + d.weight.square().sum(), {"real": d(real).mean()}

    history = train_adversarial(
        generator, discriminator, data, lambda g, batch, rng: (batch[0], g(batch[0])), lambda d, real, made, batch: -d(made).mean(), d_loss, config,
        progress=False, lr_scales={"discriminator": 0.5},
    )
    g, d = (torch.tensor(v, requires_grad=True) for v in (1.0, 0.5))
    optimizers = [torch.optim.AdamW([t], lr=lr, betas=config.betas, weight_decay=0.1 / f, eps=1e-8 / f) for t, lr, f in ((g, 0.01, 1.0), (d, 0.005, 0.5))]
    for _ in range(30):
        gradients = -d.detach(), g.detach() - 1 + 2 * d.detach()
        for optimizer, t, gradient in zip(optimizers, (g, d), gradients, strict=True):
            t.grad = gradient
            optimizer.step()
    assert generator.weight.item() == pytest.approx(g.item(), rel=1e-5) and discriminator.weight.item() == pytest.approx(d.item(), rel=1e-5)
    assert history.rows[0].keys() >= {"generator", "discriminator", "real"}
    with pytest.raises(SpecgenError, match="grad_clip"):
        train_adversarial(generator, discriminator, data, None, None, None, replace(config, grad_clip=1.0))


# --- errors in one of two processes


TOGETHER = """
import sys, time, safetensors.torch, torch, test_training as t
from pathlib import Path
from specgen import training
from specgen.core import SpecgenError, main_process, process_state
torch.set_num_threads(1)
out, rank = Path(sys.argv[0]).parent, process_state().process_index
def attempt(name, action):
    try: action()
    except BaseException as error: print(f"<{name} {rank} {type(error).__name__}: {error}>", flush=True)
attempt("validate", lambda: t.run(out / "a", t.plain_loss, t.CONFIG, t.make_plain(), validate=lambda m: 1 / 0))
real = safetensors.torch.save_file
def full(*_): raise OSError("disk full")
safetensors.torch.save_file = full
attempt("save", lambda: t.run(out / "b", t.plain_loss, t.CONFIG, t.make_plain()))
safetensors.torch.save_file = real
attempt("small", lambda: t.run(None, t.plain_loss, t.replace(t.CONFIG, batch_size=1), t.make_plain()))
loader = t.DataLoader(t.TensorDataset(*t.DATA), batch_size=33)
attempt("loader", lambda: t.train(t.make_plain(), loader, t.plain_loss, t.replace(t.CONFIG, ema=None), progress=False))
def parts(model, batch, generator):
    loss = t.plain_loss(model, batch, generator)
    return loss, {"a": 1.0, "b": 2.0} if rank else {"b": 2.0, "a": 1.0, "mine": 7.0}
model, rows = t.run(out / "c", parts, t.CONFIG, t.make_plain())
print(f"<parts {rank} {rows[-1]['a']} {rows[-1]['b']} {rows[-1]['mine']}>", flush=True)
attempt("device", lambda: t.run(None, t.plain_loss, t.CONFIG, t.make_plain(), device="meta"))
attempt("nan", lambda: t.run(None, lambda m, b, g: t.plain_loss(m, b, g) * (torch.nan if rank else 1), t.CONFIG, t.make_plain()))
"""


def test_an_error_in_one_process_ends_the_others(tmp_path):
    (tmp_path / "script.py").write_text(TOGETHER)
    process = start(str(tmp_path / "script.py"), *LAUNCH, **NO_GPU)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    for line in (
        "<validate 0 ZeroDivisionError: division by zero>",
        "<validate 1 SpecgenError: the main process stopped: ZeroDivisionError: division by zero>",
        "<save 0 OSError: disk full>",
        "<save 1 SpecgenError: the main process stopped: OSError: disk full>",
        *(f"<small {k} SpecgenError: a batch of 1 examples for 2 processes: give each at least one, or start fewer processes>" for k in (0, 1)),
        *(f"<loader {k} SpecgenError: a batch of 1 examples for 2 processes: give each at least one, or start fewer processes>" for k in (0, 1)),
        *(f"<parts {k} 1.0 2.0 7.0>" for k in (0, 1)),
        *(f"<device {k} SpecgenError: device 'meta': the processes were started on 'cpu'; leave the device to them>" for k in (0, 1)),
        *(f"<nan {k} SpecgenError: loss is nan at step 1: lower the learning rate, or look for bad examples>" for k in (0, 1)),
    ):
        assert line in output, (line, output)


def test_an_error_in_the_loss_of_one_process_ends_the_launch(tmp_path):
    code = "import test_training as t\nfrom specgen.core import process_state\nrank = process_state().process_index\n"
    code += "t.run(None, t.at_call(5, lambda: 1 / 0) if rank == 0 else t.plain_loss, t.CONFIG, t.make_plain())"
    (tmp_path / "script.py").write_text(code)
    tick = time.perf_counter()
    process = start(str(tmp_path / "script.py"), *LAUNCH, **NO_GPU)
    output, _ = process.communicate(timeout=120)
    assert process.returncode and "ZeroDivisionError" in output and time.perf_counter() - tick < 90
