"What comes from outside: limits, settings of every kind of file, labels and arrays as people have them, numbers beside other libraries', items in company."
import io
import json
import os
import shutil
import sys
import zipfile

import librosa
import numpy as np
import pytest
import soundfile
import torch
from fuzz import MELS, SIZES, make_models, make_vocoder
from made_up import noise

from specgen.audio import LIMITS, check_settings, import_torchaudio, limit, read_audio, resample, write_audio
from specgen.audio_transformer import AST
from specgen.autoencoder import Autoencoder
from specgen.classifier import Classifier
from specgen.cli import main
from specgen.core import SpecgenError, atomic
from specgen.evaluation import Evaluator
from specgen.exact_inverse import invert_file, reassign_file
from specgen.flow_matching import VelocityNetwork
from specgen.gan import GAN
from specgen.models import WaveformDataset, save_samples
from specgen.phase import griffin_lim, phase_retrieval
from specgen.pipeline import DigitGenerator
from specgen.reassignment import reassigned_spectrogram
from specgen.spectrogram import Fbank, HiFiGANMel, LogMel, LogSTFT, Representation
from specgen.spectrogram_dataset import SpectrogramDataset
from specgen.training import TrainConfig
from specgen.vae import VAE
from specgen.vocoder import HiFiGAN, HiFiGANConfig


def refused(call, match):
    with pytest.raises(SpecgenError, match=match) as error:
        call()
    assert "\n" not in str(error.value)


# ---- limits

def test_limits_stand_in_one_place_and_can_be_moved(monkeypatch):
    refused(lambda: resample(torch.ones(9), 16000, 10**12), "resampling to 1000000000000: has to lie between 1000 and 768000 Hz.*SPECGEN_LIMITS")
    refused(lambda: LogSTFT(sample_rate=100), "sample_rate 100")
    refused(lambda: LogMel(n_mels=2**31), "n_mels 2147483648 has to be a whole number")
    refused(lambda: LogMel(n_mels=10**5, n_fft=10**5), "filters of 5000100000 numbers")
    refused(lambda: resample(torch.ones(1).expand(2**24), 1000, 768000), "samples, more than")
    monkeypatch.setenv("SPECGEN_LIMITS", "lowest_rate=50, numbers=1e11")
    assert limit("lowest_rate") == 50 and limit("highest_rate") == LIMITS["highest_rate"]
    assert LogSTFT(sample_rate=100).sample_rate == 100 and resample(torch.ones(100), 100, 1000).shape == (1000,)
    for wrong in ("lowest=1", "lowest_rate=x", "lowest_rate", "samples=-1"):
        monkeypatch.setenv("SPECGEN_LIMITS", wrong)
        refused(lambda: limit("samples"), "SPECGEN_LIMITS: .*give name=number")


@pytest.mark.parametrize("rate", [1, 100, 999])
def test_a_file_of_a_few_bytes_asks_for_no_memory(tmp_path, rate):
    soundfile.write(tmp_path / "slow.wav", np.ones(4000) / 2, rate)
    refused(lambda: read_audio(tmp_path / "slow.wav", 48000), f"its header says {rate} Hz")


# ---- settings

def test_settings_are_compared_with_annotations():
    known = {"n": int, "x": float, "pair": tuple[int, int], "names": list[str] | None, "on": bool}
    good = {"n": 5, "x": 1, "pair": [1, 2], "names": None, "on": True}
    assert check_settings("a.json", good, known, known) is good
    for bad, message in (({"n": 1.5}, "n 1.5 has to be a whole number"), ({"n": True}, "n True"), ({"n": 10**30}, "n 1000"), ({"x": float("nan")}, "x nan"),
                         ({"pair": [1]}, r"pair \[1\]"), ({"names": [1]}, r"names \[1\]"), ({"on": 1}, "on 1 has to be true or false"),
                         ({"m": 1}, "'m' is unknown; known are n, x")):
        refused(lambda bad=bad: check_settings("a.json", {**good, **bad}, known), f"a.json: .*{message}")
    assert check_settings("a.json", {**good, "x": 10**18}, known)["x"] == 10**18
    refused(lambda: check_settings("a.json", {**good, "x": 10**30}, known), "a.json: x 1000")  # no whole number of torch's
    assert LogMel(floor=10**30).floor == 1e30 and isinstance(LogMel(floor=10**30).floor, float)
    refused(lambda: check_settings("a.json", {**good, "x": 10**400}, known), "a.json: x 1000")
    refused(lambda: check_settings("a.json", [5], known), "a.json: holds no settings by name")
    refused(lambda: check_settings("a.json", {}, known, ["n"]), "a.json: has no n")


