"The base of all models: presets, saving and loading, names from configs, devices, and recordings in and model out."

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fastcore.basics import patch
from huggingface_hub.errors import LocalEntryNotFoundError
from made_up import noise
from safetensors.torch import save_file
from torch import nn

from specgen import models
from specgen.audio import write_audio
from specgen.core import SpecgenError, read_json
from specgen.augmentation import check_seed, item_noise
from specgen.augmentation import randn
from specgen.models import Model, Preset, autocast_dtype, check_labels, fit_recordings, save_samples, zero_init
from specgen.saved import shipped_models
from specgen.spectrogram import LogSTFT
from specgen.spectrogram_dataset import encode_recordings


class Tiny(Model):
    "A model of one linear layer that has everything that can be asked for."

    family, least_classes = "tiny", 2
    presets = {"quick": Preset(dataset=dict(n_frames=8)), "words/small": Preset(dataset=dict(n_frames=12)), "sounds/small": Preset(dataset=dict(n_frames=16))}

    def __init__(self, width: int = 3, classes: list[str] | None = None):
        super().__init__()
        self.classes, self.layer, self.norm, self.dropout = classes, nn.Linear(width, width), nn.BatchNorm1d(width), nn.Dropout(0.5)

    def predict(self, x):
        return self.in_batches(lambda part: self.norm(self.dropout(self.layer(part))), x, size=4)


FITS = []  # what happened, for the tests of `fit_recordings`


@patch(cls_method=True)
def prepare(cls: Tiny, recordings, *, preset="small", by="official", test=None, progress=False, shrink=1.0):
    r = LogSTFT(sample_rate=8000, n_fft=64, hop_length=64)
    FITS.append(("prepare", preset))
    return encode_recordings(recordings, r, cls.preset(preset).dataset["n_frames"], by=by, test=test)


@patch(cls_method=True)
def fit(cls: Tiny, dataset, *, preset="small", out=None, seed=0, device=None, precision="auto", progress=True, fail=False):
    FITS.append(("fit", preset))
    out.mkdir(parents=True, exist_ok=True)
    (out / "checkpoint").write_text("half")
    if fail and FITS.count(("fit", preset)) == 1:
        raise MemoryError
    model = cls(2, dataset.classes)
    model.layer.bias.data[:] = dataset.train.spectrograms.mean()
    return model.to(device).eval()


@patch
def evaluate(self: Tiny, dataset):
    return {"clips": len(dataset.test)}


@pytest.fixture
def saved(tmp_path):
    model = Tiny(5, ["low", "high"])
    model.save_pretrained(tmp_path / "saved")
    return model, tmp_path / "saved"


# presets


def test_presets_by_name_and_domain():
    assert Tiny.preset("small", "words").dataset == {"n_frames": 12} and Tiny.preset("sounds/small").dataset == {"n_frames": 16}
    assert Tiny.preset_name("quick", "words") == "quick" and Tiny.preset_name("small", "sounds") == "sounds/small"
    mine = Preset(training=dict(steps=3)).changed(training={"lr": 0.1}, model={"width": 2})
    assert Tiny.preset(mine, "words") is mine and mine.training == {"steps": 3, "lr": 0.1} and mine.model == {"width": 2}
    every = "quick, words/small, sounds/small"
    for name, domain, choices in (("huge", "words", "small, quick"), ("small", None, every), ("sounds/tiny", "words", "small, quick")):
        with pytest.raises(SpecgenError, match=f"preset '{name}': unknown") as error:
            Tiny.preset(name, domain)
        assert set(str(error.value).partition("one of ")[2].split(", ")) == set(choices.split(", "))


# what is asked of a model


@pytest.mark.parametrize("training", [True, False])
def test_asking_leaves_mode_gradients_and_random_state(training):
    model, x = Tiny().train(training), noise(10, 3)
    model.dropout.eval()
    state, statistics = torch.get_rng_state(), model.norm.running_mean.clone()
    y = model.predict(x)
    assert not y.requires_grad and model.training is training and model.norm.training is training and not model.dropout.training
    assert torch.get_rng_state().equal(state) and model.norm.running_mean.equal(statistics)
    torch.testing.assert_close(y, model.eval().norm(model.layer(x)).detach())
    with pytest.raises(RuntimeError):
        model.train(training).predict(noise(10, 4))
    assert model.norm.training is training


