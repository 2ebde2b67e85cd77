"The explorer's panels, driven from Python: a knob is turned and the picture changes, a click brings sounds, mistakes are one line."
import html
import re
import warnings
from datetime import datetime
from pathlib import Path

import ipywidgets as widgets
import numpy as np
import pytest
import torch

from specgen import explorer
from specgen.audio import demo_voice, write_audio
from specgen.core import SpecgenError
from specgen.datasets import load_recordings
from specgen.explorer import all_inverses, check_size, draw_sound, explore_between, explore_models, explore_sound, keep_upload, reassigned_image
from specgen.explorer import representation_of, shipped_generator, shipped_generators, why_not_exact
from specgen.phase import spectral_convergence
from specgen.plot import figure_png

VOICE = demo_voice(16000)[:8000]


def line(panel) -> str:
    "The panel's line as it is read."
    return html.unescape(re.sub("<[^>]+>", "", panel.line.value))


def named(panel, kind: type) -> widgets.Widget:
    return next(w for w in panel.children[0].children if isinstance(w, kind))


def uploaded(name: str, content: bytes) -> tuple[dict]:
    return (dict(name=name, type="audio/wav", size=len(content), content=content, last_modified=datetime(2026, 1, 1)),)


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    "Words of two classes, half a second each."
    place = tmp_path_factory.mktemp("words")
    for label, shift in (("low", 0), ("high", 2000)):
        for k in range(2):
            write_audio(place / label / f"{k}.wav", VOICE.roll(shift + 500 * k), 16000)
    return load_recordings(place)


@pytest.fixture(scope="module")
def shared(words):
    "A panel that tests leave as it was."
    return explore_sound(words)


@pytest.fixture
def panel(words):
    return explore_sound(words)


def test_every_knob_of_the_sound_changes_the_picture(panel):
    for knob, value in {"n_fft": 256, "hop_length": 64, "window": "blackman", "n_mels": 40, "sound": "low: 0"}.items():
        before = panel.picture.value
        panel.controls[knob].value = value
        assert panel.picture.value != before and panel.picture.value.startswith('<img alt="Spectrogram') and "<audio" in panel.sounds.value, knob
        assert not line(panel), knob


def test_a_spoken_sentence_is_there_without_any_recordings():
    panel = explore_sound()
    before, panel.controls["sound"].value = panel.picture.value, "a sentence"
    assert panel.picture.value != before and "a sentence" in panel.sounds.value and not line(panel)


def test_a_click_brings_the_inverses(panel):
    panel.controls["sound"].value = "low: 0"
    before = panel.sounds.value
    named(panel, widgets.Button).click()
    assert panel.sounds.value.count("<audio") == 4 and before != panel.sounds.value
    assert line(panel) == "The exact inverse of the reassigned spectrogram takes long for frames of 512 samples, it is tried up to 128."
    panel.controls["hop_length"].value = 16
    assert panel.sounds.value.count("<audio") == 1, "inverses of other settings are gone"


def test_the_exact_inverse_is_exact():
    sound, r = VOICE[800:2400].clone(), representation_of(80, 20, "hamming")
    made, said = all_inverses(sound, r)
    error = {name: spectral_convergence(r.magnitude(sound), other, **r.stft_settings).item() for name, other in made.items()}
    assert not said and len(made) == 4 and list(error.values())[-1] < -100 < min(list(error.values())[:3])


def test_what_takes_long_is_not_tried():
    assert "80" not in why_not_exact(16_000, representation_of(80, 20, "hann"))
    assert [bool(why_not_exact(n, representation_of(*how, "hann"))) for n, how in ((16_000, (80, 20)), (16_000, (80, 32)), (16_000, (256, 64)),
                                                                                  (48_000, (80, 20)))] == [False, True, True, True]
    with pytest.raises(SpecgenError, match="numbers; choose a larger hop"):
        check_size(torch.zeros(64_000), representation_of(2048, 8, "hann"))


def test_impossible_sizes_are_one_line(panel):
    panel.controls["hop_length"].value = 512
    panel.controls["n_fft"].value = 64
    assert line(panel).startswith("hop 512: longer than a frame of 64 samples") and not panel.picture.value + panel.sounds.value
    named(panel, widgets.Button).click()
    assert line(panel).startswith("hop 512") and not panel.sounds.value
    panel.controls["hop_length"].value = 16
    assert panel.picture.value and not line(panel)


def test_a_warning_is_the_line(shared):
    shared.attempt(lambda: warnings.warn("two stretches\nbetween silences", stacklevel=1))
    assert line(shared) == "two stretches between silences" and shared.picture.value


def test_a_tone_stands_where_it_is():
    sound = 0.5 * torch.sin(2 * torch.pi * 3000 * torch.arange(8000) / 16000)
    for how in ((512, 128), (80, 20)):
        image, grid = reassigned_image(sound, representation_of(*how, "hann"))
        assert abs(grid.frequencies[image.amax(1).argmax()] - 3000) < 32
    assert figure_png(draw_sound(sound, representation_of(512, 128, "hann"))) != figure_png(draw_sound(VOICE, representation_of(512, 128, "hann")))


