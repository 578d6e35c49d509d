# `make run` and `make test` are all that a fresh machine needs: each makes .venv and installs what it lacks.
PYTHON ?= python3
BENCH = .venv/bin/bench

.PHONY: run test chaos versions speed gpu clean

run: .venv/installed
	$(BENCH) run

test: .venv/installed-test
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/python -m pytest --numprocesses auto

# Kills real runs at random moments and compares; for changes to the runner, the store or an executor.
chaos: .venv/installed-test
	.venv/bin/python tests/chaos.py

# After a change of code that decides results: either its RESULTS was raised, or no result can differ.
versions: .venv/installed-test
	.venv/bin/python tests/result_versions.py

# Where what is measured goes: small sizes run everywhere, and their figures mean nothing.
SPEED = PYTHONPATH=tests .venv/bin/python -m
SIZES = $(if $(filter small,$(SIZE)),--small --runs 1 --out runs/$@,--out results/measured/$@)

# How fast we are beside plain versions, on an idle machine: half an hour. DEVICE=cuda for a GPU, SIZE=small to try.
speed: .venv/installed-test
	$(SPEED) speed --device $(or $(DEVICE),cpu) $(SIZES)

# On a machine with a GPU: its tests, slopes, speed and teachers. DATA=FOLDER with the data sets; DEVICE=cpu SIZE=small to try.
gpu: .venv/installed-test
	$(SPEED) speed.on_gpu --device $(or $(DEVICE),cuda) $(SIZES) $(if $(DATA),--data $(DATA))

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --editable .
	touch $@

.venv/installed-test: .venv/installed
	.venv/bin/python -m pip install --quiet --editable '.[test]'
	touch $@

clean:
	rm -rf .venv
