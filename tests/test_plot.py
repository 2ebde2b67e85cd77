"Figures and players at their edges: strange names, other devices and precisions, degenerate spectrograms."
import io
from itertools import combinations
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import soundfile
import torch
from IPython.core.formatters import DisplayFormatter
from IPython.display import HTML
from matplotlib.figure import Figure
from PIL import Image

from specgen import plot
from specgen.core import SpecgenError
from specgen.plot import (
    alternative_text,
    confusion_matrix,
    figure_png,
    latent_scatter,
    player,
    players,
    plot_confusion,
    plot_history,
    show_specs,
    show_waveform,
    subplots,
)
from specgen.spectrogram import LogMel, LogSTFT

MELS = LogMel(sample_rate=8000, n_fft=512, hop_length=64, n_mels=40)
STRANGE = ["$\\frac$", "5$ or 10$", "$x^2$", "a_b^c\\d", "<b>&", b"caf\xe9".decode("utf-8", "surrogateescape"), "\\$", "con\0"]


def shown_texts(figure):
    "What is drawn: every text of a figure, as matplotlib lays it out, and whether any of it was taken for mathematics."
    texts = [t for t in figure.findobj(lambda a: hasattr(a, "_preprocess_math")) if t.get_text()]
    return [t._preprocess_math(t.get_text()) for t in texts]


def check_strange(figure):
    assert figure_png(figure)[:4] == b"\x89PNG"
    drawn = shown_texts(figure)
    assert not any(math for _, math in drawn)
    assert {"$\\frac$", "5$ or 10$", "$x^2$", "a_b^c\\d", "<b>&", "\\$"} <= {text for text, _ in drawn}


def test_dollars_in_titles_are_letters():
    check_strange(show_specs(torch.zeros(len(STRANGE), 4, 5), titles=STRANGE))


def test_dollars_in_class_names_are_letters_in_a_confusion_matrix():
    n = len(STRANGE)
    check_strange(plot_confusion(confusion_matrix(torch.arange(n), torch.arange(n), n), STRANGE))


def test_dollars_in_class_names_are_letters_among_latents():
    check_strange(latent_scatter(torch.randn(20 * len(STRANGE), 6), torch.arange(len(STRANGE)).repeat(20), STRANGE))


def test_dollars_in_legends_and_above_waveforms_are_letters():
    history = [{"step": i, "loss": 1.0, **{f"val_{name}": 1.0 for name in STRANGE if "_" not in name}} for i in range(3)]
    figure = plot_history(history)
    legend = next(ax.get_legend() for ax in figure.axes if ax.get_legend())
    assert figure_png(figure) and {"5$ or 10$", "$x^2$"} <= {t._preprocess_math(t.get_text())[0] for t in legend.get_texts()}
    assert all(figure_png(show_waveform(torch.zeros(10), 100, name)) for name in STRANGE)


def test_players_escape_their_titles_and_are_utf8():
    text = players([torch.zeros(10)] * len(STRANGE), 8000, STRANGE).data
    assert "&lt;b&gt;&amp;" in text and "<b>" not in text and "caf?" in text
    text.encode("utf-8")
    with pytest.raises(ValueError):
        players([torch.zeros(10)] * 2, 8000, ["one"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_any_precision_is_drawn(dtype):
    specs = torch.arange(40.0).reshape(2, 4, 5).to(dtype).requires_grad_()
    figure = show_specs(specs, representation=MELS)
    drawn = np.asarray(figure.axes[0].images[0].get_array())
    np.testing.assert_array_equal(drawn, np.arange(20.0).reshape(4, 5))
    show_waveform(torch.ones(8, dtype=dtype), 8000)
    pcm, _ = soundfile.read(io.BytesIO(player(torch.full((100,), 0.5, dtype=dtype), 8000).data), dtype="int16")
    assert abs(int(pcm.max()) - 16384) <= 1
    latent_scatter(torch.randn(12, 3, generator=torch.Generator().manual_seed(0)).to(dtype), torch.arange(12) % 2)


class Elsewhere:
    "Frequencies and times of a representation whose tensors are not NumPy's: they carry gradients, as a learnt one's would."

    frequencies = torch.linspace(0, 4000, 4, requires_grad=True)

    @staticmethod
    def frame_times(n):
        return torch.arange(n, dtype=torch.float32, requires_grad=True)


def test_a_representation_may_live_anywhere():
    assert figure_png(show_specs(torch.zeros(4, 5), representation=Elsewhere()))


def test_confusion_counts_are_known():
    matrix = confusion_matrix([0, 0, 1, 2], [0, 1, 1, 0], 3)
    assert matrix.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]
    figure = plot_confusion(matrix, "abc")
    assert sorted(t.get_text() for t in figure.axes[0].texts) == ["1"] * 4
    assert not plot_confusion(torch.eye(25), range(25)).axes[0].texts
    assert figure_png(plot_confusion(torch.zeros(2, 2), "ab"))  # a class without clips


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (4, 1)])
def test_degenerate_spectrograms_are_drawn(shape):
    assert figure_png(show_specs(torch.zeros(shape)[None], representation=MELS))
    assert figure_png(show_specs(torch.full(shape, float("nan"))))


def test_what_is_no_spectrogram_is_refused():
    for bad in ([], torch.zeros(5), torch.zeros(0, 4, 4), [torch.zeros(2, 3, 4)], torch.zeros(2, 0, 3)):
        with pytest.raises(SpecgenError, match="no spectrograms"):
            show_specs(bad)


