"""Damaged input of every kind, by a seeded mutator: each case ends in a `SpecgenError` or in a finite answer.

`python tests/fuzz.py` runs some thousands of cases and prints counts by kind; `python tests/fuzz.py 10` so many of each kind; `--write` keeps the counts in
benchmarks/results/fuzz.csv. A case may take 20 s of the processor, and all of them together 3 GiB beyond what is loaded. `tests/test_fuzz.py` runs some
hundreds.
"""
import copy
import io
import json
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import soundfile
import torch

from specgen.audio import check_audio, read_audio
from specgen.audio_transformer import AST
from specgen.autoencoder import Autoencoder
from specgen.classifier import Classifier
from specgen.core import SpecgenError, write_table
from specgen.discriminators import apply_weight_norm
from specgen.exact_inverse import invert, invert_file, reassign_file
from specgen.flow_matching import VelocityNetwork
from specgen.gan import GAN
from specgen.pipeline import DigitGenerator
from specgen.sound_evaluation import SoundClassifier
from specgen.spectral_vocoder import SpectralVocoder
from specgen.spectrogram import Fbank, HiFiGANMel, LogMel, LogSTFT, Representation
from specgen.spectrogram_dataset import SpectrogramDataset
from specgen.vae import VAE
from specgen.vocoder import HiFiGAN, HiFiGANConfig, HiFiGANGenerator

SECONDS, MEMORY = 20, 3 << 30
VALUES = (0, -1, 1, 2, 3, 5, 300, 2**31, 2**63, 10**30, 0.5, -0.5, 1e-300, 1e308, float("nan"), float("inf"), "", "x", "5", "0" * 3000, None, True, False,
          [], {}, [[]], ["a"], [1, 2], [5] * 3, {"a": 1}, {"kind": "LogMel"}, [10**9], "../../x", "hann")
MELS = LogMel(sample_rate=8000, n_fft=64, hop_length=20, n_mels=8, power=1.0)
BLOCKS = dict(resblock="2", resblock_kernel_sizes=[3], resblock_dilation_sizes=[[1, 2]])
SIZES = dict(upsample_initial_channel=8, upsample_rates=[4, 5], upsample_kernel_sizes=[8, 9], **BLOCKS)
RNG = torch.Generator().manual_seed(0)
SOUND = 0.3 * torch.randn(4000, generator=RNG)


class Hang(BaseException):
    "A case that takes too long."


def places(content, path=()):
    "Every place in nested lists and dicts."
    yield path
    inner = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in inner:
        yield from places(value, (*path, key))


def changed(content, rng: random.Random):
    "JSON with one or two places changed: another value, taken out, an unknown key."
    content = copy.deepcopy(content)
    for _ in range(rng.choice((1, 1, 2))):
        path = rng.choice([p for p in places(content) if p or rng.random() < 0.1] or [()])
        value = copy.deepcopy(rng.choice(VALUES))
        if not path:
            return value
        holder = content
        for key in path[:-1]:
            holder = holder[key]
        act = rng.random()
        if act < 0.15:
            del holder[path[-1]]
        elif act < 0.25 and isinstance(holder, dict):
            holder["unknown"] = value
        else:
            holder[path[-1]] = value
    return content


