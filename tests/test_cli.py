"""The doors of the command line: from a folder of recordings to files, and one line for every mistake."""
import csv
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import typer

import specgen
from specgen.cli import app, at_home, commas, main


def does(capsys, *words) -> list[str]:
    "What a command prints, line by line."
    main([str(word) for word in words])
    return capsys.readouterr().out.splitlines()


def fails(capsys, *words) -> str:
    "The one line that a mistaken command ends with."
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    error = capsys.readouterr().err.strip()
    assert stop.value.code == 2 and error and "Traceback" not in error
    return error


def commands() -> dict[str, dict]:
    "Every command, such as 'gan fit', with its options by name."
    found = {}

    def walk(group, words):
        for name, command in group.commands.items():
            if hasattr(command, "commands"):
                walk(command, [*words, name])
            else:
                found[" ".join([*words, name])] = {option.opts[0]: option for option in command.params}

    walk(typer.main.get_command(app), [])
    return found


def test_spaces_around_commas_belong_to_no_word():
    assert commas("theo, george ,") == ("theo", "george") and commas("") == ()


# the same words everywhere


def test_the_same_options_have_the_same_meaning_and_default():
    every = commands()
    verbs = {"classify": "fit predict evaluate", "transformer": "fit predict evaluate cv", "flow": "fit sample", "gan": "fit sample",
             "vae": "fit sample reconstruct interpolate"}
    grammar = {f"{family} {verb}" for family, own in verbs.items() for verb in own.split()}
    assert every.keys() == grammar | {"run", "generate", "models", "score", "reassign", "invert"}
    fits = ["run", "transformer cv", *(name for name in grammar if name.endswith(" fit"))]
    for name in fits:
        assert {"--dataset", "--root", "--preset", "--out", "--seed", "--strict", "--device", "--precision"} <= every[name].keys(), name
    for option in ("--root", "--by", "--test", "--preset", "--seed", "--strict", "--device", "--precision", "--class", "--n", "--model", "--json", "--top",
                   "--steps", "--guidance"):
        used = {name: command for name, command in every.items() if option in command and (name, option) != ("vae interpolate", "--steps")}
        seen = [(command[option].help, command[option].default) for command in used.values()]
        assert len(seen) > 1 and len(set(seen)) == 1, option
    assert {every[name]["--dataset"].default for name in every if "--dataset" in every[name] and name not in ("transformer cv", "score")} == {"digits"}
    for name, options in every.items():
        if name not in ("reassign", "invert", "models"):
            assert {"--device", "--precision"} <= options.keys(), name
        assert all(option.help for option in options.values() if option.name != "help"), name
        assert not [option for option in options if option in ("--corpus", "--train", "--sr")], name
        assert "--out" not in options or not options["--out"].required, name
    assert every["gan sample"]["--truncation"].help != every["vae sample"]["--temperature"].help


def test_a_place_that_is_not_named_is_named_after_the_command():
    every = commands()
    folders = {name: str(options["--out"].default) for name, options in every.items() if "--out" in options}
    assert {name: place for name, place in folders.items() if name.endswith((" fit", " sample"))} == {
        **{f"{family} fit": f"runs/{family}" for family in ("classify", "transformer", "flow", "gan", "vae")},
        **{f"{family} sample": f"sounds/{family}" for family in ("flow", "gan", "vae")}}
    places = [place for place in folders.values() if place != "None"]
    assert len(set(places)) == len(places)


def test_flags_show_no_type_and_the_version_is_told(capsys):
    for words in (["run"], ["transformer", "predict"], []):
        shown = "\n".join(does(capsys, *words, "--help"))
        assert "bool" not in shown and "Show this message" in shown
    assert does(capsys, "--version") == [f"specgen {specgen.__version__}"]
    assert "--install-completion" in "\n".join(does(capsys, "--help"))