def test_what_is_asked_may_be_empty_half_or_double():
    model = Tiny()
    assert model.predict(noise(0, 3)).shape == (0, 3)
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        torch.testing.assert_close(model.predict(noise(6, 3).to(dtype)), model.predict(noise(6, 3).to(dtype).float()))
    assert torch.ones(3).mul(nn.Parameter(torch.ones(3))).mul(model.predict(noise(1, 3))[0]).sum().requires_grad  # no inference tensor


def test_answers_are_where_the_question_was():
    "The meta device takes part in nothing that lies on the CPU."
    model = Tiny().to("meta")
    seen = []
    result = model.in_batches(lambda a, b: seen.append((a.device.type, b.device.type)) or model.layer(a) * b, torch.empty(3, 3, device="meta"), noise(3, 1))
    assert seen == [("meta", "meta")] and result.device.type == "meta" and model.device.type == "meta"


def test_noise_is_the_same_on_any_device():
    one, two = (randn((4, 2), torch.Generator().manual_seed(3), device) for device in ("cpu", torch.device("cpu")))
    assert one.equal(two) and randn((4,), torch.Generator().manual_seed(5), "meta").device.type == "meta"


def test_every_item_has_its_own_noise():
    few, many = (item_noise((n, 5), None, 7, "cpu") for n in (3, 40))
    assert few.equal(many[:3]) and len(many.unique(dim=0)) == 40 and abs(many.mean()) < 0.3 and abs(many.std() - 1) < 0.2
    assert not few.equal(item_noise((3, 5), None, 8, "cpu")) and item_noise((2, 3), None, 0, "meta").device.type == "meta"
    one, two = (item_noise((n, 5), torch.Generator().manual_seed(3), None, "cpu") for n in (2, 4))
    assert one.equal(two[:2])  # of a generator too
    again = torch.Generator().manual_seed(3)
    assert item_noise((2, 5), again, None, "cpu").equal(one) and not item_noise((2, 5), again, None, "cpu").equal(one)
    assert not item_noise((9,), None, None, "cpu").equal(item_noise((9,), None, None, "cpu"))
    with pytest.raises(SpecgenError, match="generator and seed: give one"):
        item_noise((1,), torch.Generator(), 0, "cpu")


@pytest.mark.parametrize("seed", [-1, 2**63, 2**70, 0.5, True, "0"])
def test_seeds_that_are_none(seed):
    with pytest.raises(SpecgenError, match="seed .*give a whole number from 0"):
        check_seed(seed)


def test_labels():
    assert check_labels(7, 3).tolist() == [0, 1, 2, 0, 1, 2, 0] and check_labels((2, 0), 3).tolist() == [2, 0]
    assert check_labels(torch.tensor([1], dtype=torch.uint8), 2).dtype == torch.int64
    for wrong in (0, -1, [], [[1]], [0.0], [True], True, [3], [-1], "dog", ["dog"], None, [None]):
        with pytest.raises(SpecgenError, match="label"):
            check_labels(wrong, 3)


def test_zero_init_adds_nothing():
    for layer in (nn.Linear(3, 3), nn.Conv1d(3, 3, 1, bias=False)):
        assert not zero_init(layer)(noise(2, 3, *([] if isinstance(layer, nn.Linear) else [4]))).any()


# saved and found again


def test_saved_and_loaded(saved):
    model, folder = saved
    before = torch.get_rng_state()
    again = Tiny.from_pretrained(folder, device="cpu")
    assert torch.get_rng_state().equal(before)
    assert again.layer.weight.equal(model.layer.weight) and again.classes == ["low", "high"] and not again.training
    assert sorted(p.name for p in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    (folder / "README.md").write_text("mine")
    (folder / "other.csv").write_text("kept")
    again.layer.weight.data.zero_()
    again.save_pretrained(folder)
    assert not Tiny.from_pretrained(str(folder)).layer.weight.any()
    assert (folder / "README.md").read_text() == "mine" and (folder / "other.csv").exists() and len(list(folder.iterdir())) == 4
    with pytest.raises(SpecgenError, match="device 'cuda:77'"):
        Tiny.from_pretrained(folder, device="cuda:77")


KILLED = """
import os, sys, test_models as t
real, calls = os.replace, []
def replace(a, b):
    calls.append(1)
    if len(calls) == int(sys.argv[2]): os.kill(os.getpid(), 9)
    real(a, b)
os.replace = replace
model = t.Tiny(5, ["new"])
model.save_pretrained(sys.argv[1])
"""


@pytest.mark.parametrize("call", [1, 2])
def test_a_kill_while_saving_leaves_no_mixture(saved, call):
    model, folder = saved
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)}
    assert subprocess.run([sys.executable, "-c", KILLED, folder, str(call)], env=environment).returncode == -signal.SIGKILL
    with pytest.raises(SpecgenError, match="holds no saved model"):
        Tiny.from_pretrained(folder)