@pytest.mark.parametrize("key,value", [("window", []), ("window", 5), ("n_fft", None), ("n_fft", "512"), ("hop_length", 0), ("floor", "x"),
    ("floor", 1e-320), ("std", 1e-300),
    ("mean", None), ("mean", 1e300), ("pad_mode", []), ("f_min", "x"), ("f_max", "x"), ("f_max", 0.0), ("f_max", float("nan")), ("norm", {}),
    ("mel_scale", "bark"), ("norm", "area"),
    ("power", None), ("n_mels", 0), ("win_length", 4000), ("sample_rate", True), ("sample_rate", 1), ("n_mels", 2**31), ("f_min", 5000.0),
    ("hop_length", 2**40)])
def test_damaged_representations(key, value):
    refused(lambda: Representation.from_dict({**LogMel(sample_rate=8000).to_dict(), key: value}), key)


def test_numbers_of_numpy_are_numbers():
    given = LogMel(sample_rate=np.int64(8000), n_fft=np.int32(256), hop_length=np.int16(64), floor=np.float32(0.01))
    assert json.loads(json.dumps(given.to_dict()))["n_fft"] == 256 and Representation.from_dict(json.loads(json.dumps(given.to_dict()))) == given


# ---- features files

@pytest.fixture(scope="module")
def features(tmp_path_factory):
    place = tmp_path_factory.mktemp("features")
    soundfile.write(place / "a.wav", 0.3 * noise(160).numpy(), 8000)
    return reassign_file(place / "a.wav", place / "a.npz", n_fft=16, hop_length=4)


def damaged(features, place, **changes):
    with np.load(features) as file:
        parts = dict(file)
    settings = {**json.loads(str(parts["settings"])), **changes.pop("settings", {})}
    np.savez(place / "bad.npz", **{**parts, "settings": json.dumps(settings), **changes})
    return place / "bad.npz"


@pytest.mark.parametrize("changes,message", [
    (dict(settings={"length": 2**31}), "length 2147483648 with 41 frames"), (dict(settings={"n_fft": "16"}), "n_fft '16'"),
    (dict(settings={"hop_length": 41}), "length 160 with 41 frames"),
    (dict(settings={"window": 5}), "window 5"), (dict(settings={"sr": 1e12}), "sr 1000000000000.0"), (dict(settings={"x": 1}), "'x' is unknown"),
    (dict(mags=np.array([{}], object)), "holds no reassigned"), (dict(mags=np.ones((9, 41), complex)), "holds no reassigned"),
    (dict(mags=np.ones(9)), "need three"),
    (dict(settings={"length": None}), "length None"), (dict(settings={"ref_power": -1.0}), "ref_power"),
])
def test_damaged_features(features, tmp_path, changes, message):
    refused(lambda: invert_file(damaged(features, tmp_path, **changes), tmp_path / "a.wav"), f"bad.npz: .*{message}")
    assert not (tmp_path / "a.wav").exists()


def test_archives_that_cannot_be_read(features, tmp_path):
    path, raw = tmp_path / "bad.npz", features.read_bytes()
    np.save(tmp_path / "plain.npy", np.ones(9))
    encrypted, unknown = bytearray(raw), bytearray(raw)
    at = raw.index(b"PK\x01\x02")
    encrypted[at + 8] |= 1
    unknown[at + 10] = 77
    for content in (raw[:500], encrypted, unknown, (tmp_path / "plain.npy").read_bytes(), b""):
        path.write_bytes(content)
        refused(lambda: invert_file(path, tmp_path / "a.wav"), "bad.npz: holds no reassigned spectrogram")
    with zipfile.ZipFile(features) as whole, zipfile.ZipFile(path, "w") as archive:  # 10⁹ columns
        for name in whole.namelist():
            with archive.open(name, "w") as file:
                if name == "mags.npy":
                    np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (9, 10**9)})
                else:
                    file.write(whole.read(name))
    refused(lambda: invert_file(path, tmp_path / "a.wav"), "bad.npz: mags: .*features, more than")


