"Files: every kind of broken one has its reason, what is read is what was written; levels, silence, rates; torchaudio's import in every layout."
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from pretend import DEVICE, pretend_device

from specgen import audio
from specgen.audio import check_audio, demo_voice, import_torchaudio, peak_normalize, read_audio, resample, trim_silence, write_audio
from specgen.core import SpecgenError

NOISE = np.random.default_rng(0).normal(0, 0.1, 8000)


def sound(path, samples=NOISE, rate=16000, **settings):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, **settings)
    return path


def cut(path, share):
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * share)])
    return path


def patched(path, at, data):
    raw = bytearray(path.read_bytes())
    raw[at : at + len(data)] = data
    path.write_bytes(bytes(raw))
    return path


# ---- is this file whole?

BAD = {
    "text": (lambda p: p.write_text("not a sound at all, but longer than a header of a wav file is"), "cannot be read as sound (Format not recognised)"),
    "empty": (lambda p: p.touch(), "empty file"),
    "header alone": (lambda p: sound(p, NOISE[:0]), "holds no samples"),
    "one sample": (lambda p: sound(p, NOISE[:1]), "too short: 1 sample, less than 10 ms"),
    "silent": (lambda p: sound(p, np.zeros(8000)), "silent"),
    "constant": (lambda p: sound(p, np.full(8000, 0.5)), "silent"),
    "silent 24 bit": (lambda p: sound(p, np.zeros(8000), subtype="PCM_24"), "silent"),
    "not numbers": (lambda p: sound(p, np.full(8000, np.nan), subtype="FLOAT"), "holds samples that are not numbers"),
    "truncated": (lambda p: cut(sound(p), 0.6), "truncated: the header promises 16000 bytes of samples, 9582 are there"),
    "truncated by a byte": (lambda p: p.write_bytes(sound(p).read_bytes()[:-1]), "truncated: the header promises 16000 bytes of samples, 15999 are there"),
    "truncated stereo float": (lambda p: cut(sound(p, np.stack([NOISE, NOISE], 1), subtype="FLOAT"), 0.9),
                               "truncated: the header promises 64000 bytes of samples, 57591 are there"),
    "cut in the header": (lambda p: p.write_bytes(sound(p).read_bytes()[:20]), "broken wav header: no format chunk"),
    "no channels": (lambda p: patched(sound(p), 22, b"\0\0"), "broken wav header: 0 channels at 16000 Hz"),
    "random bytes": (lambda p: p.write_bytes(bytes(np.random.default_rng(1).integers(0, 256, 5000, dtype=np.uint8))),
                     "cannot be read as sound (Format not recognised)"),
    "random after RIFF": (lambda p: p.write_bytes(b"RIFF\xff\xff\xff\xffWAVEfmt \x10" + bytes(range(200))), "cannot be read as sound (Error in WAV"),
    "broken link": (lambda p: p.symlink_to(p.with_name("nowhere")), "cannot be opened (No such file or directory)"),
    "a folder": (lambda p: p.mkdir(), "cannot be opened (Is a directory)"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_wav_has_its_reason(tmp_path, kind):
    make, reason = BAD[kind]
    make(tmp_path / "x.wav")
    assert check_audio(tmp_path / "x.wav").startswith(reason)
    with pytest.raises(SpecgenError, match=r"x\.wav: ") as error:
        read_audio(tmp_path / "x.wav", check=True)
    assert "\n" not in str(error.value) and (reason in str(error.value) or "no such file" in str(error.value))


@pytest.mark.parametrize("suffix", ["flac", "ogg", "opus"])
def test_truncated_codes(tmp_path, suffix):
    settings = {"format": "OGG", "subtype": "OPUS"} if suffix == "opus" else {}
    path = sound(tmp_path / f"x.{suffix}", **settings)
    assert check_audio(path) == (0.5, 16000) or suffix == "opus"
    for share in (0.99, 0.5, 0.1):
        answer = check_audio(cut(path, share))
        assert isinstance(answer, str) and answer.split(":")[0].split(" (")[0] in ("truncated", "cannot be read as sound")


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "MS_ADPCM"])
@pytest.mark.parametrize("channels", [1, 2])
def test_every_wav_is_measured(tmp_path, subtype, channels):
    path = sound(tmp_path / "x.WAV", np.stack([NOISE] * channels, 1), 44100, subtype=subtype)
    seconds, rate = check_audio(path)
    assert rate == 44100 and abs(seconds - soundfile.info(path).duration) < 1e-9


def test_extensible_and_streamed_wav(tmp_path):
    assert check_audio(sound(tmp_path / "x.wav", format="WAVEX")) == (0.5, 16000)
    streamed = patched(sound(tmp_path / "y.wav"), 40, struct.pack("<I", 0xFFFFFFFF))
    assert check_audio(str(streamed)) == (0.5, 16000)
    (tmp_path / "z.wav").write_bytes(sound(tmp_path / "z.wav").read_bytes() + b"LIST\x04\0\0\0abcd")
    assert check_audio(tmp_path / "z.wav") == (0.5, 16000)