def test_a_failure_while_saving_leaves_nothing_half(saved, monkeypatch):
    model, folder = saved
    monkeypatch.setattr(Tiny, "_save_pretrained", lambda self, place: (_ for _ in ()).throw(OSError("disk full")))
    for place in (folder, folder / "new"):
        with pytest.raises(OSError, match="disk full"):
            Tiny(5).save_pretrained(place)
    assert Tiny.from_pretrained(folder).classes == ["low", "high"] and list((folder / "new").iterdir()) == []


def test_a_folder_is_never_hidden_by_a_shipped_name(saved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = next(iter(shipped_models()))
    shutil.copytree(saved[1], tmp_path / name)
    assert Tiny.from_pretrained(name).classes == ["low", "high"]
    (tmp_path / name / "model.safetensors").unlink()
    with pytest.raises(SpecgenError, match=f"{name}: holds no saved model"):
        Tiny.from_pretrained(name)


class Other(Model):
    def __init__(self, depth: int):
        super().__init__()
        self.layers = nn.Linear(depth, depth)


class Same(Model):
    def __init__(self, width: int = 3):
        super().__init__()
        self.weights = nn.Linear(width, width)


DAMAGES = {
    "config.json": [b"", b"{", b"[]", b"7", b"null", b"\xff\xfe", *(b'{"width": %b}' % width for width in (b'"wide"', b"-1", b"4", b"1e999", b"null"))],
    "model.safetensors": [b"", b"half", b"\xff" * 50, b"\x80\x04pickle"],
}


@pytest.mark.parametrize("name, content", [(name, content) for name, contents in DAMAGES.items() for content in contents])
def test_damaged_models(saved, name, content):
    (saved[1] / name).write_bytes(content)
    with pytest.raises(SpecgenError, match="saved: (holds another model than a Tiny, or a damaged one|config.json: |model.safetensors: )") as error:
        Tiny.from_pretrained(saved[1])
    assert "\n" not in str(error.value)


def test_other_kinds_of_models(saved):
    for kind in (Other, Same):
        with pytest.raises(SpecgenError, match=f"holds another model than a {kind.__name__}"):
            kind.from_pretrained(saved[1])
    save_file({"layer.weight": torch.zeros(5, 5)}, saved[1] / "model.safetensors")
    with pytest.raises(SpecgenError, match="another model"):
        Tiny.from_pretrained(saved[1])


@pytest.mark.parametrize("classes", ["dog", {"a": 1}, [1, 2], [["a"]], ["a", None], 3, True])
def test_classes_of_a_config_are_names(saved, classes):
    config = read_json(saved[1] / "config.json")
    (saved[1] / "config.json").write_text(json.dumps({**config, "classes": classes}))
    with pytest.raises(SpecgenError, match="classes .* has to be a list"):
        Tiny.from_pretrained(saved[1])


def test_nothing_is_unpickled(saved):
    folder = saved[1]
    (folder / "model.safetensors").unlink()
    torch.save(saved[0].state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(SpecgenError, match="holds no saved model"):
        Tiny.from_pretrained(folder)


@pytest.mark.parametrize("source", ["runs/digits", Path("elsewhere/model")])
def test_a_folder_that_is_not_there_is_not_asked_of_the_hub(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.hub_mixin.hf_hub_download", lambda **_: pytest.fail("asked the hub"))
    with pytest.raises(SpecgenError, match=f"{source}: no such folder; train a model there first"):
        Tiny.from_pretrained(source)


def test_the_hub_gets_its_own_arguments_and_its_errors_are_one_line(saved, monkeypatch, tmp_path):
    def fetched(repo_id, filename, **settings):
        calls.append((repo_id, filename, settings))
        return str(saved[1] / filename)

    def nothing(*_, **__):
        raise LocalEntryNotFoundError("no network\nand more lines")

    calls, mixin = [], sys.modules["huggingface_hub.hub_mixin"]
    asked = dict(revision="v2", token="t", cache_dir=str(tmp_path), local_files_only=True, force_download=True)
    for module in (models, mixin):
        monkeypatch.setattr(module, "hf_hub_download", lambda repo_id, filename, **kwargs: fetched(repo_id, filename, **kwargs))
    assert Tiny.from_pretrained("owner/name", **asked).classes == ["low", "high"]
    assert [(r, f) for r, f, _ in calls] == [("owner/name", "config.json"), ("owner/name", "model.safetensors")]
    assert all(settings == asked for _, _, settings in calls)
    for module in (models, mixin):
        monkeypatch.setattr(module, "hf_hub_download", nothing)
    for source in ("owner/name", "specgen/gan-nothing", str(tmp_path / "nowhere")):
        with pytest.raises(SpecgenError, match="neither a folder, nor one of .*specgen/.*, nor a model that the Hub gives") as error:
            Tiny.from_pretrained(source)
        assert str(source) in str(error.value) and "\n" not in str(error.value)


# sounds into files


@pytest.mark.filterwarnings("ignore:Glyph")
def test_names_never_lead_out_of_the_folder(tmp_path):
    names = ["../../x", "/etc/passwd", "x" * 300, "犬" * 300, "$a_b$", "%d", "", "..", "a\0b", "a\nb", "dog", "dog", "\udcff"]
    sounds = 0.1 * noise(len(names), 400)
    specs = noise(len(names), 8, 5)
    paths = save_samples(tmp_path / "deep" / "out", names, sounds, 8000, spectrograms=specs, joined=True)
    assert len(set(paths)) == len(names) + 2 and all(p.is_file() and p.resolve().parent == (tmp_path / "deep" / "out").resolve() for p in paths)
    assert [p.name for p in paths[-2:]] == ["joined.wav", "spectrograms.png"] and paths[10].name == "dog_010.wav"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["deep"] and set((tmp_path / "deep" / "out").iterdir()) == set(paths)


def test_samples_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    for out, names, sounds in ((tmp_path / "a", ["x"], noise(2, 9)), (tmp_path / "a", [], []), (tmp_path / "file", ["x"], noise(1, 9))):
        with pytest.raises(SpecgenError, match="sounds with|is a file"):
            save_samples(out, names, sounds, 8000)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


# precision


def test_precision_follows_the_word_the_launcher_and_the_hardware(monkeypatch):
    cpu, asked = torch.device("cpu"), type("Accelerator", (), {"mixed_precision": "fp16"})()
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    for native, expected in ((True, torch.bfloat16), (False, None)):
        monkeypatch.setattr(models, "native_bf16", lambda device, native=native: native)
        assert autocast_dtype("auto", cpu) == expected
    assert autocast_dtype("auto", cpu, asked) == torch.float16 and autocast_dtype("fp32", cpu, asked) is None
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert autocast_dtype("auto", cpu) == torch.bfloat16 and autocast_dtype("fp32", cpu) is None
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp8")
    for precision, reason in (("auto", "mixed precision 'fp8'"), ("int8", "precision 'int8': unknown")):
        with pytest.raises(SpecgenError, match=reason):
            autocast_dtype(precision, cpu)


# recordings in, model out


def record(place, scale=1.0, classes=("hiss", "hum"), n=6):
    for k, name in enumerate(classes):
        for i in range(n):
            write_audio(place / name / f"{i}.wav", scale * 0.1 * noise(800, seed=10 * k + i), 8000)
    return place


def fitted(source, out, **change):
    FITS.clear()
    return fit_recordings(Tiny, source, **{**dict(out=out, by="stratified", preset="quick", progress=False), **change})


def test_recordings_in_model_out_and_found_again(tmp_path):
    source = record(tmp_path / "sounds")
    (source / "hum" / "bad.wav").write_bytes(b"noise")
    model = fitted(source, tmp_path / "run")
    assert FITS == [("prepare", "quick"), ("fit", "quick")] and model.classes == ["hiss", "hum"] and not model.training
    assert "bad.wav" in (tmp_path / "run" / "skipped.csv").read_text() and read_json(tmp_path / "run" / "scores.json")["clips"] > 0
    again = fitted(source, tmp_path / "run")
    saved = Tiny.from_pretrained(tmp_path / "run", device=model.device)
    assert FITS == [] and again.layer.bias.equal(model.layer.bias) and saved.layer.bias.equal(model.layer.bias)


def test_a_stopped_fit_continues(tmp_path):
    source = record(tmp_path / "sounds")
    with pytest.raises(MemoryError):
        fitted(source, tmp_path / "run", fail=True)
    assert (tmp_path / "run" / "training" / "checkpoint").exists() and not (tmp_path / "run" / "config.json").exists()
    with pytest.raises(SpecgenError, match="fail True, not None"):
        fitted(source, tmp_path / "run")
    FITS.append(("fit", "quick"))
    fit_recordings(Tiny, source, out=tmp_path / "run", by="stratified", preset="quick", progress=False, fail=True)
    assert (tmp_path / "run" / "finished.json").exists()


CHANGES = [
    (dict(seed=1), "seed 0, not 1"),
    (dict(preset="small"), "preset.dataset.n_frames 8, not 12"),
    (dict(precision="fp32"), "precision auto, not fp32"),
    (dict(by="official"), "by stratified, not official"),
    (dict(shrink=2.0), "shrink None, not 2.0"),
]


@pytest.mark.parametrize("change, words", CHANGES)
def test_a_changed_setting_is_never_an_old_answer(tmp_path, change, words):
    source = record(tmp_path / "sounds")
    fitted(source, tmp_path / "run")
    with pytest.raises(SpecgenError, match=words):
        fitted(source, tmp_path / "run", **change)


def test_new_recordings_under_old_names_and_another_root_are_never_an_old_answer(tmp_path):
    for scale in (1.0, 0.5):
        record(tmp_path / "one", scale)
        if scale == 1.0:
            fitted(tmp_path / "one", tmp_path / "run")
            record(tmp_path / "two", 1.0)
            assert fitted(tmp_path / "two", tmp_path / "run").classes == ["hiss", "hum"] and FITS == []  # the same contents elsewhere
    record(tmp_path / "two", 0.7)
    for source in ("one", "two"):
        with pytest.raises(SpecgenError, match="other recordings"):
            fitted(tmp_path / source, tmp_path / "run")


def test_another_version_of_the_code_is_never_an_old_answer(tmp_path, monkeypatch):
    source = record(tmp_path / "sounds")
    fitted(source, tmp_path / "run")
    monkeypatch.setattr(Tiny, "predict", lambda self, x: x)
    with pytest.raises(SpecgenError, match="another version of the code"):
        fitted(source, tmp_path / "run")


MISTAKES = [
    (dict(preset="huge"), "preset 'huge'"),
    (dict(precision="int8"), "precision 'int8'"),
    (dict(device="cuda:9"), "device 'cuda:9'"),
    (dict(seed=-1), "seed -1"),
    (dict(by="moon"), "by 'moon'"),
    (dict(by="stratified", test="nobody"), "nobody"),
    (dict(depth=3), "option depth: Tiny doesn't know it; it knows fail, shrink"),
]


@pytest.mark.parametrize("change, words", MISTAKES)
def test_mistakes_are_said_before_the_folder_is_claimed(tmp_path, change, words):
    source = record(tmp_path / "sounds", n=3)
    with pytest.raises(SpecgenError, match=words):
        fitted(source, tmp_path / "run", **change)
    assert FITS == [] and not (tmp_path / "run").exists()


def test_one_class_is_too_few_for_some_models(tmp_path):
    source = record(tmp_path / "sounds", classes=("hum",))
    with pytest.raises(SpecgenError, match="has 1 classes: Tiny needs at least 2"):
        fitted(source, tmp_path / "run")
    assert not (tmp_path / "run").exists()


# cards


def test_a_fitted_model_says_what_is_known_of_it(tmp_path, sounds):
    from specgen.gan import GAN

    fitted = fit_recordings(GAN, sounds, out=tmp_path / "mine", preset="quick", progress=False)
    text = (tmp_path / "mine" / "README.md").read_text()
    wanted = ["license: unknown", "# mine", "from specgen.gan import GAN",
              "- **Classes**: hiss, hum", "LogMel", "preset words/quick", "seed 0", "dataset folder",
              "recordings 24", "look it up"]
    assert not [part for part in wanted if part not in text], text
    assert "{" not in text and "More Information Needed" not in text
    again = GAN.from_pretrained(tmp_path / "mine")
    again.save_pretrained(tmp_path / "copy")
    assert (tmp_path / "copy" / "README.md").read_text().strip() == text.strip()
    fitted.save_pretrained(tmp_path / "untold")
    assert "not told" in (tmp_path / "untold" / "README.md").read_text()


def test_a_shipped_card_goes_with_its_weights(tmp_path):
    from specgen.gan import GAN

    GAN.from_pretrained("specgen/gan-digits").save_pretrained(tmp_path / "mine")
    assert "license: cc-by-sa-4.0" in (tmp_path / "mine" / "README.md").read_text()


def test_names_of_classes_stay_in_their_line_of_a_card():
    from specgen.saved import model_card

    model = torch.nn.Linear(1, 1)
    type(model).family = "lines"
    model._hub_mixin_config = {"classes": ["a\n---\nlicense: mit", "b"], "x": "``` \n# big"}
    text = model_card(model, "n", {"dataset": "esc10"})
    del type(model).family
    assert text.count("\nlicense:") == 1 and "license: cc-by-3.0" in text and "\n# big" not in text
