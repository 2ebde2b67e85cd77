"""The dry run of a release: `python tests/release.py` builds, checks and installs as a user would, from an index in a folder, and leaves the files in `dist`.

What is there already serves as the environment: nothing is downloaded, and the package is installed without its dependencies.
"""
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).parents[1]
LARGEST = 100_000_000  # bytes of one file on an index
# what the wheel holds under specgen
PARTS = ("core\\.py", "results/speed\\.csv", "weights/.+/model\\.safetensors", "speech/.+\\.wav", ".+\\.j2", "recorder\\.js", "py\\.typed")


def version() -> str:
    parser = ConfigParser(delimiters=["="], interpolation=None)
    parser.read(ROOT / "settings.ini", encoding="utf-8")
    return parser["DEFAULT"]["version"]


def run(*command, **more) -> str:
    done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more)
    if done.returncode:
        sys.exit(f"{done.stdout}\nfailed: {' '.join(map(str, command))}")
    return done.stdout


def check_versions(now: str) -> str:
    "The same version everywhere, and a heading for it in the changelog."
    cited = re.search(r"^version: (\S+)", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.M)[1]
    inside = re.search(r'__version__ = "(.+?)"', (ROOT / "specgen" / "__init__.py").read_text(encoding="utf-8"))[1]
    headed = re.search(rf"^## {re.escape(now)}\b", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    if {cited, inside} != {now} or not headed:
        sys.exit(f"settings.ini says {now}, CITATION.cff {cited}, specgen {inside}; a heading in CHANGELOG.md: {bool(headed)}")
    return f"version {now} everywhere, with a heading in the changelog"


def tracked_copy(folder: Path) -> Path:
    "The files that git knows, as a clone has them."
    for name in run("git", "ls-files", "-z", cwd=ROOT).split("\0"):
        if name and ((ROOT / name).is_symlink() or (ROOT / name).is_file()):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name, follow_symlinks=False)
    return folder


def build(source: Path, out: Path) -> list[Path]:
    "The sdist, and the wheel that is built from it."
    run(sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", out, source)
    sdist = next(out.glob("*.tar.gz"))
    with tempfile.TemporaryDirectory() as place:
        with tarfile.open(sdist) as archive:
            archive.extractall(place, filter="data")
        run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, next(Path(place).iterdir()))
    return [sdist, next(out.glob("*.whl"))]


def check_contents(files: list[Path]) -> list[str]:
    "What the files hold, and that nothing lies in the wheel which does not belong there."
    said = []
    for path in files:
        names = zipfile.ZipFile(path).namelist() if path.suffix == ".whl" else tarfile.open(path).getnames()
        stray = [name for name in names if re.search(r"(^|/)(tests|nbs|benchmarks|docs)/|\.ipynb$|__pycache__", name)] if path.suffix == ".whl" else []
        missing = [name for name in PARTS if path.suffix == ".whl" and not any(re.fullmatch(f"specgen/{name}", one) for one in names)]
        if stray or missing or path.stat().st_size > LARGEST:
            sys.exit(f"{path.name}: {path.stat().st_size:,} bytes; does not belong there: {stray}; missing: {missing}")
        said.append(f"{path.name}: {len(names)} files, {path.stat().st_size / 1e6:.1f} MB")
    return said


def index_of(files: list[Path], folder: Path) -> str:
    "An index as PEP 503 describes it, in a folder; its address."
    place = folder / "simple" / "specgen"
    place.mkdir(parents=True)
    rows = []
    for path in files:
        shutil.copy(path, place)
        rows.append(f'<a href="{path.name}#sha256={hashlib.sha256(path.read_bytes()).hexdigest()}">{path.name}</a><br>')
    (place / "index.html").write_text("<!doctype html>\n" + "\n".join(rows), encoding="utf-8")
    return (folder / "simple").as_uri()


def install(address: str, now: str, folder: Path, *kind: str) -> str:
    "Install from the index into an empty folder, and use what came, away from the repository."
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation", "--no-cache-dir", "--index-url", address, "--target", folder]
    run(sys.executable, "-m", "pip", "install", *options, *kind, f"specgen=={now}", env={**os.environ, "PIP_CONFIG_FILE": os.devnull, "PYTHONPATH": ""})
    env = {**os.environ, "PYTHONPATH": str(folder)}
    where = run(sys.executable, "-c", "import specgen; print(specgen.__version__, specgen.__file__)", cwd=folder, env=env)
    if not where.startswith(now) or str(folder) not in where:
        sys.exit(f"imported {where}")
    names = run(sys.executable, "-c", "import specgen; [getattr(specgen, name) for name in specgen.__all__]; print(len(specgen.__all__))", cwd=folder, env=env)
    answer = run(sys.executable, "-c", "import sys; from specgen.cli import main; main(sys.argv[1:])", "--help", cwd=folder, env=env)
    return f"installed from {'the sdist' if kind else 'the wheel'}: {names.split()[-1]} names, a command line with {len(answer.splitlines())} lines of help"


def main():
    now = version()
    print(check_versions(now), flush=True)
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        files = build(tracked_copy(place / "source"), place / "dist")
        print(*check_contents(files), sep="\n", flush=True)
        address = index_of(files, place)
        print(install(address, now, place / "one"), flush=True)
        print(install(address, now, place / "two", "--no-binary", "specgen"), flush=True)
        out = ROOT / "dist"
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(place / "dist", out)
    print(f"ready: {', '.join(sorted(path.name for path in out.iterdir()))} in dist; nothing was uploaded")


if __name__ == "__main__":
    main()
