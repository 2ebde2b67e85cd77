"Made-up data that several test files use."
import torch


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def two_classes(representation, rows, frames, n_train, n_test):
    "A dataset of two classes: loud below, loud above."
    from specgen.spectrogram_dataset import SpectrogramDataset

    labels = torch.arange(n_train + n_test) % 2
    specs = 0.3 * noise(len(labels), rows, frames)
    specs[:, : rows // 2] += 1.0 - 2.0 * labels[:, None, None]
    specs[:, rows // 2 :] += 2.0 * labels[:, None, None] - 1.0
    return SpectrogramDataset(specs, labels, ["low", "high"], representation, torch.arange(len(labels)) >= n_train)