def test_nothing_is_written_that_cannot_be_inverted(tmp_path, capsys):
    soundfile.write(tmp_path / "a.wav", 0.3 * noise(400).numpy(), 8000)
    for how in (dict(n_fft=2), dict(n_fft=16, hop_length=16), dict(n_fft=16, hop_length=0), dict(n_fft=16, win_length=0), dict(n_fft=16, win_length=17)):
        refused(lambda how=how: reassign_file(tmp_path / "a.wav", tmp_path / "a.npz", **how), "n_fft|window|hop")
    for words in (["--n-fft", "2"], ["--sample-rate", "1000000000000"]):
        with pytest.raises(SystemExit) as stop:
            main(["reassign", str(tmp_path / "a.wav"), str(tmp_path / "a.npz"), *words])
        assert stop.value.code == 2 and "specgen: " in capsys.readouterr().err
    assert not (tmp_path / "a.npz").exists()


# ---- models and vocoders

@pytest.fixture
def models(tmp_path):
    make_models(tmp_path)
    return tmp_path


@pytest.mark.parametrize("kind,change,message", [
    (GAN, dict(representation=[]), "representation"), (GAN, dict(classes=[1, 2]), r"classes \[1, 2\]"), (GAN, dict(noise=-3), "noise -3"),
    (GAN, dict(unknown=1), "'unknown' is unknown"),
    (GAN, dict(shape=[8, 16, 4]), "shape"), (GAN, dict(classes=["a"]), "n_classes 2 with 1 names"), (GAN, dict(width=10**9), "width"),
    (GAN, dict(noise=5), "linear_in.weight is"),
    (VAE, dict(channels=5), "channels 5"), (VAE, dict(representation={**MELS.to_dict(), "hop_length": 0}), "hop_length 0"),
    (VAE, dict(likelihood="magic"), "likelihood"),
    (VAE, dict(span=["a", 1]), "span"), (Classifier, dict(size=[0]), "size"), (Classifier, dict(stem=[-1, 2]), "stem -1"),
])
def test_damaged_configs_of_models(models, kind, change, message):
    path = models / kind.__name__ / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    refused(lambda: kind.from_pretrained(path.parent), f"{kind.__name__}: .*{message}")


def test_configs_that_hold_no_settings_and_weights_that_do_not_fit(models):
    place = models / "GAN"
    weights = (place / "model.safetensors").read_bytes()
    (place / "model.safetensors").write_bytes(weights[:-8])
    refused(lambda: GAN.from_pretrained(place), "GAN: .*damaged")
    (place / "model.safetensors").write_bytes(weights)
    shutil.copy(models / "VAE" / "model.safetensors", place)
    refused(lambda: GAN.from_pretrained(place), "GAN: ")
    for text in ("5", "null", "[]", "{"):
        (place / "config.json").write_text(text)
        refused(lambda: GAN.from_pretrained(place), "GAN: ")


@pytest.fixture
def voice(tmp_path):
    settings, _, state = make_vocoder(tmp_path)
    (tmp_path / "voice" / "config.json").write_text(json.dumps(settings))
    return tmp_path / "voice", settings, state


@pytest.mark.parametrize("text", ["5", "null", "[]", '"x"', '{"a": 1}'])
def test_configs_of_vocoders_that_hold_no_settings(voice, text):
    (voice[0] / "config.json").write_text(text)
    refused(lambda: HiFiGAN.from_pretrained(voice[0]), "config.json")


@pytest.mark.parametrize("key,value,message", [("upsample_rates", 5, "upsample_rates 5"), ("upsample_rates", ["a", "b"], "upsample_rates"),
    ("upsample_initial_channel", 2**40, "channel"),
    ("resblock", 3, "resblock"), ("num_mels", "8", "n_mels"), ("hop_size", 0, "hop"), ("n_fft", None, "n_fft"), ("sampling_rate", 1, "sample_rate"),
    ("upsample_rates", [], "upsampling|all at least"),
    ("resblock_kernel_sizes", [0], "block"), ("upsample_initial_channel", 1, "channels halved")])
def test_damaged_configs_of_vocoders(voice, key, value, message):
    place, settings, _ = voice
    (place / "config.json").write_text(json.dumps({**settings, key: value}))
    refused(lambda: HiFiGAN.from_pretrained(place), message)


