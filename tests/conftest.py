"Tests of Ctrl-C need it to work, also when the tests themselves were started in the background, where it is ignored."
import signal

import pytest
import torch
from made_up import noise

from specgen.audio import write_audio

signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def sounds(tmp_path_factory):
    "A class of hums, a class of hisses. Tests read it and write nothing there."
    place = tmp_path_factory.mktemp("sounds")
    for i in range(12):
        t = torch.arange(4000) / 8000
        write_audio(place / f"hum/{i}.wav", 0.5 * torch.sin(2 * torch.pi * (200 + 10 * i) * t), 8000)
        write_audio(place / f"hiss/{i}.wav", 0.1 * noise(4000, seed=i), 8000)
    return place
