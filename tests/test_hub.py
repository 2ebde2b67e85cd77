"Models of every kind to the Hub and back, against a stand-in on this machine."
import json
import os
import subprocess
import sys
from pathlib import Path
from threading import Thread

import pytest
from hub import serve

KINDS = ["GAN", "VAE", "Classifier", "SpectralVocoder", "HiFiGAN", "AST", "SoundClassifier", "VelocityNetwork", "DigitGenerator", "Autoencoder"]


@pytest.fixture(scope="module")
def trips(tmp_path_factory):
    "What came back of each kind, by its name, and what the stand-in holds."
    folder, server = tmp_path_factory.mktemp("hub"), serve()
    Thread(target=server.serve_forever, daemon=True).start()
    env = {name: value for name, value in os.environ.items() if "proxy" not in name.lower() and not name.startswith("HF_")}
    env |= {"HF_ENDPOINT": server.url, "HF_HOME": str(folder / "home"), "HF_TOKEN": "none", "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    done = subprocess.run([sys.executable, Path(__file__).with_name("hub.py"), folder / "models"], env=env, capture_output=True, text=True)
    server.shutdown()
    server.server_close()
    assert done.returncode == 0, done.stderr
    return {row["kind"]: row for row in map(json.loads, done.stdout.splitlines())}, server.held


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_comes_back_from_the_hub_as_it_was(trips, kind):
    rows, held = trips
    assert rows.keys() == set(KINDS) and rows[kind] == dict(kind=kind, same=True, settings=True, training=False)
    files = held[f"someone/{kind}"]
    assert files.keys() == {"README.md", "config.json", "model.safetensors"}


@pytest.mark.parametrize("kind", KINDS)
def test_the_card_on_the_hub_is_complete(trips, kind):
    text = trips[1][f"someone/{kind}"]["README.md"].decode()
    assert text.startswith("---\nlicense: unknown\nlibrary_name: specgen\n") and f"\n# {kind}\n" in text and f"import {kind}" in text
    assert all(f"- **{part}**" in text for part in ("Model", "Training", "Licence")) and "More Information Needed" not in text
