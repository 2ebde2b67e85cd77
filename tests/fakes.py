"Stand-ins with known answers: a classifier that reads the loudest band, a generator that draws it, a dataset of both."
import torch

from specgen.evaluation import Evaluator
from specgen.augmentation import item_noise
from specgen.spectrogram import LogMel
from specgen.spectrogram_dataset import SpectrogramDataset

CLASSES, MELS, FRAMES = ["low", "middle", "high"], 12, 9
MADE_OF = LogMel.librosa(sample_rate=8000, n_fft=256, hop_length=64, n_mels=MELS)


def banded(labels, level=3.0, n_classes=3, size=(MELS, FRAMES)) -> torch.Tensor:
    "Spectrograms (N, freq, time): `level` in the band of the class, 0 elsewhere."
    band = torch.arange(size[0]) * n_classes // size[0]
    return level * (band[:, None] == torch.as_tensor(labels)[:, None, None]).float().expand(-1, -1, size[1])


class FakeClassifier:
    "Features are the mean levels of equal bands, probabilities nearly certain of the loudest one. Counts the spectrograms it is shown."

    def __init__(self, n_classes=3):
        self.n_classes, self.embedded = n_classes, 0

    def levels(self, spectrograms):
        return torch.stack([part.mean((1, 2)) for part in spectrograms.chunk(self.n_classes, 1)], 1)

    def predict_proba(self, spectrograms):
        return (20 * self.levels(spectrograms)).softmax(1)

    def embed(self, spectrograms):
        self.embedded += len(spectrograms)
        return self.levels(spectrograms)


def fake_evaluator(accuracy=1.0, n_classes=3) -> Evaluator:
    "An `Evaluator` whose every score can be worked out by hand."
    return Evaluator(FakeClassifier(n_classes), accuracy)


class FakeGenerator:
    "Draws the band that was asked for, with some noise; every `wrong`-th clip of a call is the next class, so label accuracy is exactly 1 - 1/wrong."

    def __init__(self, classes=CLASSES, representation=MADE_OF, size=(MELS, FRAMES), level=3.0, noise=0.1, wrong=4):
        self.classes, self.representation, self.size, self.level, self.noise, self.wrong = list(classes), representation, size, level, noise, wrong

    def sample(self, labels, *, generator=None, seed=None):
        labels = torch.arange(labels) % len(self.classes) if isinstance(labels, int) else torch.as_tensor(labels)
        drawn = labels.clone()
        if self.wrong:
            drawn[self.wrong - 1 :: self.wrong] = (drawn[self.wrong - 1 :: self.wrong] + 1) % len(self.classes)
        noise = item_noise((len(labels), *self.size), generator, seed, "cpu")
        return banded(drawn, self.level, len(self.classes), self.size) + self.noise * noise

    def to_audio(self, spectrograms):
        return self.representation.decode(spectrograms)


def banded_dataset(n=60, n_test=12, speakers=("ann", "bob"), seed=0, noise=0.3) -> SpectrogramDataset:
    "Clips of three classes in turn; the last `n_test` are held out. Speakers take turns after each round of classes."
    labels = torch.arange(n) % len(CLASSES)
    specs = banded(labels) + noise * torch.randn(n, MELS, FRAMES, generator=torch.Generator().manual_seed(seed))
    who = [speakers[i // len(CLASSES) % len(speakers)] for i in range(n)] if speakers else []
    return SpectrogramDataset(specs, labels, CLASSES, MADE_OF, torch.arange(n) >= n - n_test, who)
