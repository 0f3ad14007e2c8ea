PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUNS ?= runs
WORLD := leaderboards/world
BASELINE ?= $(WORLD)/baseline.json
MAX_DROP ?= 5
CHECK ?=
SUMMARY ?=
REPORTS ?= reports
SEED ?= 0
FUSION := cvlp,lxmert,vilt,soho
ANSWERING := vqa2,gqa,nlvr2,snli_ve
RANKING := coco_retrieval,flickr30k_retrieval
COMMA := ,
SCORED := nlvr2 $(subst $(COMMA), ,$(RANKING)) vqa2 gqa snli_ve# the longest first, so that both processes end together
BOARD := $(WORLD)/records --columns main,latency --pareto latency

# Tests and benchmarks start many interpreters, which would compile vlbench each time.
export PYTHONDONTWRITEBYTECODE :=

SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
SPEED_RECORD ?= cpu
SPEED_FLAGS ?= --max-seconds 220
SPEED_MODELS := cvlp,lxmert,vilt,soho,brivl,hf:CLIPModel,hf:BlipForImageTextRetrieval,hf:ViltModel

.PHONY: run scoreboard $(SCORED:%=scoreboard-%) board check-tables verify gate gate-frozen frozen-answers \
	frozen-ranks gate-trained heads reports tables speed speed-table bench bench-check screenshots test test-slow \
	chromium lint format clean

run: $(VENV)/.installed  ## Install, then finetune and score CVLP on NLVR2 of the synthetic world.
	$(BIN)/vlbench run --task nlvr2 --model cvlp

scoreboard: $(VENV)/.installed  ## Finetune every in-repo model on six tasks of the synthetic world, two at a time; then make its tables.
	rm -rf $(RUNS)/scoreboard
	$(BIN)/vlbench data world
	$(MAKE) -j2 $(SCORED:%=scoreboard-%)
	rm -rf $(WORLD)/records && mkdir -p $(WORLD)/records
	cd $(RUNS)/scoreboard && for run in */*/*/; do \
		cp $$run/run.json $(abspath $(WORLD))/records/$$(echo $${run%/} | tr / -).json; done
	$(MAKE) board

$(SCORED:%=scoreboard-%): scoreboard-%: $(VENV)/.installed
	$(BIN)/vlbench run --controls none --threads 1 --jobs 1 --seed $(SEED) --output-path $(RUNS)/scoreboard \
		--task $* --model $(FUSION)$(if $(filter %_retrieval,$*),$(COMMA)brivl)

board: $(VENV)/.installed  ## Make the tables and charts of leaderboards/world from its records; CHECK=--check only compares.
	$(BIN)/vlbench leaderboard $(BOARD) --inject $(WORLD)/README.md --picture $(WORLD)/fronts.svg $(CHECK)
	$(BIN)/vlbench leaderboard $(BOARD) --format html --output $(WORLD)/index.html $(CHECK)

check-tables: $(VENV)/.installed  ## Exit 11 where a committed table is stale.
	$(MAKE) board CHECK=--check
	$(BIN)/python -m vlbench.report.speed.pages --check

verify: $(VENV)/.installed  ## Check the seals of the committed records; exit 5 where one was edited.
	$(BIN)/vlbench verify $(WORLD)/records

gate: $(VENV)/.installed  ## Compare the runs of RUNS with BASELINE; vlbench gate --update-baseline writes BASELINE.
	$(BIN)/vlbench gate $(RUNS) --baseline $(BASELINE)

gate-frozen: $(VENV)/.installed  ## Re-evaluate the shipped weights; fail and list the ids where answers changed.
	rm -rf $(RUNS)/frozen
	$(BIN)/vlbench data world
	$(MAKE) -j2 frozen-answers frozen-ranks
	$(BIN)/vlbench gate $(RUNS)/frozen --layer frozen --baseline $(BASELINE) \
		--junit $(RUNS)/frozen.xml $(if $(SUMMARY),--summary $(SUMMARY))

frozen-answers: $(VENV)/.installed
	$(BIN)/vlbench run --mode eval --checkpoint '$(WORLD)/heads/{task}/{model}-tiny' --model $(FUSION) \
		--task $(ANSWERING) --limit 1000 --threads 1 --jobs 1 --quiet --output-path $(RUNS)/frozen

frozen-ranks: $(VENV)/.installed
	$(BIN)/vlbench run --mode zero-shot --limit 50 --model $(FUSION),brivl --task $(RANKING) \
		--threads 1 --jobs 1 --quiet --output-path $(RUNS)/frozen

