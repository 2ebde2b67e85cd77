"""How often the classifier is right: FSDD's official split, each of its six speakers left out, voices of a synthesiser, ESC-10's five folds.

    SPECGEN_DATA=... python benchmarks/classifier.py                                            # official split, six speakers, five folds: preset small
    python benchmarks/classifier.py --only speakers --preset small,pretrained,source --seeds 0:3   # classifier_speakers.csv
    python benchmarks/classifier.py --only pair --seeds 0:3                                     # small and pretrained asked together
    python benchmarks/classifier.py --only left_out                                             # the preset pretrained without one step at a time
    python benchmarks/classifier.py --only distorted                                            # six speakers left out and distorted; classifier_distorted.csv
    python benchmarks/classifier.py --only nested                                               # trains nothing: reads the two tables
    python benchmarks/classifier.py --only strangers --preset small,pretrained,source           # wants the program espeak-ng; "a + b": asked together

Every training is kept under --out and taken up again from there; delete a folder to train it anew. Finished ones are entered into the tables under
benchmarks/results in place of older rows. `accuracy_warped` is that of the mean of a clip's probabilities and those of eight copies of it, moved and warped.
`--preset source` has the settings of the source instead: mel spectrograms, convolutions, flatten, Adam, batches of 32, 30 epochs, no augmentation.

Nested: for each speaker, the row of the two tables (seed 0) that was best on average on the OTHER five, each of them left out; its accuracy on this one counts.
The choice sees no result on the tested speaker; the trainings it rests on learnt from that speaker's clips, each with another speaker left out.
"""
import argparse
import statistics
import subprocess
import tempfile
import time
from dataclasses import replace
from itertools import product
from pathlib import Path

import torch
from common import machine
from transformer import enter

from specgen.audio import read_audio, write_audio
from specgen.augmentation import distort, vtlp_time_warp
from specgen.classifier import Classifier
from specgen.core import read_json, read_table, write_json, write_table
from specgen.datasets import load_recordings
from specgen.spectrogram_dataset import encode_waveforms

RESULTS = Path(__file__).parent / "results"
PAIR = "small", "pretrained"
TOGETHER = " + "  # between the names of presets that are asked together
KEYS = {"speakers": ("config", "speaker", "seed"), "left_out": ("config", "speaker", "seed"), "strangers": ("config", "seed", "sounds"),
        "esc10": ("config", "fold", "seed"),
        "distorted": ("config", "speaker", "seed")}
ACCENTS = "en-us en-gb en-gb-scotland en-029 en-gb-x-rp en-gb-x-gbclan en-us-nyc".split()
VARIANTS = "m1 m2 m3 m4 m5 m6 m7 f1 f2 f3 f4 f5 croak whisper klatt klatt2 klatt3 Andy Alex Alicia belinda Denis Diogo iven4".split()


def keep(table, rows):
    "Enter rows into one of the committed tables, or begin it."
    path = RESULTS / f"classifier_{table}.csv"
    enter(path, rows, KEYS[table]) if path.is_file() else write_table(path, rows)


def left_out_presets():
    "The preset `words/pretrained` without one step at a time, by what is left out."
    full = Classifier.presets["words/pretrained"]

    def without(**augment):
        return replace(full, augment={name: value for name, value in {**full.augment, **augment}.items() if value is not None})

    warp = full.augment["warp"]
    return {
        "published weights": full.changed(training=dict(speech_lr=None)),
        "their staying as they are": full.changed(training=dict(speech_lr=0.1)),
        "other voices": without(warp={**warp, "voice": 0.0}),
        "other tempi": without(warp={**warp, "tempo": 0.0}),
        "other microphones": without(tilt_db=None),
        "masks": without(mask=None),
    }


def fitted(dataset, preset, folder, seed):
    "A model, trained or read from the folder of its training, and the seconds of processor time that its training took."
    start = time.process_time()
    model = Classifier.fit(dataset, preset=preset, out=folder, seed=seed, progress=False)
    path = Path(folder) / "seconds.json"
    if not path.is_file():
        write_json(path, round(time.process_time() - start))
    return model, read_json(path)


def warped(model, spectrograms):
    "Mean probabilities of clips and eight warped copies of each."
    generator, hertz = torch.Generator().manual_seed(5), model.representation.frequencies
    probs = model.predict_proba(spectrograms)
    for _ in range(8):
        probs = probs + model.predict_proba(vtlp_time_warp(spectrograms, generator, hertz=hertz, voice=0.12, tempo=0.15, frames=3))
    return probs / 9


def percent(probs, labels):
    return round(100 * (probs.argmax(1) == labels).float().mean().item(), 2)


def mean_and_deviation(values):
    values = list(values)
    return f"{statistics.mean(values):6.2f} ± {statistics.stdev(values) if len(values) > 1 else 0:.2f}"


def official(args):
    recordings = load_recordings("fsdd")
    for name in args.preset:
        dataset = Classifier.prepare(recordings, preset=name)
        models = (fitted(dataset, name, args.out / f"official_{name}_{seed}", seed)[0] for seed in args.seeds)
        print(f"FSDD, official split (takes 0 to 4), {name}, % by seed:", *(f"{100 * m.evaluate(dataset)['accuracy']:.2f}" for m in models), flush=True)