def test_models(capsys):
    rows = json.loads("\n".join(does(capsys, "models", "--json")))
    assert {row["name"] for row in rows} >= {"specgen/flow-digits", "specgen/gan-esc10", "specgen/vae-digits", "specgen/ast-esc10"}
    for row in rows:
        assert row["does"] and row["licence"].startswith(("cc-by", "apache")) and 0 < row["megabytes"] < 10 and row["used"], row
    shown = "\n".join(does(capsys, "models"))
    assert "classes: 0, 1, 2" in shown and not [row for row in rows if row["name"] not in shown]


def test_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/somewhere")
    assert at_home(["--out=~/x", "~/y", "~", "a~/b", "--class=~"]) == ["--out=/somewhere/x", "/somewhere/y", "~", "a~/b", "--class=/somewhere"]


def test_mistakes_are_told_in_one_line(capsys, tmp_path):
    assert "seed" in fails(capsys, "classify", "fit", "--seed", "one")
    assert "enormous" in fails(capsys, "run", "--preset", "enormous", "--out", tmp_path / "none")
    assert "toaster" in fails(capsys, "run", "--device", "toaster", "--out", tmp_path / "none")
    assert "fp8" in fails(capsys, "run", "--precision", "fp8", "--out", tmp_path / "none")
    assert "--folds" in fails(capsys, "transformer", "cv", "--folds", "1,two", "--out", tmp_path / "none")
    assert "--n" in fails(capsys, "gan", "sample", "--n", "0", "--out", tmp_path / "none")
    assert "no such" in fails(capsys, "reassign", tmp_path / "no.wav", tmp_path / "no.npz")
    assert "end the name so" in fails(capsys, "reassign", tmp_path / "no.wav", tmp_path / "no.wav")
    assert "of one folder" in fails(capsys, "transformer", "predict", tmp_path, tmp_path, "--out", tmp_path / "t.csv")
    assert not list(tmp_path.iterdir())


# each kind of model


