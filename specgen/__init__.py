"Spectrograms in, sound out, and back: the names that most people want, each loaded when it is first used."
from importlib import import_module

__version__ = "0.1.0"

_MODULE_OF = {
    "read_audio": "audio",
    "write_audio": "audio",
    "griffin_lim": "phase",
    "pghi": "phase",
    "LogSTFT": "spectrogram",
    "LogMel": "spectrogram",
    "Fbank": "spectrogram",
    "show_specs": "plot",
    "players": "plot",
    "load_recordings": "datasets",
    "SpectrogramDataset": "spectrogram_dataset",
    "fit_recordings": "models",
    "Classifier": "classifier",
    "Evaluator": "evaluation",
    "GAN": "gan",
    "VAE": "vae",
    "HiFiGAN": "vocoder",
    "AST": "audio_transformer",
    "reassigned_spectrogram": "reassignment",
    "invert": "exact_inverse",
    "DigitGenerator": "pipeline",
}
__all__ = list(_MODULE_OF)


def __getattr__(name: str):
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'specgen' has no attribute '{name}'; its modules are imported by name, such as specgen.audio")
    value = globals()[name] = getattr(import_module(f"specgen.{_MODULE_OF[name]}"), name)
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
