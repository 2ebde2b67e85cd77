"Made-up data that several test files use."
import torch

from specgen.spectrogram_dataset import SpectrogramDataset


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def two_classes(representation, rows, frames, n_train, n_test):
    "Spectrograms of two classes: loud below, loud above. The last `n_test` are held out."
    n = n_train + n_test
    labels = torch.arange(n) % 2
    specs = 0.3 * noise(n, rows, frames)
    specs[:, : rows // 2] += 1.0 - 2.0 * labels[:, None, None]
    specs[:, rows // 2 :] += 2.0 * labels[:, None, None] - 1.0
    return SpectrogramDataset(specs, labels, ["low", "high"], representation, torch.arange(n) >= n_train)