def test_it_speaks_before_any_training(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    lines = does(capsys, "generate", "07", "--seed", "1")
    assert [Path(line).name for line in lines] == ["0_000.wav", "7_001.wav", "joined.wav", "spectrograms.png"]
    assert [p.name for p in tmp_path.iterdir()] == ["spoken"] and all(Path(line).is_file() for line in lines)
    assert "'x'" in fails(capsys, "generate", "x")


def test_classify(sounds, tmp_path, capsys):
    line = does(capsys, "classify", "fit", "--dataset", sounds, "--preset", "quick", "--out", tmp_path / "model", "--device", "cpu", "--precision", "fp32")[-1]
    assert line.startswith(f"{tmp_path / 'model'}: n ") and "accuracy " in line
    for precision in ("auto", "bf16"):
        out = tmp_path / f"{precision}.csv"
        does(capsys, "classify", "predict", sounds / "hum", "--model", tmp_path / "model", "--out", out, "--precision", precision)
        with open(out, newline="") as file:
            assert [row["Class"] for row in csv.DictReader(file)] == ["hum"] * 12
        assert not list(tmp_path.glob("*_unreadable.csv"))
    answers = json.loads("\n".join(does(capsys, "classify", "predict", sounds / "hum", "--model", tmp_path / "model", "--json", "--top", "1")))
    assert [row["classes"] for row in answers] == [["hum"]] * 12
    rows = json.loads("\n".join(does(capsys, "classify", "evaluate", "--dataset", sounds, "--model", tmp_path / "model", "--json")))
    assert [row["class"] for row in rows] == ["hiss", "hum", "all"] and rows[-1]["n"] == 24
    lines = does(capsys, "classify", "evaluate", "--dataset", sounds, "--model", tmp_path / "model")
    assert len(lines) == 3 and lines[-1].startswith("all") and " of     24 " in lines[-1]
    assert does(capsys, "classify", "evaluate", "--dataset", sounds, "--model", tmp_path / "model", "--also", tmp_path / "model") == lines
    for name, length in (("1.wav", None), ("2.wav", 60)):
        (tmp_path / "damaged" / "hum").mkdir(parents=True, exist_ok=True)
        (tmp_path / "damaged" / "hum" / name).write_bytes(next(sounds.glob("hum/*.wav")).read_bytes()[:length])
    lines = does(capsys, "classify", "evaluate", "--dataset", tmp_path / "damaged", "--model", tmp_path / "model")
    assert lines[-1].startswith("unreadable") and "hum/2.wav: " in lines[-1]
    (tmp_path / "other" / "bark").mkdir(parents=True)
    (tmp_path / "other" / "bark" / "1.wav").write_bytes(next(sounds.glob("hum/*.wav")).read_bytes())
    assert "has the class 'bark'" in fails(capsys, "classify", "evaluate", "--dataset", tmp_path / "other", "--model", tmp_path / "model")
    refused = fails(capsys, "classify", "fit", "--dataset", sounds, "--by", "fold", "--test", "1", "--out", tmp_path / "none")
    assert "no split by fold" in refused and not (tmp_path / "none").exists()
    assert "No such file" in fails(capsys, "classify", "predict", tmp_path / "nowhere", "--model", tmp_path / "model")
    csv_of = ("classify", "predict", tmp_path / "damaged", "--model", tmp_path / "model", "--out", tmp_path / "some.csv")
    assert does(capsys, *csv_of) == [f"{tmp_path / 'some.csv'}: 1 files"] and (tmp_path / "some_unreadable.csv").is_file()
    (tmp_path / "damaged" / "hum" / "2.wav").unlink()
    assert does(capsys, *csv_of) and not (tmp_path / "some_unreadable.csv").exists()


def test_gan(sounds, tmp_path, capsys):
    fit = ("gan", "fit", "--dataset", sounds, "--preset", "quick", "--out", tmp_path / "model")
    assert str(tmp_path / "model") in does(capsys, *fit)[-1]
    drawn = does(capsys, "gan", "sample", "--class", "hiss", "--n", "2", "--model", tmp_path / "model", "--out", tmp_path / "drawn")
    assert [Path(line).name for line in drawn] == ["hiss_000.wav", "hiss_001.wav", "spectrograms.png"]
    assert all(Path(line).is_file() for line in drawn)
    does(capsys, "gan", "sample", "--n", "3", "--model", tmp_path / "model", "--out", tmp_path / "bf16", "--precision", "bf16")
    assert sorted(p.name for p in (tmp_path / "bf16").glob("*.wav")) == ["hiss_000.wav", "hiss_002.wav", "hum_001.wav"]
    assert "seed" in fails(capsys, *fit, "--seed", "1")  # another run's folder
    assert "hiss, hum" in fails(capsys, "gan", "sample", "--class", "bark", "--model", tmp_path / "model", "--out", tmp_path / "none")
    assert "no saved model" in fails(capsys, "gan", "sample", "--model", tmp_path / "drawn", "--out", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_gan_with_a_vocoder_of_either_kind(tmp_path, capsys):
    from specgen.audio import read_audio

    drawn = does(capsys, "gan", "sample", "--n", "2", "--out", tmp_path / "spectral", "--vocoder", "specgen/vocoder-digits")
    plain = does(capsys, "gan", "sample", "--n", "2", "--out", tmp_path / "plain")
    one, other = (read_audio(lines[0])[0] for lines in (drawn, plain))
    assert len(one) == len(other) and not torch.equal(one, other)
    assert "hifigan" in fails(capsys, "gan", "sample", "--out", tmp_path / "none", "--vocoder", tmp_path / "hifigan").lower()


def test_class_names_never_become_paths(tmp_path, capsys):
    from specgen.gan import GAN

    shipped = GAN.from_pretrained("specgen/gan-digits")
    shipped.save_pretrained(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    strange = ["../../x", "/etc/x", "a/b", "..", "", "con\0", "$\\frac$", "x" * 300, "<b>", "é"]
    config["classes"] = strange
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    before = sorted(tmp_path.rglob("*"))
    does(capsys, "gan", "sample", "--n", "10", "--model", tmp_path / "model", "--out", tmp_path / "in" / "drawn")
    made = set(tmp_path.rglob("*")) - set(before) - {tmp_path / "in", tmp_path / "in" / "drawn"}
    assert len(made) == 11 and {p.parent for p in made} == {tmp_path / "in" / "drawn"}


def test_vae(tmp_path, capsys):
    wavs = [Path(line) for line in does(capsys, "vae", "sample", "--class", "7", "--n", "2", "--out", tmp_path / "drawn")][:2]
    assert [path.name for path in wavs] == ["7_000.wav", "7_001.wav"]
    again = does(capsys, "vae", "reconstruct", tmp_path / "drawn", "--out", tmp_path / "again")
    assert [Path(line).name for line in again] == [
        "7_000_given_000.wav", "7_000_returned_001.wav", "7_001_given_002.wav", "7_001_returned_003.wav", "spectrograms.png",
    ]
    does(capsys, "vae", "interpolate", *wavs, "--steps", "3", "--out", tmp_path / "between")
    assert {p.name for p in (tmp_path / "between").iterdir()} == {"step_000.wav", "step_001.wav", "step_002.wav", "joined.wav", "spectrograms.png"}
    assert "class 'rooster'" in fails(capsys, "vae", "sample", "--class", "rooster", "--out", tmp_path / "none")
    assert "truncated" in fails(capsys, "vae", "interpolate", wavs[0], cut(wavs[1]), "--out", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_flow_draws_one_class_or_all_in_turn(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = does(capsys, "flow", "sample", "--n", "3")
    assert [Path(line).as_posix() for line in lines] == [f"sounds/flow/{k}_00{k}.wav" for k in range(3)] + ["sounds/flow/spectrograms.png"]
    assert [Path(line).name for line in does(capsys, "flow", "sample", "--n", "1", "--class", "7", "--steps", "2")][0] == "7_000.wav"
    assert "class 'rooster'" in fails(capsys, "flow", "sample", "--class", "rooster")


def test_transformer(sounds, tmp_path, capsys):
    wav = sounds / "hiss" / "0.wav"
    (row,) = json.loads("\n".join(does(capsys, "transformer", "predict", wav, "--top", "2", "--json")))
    assert row["file"] == str(wav) and len(row["classes"]) == len(row["probabilities"]) == 2
    named = does(capsys, "transformer", "predict", wav, "--top", "1", "--precision", "bf16")
    assert named[0] == str(wav) and named[1].split()[-1] == row["classes"][0]
    assert "fold" in fails(capsys, "transformer", "cv", "--dataset", sounds, "--out", tmp_path / "none")
    assert "has the class 'hiss'" in fails(capsys, "transformer", "evaluate", "--dataset", sounds)
    assert "truncated" in fails(capsys, "transformer", "predict", cut(wav, tmp_path))


def test_there_and_back(sounds, tmp_path, capsys):
    from specgen.audio import read_audio, write_audio

    sound = 0.5 * torch.sin(0.3 * torch.arange(400.0)) * torch.hann_window(400) + 0.01 * torch.randn(400, generator=torch.Generator().manual_seed(0))
    write_audio(tmp_path / "a.wav", sound, 8000)
    assert does(capsys, "reassign", tmp_path / "a.wav", tmp_path / "a.npz") == [str(tmp_path / "a.npz")]
    assert "of the frames solved" in does(capsys, "invert", tmp_path / "a.npz", tmp_path / "b.wav")[0]
    given, back = (read_audio(tmp_path / name)[0] for name in ("a.wav", "b.wav"))
    assert min((given - back).abs().max(), (given + back).abs().max()) < 1e-3
    assert "specgen reassign" in fails(capsys, "invert", tmp_path / "a.wav", tmp_path / "c.wav")
    told = json.loads("\n".join(does(capsys, "invert", tmp_path / "a.npz", tmp_path / "d.wav", "--json")))
    assert told["trusted"] and told["solved"] == 1.0 and told["wav"].endswith("d.wav")
    assert ".wav, .flac" in fails(capsys, "invert", tmp_path / "a.npz", tmp_path / "d.txt")
    assert "take.2: features are written as .npz" in fails(capsys, "reassign", tmp_path / "a.wav", tmp_path / "take.2")  # take.1 and take.2 were one take.npz


def cut(path: Path, folder: Path | None = None) -> Path:
    "A copy of a file without its end."
    short = (folder or path.parent) / f"cut_{path.name}"
    short.write_bytes(path.read_bytes()[:-100])
    return short


def test_a_stop_is_told(capsys, monkeypatch, tmp_path):
    def stopped(*args, **settings):
        raise KeyboardInterrupt

    for place, words in (("specgen.evaluation.cross_validate", ["transformer", "cv"]), ("specgen.models.fit_recordings", ["gan", "fit"])):
        monkeypatch.setattr(place, stopped)
        with pytest.raises(SystemExit) as stop:
            main([*words, "--out", str(tmp_path)])
        assert stop.value.code == 130 and "stopped; the same command continues from here" in capsys.readouterr().err


def test_our_own_mistakes_keep_their_traceback(monkeypatch, tmp_path):
    def broken(*args, **settings):
        raise ZeroDivisionError

    monkeypatch.setattr("specgen.models.fit_recordings", broken)
    with pytest.raises(ZeroDivisionError):
        main(["gan", "fit", "--out", str(tmp_path)])


@pytest.mark.skipif(os.name != "posix", reason="pipes of POSIX")
def test_what_an_inverse_warns_of_is_told_once(tmp_path, capsys, monkeypatch):
    def warns(*_, **__):
        warnings.warn("invert: three stretches", UserWarning, stacklevel=1)
        return SimpleNamespace(solved=1.0, residual=1e-9, trusted=False, warning="three stretches")

    monkeypatch.setattr("specgen.exact_inverse.invert_file", warns)
    with warnings.catch_warnings(action="error"):
        main(["invert", str(tmp_path / "a.npz"), str(tmp_path / "b.wav")])
    assert capsys.readouterr().err == "specgen: three stretches\n"


@pytest.mark.parametrize("words", ["--help", "invert a.npz b.wav"])
def test_a_reader_that_leaves_is_no_error(words):
    "As in `specgen ... | head -1`."
    answer = "SimpleNamespace(solved=1.0, residual=0.0, trusted=True)"
    code = "import sys; from types import SimpleNamespace; import specgen.cli as c, specgen.exact_inverse as e; "
    code += f"e.invert_file = lambda *a, **how: {answer}; c.main()"
    reads, writes = os.pipe()
    os.close(reads)
    done = subprocess.run([sys.executable, "-c", code, *words.split()], stdout=writes, stderr=subprocess.PIPE, text=True)
    os.close(writes)
    assert done.stderr == ""


def test_a_file_that_is_not_there_is_told_with_a_way_out(tmp_path, capsys):
    for words in (["transformer", "predict"], ["vae", "reconstruct", "--out", str(tmp_path / "o")]):
        with pytest.raises(SystemExit) as stop:
            main([*words, str(tmp_path / "none.wav")])
        said = capsys.readouterr().err
        assert stop.value.code == 2 and "none.wav: " in said and "; check the path, or name other recordings" in said and said.count("\n") == 1
    assert not (tmp_path / "o").exists()


def test_reconstruct_goes_on_without_a_bad_file(tmp_path, capsys):
    from specgen.audio import demo_voice, write_audio
    write_audio(tmp_path / "in" / "a.wav", demo_voice(8000)[:2000], 8000)
    (tmp_path / "in" / "b.wav").write_text("no sound")
    main(["vae", "reconstruct", str(tmp_path / "in"), "--out", str(tmp_path / "o")])
    assert "b.wav: " in capsys.readouterr().err and (tmp_path / "o" / "a_given_000.wav").is_file()