def speaker_rows(args, table, configs):
    "Train with each speaker left out; rows as they come into a table."
    fsdd = load_recordings("fsdd")
    for seed in args.seeds:
        for name, preset in configs.items():
            for speaker in args.speakers:
                dataset = Classifier.prepare(fsdd, preset=preset, by="speaker", test=speaker)
                model, seconds = fitted(dataset, preset, args.out / f"{table}_{name.replace('/', '_').replace(' ', '_')}_{speaker}_{seed}", seed)
                x, labels = dataset.test.tensors
                right = dict(accuracy=percent(model.predict_proba(x), labels), accuracy_warped=percent(warped(model, x), labels))
                row = dict(config=name, speaker=speaker, seed=seed, n=len(labels), **right, cpu_seconds=seconds)
                keep(table, [row])
                print(" ".join(f"{key} {value}" for key, value in row.items()), flush=True)


def report(table):
    "Each configuration's mean over the speakers, by seed, and each speaker's over the seeds."
    groups = {}
    for row in read_table(RESULTS / f"classifier_{table}.csv"):
        groups.setdefault(row["config"], []).append(row)
    for name, column in ((name, column) for name in groups for column in ("accuracy", "accuracy_warped")):
        if rows := [row for row in groups[name] if row[column]]:
            by_seed = {seed: [float(r[column]) for r in rows if r["seed"] == seed] for seed in sorted({r["seed"] for r in rows})}
            whole = [statistics.mean(values) for values in by_seed.values() if len(values) == 6]
            by_speaker = {s: statistics.mean(float(r[column]) for r in rows if r["speaker"] == s) for s in sorted({r["speaker"] for r in rows})}
            mean = f"mean of six ± deviation between {len(whole)} seeds {mean_and_deviation(whole)};" if whole else ""
            print(f"{name:24s} {column:15s} {mean}", *(f"{s} {v:.1f}" for s, v in by_speaker.items()))


def speakers(args):
    speaker_rows(args, "speakers", {name: Classifier.preset(name, "words") for name in args.preset})
    report("speakers")


def pair(args):
    "Two networks that were built and trained differently, asked together: the mean of their probabilities."
    fsdd = load_recordings("fsdd")
    for seed in args.seeds:
        for speaker in args.speakers:
            probs, other, seconds = 0, 0, 0
            for name in PAIR:
                dataset = Classifier.prepare(fsdd, preset=name, by="speaker", test=speaker)
                model, own = fitted(dataset, name, args.out / f"speakers_{name}_{speaker}_{seed}", seed)
                x, labels = dataset.test.tensors
                probs, other, seconds = probs + model.predict_proba(x), other + warped(model, x), seconds + own
            right = dict(accuracy=percent(probs, labels), accuracy_warped=percent(other, labels))
            keep("speakers", [dict(config=" + ".join(PAIR), speaker=speaker, seed=seed, n=len(labels), **right, cpu_seconds=seconds)])
    report("speakers")


def left_out(args):
    known = left_out_presets()
    speaker_rows(args, "left_out", {step: known[step] for step in args.steps or known})
    report("left_out")


def nested(args):
    "The configuration for each speaker by the other five's results."
    found = {}
    tables = [table for table in ("speakers", "left_out") if (RESULTS / f"classifier_{table}.csv").is_file()]
    for table in tables:
        for row in read_table(RESULTS / f"classifier_{table}.csv"):
            name = row["config"] if table == "speakers" else f"without {row['config']}"
            if row["seed"] == "0":
                found.setdefault(name, {})[row["speaker"]] = float(row["accuracy"])
    found = {name: own for name, own in found.items() if len(own) == 6}
    for name, own in found.items():
        print(f"{name:32s} mean of six {mean_and_deviation(own.values())} between speakers")
    chosen = {}
    for speaker in next(iter(found.values())):
        best = max(found, key=lambda name: statistics.mean(v for s, v in found[name].items() if s != speaker))
        chosen[speaker] = found[best][speaker]
        print(f"{speaker:9s} {chosen[speaker]:.2f} % by {best}")
    print(f"nested, mean of six {mean_and_deviation(chosen.values())} between speakers")


def speak_strangers(folder):
    "24 voices of the program espeak-ng say the ten digits, clean and through a microphone each: folder/clean/7/m1.wav."
    for k, variant in enumerate(VARIANTS):
        voice, generator = f"{ACCENTS[k % len(ACCENTS)]}+{variant}", torch.Generator().manual_seed(1000 + k)
        for digit in range(10):
            path = folder / "clean" / str(digit) / f"{variant}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            subprocess.run(["espeak-ng", "-v", voice, "-s", str(120 + 13 * k % 80), "-p", str(25 + 11 * k % 50), "-w", path, str(digit)], check=True)
            sound = read_audio(path, 8000)[0]
            heard = distort(sound[None], generator, sample_rate=8000)[0]
            write_audio(folder / "distorted" / str(digit) / path.name, 0.9 * heard / heard.abs().max().clamp(min=1e-6), 8000)


