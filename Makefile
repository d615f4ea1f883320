# Everything a fresh machine needs: Python 3.10+ and make.
#   make demo   sets up, trains on MovieLens-1M, exports, proves, reports
#   make demo-next  the same with a model of what comes next, which reads a history
#   make test   sets up and runs the tests, then those of the phone's parts (android_demo/Makefile; 2 GB the first time)
#   make check  lint, types and the Python tests
#   make docs   builds the pages of docs/ and of the library into build/site; a broken link is an error
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUN ?= runs/demo
CONFIG ?= train/configs/movielens_1m_deepfm_pep_codes.yaml
NEXT ?= train/configs/movielens_1m_next_item_decayed_pooling.yaml

.PHONY: setup demo demo-next test check docs clean

setup: $(VENV)/installed

# Compiled at once: where PYTHONDONTWRITEBYTECODE is set, each process would otherwise compile PyTorch anew, 10 s.
$(VENV)/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 10) else "Python 3.10 or newer is needed, this is %s; set PYTHON=python3.12, say" % sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -e '.[export,train,study,test,docs,dev]'
	@touch $@

demo: setup
	$(BIN)/python train/run.py $(CONFIG) run.output=$(RUN) --resume
	$(BIN)/python export/to_pte.py $(RUN) --catalog
	$(BIN)/python export/benchmark.py $(RUN) --careful-dims 6,8 --careful-bits 4 --no-taught --baselines fp32,int8 \
		--repeats 5 --cold-starts 1 --threads 1

demo-next: setup
	$(BIN)/python train/run.py $(NEXT) run.output=$(RUN)-next --resume
	$(BIN)/python export/to_pte.py $(RUN)-next --catalog

# The tests of sharded tables need TorchRec, whose two packages pip cannot take from an extra (pyproject.toml).
$(VENV)/sharding: $(VENV)/installed
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -e '.[distributed]' && \
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --no-deps torchrec==1.8.0 fbgemm-gpu-cpu==1.8.0 && touch $@ || \
	echo "no TorchRec for this machine: the tests of sharded tables are skipped"

# Other runtimes, to compare with: their packages are not to be had for every Python.
$(VENV)/peers: $(VENV)/installed
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -e '.[peers]' && touch $@ || \
	echo "no LiteRT or ONNX Runtime for this machine: their tests are skipped"

test: setup $(VENV)/sharding $(VENV)/peers
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder
	$(MAKE) -C android_demo PYTHON=$(abspath $(BIN)/python)

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest

docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo build/site/index.html

clean:
	rm -rf $(VENV) build *.egg-info