def test_an_upload_is_chosen_at_once(panel, tmp_path):
    content = write_audio(tmp_path / "mine.flac", VOICE, 22050).read_bytes()
    before, upload = panel.picture.value, named(panel, widgets.FileUpload)
    upload.value = uploaded("../my voice.flac", content)
    assert panel.controls["sound"].value.startswith("my_voice") and panel.picture.value != before and not line(panel)
    upload.value = uploaded("my voice.flac", content + b" ")
    assert len(list(Path(panel.folder.name).iterdir())) == 2 and panel.controls["sound"].value.endswith("-1.flac")


@pytest.mark.parametrize("name, content", [("notes.wav", b"hello"), ("empty.mp3", b""), ("half.wav", None), ("silent.wav", torch.zeros(8000)),
                                           ("no suffix", b"\0" * 99)],
                         ids=lambda x: x if isinstance(x, str) else "")
def test_a_bad_upload_is_one_line(shared, tmp_path, name, content):
    if not isinstance(content, bytes):
        path = write_audio(tmp_path / "sound.wav", VOICE if content is None else content, 16000)
        content = path.read_bytes()[: 8000 if content is None else None]
    before, chosen = shared.picture.value, shared.controls["sound"].value
    named(shared, widgets.FileUpload).value = uploaded(name, content)
    said = line(shared)
    assert said.startswith(f"{name}: ") and "\n" not in said and "Traceback" not in said and shared.folder.name not in said
    assert (shared.picture.value, shared.controls["sound"].value) == (before, chosen) and not list(Path(shared.folder.name).iterdir())


def test_uploads_stay_in_their_folder(tmp_path):
    content = write_audio(tmp_path / "sound.wav", VOICE, 16000).read_bytes()
    (place := tmp_path / "place").mkdir()
    for name in ("../../up.wav", "/etc/up.wav", "..", "a\\b.wav", "x" * 300 + ".wav", "up.exe"):
        assert keep_upload(uploaded(name, content)[0], place).parent == place


@pytest.mark.parametrize("name", [name for name in shipped_generators() if name.endswith("digits")])
def test_every_generator_answers_to_its_knobs(name):
    panel = explore_models({name: shipped_generator(name)})
    shown = {knob for knob, control in panel.controls.items() if control.layout.display != "none"} - {"model", "label", "seed"}
    assert shown == {"flow": {"guidance", "steps"}, "gan": {"truncation"}, "vae": {"temperature"}}[name.split("/")[1].split("-")[0]]
    assert len(panel.controls["label"].options) == 10 and not line(panel)
    for knob, value in {"label": 7, "seed": 3, **dict.fromkeys(shown, 0.5 if "steps" not in shown else 2)}.items():
        before = panel.picture.value, panel.sounds.value
        panel.controls[knob].value = value
        assert panel.picture.value != before[0] and panel.sounds.value != before[1] and not line(panel), knob


def test_another_generator_brings_its_own_classes_and_knobs():
    panel = explore_models()
    panel.controls["label"].value = 7
    panel.controls["model"].value = "specgen/gan-digits"
    assert panel.controls["label"].value == 7 and panel.controls["truncation"].layout.display != "none" == panel.controls["steps"].layout.display
    panel.controls["model"].value = "specgen/gan-esc10"
    assert panel.controls["label"].label == "chainsaw" and "chainsaw" in panel.picture.value and not line(panel)


@pytest.mark.parametrize("model", ["specgen/vae-digits", "specgen/flow-digits"])
def test_between_goes_from_one_to_the_other(words, model):
    panel = explore_between(words)
    panel.controls["model"].value = model
    assert not line(panel)
    pictures = set()
    for share in (0.0, 0.5, 1.0):
        panel.controls["share"].value = share
        pictures.add(panel.picture.value)
    assert len(pictures) == 3 and panel.sounds.value.count("<audio") == 3


def test_a_recording_too_long_for_the_model_is_one_line(words, tmp_path):
    panel = explore_between(words)
    named(panel, widgets.FileUpload).value = uploaded("long.wav", write_audio(tmp_path / "long.wav", demo_voice(16000).repeat(2), 16000).read_bytes())
    assert panel.controls["start"].value == "long.wav" and line(panel).startswith("long.wav: ") and not panel.picture.value
    panel.controls["model"].value = "specgen/flow-digits"
    assert panel.picture.value and not line(panel)


def test_an_error_of_ours_is_one_line_too(panel):
    panel.attempt(lambda: 1 / 0, panel.picture)
    assert line(panel) == "ZeroDivisionError: division by zero" and not panel.picture.value


def test_what_is_recorded_is_chosen_at_once():
    pytest.importorskip("anywidget")
    panel = explore_sound()
    recorder = next(w for w in panel.children[0].children if hasattr(w, "samples"))
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(48_000) / 48_000)
    recorder.set_state({"samples": memoryview(tone.astype("<f4").tobytes()), "sample_rate": 48_000})  # as a browser's message does
    assert panel.controls["sound"].value == "recording.wav" and "recording.wav" in panel.picture.value and "<audio" in panel.sounds.value
    recorder.problem = "no recording: Permission denied"
    assert panel.said == "no recording: Permission denied"


def test_without_the_package_there_is_no_recorder(monkeypatch):
    monkeypatch.setattr(explorer, "find_spec", lambda name: None)
    assert not any(hasattr(w, "samples") for w in explore_sound().children[0].children)