def test_damaged_weights_of_vocoders(voice):
    place, _, state = voice
    raw = (place / "generator.pt").read_bytes()
    gone = next(name for name in state if name.endswith("original0"))
    for content in ({k: v for k, v in state.items() if k != gone}, {**state, gone: 5}, [state], 5, {"generator": None}):
        torch.save(content, place / "generator.pt")
        refused(lambda: HiFiGAN.from_pretrained(place), "generator.pt: is no HiFi-GAN generator, or damaged")
    for at in range(0, 400, 23):
        (place / "generator.pt").write_bytes(raw[:at] + bytes([raw[at] ^ 255]) + raw[at + 1 :])
        try:
            HiFiGAN.from_pretrained(place)
        except SpecgenError:
            pass
    torch.save({**state, "conv_pre.bias": state["conv_pre.bias"] * torch.nan}, place / "generator.pt")
    refused(lambda: HiFiGAN.from_pretrained(place), "not finite")
    torch.save({f"module.{k}": v for k, v in state.items()}, place / "generator.pt")
    assert HiFiGAN.from_pretrained(place).to_audio(torch.zeros(1, 8, 6)).shape == (1, 120)


def test_urls_are_https_or_checked():
    refused(lambda: HiFiGAN.from_pretrained("http://example.org/g"), "http://example.org/g: .*use https, or put #sha256=")
    assert HiFiGANConfig(8, **{**SIZES, "resblock": 2}).resblock == "2"


# ---- labels and arrays

GOOD = np.arange(6) % 2
SPECS = noise(6, 8, 16)


@pytest.mark.parametrize("labels", [GOOD.astype(kind) for kind in ("int8", "int16", "int32", "uint8", "uint16", "uint64")] + [
    GOOD.tolist(), tuple(GOOD), list(GOOD), torch.tensor(GOOD, dtype=torch.int32), [torch.tensor(k) for k in GOOD]],
        ids=lambda labels: str(getattr(labels, "dtype", type(labels))))
def test_labels_of_any_width(labels):
    made = SpectrogramDataset(SPECS, labels, ["a", "b"], MELS)
    assert made.labels.dtype == torch.int64 and made.labels.tolist() == GOOD.tolist()


@pytest.mark.parametrize("labels", [GOOD * 1.0, GOOD == 1, np.eye(2, dtype=int)[GOOD], GOOD[:, None], list("ababab"), None, [[0], [1, 2]], GOOD + 1,
    GOOD - 1, GOOD[:3], 6])
def test_labels_that_are_none(labels):
    refused(lambda: SpectrogramDataset(SPECS, labels, ["a", "b"], MELS), "labels")


@pytest.mark.parametrize("values", [SPECS.numpy(), SPECS.half(), SPECS.double(), SPECS.tolist()], ids=["array", "half", "double", "list"])
def test_models_learn_from_arrays_of_any_precision(values):
    labels = GOOD.astype("int32")
    made = SpectrogramDataset(values, labels, ["a", "b"], MELS, is_test=[False] * 4 + [True] * 2)
    quick = Classifier.presets["quick"].changed(training=dict(epochs=1, max_steps=1, batch_size=4))
    assert made.spectrograms.dtype == torch.float32 and Classifier.fit(made, preset=quick, progress=False).predict(made.spectrograms).shape == (6,)
    assert [w.dtype for w in WaveformDataset([np.zeros(5), torch.zeros(5).half()], MELS).waveforms] == [torch.float32] * 2