gate-trained: $(VENV)/.installed  ## Finetune three seeds of CVLP on four tasks and compare them with those of the baseline.
	rm -rf $(RUNS)/trained
	$(BIN)/vlbench run --controls none --threads 1 --seeds 0,1,2 --model cvlp --task $(ANSWERING) \
		--output-path $(RUNS)/trained
	$(BIN)/vlbench gate $(RUNS)/trained --layer trained --max-drop $(MAX_DROP) --baseline $(BASELINE) \
		--junit $(RUNS)/trained.xml $(if $(SUMMARY),--summary $(SUMMARY))

heads: $(VENV)/.installed  ## Train the linear heads over the shipped weights, which gate-frozen evaluates, again.
	rm -rf $(RUNS)/probes
	$(BIN)/vlbench run --mode probe --controls none --model $(FUSION) --task $(ANSWERING) \
		--threads 1 --output-path $(RUNS)/probes
	rm -rf $(WORLD)/heads
	cd $(RUNS)/probes && for run in */*/*/; do place=$(abspath $(WORLD))/heads/$$(dirname $$run); \
		mkdir -p $$(dirname $$place) && cp -r $$run/checkpoints/best $$place; done

reports: $(VENV)/.installed  ## Write a table, a sortable page and a page for each of the runs of RUNS into REPORTS.
	$(BIN)/vlbench leaderboard $(RUNS) --output $(REPORTS)/leaderboard.md
	$(BIN)/vlbench leaderboard $(RUNS) --format html --output $(REPORTS)/leaderboard.html
	$(if $(SUMMARY),(echo; cat $(REPORTS)/leaderboard.md; echo) >> "$(SUMMARY)")
	for run in $(patsubst %/run.json,%,$(wildcard $(RUNS)/*/*/*/run.json)); do \
		$(BIN)/vlbench report $$run --max-examples 200 \
			--html $(REPORTS)/$$(echo $${run#$(RUNS)/} | tr / -).html || exit; \
	done

tables: $(VENV)/.installed  ## Write the pages of published results: docs/published, docs/reproduce.md.
	$(BIN)/python -m vlbench.report.published.pages

speed: $(VENV)/.installed  ## Measure models of base size again; on a GPU SPEED_RECORD=gpu SPEED_FLAGS='--device cuda'.
	rm -rf build/speed
	$(BIN)/vlbench profile --size base --model $(SPEED_MODELS) $(SPEED_FLAGS) --output-path build/speed
	mkdir -p leaderboards/speed/records
	cp build/speed/*/profile.json leaderboards/speed/records/$(SPEED_RECORD).json
	$(BIN)/python -m vlbench.report.speed.pages

speed-table: $(VENV)/.installed  ## Write the page of leaderboards/speed from its records.
	$(BIN)/python -m vlbench.report.speed.pages

bench: $(VENV)/.installed-dev  ## Run all benchmarks and record their ratios in benchmarks/results.
	$(BIN)/python benchmarks/run.py --update --repeats 5

bench-check: $(VENV)/.installed-dev  ## Compare the quick benchmarks (ALL=1: all) with their records; fail where one is slower.
	$(BIN)/python benchmarks/run.py $(if $(ALL),,--quick)

screenshots: $(VENV)/.installed-dev  ## Render docs/screenshots, of models that are trained first; needs a Chromium.
	VLBENCH_SCREENSHOTS=docs/screenshots VLBENCH_SCREENSHOT_RUNS=$(RUNS)/screenshots \
		$(BIN)/python -m pytest tests/e2e/test_screenshots.py

test: $(VENV)/.installed-dev  ## Install what tests need, then run them.
	$(BIN)/python -m pytest -n 2

test-slow: $(VENV)/.installed-dev  ## Run the slow tests: pretrain the shipped weights again by the commands in their cards.
	$(BIN)/python -m pytest -m slow

chromium:  ## Install the browser that tests need, where there is none.
	command -v chromium || command -v chromium-browser || command -v google-chrome || \
		{ $(SUDO) apt-get update && $(SUDO) apt-get install -y chromium; }

lint: $(VENV)/.installed-dev  ## Check style, and types in strict mode.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	MYPYPATH=benchmarks $(BIN)/mypy benchmarks/*.py

format: $(VENV)/.installed-dev  ## Format the code.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## Remove what make created; runs and the cache stay.
	rm -rf $(VENV) build vlbench.egg-info

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	touch $@
