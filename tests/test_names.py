"Names from outside: as files, as cells of tables, as labels in figures."
import csv

import pytest
import torch

from specgen.core import append_row, atomic, keep_rows, read_table, safe_name, sweep, write_table
from specgen.models import save_samples
from specgen.plot import figure_png, latent_scatter, plot_confusion, plot_history, show_specs, show_waveform

NAMES = ["/etc/cron.d/x", "../../x", "..", "a/b", "C:\\x", "nul\0", "x" * 300, "é" * 200, "日本語" * 60, "", ".", "-rf", "$_$", r"$\frac$", "a\nb", "50 %",
         r"\$x\$", "yes, please", "=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(1)", "\t=1", "\r=1", "'=1", "''-x", "'quoted'", "caf\udce9", "<b>&amp;</b>"]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_a_name_stays_in_its_folder(tmp_path, name):
    paths = save_samples(tmp_path / "out", [name], [0.1 * torch.ones(900)], 8000, spectrograms=torch.rand(1, 9, 9))
    assert sorted(tmp_path.rglob("*.*")) == sorted(paths) and all(path.parent == tmp_path / "out" for path in paths)
    assert len(safe_name(name).encode()) <= 109 and safe_name(name) not in (".", "..") and "/" not in safe_name(name)


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_a_name_is_drawn_letter_by_letter(name):
    figures = [show_specs(torch.rand(1, 5, 5), titles=[name]), show_waveform(torch.zeros(9), 8000, title=name), plot_confusion(torch.ones(2, 2), [name, "b"]),
               latent_scatter(torch.rand(6, 3), [0, 1] * 3, names=[name, "b"]),
               plot_history([{"step": 1, "loss": 1.0, f"val_{name}": 2.0}, {"step": 2, "loss": 0.5, f"val_{name}": 1.0}])]
    for figure in figures:
        assert figure_png(figure)[:4] == b"\x89PNG"


def test_no_cell_is_a_formula_and_all_come_back(tmp_path):
    names = [name for name in NAMES if "\0" not in name]
    numbers = [-1.5, 3, "-1.5", "+2", "-inf", "1e-3", True]
    rows = [{"name": name, "=score": value, "b": "x"} for name in names for value in numbers[:2]] + [{"name": "n", "=score": v, "b": ""} for v in numbers]
    wanted = [{key: str(value) for key, value in row.items()} for row in rows]
    path = write_table(tmp_path / "t.csv", rows)
    assert read_table(path) == wanted
    for row in rows:
        append_row(tmp_path / "u.csv", row)
    assert read_table(tmp_path / "u.csv") == wanted and (tmp_path / "u.csv").read_bytes() == path.read_bytes()
    append_row(path, {"name": "last", "@new": "=1"})
    assert read_table(path)[-1] == {"name": "last", "=score": "", "b": "", "@new": "=1"} and read_table(path)[:-1] == [{**row, "@new": ""} for row in wanted]
    assert keep_rows(path, 4) == read_table(path) == [{**row, "@new": ""} for row in wanted[:4]]
    for table in (path, tmp_path / "u.csv"):
        with open(table, newline="", encoding="utf-8", errors="surrogateescape") as file:
            cells = [cell for row in csv.reader(file) for cell in row]
        assert not [cell for cell in cells if cell[:1] in tuple("=+-@\t\r") and cell not in ("-1.5", "+2", "-inf")]
        assert "-1.5" in cells


@pytest.mark.parametrize("name", ["x" * 251 + ".csv", "é" * 125 + ".csv", "日" * 83 + ".csv", "a." + "b" * 253, "x." + "日" * 80, "a" * 255, "." + "x" * 254])
def test_the_longest_names_are_written(tmp_path, name):
    with atomic(tmp_path / name) as temporary:
        assert len(temporary.name.encode()) <= 255
        temporary.write_text("x")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    left = temporary
    left.write_text("left by a kill")
    sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]