def test_every_fit_takes_labels_of_any_width():
    made = SpectrogramDataset(noise(8, 8, 16), np.arange(8, dtype="int16") % 2, ["a", "b"], MELS, [False] * 6 + [True] * 2)
    gan = GAN.presets["words/quick"].changed(model=dict(width=4, max_channels=8), training=dict(epochs=1, batch_size=4, progressive=()))
    assert GAN.fit(made, preset=gan, progress=False).sample(np.array([0, 1], "int8"), seed=0).shape == (2, 8, 16)
    vae = VAE.presets["quick"].changed(model=dict(channels=(4, 4), strides=((2, 2), (2, 2)), latents=3), training=dict(epochs=1, batch_size=4))
    assert VAE.fit(made, preset=vae, prior="conditional", components=1, rank=1, progress=False).sample([np.int32(1)], seed=0).shape == (1, 8, 16)
    evaluator = Evaluator.fit(made, preset=Classifier.presets["quick"].changed(training=dict(epochs=1, max_steps=1, batch_size=4)), progress=False)
    assert evaluator.score(made.spectrograms, np.arange(8, dtype="int8") % 2, reference=made)["n"] == 8
    refused(lambda: evaluator.score(made.spectrograms, np.eye(2)[np.arange(8) % 2], reference=made), "one-hot")
    flow = VelocityNetwork.presets["quick"].changed(training=dict(steps=2))
    latents = np.random.default_rng(0).normal(size=(8, 6, 64))
    assert VelocityNetwork.fit(latents, np.arange(8, dtype="int32") % 2, n_classes=2, preset=flow, progress=False).sample([0], steps=1,
        seed=0).shape == (1, 6, 64)
    refused(lambda: VelocityNetwork.fit(latents, [0, 1], n_classes=2, preset=flow, progress=False), "8, 6, 64.* with 2 labels")


def test_empty_batches(models):
    nothing = torch.zeros(0, 8, 16)
    assert Classifier.from_pretrained(models / "Classifier").predict(nothing).shape == (0,)
    vae = VAE.from_pretrained(models / "VAE")
    assert vae.reconstruct(nothing).shape == (0, 8, 16) and vae.to_audio(nothing).shape[0] == 0
    assert Autoencoder().encode(torch.zeros(0, 256, 24)).shape == (0, 6, 64) and MELS.encode(torch.zeros(0, 900)).shape[0] == 0
    ast = AST(2, n_mels=16, n_frames=16, embed_dim=8, depth=1, num_heads=1, patch=(8, 8), stride=(8, 8))
    assert ast.predict(torch.zeros(0, 16, 16)).shape[0] == 0


def test_seeds_that_are_none_are_refused_before_a_folder_is_claimed(tmp_path, capsys, sounds):
    for words in (["run"], ["classify", "fit"], ["gan", "sample"]):
        with pytest.raises(SystemExit) as stop:
            main([*words, "--seed", str(2**70), "--out", str(tmp_path / "x"), *(["--dataset", str(sounds)] if "sample" not in words else [])])
        assert stop.value.code == 2 and "seed" in capsys.readouterr().err and not (tmp_path / "x").exists()


# ---- numbers

@pytest.mark.parametrize("rate,n_fft", [(16000, 401), (16000, 400), (8000, 255), (11025, 512), (22051, 511)])
@pytest.mark.parametrize("htk", [False, True])
def test_mel_filters_are_librosas_at_odd_sizes_too(rate, n_fft, htk):
    mels = LogMel.librosa(sample_rate=rate, n_fft=n_fft, n_mels=20, mel_scale="htk" if htk else "slaney")
    wanted = librosa.filters.mel(sr=rate, n_fft=n_fft, n_mels=20, htk=htk)
    assert np.abs(mels.filters.numpy() - wanted).max() < 1e-4 * wanted.max()
    assert LogSTFT(sample_rate=rate, n_fft=n_fft).frequencies.numpy() == pytest.approx(librosa.fft_frequencies(sr=rate, n_fft=n_fft), rel=1e-6)


def test_the_last_bin_of_an_odd_size():
    assert LogSTFT(n_fft=511).frequencies[-1].item() == pytest.approx(7984.34, abs=0.01)


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000])
def test_fbank_keeps_its_window_at_any_rate(rate):
    sound = 0.3 * noise(1, rate)
    fbank = Fbank(sample_rate=rate, n_mels=40)
    wanted = import_torchaudio().compliance.kaldi.fbank(sound, sample_frequency=rate, num_mel_bins=40, window_type="hanning", dither=0.0)
    assert fbank.win_length == int(rate * 0.025) and fbank.n_fft >= fbank.win_length and fbank.encode(sound)[0].mT.shape == wanted.shape
    assert (fbank.encode(sound)[0].mT - wanted).abs().max() < 2e-3
    refused(lambda: Fbank(sample_rate=rate, n_fft=128), "is longer than n_fft 128")
    refused(lambda: Fbank(sample_rate=rate, n_mels=3), "n_mels 3")


