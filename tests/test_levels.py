"Sounds to listen to: no click at the ends, one loudness, whatever made them."
import math

import pytest
import torch
from made_up import noise

from specgen.audio import read_audio
from specgen.gan import GAN
from specgen.levels import LOUDNESS, PEAK, active_level, for_listening, joined
from specgen.models import save_samples
from specgen.pipeline import DigitGenerator
from specgen.vae import VAE

GENERATORS = [(DigitGenerator, "flow-digits"), (GAN, "gan-digits"), (GAN, "gan-esc10"), (VAE, "vae-digits")]


@pytest.mark.parametrize("kind,name", GENERATORS, ids=lambda x: x if isinstance(x, str) else x.__name__)
def test_what_a_generator_writes_starts_and_ends_at_zero_and_is_as_loud_as_any(kind, name, tmp_path):
    model = kind.from_pretrained(f"specgen/{name}")
    rate, given = model.representation.sample_rate, model.to_audio(model.sample(10, seed=0))
    *paths, whole = save_samples(tmp_path, ["x"] * 10, given, rate, joined=True)
    for sound, path in zip(given, paths, strict=True):
        written, ms10 = read_audio(path)[0], rate // 100
        assert written[0].abs() < 1e-3 and written[-1].abs() < 1e-3 and len(written) == len(sound)
        tails = [x[-ms10:].square().mean().sqrt() / x.square().mean().sqrt() for x in (sound, written)]
        assert tails[1] <= tails[0] + 1e-4  # of the 16 bits
        level, peak = active_level(written, rate), written.abs().max()
        assert peak <= PEAK + 1e-3 and level < LOUDNESS + 0.1 and (level > LOUDNESS - 0.1 or peak > PEAK - 1e-3)
    steps = read_audio(whole)[0].diff().abs()
    assert steps.max() <= max(read_audio(path)[0].diff().abs().max() for path in paths) + 1e-4


@pytest.mark.parametrize("samples", [0, 1, 2, 3, 79, 80, 121, 4000])
@pytest.mark.parametrize("rate", [1000, 8000, 44100])
def test_sounds_of_any_length(samples, rate):
    done = for_listening(0.3 * noise(samples) + 0.2, rate)
    assert done.shape == (samples,) and done.isfinite().all() and not (done.abs() > PEAK + 1e-6).any()
    assert samples < 2 or done[0] == done[-1] == 0


def test_silence_stays_silent_and_the_given_sound_as_it_was():
    assert not for_listening(torch.zeros(800), 8000).any() and active_level(torch.zeros(800), 8000) == -math.inf
    assert for_listening(1e-6 * noise(800), 8000).abs().max() < 1e-4
    given = noise(800)
    kept = given.clone()
    for_listening(given, 8000)
    assert torch.equal(given, kept)


def test_level_before_makes_no_difference():
    sound = 0.1 * noise(8000)
    assert torch.allclose(for_listening(sound, 8000), for_listening(7 * sound, 8000), atol=1e-6)
    assert abs(active_level(for_listening(sound, 8000), 8000) - LOUDNESS) < 1e-3


def test_joined_sounds_lie_between_silences():
    one = joined([for_listening(noise(800, seed=k), 8000) for k in range(3)], 8000, gap=0.1)
    assert len(one) == 3 * 1600 and not one[800:1600].any() and not one[-800:].any()