def asked(args, fsdd, clips, folder, seed, **how):
    "For each preset, or several together: its name, the sum of the probabilities for sets of waveforms, by name, and the seconds of training."
    singles = {}
    for name in dict.fromkeys(name for preset in args.preset for name in preset.split(TOGETHER)):
        model, seconds = fitted(Classifier.prepare(fsdd, preset=name, **how), name, args.out / folder.format(name), seed)
        encoded = {kind: encode_waveforms(waveforms, model.representation, model.size[1], **model.encoding) for kind, waveforms in clips.items()}
        singles[name] = {kind: model.predict_proba(x) for kind, x in encoded.items()}, seconds
    for preset in args.preset:
        own = [singles[name] for name in preset.split(TOGETHER)]
        yield preset, {kind: sum(probs[kind] for probs, _ in own) for kind in clips}, sum(seconds for _, seconds in own)


def distorted(args):
    "Each speaker left out, as recorded and in another room, through another microphone and line each: what the choice for strangers is made by."
    fsdd, generator = load_recordings("fsdd"), torch.Generator().manual_seed(7)
    sounds = list(fsdd.waveforms(8000))
    changed = [distort(w[None], generator, sample_rate=8000)[0] for w in sounds]
    for seed, speaker in product(args.seeds, args.speakers):
        own = [i for i, name in enumerate(fsdd.speakers) if name == speaker]
        clips = {"clean": [sounds[i] for i in own], "distorted": [changed[i] for i in own]}
        for preset, probs, seconds in asked(args, fsdd, clips, f"speakers_{{}}_{speaker}_{seed}", seed, by="speaker", test=speaker):
            right = {kind: percent(p, fsdd.labels[own]) for kind, p in probs.items()}
            row = dict(config=preset, speaker=speaker, seed=seed, n=len(own), **right, cpu_seconds=seconds)
            keep("distorted", [row])
            print(" ".join(f"{key} {value}" for key, value in row.items()), flush=True)


def strangers(args):
    "Trained on FSDD's official training clips, tested on the voices of a synthesiser: a stand-in for recordings of people that FSDD does not have."
    fsdd = load_recordings("fsdd")
    with tempfile.TemporaryDirectory() as folder:
        speak_strangers(Path(folder))
        tests = {sounds: load_recordings(Path(folder) / sounds, progress=False) for sounds in ("clean", "distorted")}
        clips = {sounds: list(test.waveforms(8000)) for sounds, test in tests.items()}
    for seed in args.seeds:
        for preset, probs, seconds in asked(args, fsdd, clips, f"strangers_{{}}_{seed}", seed):
            for sounds, test in tests.items():
                right = dict(n=len(test), accuracy=percent(probs[sounds], test.labels))
                row = dict(config=preset, seed=seed, sounds=sounds, voices=len(VARIANTS), **right, cpu_seconds=seconds)
                keep("strangers", [row])
                print(" ".join(f"{key} {value}" for key, value in row.items()), flush=True)


def esc10(args):
    recordings = load_recordings("esc10")
    for seed in args.seeds:
        for name in args.preset:
            found, shifted = [], []
            for fold in range(1, 6):
                dataset = Classifier.prepare(recordings, preset=name, by="fold", test=fold)
                model, seconds = fitted(dataset, name, args.out / f"fold{fold}_{name}_{seed}", seed)
                x, labels = dataset.test.tensors
                found.append(percent(model.predict_proba(x), labels))
                moved = percent(sum(model.predict_proba(x.roll(-(k * x.shape[2] // 10), 2)) for k in range(10)), labels)
                keep("esc10", [dict(config=name, fold=fold, seed=seed, n=len(labels), accuracy=found[-1], accuracy_ten_shifts=moved, cpu_seconds=seconds)])
                shifted.append(moved)
            print(f"ESC-10, {name}, seed {seed}:", *found, "mean of five folds ± deviation between them:", mean_and_deviation(found))
            print("  the four that the presets were not chosen on:", mean_and_deviation(found[1:]))
            print("  ten shifts of each clip, their mean probabilities:", mean_and_deviation(shifted), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="official,speakers,esc10", help="of official, speakers, pair, left_out, nested, distorted, strangers, esc10")
    parser.add_argument("--preset", default="small", type=lambda text: text.split(","), help="of quick, small, pretrained, source, and so on")
    parser.add_argument("--seeds", type=lambda text: range(*map(int, text.split(":"))), default=range(1), help="trainings of each; 1:3 = seeds 1 and 2")
    parser.add_argument("--speakers", type=lambda text: text.split(","), default="george,jackson,lucas,nicolas,theo,yweweler", help="of FSDD")
    parser.add_argument("--steps", type=lambda text: text.split(","), help="of left_out_presets, for left_out; without it, all")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="torch threads")
    parser.add_argument("--out", type=Path, default=Path("runs/classifier"), help="where the trainings are kept")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(machine())
    for name in args.only.split(","):
        globals()[name](args)