def test_large_wav_is_measured_in_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(audio, "LARGE", 100)
    assert check_audio(sound(tmp_path / "x.wav")) == (0.5, 16000)


# ---- reading and writing

def test_what_is_written_is_read(tmp_path):
    x = 0.5 * torch.sin(torch.arange(8000) / 9)
    for given in (x, x.double(), x.clone().requires_grad_(), x.numpy()):
        back, rate = read_audio(write_audio(tmp_path / "deep/x.flac", given, 8000), check=True)
        assert rate == 8000 and back.dtype == torch.float32 and (back - x).abs().max() < 2**-15
    sound(tmp_path / "two.wav", np.stack([x, torch.zeros(8000)], 1), 8000)
    assert (read_audio(tmp_path / "two.wav")[0] - x / 2).abs().max() < 2**-15
    with pytest.warns(UserWarning, match="turned down"):
        loud = read_audio(write_audio(tmp_path / "x.wav", 4 * x, 8000))[0]
    assert (loud - x / x.abs().max()).abs().max() < 2**-14
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["two.wav", "x.flac", "x.wav"]


@pytest.mark.parametrize("name,content,reason", [
    ("nowhere.wav", None, "no such file"),
    ("x.wav", b"text", "cannot be read as sound"), ("x.raw", b"text", "it has no header"), ("x.txt", b"text", "cannot be"),
])
def test_what_cannot_be_read_says_why(tmp_path, name, content, reason):
    if content:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SpecgenError, match=f"{name}: .*{reason}"):
        read_audio(tmp_path / name)
    assert isinstance(check_audio(tmp_path / name), str)


@pytest.mark.parametrize("name,waveform,rate,reason", [
    ("x.wav", torch.zeros(2, 9), 8000, r"not \(2, 9\)"), ("x.wav", torch.zeros(0), 8000, "finite"), ("x.wav", torch.tensor([torch.nan]), 8000, "finite"),
    ("x.raw", torch.zeros(9), 8000, "unknown sound format '.raw'"), ("x", torch.zeros(9), 8000, "unknown sound format ''"),
    ("x.mp3", torch.zeros(9), 1000, "at 1000 Hz"),
])
def test_what_cannot_be_written_says_why(tmp_path, name, waveform, rate, reason):
    with pytest.raises(SpecgenError, match=reason):
        write_audio(tmp_path / name, waveform, rate)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name == "nt", reason="names are Unicode there")
