"The site is built from the notebooks as they stand, and nothing in it leads nowhere."
import html
import json
import re
import subprocess
import sys

import pytest
from figures import NOTEBOOKS, NUMBER, ROOT, public_names

sys.path.insert(0, str(ROOT / "docs"))
import build


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("site")
    done = subprocess.run([sys.executable, ROOT / "docs" / "build.py", out], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_every_notebook_and_module_has_a_page(site):
    assert {path.stem for path in site.glob("*.html")} == {path.stem for path in NOTEBOOKS} | {f"api_{module}" for module in NUMBER}


def test_all_public_names_are_described_with_their_arguments(site):
    for module in NUMBER:
        page = (site / f"api_{module}.html").read_text()
        assert not [name for name in public_names(module) if f'<h2 id="{name}"' not in page and re.search(rf"^(def|class) {name}\b", (
            ROOT / "specgen" / f"{module}.py").read_text(), re.M)], module
    assert "(..., n_fft // 2 + 1, time), linear magnitudes" in (site / "api_phase.html").read_text()


def test_players_and_pictures_of_the_notebooks_are_there(site):
    pages = [(site / f"{path.stem}.html").read_text() for path in NOTEBOOKS]
    kept = [[output for cell in json.loads(path.read_text())["cells"] for output in cell.get("outputs", [])] for path in NOTEBOOKS]
    assert sum(page.count("<audio") for page in pages) == sum(json.dumps(outputs).count("<audio") for outputs in kept)
    for page, outputs in zip(pages, kept, strict=True):
        texts = [output["metadata"]["image/png"]["alt"] for output in outputs if "image/png" in output.get("data", {})]
        assert [html.unescape(text) for text in re.findall(r'<img src="media/[^"]*" alt="([^"]*)"', page)] == texts
    assert not any(re.search('<(source|audio)[^>]*data:|alt=""', page) for page in pages)


def test_directives_are_gone_and_imports_folded(site):
    page = (site / "20_gan.html").read_text()
    assert "#|" not in re.sub("<[^>]+>", "", page) and "<details class='imports'>" in page


def test_the_search_index_finds_a_heading(site):
    index = json.loads((site / "search_index.js").read_text().removeprefix("window.searchIndex = ").rstrip(";\n"))
    assert [one["u"] for one in index if one["h"] == "Griffin-Lim"] == ["03_phase.html#Griffin-Lim"]


@pytest.mark.parametrize("link", ["nowhere.html", "page.html#nowhere", "media/nowhere.png", "https://nowhere", "20_gan.ipynb"])
def test_a_dead_link_is_found(tmp_path, link):
    (tmp_path / "page.html").write_text(f"<h2 id='here'>Here</h2><a href='#here'>a</a><a href='https://arxiv.org/abs/1'>b</a><a href='{link}'>c</a>")
    assert build.dead_links(tmp_path) == [f"page.html: {link}"]
