# Run `make` for the list of targets.

PYTHON ?= python3
VENV   := .venv
READY  := $(VENV)/.ready
TSC    := $(VENV)/js/node_modules/.bin/tsc
ARGS   ?=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --warn-undefined-variables --no-builtin-rules

.PHONY: help
help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo:  ## run the whole default plan with the embedded agent: no key, no network, no package
	@rm -rf runs/.demo
	@mkdir -p runs/.demo
	@JRUN_ID= $(PYTHON) -S -E run-all-tasks.py --agent offline --root runs/.demo

.PHONY: run
run:  ## run the default plan with real agents; ARGS="--dry-run" and the like are passed on
	@$(PYTHON) -S -E run-all-tasks.py $(ARGS)

.PHONY: monitor
monitor:  ## watch all agents on the screen; ARGS="--root DIR" and the like are passed on
	@$(PYTHON) -S -E bin/monitor $(ARGS)

.PHONY: report
report:  ## write the page of the whole root to runs/status.html; ARGS="PROJECT" and the like are passed on
	@$(PYTHON) -S -E bin/report $(ARGS)

.PHONY: serve
serve:  ## serve the API and the page at 127.0.0.1:14355; ARGS="--port 8080" and the like are passed on
	@$(PYTHON) -S -E web/server.py $(ARGS)

.PHONY: doctor
doctor:  ## say what is missing on this machine; ARGS="prompts/plan.yaml" checks a plan too
	@$(PYTHON) -S -E bin/doctor $(ARGS)

.PHONY: setup
setup: $(READY)  ## make .venv with what tests and checks need

.PHONY: test
test: $(READY)  ## run all tests; ARGS="-k crash" is passed to pytest
	$(VENV)/bin/pytest -n auto $(ARGS)

.PHONY: test-agents
test-agents: $(READY)  ## try the real claude, codex and gemini on a model that is none; gets 900 MB once
	-@$(VENV)/bin/python -m tests.agents.programs
	$(VENV)/bin/pytest -n 2 tests/agents $(ARGS)

.PHONY: fuzz
fuzz: $(READY)  ## ask the server all that its description allows, for 5 minutes; SEED= SECONDS=
	FUZZ_SEED=$(or $(SEED),$(shell date +%s)) FUZZ_SECONDS=$(or $(SECONDS),300) \
	$(VENV)/bin/pytest -n 2 tests/fuzz $(ARGS)

.PHONY: test-browser
test-browser: $(READY)  ## try the page in a real browser, with pictures in build/; needs chromium and chromium-driver
	CONDUCTOR_BROWSER_TESTS=1 CONDUCTOR_SCREENSHOTS=$(CURDIR)/build/screenshots \
	$(VENV)/bin/pytest tests/browser $(ARGS)

.PHONY: check
check: lint test  ## all that must pass before a commit

.PHONY: lint
lint: $(READY)  ## ruff, mypy, and the types of the page where node is; changes nothing
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	@if test -x $(TSC); then echo $(TSC) -p web; $(TSC) -p web; \
	else echo "no node: the types of the page are not checked"; fi

.PHONY: coverage
coverage: $(READY)  ## run all tests and print how much of lib/ and web/ they reach, in subprocesses too
	@rm -rf coverage && mkdir -p coverage
	TEST_PYTHON_FLAGS= $(VENV)/bin/coverage run -m pytest -q $(ARGS); code=$$?; \
	$(VENV)/bin/coverage combine -q; $(VENV)/bin/coverage report --skip-covered && exit $$code

.PHONY: bench
bench:  ## measure against baselines of the same minute
	@$(PYTHON) tests/bench/bench.py $(ARGS)

SEED    ?=
ROUNDS  ?=
ROUND   ?=
SECONDS ?=
JOBS    ?=
TORTURE := $(if $(SEED),--seed $(SEED)) $(if $(ROUNDS),--rounds $(ROUNDS)) \
           $(if $(ROUND),--round $(ROUND)) $(if $(SECONDS),--seconds $(SECONDS)) \
           $(if $(JOBS),--jobs $(JOBS))
.PHONY: torture
torture:  ## kill at named points and at random, for 5 minutes; SEED= ROUNDS= ROUND= SECONDS= JOBS=
	@$(PYTHON) tests/torture/torture.py $(TORTURE)

.PHONY: mutations
mutations: $(READY)  ## take out one step of the core after the other: a test must fail each time
	@$(VENV)/bin/python tests/torture/mutations.py $(ARGS)

.PHONY: clean
clean:  ## remove the venv, the programs of test-agents and caches; never runs/ or the bus
	rm -rf $(VENV) .agents .pytest_cache .ruff_cache .mypy_cache coverage build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): requirements.txt requirements-dev.txt tests/js/package.json
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install -q --disable-pip-version-check -r requirements-dev.txt
	@mkdir -p $(VENV)/js && cp tests/js/package.json $(VENV)/js/
	if command -v npm >/dev/null; then npm install --prefix $(VENV)/js --silent --no-audit --no-fund; fi
	@touch $@