def test_names_that_are_no_utf8(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav"))
    write_audio(path, torch.from_numpy(NOISE), 16000)
    assert check_audio(path) == (0.5, 16000) and read_audio(path, 8000, check=True)[0].shape == (4000,)
    path.write_text("text")
    with pytest.raises(SpecgenError, match="caf.*cannot be read") as error:
        read_audio(path)
    str(error.value).encode()


# ---- rates, levels, silence

@pytest.mark.parametrize("orig,new", [(44100, 8000), (8000, 44100), (22050, 16000), (48000, 8000)])
def test_resampling_makes_a_tone_of_the_same_pitch(orig, new):
    x, wanted = (0.5 * torch.sin(2 * torch.pi * 1000 * torch.arange(rate).double() / rate) for rate in (orig, new))
    for given in (x, x.float().requires_grad_(), x.repeat(2, 3, 1)):
        y = resample(given, orig, new)
        assert y.dtype == given.dtype and y.shape == (*given.shape[:-1], new) and not y.requires_grad
        assert (y - wanted)[..., 500:-500].abs().max() < 1e-4
    assert (resample(x.half(), orig, new) - wanted)[500:-500].abs().max() < 1e-3


def test_resampling_at_the_edges():
    assert resample(torch.ones(1), 44100, 8000).shape == (1,)  # one sample stays one
    assert resample(torch.ones(5, 2), 48000, 8000).shape == (5, 1)
    assert resample(torch.zeros(0, 800), 8000, 16000).shape[0] == resample(torch.zeros(3, 0), 8000, 16000).shape[1] == 0
    rows = torch.from_numpy(np.random.default_rng(0).normal(size=(1500, 80)))
    assert torch.equal(resample(rows, 8000, 4000)[1200], resample(rows[1200], 8000, 4000))
    with pytest.raises(SpecgenError, match="resampling from 0: has to lie between 1000 and 768000 Hz"):
        resample(torch.ones(9), 0, 8000)
    with pytest.raises(SpecgenError, match="int16.*floating-point"):
        resample(torch.ones(9, dtype=torch.int16), 8000, 4000)


def test_a_short_file_can_be_resampled(tmp_path):
    sound(tmp_path / "x.wav", NOISE[:1], 44100)
    assert read_audio(tmp_path / "x.wav", 8000)[0].shape == (1,)


def test_sound_stays_on_its_device(tmp_path):
    x = torch.sin(torch.arange(4000) / 5)
    with pretend_device():
        far = x.to(DEVICE)
        assert resample(far, 8000, 4000).device == trim_silence(far, 8000).device == peak_normalize(far).device == DEVICE
        assert (read_audio(write_audio(tmp_path / "x.flac", far, 8000))[0] - x).abs().max() < 2**-15


def test_peak_normalize():
    x = torch.tensor([[0.1, -0.2, 0.05], [0.0, 0.0, 0.0], [4.0, 0.0, -2.0]])
    assert torch.equal(peak_normalize(x), torch.tensor([[0.5, -1.0, 0.25], [0.0, 0.0, 0.0], [1.0, 0.0, -0.5]]))
    assert peak_normalize(torch.zeros(2, 0)).shape == (2, 0) and peak_normalize(torch.zeros(0, 9)).shape == (0, 9)
    assert torch.equal(peak_normalize(torch.zeros(4, dtype=torch.float16)), torch.zeros(4))


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
@pytest.mark.parametrize("offset", [0.0, 0.3])
def test_trim_silence_finds_the_sound(rate, offset):
    before, tone, after = int(0.3 * rate), int(0.5 * rate), int(0.2 * rate)
    x = torch.full((before + tone + after,), offset)
    x[before : before + tone] += 0.1 * torch.sin(2 * torch.pi * 440 * torch.arange(tone) / rate)
    short = trim_silence(x, rate)
    at, half_frame, hop = short.storage_offset(), rate // 80, rate // 200
    assert 0 <= before - at <= half_frame and 0 <= at + len(short) - before - tone <= half_frame + hop
    assert torch.equal(short, x[at : at + len(short)])
    assert len(trim_silence(x[:before], rate)) == len(trim_silence(x[:0], rate)) == len(trim_silence(torch.ones(1), rate)) == 0
    x[: before // 2] += 1e-4 * torch.sin(torch.arange(before // 2))  # 60 dB below
    assert len(trim_silence(x, rate)) == len(short) and len(trim_silence(x, rate, threshold_db=70)) > len(short)
    with pytest.raises(SpecgenError, match="one by one"):
        trim_silence(x[None], rate)


def test_demo_voice_is_the_same_every_time():
    assert torch.equal(demo_voice(), demo_voice()) and demo_voice().shape == (19200,) and demo_voice(8000).shape == (9600,)
    assert not torch.equal(demo_voice(), demo_voice(seed=1))


# ---- torchaudio's wheels, laid out as they come

LAYOUTS = {  # what loads the compiled part, and whether it is there at last, or the reason
    "a build that loads": ("def _load_lib(lib): return True", True),
    "a CUDA wheel beside a CPU torch": ("def _load_lib(lib): raise OSError('libcudart.so.13: cannot open shared object file')", False),
    "a wheel for another CUDA": ("def _load_lib(lib): raise RuntimeError('compiled with different CUDA versions')", False),
    "no library": ("def _load_lib(lib): return False", False),
    "another torch's wheel": (None, "cannot be loaded .*install the release that fits torch"),
    "without a part of its own": ("import nowhere_to_be_found", "cannot be loaded .No module named 'nowhere_to_be_found'"),
    "missing": ("", "torchaudio: is not installed, .*pip install torchaudio"),
}


class Missing:
    "An import system that has no torchaudio."

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torchaudio":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_torchaudio_is_imported_in_every_layout(tmp_path, monkeypatch, layout):
    code, answer = LAYOUTS[layout]
    files = {"__init__.py": "from . import _extension, compliance", "compliance/__init__.py": "from . import kaldi", "compliance/kaldi.py": "answer = 42",
             "_extension/__init__.py": "from .utils import _load_lib\navailable = _load_lib('_torchaudio')", "_extension/utils.py": code}
    if code is None:
        files = {"__init__.py": "raise OSError('libcudart.so.13: cannot open shared object file')"}
    for name, text in files.items():
        path = tmp_path / "torchaudio" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    if layout == "missing":
        monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
    loaded = [name for name in sys.modules if name.split(".")[0] == "torchaudio"]
    real = {name: sys.modules.pop(name) for name in loaded}
    try:
        if isinstance(answer, bool):
            module = import_torchaudio()
            assert module._extension.available == answer and module.compliance.kaldi.answer == 42 and import_torchaudio() is module
        else:
            with pytest.raises(SpecgenError, match=answer):
                import_torchaudio()
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchaudio"]:
            del sys.modules[name]
        sys.modules.update(real)


def test_torchaudio_is_imported_by_no_one_else():
    root = Path(__file__).parents[1]
    for path in [*root.glob("specgen/*.py"), *root.glob("benchmarks/*.py")]:
        lines = [line for line in path.read_text().splitlines() if "torchaudio" in line and line.split()[:1] in (["import"], ["from"])]
        assert all("import_torchaudio" in line for line in lines), path.name


def test_reading_needs_no_torchaudio():
    probe = "import sys, specgen.spectrogram; print([m for m in ('torchaudio', 'numba', 'librosa', 'matplotlib') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", probe], check=True, capture_output=True, text=True).stdout.strip() == "[]"
