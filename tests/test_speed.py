"The benchmark of speed: what its table says follows from its rounds, whatever they took."
import importlib.util
from dataclasses import dataclass, field

import pytest
from figures import ROOT

from specgen.core import read_table


@pytest.fixture
def speed():
    path = ROOT / "benchmarks" / "speed.py"
    spec = importlib.util.spec_from_file_location("speed", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass
class Job:
    "As of `speed_jobs.py`, which needs the peers."

    works: dict
    peers: dict = field(default_factory=dict)
    best: dict = field(default_factory=dict)
    notes: dict = field(default_factory=dict)
    name: str = "job"
    unit: str = "clips"
    rounds: tuple = (3, 4)
    warm: bool = True

    def much(self, method):
        return 10


def test_works_are_called_by_turns(speed):
    calls = []
    job = Job({name: lambda name=name: calls.append(name) for name in "ab"}, best={"c": ["a", "b"]})
    seconds = speed.rounds_of(job, small=False)
    assert calls == list("ab" + "ab" + "ba" + "ab" + "ba") and {len(own) for own in seconds.values()} == {4}
    assert seconds["c"] in (seconds["a"], seconds["b"])


def test_ratios_are_of_the_same_rounds(speed):
    seconds = {"peer": [2.0, 20.0, 2.0], "ours": [1.0, 10.0, 1.0], "slow": [4.0, 40.0, 4.0]}
    job = Job(dict.fromkeys(seconds), {"ours": ("peer", 1.5), "slow": ("peer", 1.5)}, notes={"slow": lambda: "so"})
    peer, ours, slow = speed.rows_of(job, seconds, 1, "here")
    assert (ours["ratio"], ours["met"], slow["ratio"], slow["met"], slow["note"]) == ("2.00", "yes", "0.50", "no", "so")
    assert "ratio" not in peer and float(ours["rate"]) == 10
    real = speed.rows_of(Job({"ours": None}, {"ours": ("real time", None)}), {"ours": [2.0]}, 1, "here")[0]
    assert real["ratio"] == "5.00" and real["goal"] == real["met"] == ""


def test_two_runs_are_compared(speed, capsys):
    rows = [dict(job="job", method="ours", threads="1", ratio="2.00"), dict(job="job", method="peer", threads="1", ratio="")]
    speed.compare(rows, [dict(row, ratio=row["ratio"] and "2.20") for row in rows])
    assert "largest difference: 10%, job, ours, 1" in capsys.readouterr().out


def test_the_peers_are_pinned():
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    assert pinned["kaldi-native-fbank"] == "1.22.3" and {"diffusers", "transformers", "librosa", "torchaudio"} <= pinned.keys()


def test_the_table_is_of_one_machine_and_says_which_goals_are_met(speed):
    rows = read_table(speed.RESULTS)
    assert tuple(rows[0]) == speed.COLUMNS and {row["threads"] for row in rows} == {"1", "2"}
    assert len({row["machine"].split(", ")[0] for row in rows}) == 1 and len({speed.key(row) for row in rows}) == len(rows)
    for row in rows:
        assert row["met"] == ("" if not row["goal"] else "yes" if float(row["ratio"]) >= float(row["goal"]) else "no"), row