@pytest.mark.parametrize("orig,new", [(44100, 16000), (16000, 44100), (22050, 8000), (48000, 44100), (8000, 22050), (96000, 8000)])
def test_resampled_lengths_are_rounded_up(orig, new):
    for samples in (1, 2, 5, 100, 4410, 44101):
        x = 0.1 * noise(samples)
        y = resample(x, orig, new)
        assert y.shape == (-(-samples * new // orig),) == librosa.resample(x.numpy(), orig_sr=orig, target_sr=new, res_type="soxr_hq").shape
    assert resample(noise(44101), 44100, 16000).shape == (16001,)


@pytest.mark.parametrize("scale", [1e-20, 1e-38, 1e-42])
def test_phase_retrieval_of_the_faintest_sounds(scale):
    mag = torch.rand(1, 65, 20, generator=torch.Generator().manual_seed(0))
    how = dict(n_fft=128, hop_length=32)
    for method in (griffin_lim, phase_retrieval):
        loud, faint = method(mag, **how), method(mag * scale, **how)
        assert faint.isfinite().all() and 0.5 < faint.abs().max() / (scale * loud.abs().max()) < 2


# ---- alone and in company

@pytest.mark.parametrize("representation", [LogSTFT(n_fft=256, hop_length=67), MELS, Fbank(sample_rate=8000), HiFiGANMel(n_fft=256, hop_length=64)])
def test_a_clip_sounds_the_same_in_company(representation):
    specs = representation.encode(0.3 * noise(3, 4321))
    together = representation.decode(specs, n_iter=8)
    for i in range(3):
        assert representation.decode(specs[i : i + 1], n_iter=8).equal(together[i : i + 1])


@pytest.mark.parametrize("kind,name", [(GAN, "gan-digits"), (VAE, "vae-digits"), (DigitGenerator, "flow-digits")])
def test_an_item_is_the_same_however_many_are_asked_for(kind, name):
    model = kind.from_pretrained(f"specgen/{name}")
    labels = (lambda n: n) if kind is VAE and not model.n_classes else (lambda n: torch.arange(n))
    few, many = (model.sample(labels(n), seed=3) for n in (1, 4))
    assert few.equal(many[:1]) and model.to_audio(few).equal(model.to_audio(many)[:1]) and not many[0].equal(many[1])
    if kind is VAE:
        given = noise(5, *model.shape)
        assert model.reconstruct(given)[3:4].equal(model.reconstruct(given[3:4]))


def test_generated_files_hold_the_same_bytes(tmp_path):
    for text in ("0", "0123"):
        main(["generate", text, "--out", str(tmp_path / text), "--seed", "5"])
    assert (tmp_path / "0" / "0_000.wav").read_bytes() == (tmp_path / "0123" / "0_000.wav").read_bytes()


# ---- parts that a model was made without, and answers that are no numbers

def test_models_without_a_representation_say_so(tmp_path):
    sounds = (GAN(2, (8, 16), 4, 8, 4), VAE((8, 16), (-1.0, 1.0), (4, 4), ((2, 2), (2, 2)), 3))
    for model in sounds:
        model.save_pretrained(tmp_path / type(model).__name__)
        again = type(model).from_pretrained(tmp_path / type(model).__name__)
        refused(lambda again=again: again.to_audio(torch.zeros(1, 8, 16)), "made without a representation.*fit")
    refused(lambda: sounds[1].encode_files([tmp_path / "a.wav"]), "VAE was made without a representation")
    refused(lambda: AST(2, n_mels=16, n_frames=16, embed_dim=8, depth=1, num_heads=1).predict_files([tmp_path / "a.wav"]), "AST was made without")


def test_classes_without_names_have_their_numbers(tmp_path):
    ast = AST(2, n_mels=8, n_frames=16, patch=(4, 4), stride=(4, 4), embed_dim=8, depth=1, num_heads=2, representation=MELS.to_dict())
    vae = VAE((8, 16), (-1.0, 1.0), (4, 4), ((2, 2), (2, 2)), 3, components=2, n_classes=2)
    for model in (GAN(2, (8, 16), 4, 8, 4), vae, ast):
        model.save_pretrained(tmp_path)
        assert type(model).from_pretrained(tmp_path).classes == ["0", "1"]
    soundfile.write(tmp_path / "a.wav", 0.3 * noise(4000).numpy(), 8000)
    assert sorted(ast.predict_files([tmp_path / "a.wav"])[0]["classes"]) == ["0", "1"]


@pytest.mark.parametrize("representation", [
    LogSTFT(n_fft=64, hop_length=16, std=300.0), LogMel(sample_rate=8000, n_fft=64, hop_length=16, n_mels=8, std=300.0)])
def test_spectrograms_beyond_what_numbers_hold_make_no_sound(representation):
    loud = torch.full((2, representation.frequencies.shape[0], 9), 2.0)
    refused(lambda: representation.decode(loud, n_iter=1), "phase retrieval: its answer holds numbers that are not finite")
    refused(lambda: SpectrogramDataset(loud, [0, 1], ["a", "b"], representation).to_audio(n_iter=1), "not finite")


def test_magnitudes_whose_squares_are_no_numbers(features, tmp_path):
    with np.load(features) as file:
        loud = file["mags"] * 1e300
    refused(lambda: invert_file(damaged(features, tmp_path, mags=loud), tmp_path / "a.wav"), "magnitudes: .*beyond")


def test_a_file_in_the_place_of_a_folder_of_sounds_is_called_one(tmp_path):
    (tmp_path / "o").write_text("mine")
    refused(lambda: save_samples(tmp_path / "o", ["a"], [torch.zeros(9)], 8000), "o: is a file; give a folder")


def test_a_link_stays_and_what_it_leads_to_is_written(tmp_path):
    os.symlink(tmp_path / "there.txt", tmp_path / "link.txt")
    for text in ("one", "two"):  # at first it leads to nothing
        with atomic(tmp_path / "link.txt") as temporary:
            temporary.write_text(text)
        assert (tmp_path / "link.txt").is_symlink() and (tmp_path / "there.txt").read_text() == text


def test_pipes_and_devices_are_no_place_for_a_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/null"):
        with pytest.raises(SpecgenError, match="is a pipe or a device"), atomic(path) as temporary:
            temporary.write_text("lost")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pipe"] and not os.path.isfile("/dev/null")


@pytest.mark.parametrize("name", ["steps", "batch_size", "warmup", "validate_every", "checkpoint_every", "log_every", "seed"])
def test_numbers_of_steps_are_whole(name):
    with pytest.raises(SpecgenError, match=f"{name} is 2.5"):
        TrainConfig(**{"steps": 10, name: 2.5})
    assert TrainConfig(**{"steps": np.int64(10), name: np.int32(3)})


def test_arrays_may_run_backwards(tmp_path):
    y = np.random.default_rng(0).standard_normal(4000).clip(-1, 1)
    settings = dict(sr=8000, n_fft=80, hop_length=20)
    assert all(map(torch.equal, reassigned_spectrogram(y[::-1], **settings, fill_nan=True), reassigned_spectrogram(y[::-1].copy(), **settings, fill_nan=True)))
    write_audio(tmp_path / "a.wav", y[::-1], 8000)
    assert (read_audio(tmp_path / "a.wav")[0] - torch.from_numpy(y[::-1].copy())).abs().max() < 1e-4
    clips = noise(6, 4, 5).numpy()
    assert torch.equal(SpectrogramDataset(clips[::-1], np.arange(6)[::-1] % 2, ["a", "b"], LogSTFT()).spectrograms[0], torch.from_numpy(clips[5]))


def test_the_threshold_of_reassignment_may_be_one_of_numpys_functions():
    y = noise(2000, seed=1).double()
    _, _, mags = reassigned_spectrogram(y, sr=8000, n_fft=80, hop_length=20, ref_power=0.0)
    found = reassigned_spectrogram(y, sr=8000, n_fft=80, hop_length=20, ref_power=np.median)
    assert abs(found[0].isnan().double().mean() - 0.5) < 0.01 and mags[found[0].isnan()].max() <= mags[~found[0].isnan()].min()


def test_terminals_that_lack_a_letter_get_its_number(tmp_path, monkeypatch):
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stderr", narrow)
    with pytest.raises(SystemExit):
        main(["reassign", str(tmp_path / "模型.wav"), str(tmp_path / "x.npz")])
    narrow.flush()
    assert b"\\u6a21\\u578b" in narrow.buffer.getvalue()
