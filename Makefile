# make run     the digits pipeline on the embedded dataset, ending with the path of its report page
# make test    everything that CI checks: lint, every notebook's fast cells, the tests; a line as each finishes
# make fuzz    thousands of damaged inputs of every kind, with counts
# make bench   every job beside its peers, on one thread and on two: benchmarks/results/speed.csv; at most twenty minutes
# make lab     the notebooks in JupyterLab
# make test-ui every notebook in JupyterLab in a headless Chromium: Run All, no error, pictures and players; ARGS="--quick", ARGS=--data, ARGS=gan
# make book    run every notebook, slow cells too, keep the outputs within the size budget, and stamp them; ARGS=gan, SPECGEN_TRAIN=1 for trainings of hours
# make check-book  what is wrong with the notebooks as a book, and figures of each
# make docs    the site: the same notebooks as HTML pages in _site
# make release-check  the dry run of a release: build, check, install from an index in a folder
# make readme  README.md from nbs/index.ipynb
# make figures the longest module, definition and cell; the public names; what imports what
# The first makes .venv: `make run TORCH=cpu` takes torch without CUDA, for a machine without a GPU; cu126 and the like name a build for one.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
READY := .venv/ready
OUT ?= runs/digits
README_DIR ?= .
TORCH ?=
WHEELS := $(if $(TORCH),--extra-index-url https://download.pytorch.org/whl/$(TORCH))

.PHONY: run test test-ui fuzz bench lab book check-book docs release-check readme figures
.DELETE_ON_ERROR:

run: $(READY)
	$(BIN)/specgen run --dataset digits --preset small --out $(OUT)

test: $(READY)
	$(BIN)/ruff check specgen tests benchmarks docs setup.py
	$(BIN)/ruff check --select F821 nbs
	$(BIN)/python tests/run.py

fuzz: $(READY)
	$(BIN)/python tests/fuzz.py

bench: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[digits,bench]'
	$(BIN)/python benchmarks/speed.py $(ARGS)

figures: $(READY)
	$(BIN)/python tests/figures.py

lab: $(READY)
	$(BIN)/jupyter trust nbs/*.ipynb
	$(BIN)/jupyter lab nbs

test-ui: $(READY)
	$(BIN)/python tests/ui.py $(ARGS)

book: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[digits,vocoder,bench]'
	$(BIN)/python tests/book_run.py $(ARGS)
	$(BIN)/nbdev_clean

check-book: $(READY)
	$(BIN)/python tests/book.py

docs: $(READY)
	-$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt latex2mathml
	$(BIN)/python docs/build.py

release-check: $(READY)
	$(BIN)/python tests/release.py

readme: $(READY)
	rm -f $(README_DIR)/nbs/images/README_*.png
	$(BIN)/jupyter nbconvert --log-level WARN --to markdown --template-file docs/readme.md.j2 --output-dir $(README_DIR) --output README \
		--NbConvertApp.output_files_dir=nbs/images nbs/index.ipynb
	sed 's|](\([0-9][^)]*\.ipynb\))|](https://github.com/specgen/specgen/blob/main/nbs/\1)|g' $(README_DIR)/README.md | awk '/^#\| / {next} /^```/ {open = !open; if (open && $$0 == "```") $$0 = "```python"} {print}' | cat -s > $(README_DIR)/README.tmp
	mv $(README_DIR)/README.tmp $(README_DIR)/README.md

$(READY): settings.ini setup.py constraints.txt
	@test -n "$(PYTHON)" || { echo "specgen needs Python 3.11 to 3.13; name one: make $(MAKECMDGOALS) PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(WHEELS) -c constraints.txt -e '.[digits,dev]'
	@touch $@