def test_a_missing_history_is_told(tmp_path):
    with pytest.raises(SpecgenError, match="no such history"):
        plot_history(tmp_path / "history.csv")
    (tmp_path / "history.csv").write_text("step,loss,val_accuracy\n1,2.5,\n2,2.0,0.5\n")
    lines = [line.get_xydata().tolist() for ax in plot_history(tmp_path / "history.csv").axes for line in ax.lines]
    assert [[1.0, 2.5], [2.0, 2.0]] in lines and [[2.0, 0.5]] in lines


def test_a_titled_player_holds_the_sound_without_loss():
    sound = torch.randint(-(2**15), 2**15, (100,)) / 2**15
    for samples, rate, kind in ((sound, 8000, "flac"), (sound, 768_000, "wav"), (torch.zeros(0), 8000, "wav")):
        html, plain = player(samples, rate, "a"), player(samples, rate)
        assert isinstance(html, HTML) and f"data:audio/{kind};base64" in html.data and f"data:audio/{kind};base64" in plain._repr_html_()
        there, own_rate = soundfile.read(io.BytesIO(plain.data), dtype="float32")
        assert own_rate == rate and np.abs(there - samples.numpy()).max(initial=0) < 1e-4


def test_a_figure_says_in_words_what_it_holds():
    specs = show_specs(torch.rand(3, 40, 9), representation=MELS, titles=["$a$", "b", "b"], ncols=2)
    assert alternative_text(specs) == "3 panels, spectrogram: $a$, b. Hertz against seconds; colour bar: dB."
    history = [{"step": k, "loss": 1.0, "val_loss": 1.0, "val_accuracy": 0.5} for k in range(3)]
    assert alternative_text(plot_history(history)) == "1 panel, curves. Loss, validation against step; legend: train, validation, accuracy."
    assert alternative_text(plot_confusion(torch.eye(2), "ab")) == "1 panel, confusion matrix. True against predicted."
    assert alternative_text(show_waveform(torch.zeros(9), 8, "silence")) == "1 panel, curves: silence. Seconds."
    assert alternative_text(latent_scatter(torch.randn(9, 3), [0, 1, 2] * 3)) == "1 panel, points. Component 2 against component 1."
    fig, (left, right) = subplots(1, 2)
    assert alternative_text(fig) == "2 panels."
    left.bar([1, 2], [3, 4])
    assert alternative_text(fig) == "2 panels, bars."
    assert alternative_text(plt.figure()) == "0 panels."
    plt.close("all")


def test_a_text_of_ones_own_is_used_and_a_long_one_of_many_titles_is_cut():
    fig, _ = subplots(alt="A falling loss.")
    assert alternative_text(fig) == "A falling loss."
    fig.alt = "Another one."
    assert alternative_text(fig) == "Another one."
    many = alternative_text(show_specs(torch.zeros(60, 2, 2), titles=[f"title number {k}" for k in range(60)]))
    assert len(many) <= 250 and "title number 0, title number 1" in many and "more" in many
    assert len(alternative_text(show_specs(torch.zeros(2, 2), titles=["word " * 99]))) <= 250


@pytest.mark.parametrize("draws", [True, False])
def test_a_notebooks_picture_carries_the_text_and_twice_the_pixels(monkeypatch, draws):
    formatter = DisplayFormatter()
    monkeypatch.setattr(plot, "get_ipython", lambda: SimpleNamespace(display_formatter=formatter))
    if draws:
        formatter.formatters["image/png"].for_type(Figure, lambda fig: b"png")
    fig, _ = subplots(alt="A falling loss.")
    data, about = formatter.format(fig)
    assert ("image/png" in data) == draws and "text/plain" in data
    if draws:
        width, shown = Image.open(io.BytesIO(data["image/png"])).width, about["image/png"]
        assert shown["alt"] == "A falling loss." and width // 2 == shown["width"] and abs(shown["width"] - 76 * fig.get_figwidth()) < 20


def test_the_colour_bar_is_in_decibels():
    tone = 0.5 * torch.sin(2 * torch.pi * 1000 * torch.arange(8000) / 8000)
    plain, scaled = LogSTFT(8000, 512, 64), LogSTFT(8000, 512, 64, mean=-3.0, std=2.0)
    bars = [show_specs(r.encode(tone), representation=r, vmax=r.encode(tone).max()).axes[-1] for r in (plain, scaled)]
    assert all(bar.get_ylabel() == "dB" for bar in bars)
    loudest = 20 * np.log10(0.5 * 512 / 4)  # of a Hann window of 512 samples
    np.testing.assert_allclose([bar.get_ylim()[1] for bar in bars], loudest, atol=0.1)
    np.testing.assert_allclose(*[bar.get_ylim() for bar in bars], atol=1e-3)
    assert len(show_specs(torch.zeros(4, 5)).axes) == len(show_specs(torch.zeros(4, 5), representation=Elsewhere()).axes) == 1
    assert len(show_specs(torch.zeros(40, 5), representation=MELS, decibels=False).axes) == 1


def test_names_of_clouds_do_not_cover_each_other():
    points = torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
    fig = latent_scatter(points, torch.arange(400) % 8, [f"speaker {k}" for k in range(8)])
    fig.draw_without_rendering()
    boxes = [text.get_bbox_patch().get_window_extent() for text in fig.axes[0].texts]
    for one, other in combinations(boxes, 2):
        assert min(one.x1, other.x1) - max(one.x0, other.x0) < 1 or min(one.y1, other.y1) - max(one.y0, other.y0) < 1
