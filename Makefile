PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUNS ?= runs
BASELINE ?= leaderboards/world/baseline.json

.PHONY: run scoreboard gate tables test test-slow lint format clean

run: $(VENV)/.installed  ## Install, then finetune and score CVLP on NLVR2 of the built-in world.
	$(BIN)/vlbench run --task nlvr2 --model cvlp

scoreboard: $(VENV)/.installed  ## Every in-repo model on six tasks of the built-in world, and one table.
	$(BIN)/vlbench run --controls none --model cvlp,lxmert,vilt,soho,brivl \
		--task vqa2,gqa,nlvr2,snli_ve,coco_retrieval,flickr30k_retrieval

gate: $(VENV)/.installed  ## The runs of RUNS against BASELINE; BASELINE is made by vlbench gate --update-baseline.
	$(BIN)/vlbench gate $(RUNS) --baseline $(BASELINE)

tables: $(VENV)/.installed  ## Published figures as pages: docs/published, docs/reproduce.md.
	$(BIN)/python -m vlbench.report.pages

test: $(VENV)/.installed-dev  ## Install what tests need, then run them.
	$(BIN)/python -m pytest -n 2

test-slow: $(VENV)/.installed-dev  ## What takes minutes: weights made again by the commands in their cards.
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/.installed-dev  ## Style, and types in strict mode.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev  ## Put the code into the house's format.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## Remove what make made; runs and the cache stay.
	rm -rf $(VENV) build vlbench.egg-info

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	touch $@
