"Installs specgen; every value comes from `settings.ini`."
import re
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
parser = ConfigParser(delimiters=["="], interpolation=None)
parser.read(HERE / "settings.ini", encoding="utf-8")
cfg = parser["DEFAULT"]
extras = {name: cfg[f"{name}_requirements"].split() for name in ("digits", "audiomnist", "vocoder", "explorer", "bench", "dev")}
home = f"https://github.com/{cfg['user']}/{cfg['repo']}"


def described() -> str:
    "README.md as a package index shows it: pictures and links by their whole address."
    text = (HERE / "README.md").read_text(encoding="utf-8")
    text = re.sub(r"(!\[[^\]]*\]\(|<img [^>]*src=\")(?!https?:)", rf"\1{home}/raw/{cfg['branch']}/", text)
    return re.sub(r"((?<!!)\[[^\]]*\]\()(?!https?:|#)", rf"\1{home}/blob/{cfg['branch']}/", text)


setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    long_description=described(),
    long_description_content_type="text/markdown",
    author=cfg["author"],
    author_email=cfg["author_email"],
    license_expression=cfg["license_expression"],
    license_files=["LICENSE", "NOTICE"],
    keywords=cfg["keywords"].split(),
    url=home,
    project_urls={"Source": home, "Issues": f"{home}/issues", "Notebooks": f"{home}/tree/{cfg['branch']}/{cfg['nbs_path']}"},
    packages=find_packages(include=["specgen", "specgen.*"]),
    package_data={"specgen": ["weights/*/*", "speech/*", "*.j2", "*.js", "results/*", "py.typed"]},
    python_requires=f">={cfg['min_python']}",
    install_requires=cfg["requirements"].split(),
    extras_require=extras,
    entry_points={
        "console_scripts": cfg["console_scripts"].split(),
        "nbdev": [f"{cfg['lib_name']}={cfg['lib_path']}._modidx:d"],
    },
    classifiers=cfg["classifiers"].strip().splitlines(),
    zip_safe=False,
)