def flipped(raw: bytes, rng: random.Random, first: int = 0, stop: int | None = None) -> bytes:
    "Bytes with some changed between two places, or cut off, or doubled in part."
    raw, stop = bytearray(raw), min(stop or len(raw), len(raw))
    act = rng.random()
    if act < 0.2:
        return bytes(raw[: rng.randrange(len(raw))])
    if act < 0.3:
        at = rng.randrange(first, stop)
        return bytes(raw[:at] + raw[at // 2 :])
    for _ in range(rng.choice((1, 1, 2, 8))):
        raw[rng.randrange(first, stop)] = rng.choice((0, 255, 127, 128, rng.randrange(256)))
    return bytes(raw)


def finite(*tensors):
    assert all(torch.isfinite(t).all() for t in tensors), "an answer that is not finite"


# each kind: (folder) -> what is damaged, then (that, folder, rng) -> tries it


def representation(whole, folder, rng):
    found = Representation.from_dict(changed(rng.choice(whole), rng))
    spec = found.encode(SOUND[: rng.choice((1000, 4000))])
    finite(spec, found.decode(spec, n_iter=2), found.frequencies)


def make_features(folder):
    soundfile.write(folder / "a.wav", SOUND[:160].numpy(), 8000)
    npz = reassign_file(folder / "a.wav", folder / "a.npz", n_fft=16, hop_length=4)
    for precision in (None, (1.0, 1e-5, 1e-3)):  # what is compiled then counts as no case's time
        with np.load(npz) as file, warnings.catch_warnings(action="ignore"):
            invert(file["freqs"], file["times"], file["mags"], sr=8000, n_fft=16, hop_length=4, window="hamming", precision=precision)
    return npz.read_bytes()


def features(whole, folder, rng):
    "Settings, arrays, the archive's own bytes, or another kind of file."
    act, path = rng.random(), folder / "b.npz"
    with np.load(io.BytesIO(whole)) as file:
        parts = dict(file)
    if act < 0.35:
        parts["settings"] = json.dumps(changed(json.loads(str(parts["settings"])), rng))
    elif act < 0.6:
        name = rng.choice(["freqs", "times", "mags"])
        old = parts[name]
        other = [old.astype(kind) for kind in (complex, int, "float16", "U8")] + [old.T, old[:, :1], old[:, :0], old[0], old * 1e300, -old, old * np.nan]
        parts[name] = rng.choice(other)
    if act < 0.6:
        np.savez(path, **parts)
    elif act < 0.65:
        np.save(path.with_suffix(".npy"), parts["mags"])
        shutil.move(path.with_suffix(".npy"), path)
    elif act < 0.75:  # a header that promises numbers without end
        head = {"descr": "<f8", "fortran_order": False, "shape": (9, rng.choice((10**9, 10**12, 2**62, 5)))}
        with zipfile.ZipFile(path, "w") as archive:
            for name in parts:
                with archive.open(f"{name}.npy", "w") as file:
                    np.lib.format.write_array_header_1_0(file, head) if name == "mags" else np.save(file, parts[name])
    else:
        path.write_bytes(flipped(whole, rng))
    with warnings.catch_warnings(action="ignore"):
        invert_file(path, folder / "b.wav")
    finite(torch.from_numpy(soundfile.read(folder / "b.wav")[0]))


def make_dataset(folder):
    labels = np.arange(6) % 2
    SpectrogramDataset(torch.randn(6, 8, 9, generator=RNG), torch.from_numpy(labels), ["a", "b"], MELS, speakers=list("uvwxyz")).save(folder / "data")
    return (folder / "data" / "spectrograms.safetensors").read_bytes()


def dataset(whole, folder, rng):
    size = int.from_bytes(whole[:8], "little")
    if rng.random() < 0.6:
        header = json.loads(whole[8 : 8 + size])
        header["__metadata__"]["specgen"] = json.dumps(changed(json.loads(header["__metadata__"]["specgen"]), rng))
        text = json.dumps(header).encode()
        raw = len(text).to_bytes(8, "little") + text + whole[8 + size :]
    else:
        raw = flipped(whole, rng, 0, 8 + size)
    (folder / "data" / "spectrograms.safetensors").write_bytes(raw)
    found = SpectrogramDataset.load(folder / "data")
    finite(found.train.spectrograms, found.to_audio(n_iter=1))


def make_models(folder):
    torch.manual_seed(0)
    r, names = MELS.to_dict(), ["a", "b"]
    flow = dict(n_classes=2, size=dict(width=8, hidden=8, depth=1), embedding=8)
    stft = LogSTFT(sample_rate=8000, n_fft=512, hop_length=128, n_bins=256).to_dict()
    models = [
        GAN(2, (8, 16), 4, 8, 4, classes=names, representation=r),
        VAE((8, 16), (-1.0, 1.0), (4, 4), ((2, 2), (2, 2)), 3, components=2, rank=1, n_classes=2, classes=names, representation=r),
        Classifier((4, 8), (2, 2), 2, 8, classes=names, representation=r, size=(8, 16), encoding={"peak": True, "trim": False}),
        SpectralVocoder(r, 8, 8, 1, 3),
        HiFiGAN(r, **SIZES),
        AST(2, n_mels=8, n_frames=16, patch=(4, 4), stride=(4, 4), embed_dim=8, depth=1, num_heads=2, classes=names, representation=r),
        SoundClassifier(names, r, 1000, channels=(4, 4), n_features=4),
        VelocityNetwork(**flow),
        DigitGenerator(flow, {}, stft, names, steps=2, n_iter=2),
        Autoencoder(8, (1, 1)),
    ]
    for model in models:
        model.save_pretrained(folder / type(model).__name__)
    return {type(m): [(folder / type(m).__name__ / name).read_bytes() for name in ("config.json", "model.safetensors")] for m in models}


def use(model):
    "What the model is for."
    given = torch.zeros(2, 8, 16)
    if isinstance(model, (SpectralVocoder, HiFiGAN)):
        finite(model.to_audio(given))
    elif isinstance(model, (Classifier, AST)):
        finite(model.predict_proba(given))
    elif isinstance(model, SoundClassifier):
        finite(model.predict_proba(SOUND.view(4, 1000)))
    elif isinstance(model, Autoencoder):
        finite(model.decode(model.encode(torch.zeros(2, 256, 24))))
    elif isinstance(model, VelocityNetwork):
        finite(model.sample(2, steps=2, seed=0))
    else:
        drawn = model.sample(2, seed=0)
        finite(drawn, model.to_audio(drawn))
    names = [] if isinstance(model, VelocityNetwork) else getattr(model, "classes", [])
    assert all(isinstance(name, str) for name in names), "names that are no text"


def config(whole, folder, rng):
    kind = rng.choice(list(whole))
    place, (settings, weights) = folder / kind.__name__, whole[kind]
    (place / "model.safetensors").write_bytes(weights)
    (place / "config.json").write_text(json.dumps(changed(json.loads(settings), rng)))
    use(kind.from_pretrained(place))


def weights(whole, folder, rng):
    kind = rng.choice(list(whole))
    place, (settings, raw) = folder / kind.__name__, whole[kind]
    (place / "config.json").write_bytes(settings)
    (place / "model.safetensors").write_bytes(flipped(raw, rng, 0, rng.choice((8 + int.from_bytes(raw[:8], "little"), len(raw)))))
    use(kind.from_pretrained(place))


def make_vocoder(folder):
    torch.manual_seed(0)
    state = apply_weight_norm(HiFiGANGenerator(HiFiGANConfig(8, **SIZES))).state_dict()
    (folder / "voice").mkdir()
    torch.save({"generator": state}, folder / "voice" / "generator.pt")
    names = dict(num_mels=8, sampling_rate=8000, n_fft=64, hop_size=20, win_size=64, fmin=0, fmax=4000)
    return {**SIZES, **names}, (folder / "voice" / "generator.pt").read_bytes(), state


def vocoder(whole, folder, rng):
    settings, raw, state = whole
    act, path = rng.random(), folder / "voice" / "generator.pt"
    path.write_bytes(raw)
    if act < 0.5:
        settings = changed(settings, rng)
    elif act < 0.75:
        path.write_bytes(flipped(raw, rng, 0, rng.choice((200, 2000, len(raw)))))
    else:
        gone = rng.choice(list(state))
        other = {name: rng.choice((t, 5, "x", None, t.T, t[:0])) if name == gone else t for name, t in state.items()}
        torch.save(rng.choice(({name: t for name, t in state.items() if name != gone}, other, {"generator": 5}, [state])), path)
    (folder / "voice" / "config.json").write_text(json.dumps(settings))
    finite(HiFiGAN.from_pretrained(folder / "voice").to_audio(torch.zeros(1, 8, 6)))


def labels(whole, folder, rng):
    good = np.arange(6) % 2
    taken = [good.astype(kind) for kind in ("int8", "int16", "int32", "uint8", "uint64")] + [good.tolist(), tuple(good), torch.from_numpy(good).int()]
    other = [good * 1.0, good == 1, np.eye(2)[good], good[:, None], list("ababab"), None, 5, [[0], [1, 2]], good + 1, good - 1, good[:3], [None] * 6, object()]
    plain = torch.randn(6, 4, 5)
    specs = rng.choice((plain, plain.numpy(), plain.tolist(), plain.half(), plain.double(), plain.short(), plain[:0]))
    held = rng.choice((None, [True] * 6, good == 1, torch.zeros(6, dtype=torch.bool), good, "x"))
    made = SpectrogramDataset(specs, rng.choice(taken + other), ["a", "b"], MELS, held)
    assert made.labels.dtype == torch.int64 and made.spectrograms.dtype == torch.float32
    finite(made.train.spectrograms)


def make_sounds(folder):
    raws = []
    for name, how in (("a.wav", {}), ("a.flac", {}), ("a.wav", {"subtype": "FLOAT"}), ("a.ogg", {})):
        soundfile.write(folder / name, SOUND.numpy().clip(-1, 1), 16000, **how)
        raws.append((name, (folder / name).read_bytes()))
    return raws


def sound(whole, folder, rng):
    name, raw = rng.choice(whole)
    (folder / name).write_bytes(flipped(raw, rng, 0, rng.choice((44, 120, len(raw)))))
    check_audio(folder / name)
    finite(read_audio(folder / name, 16000)[0])


def make_representations(folder):
    return [r.to_dict() for r in (LogSTFT(n_fft=128, hop_length=32), MELS, Fbank(sample_rate=8000), HiFiGANMel(n_fft=256, hop_length=64))]


KINDS = {
    "representation": (make_representations, representation), "features (npz)": (make_features, features), "dataset": (make_dataset, dataset),
    "config.json": (make_models, config), "safetensors": (make_models, weights), "vocoder": (make_vocoder, vocoder),
    "labels": (lambda folder: None, labels), "sound": (make_sounds, sound),
}


def outcome(case, *args) -> str:
    "How one case ends: taken, refused, or what should not be."

    def hang(*_):
        raise Hang

    signal.signal(signal.SIGPROF, hang)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        case(*args)
        return "taken"
    except SpecgenError as error:
        return "refused" if "\n" not in str(error) else "refused in several lines"
    except Hang:
        return f"over {SECONDS} s"
    except MemoryError:
        return "out of memory"
    except AssertionError as error:
        return str(error)
    except BaseException as error:
        full = "memory" in str(error) and isinstance(error, RuntimeError)
        return "out of memory" if full else f"uncaught {type(error).__name__}: {str(error)[:100]}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


# of the issue that asked for this: other damaged inputs of these kinds, and all 1,884 of them in 6,287 calls
BEFORE = {"representation": (264, 136), "features (npz)": (395, 83), "vocoder": (158, 32)}
BEFORE_ALL = {"inputs": 1884, "taken": "", "refused": "", "uncaught": 327, "over 20 s": 1, "out of memory": 14, "not finite": 22}


def counted(counts: Counter) -> dict[str, int]:
    "How many cases ended in each way that a table tells apart."
    slow, full, nan = f"over {SECONDS} s", "out of memory", "an answer that is not finite"
    found = {name: counts[name] for name in ("taken", "refused")}
    return found | {"uncaught": counts.total() - sum(counts[k] for k in (*found, slow, full, nan)), slow: counts[slow], full: counts[full],
                    "not finite": counts[nan]}


def run_kind(name: str, n: int) -> dict[str, int]:
    "Run n cases of a kind; prints those that end as they should not."
    (make, case), counts, start = KINDS[name], Counter(), time.process_time()
    with tempfile.TemporaryDirectory() as place:
        whole = make(Path(place))
        for k in range(n):
            end = outcome(case, whole, Path(place), random.Random(f"{name} {k}"))
            counts[end] += 1
            if end not in ("taken", "refused"):
                print(f"  {name} {k}: {end}", flush=True)
    row = counted(counts)
    wrong = n - row["taken"] - row["refused"]
    print(f"{name:16s} {row['taken']:5d} taken {row['refused']:5d} refused {wrong:5d} wrong {time.process_time() - start:6.0f} s", flush=True)
    return row


def main(n: int, names: list[str], write: bool = False) -> int:
    "Run n cases of each kind; the number of those that should not be."
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    loaded = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (loaded + MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    found = {name: run_kind(name, n) for name in KINDS if not names or any(word in name for word in names)}
    total = Counter()
    for row in found.values():
        total.update(row)
    if write:
        rows = [{"kind": name, "inputs": n, **row} | dict(zip(("inputs before", "wrong before"), BEFORE.get(name, ("", "")), strict=True))
                for name, row in found.items()]
        rows += [{"kind": "all", "inputs": n * len(found), **total, "inputs before": "", "wrong before": ""},
                 {"kind": "all, before", **BEFORE_ALL, "inputs before": "", "wrong before": ""}]
        write_table(Path(__file__).parents[1] / "benchmarks" / "results" / "fuzz.csv", rows)
    bad = total.total() - total["taken"] - total["refused"]
    print(f"{bad} wrong")
    return bad


if __name__ == "__main__":
    given = [word for word in sys.argv[1:] if word != "--write"]
    sys.exit(main(int(given[0]) if given else 500, given[1:], "--write" in sys.argv) > 0)
