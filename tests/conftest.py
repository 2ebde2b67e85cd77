"What all tests need: Ctrl-C, also where it is ignored because they were started in the background; a GPU that computes as exactly as the CPU."
import signal

import pretend
import pytest
import torch
from made_up import noise

from specgen.audio import write_audio

signal.signal(signal.SIGINT, signal.default_int_handler)
torch.backends.cudnn.allow_tf32 = False  # what agrees in float32 has to agree on a GPU too,
torch.backends.cudnn.deterministic = True  # and what is the same twice


def pytest_sessionstart():
    if pretend.PRETENDING:
        pretend.become_default()


@pytest.fixture(scope="session")
def sounds(tmp_path_factory):
    "A class of hums, a class of hisses. Tests read it and write nothing there."
    place = tmp_path_factory.mktemp("sounds")
    for i in range(12):
        t = torch.arange(4000) / 8000
        write_audio(place / f"hum/{i}.wav", 0.5 * torch.sin(2 * torch.pi * (200 + 10 * i) * t), 8000)
        write_audio(place / f"hiss/{i}.wav", 0.1 * noise(4000, seed=i), 8000)
    return place
