# Every target but help first makes .venv ready; that takes minutes once, and nothing afterwards.

BIN := .venv/bin
export CLIP
export DENO_NO_UPDATE_CHECK = 1

.DEFAULT_GOAL := help
.PHONY: help bootstrap demo up test test-long check bench drill

help: ## Say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

bootstrap: ## Make .venv ready, which every other target does by itself
	@python3 deploy/bootstrap.py

demo: bootstrap ## Run the system once on a sample clip, or on yours: make demo CLIP="my file.mp4"
	@$(BIN)/clipwarden demo $${CLIP:+"$$CLIP"}

up: bootstrap ## Run the system on this machine until Ctrl-C
	@$(BIN)/clipwarden up

test: bootstrap ## Run the tests against real servers (minutes)
	@$(BIN)/python deploy/chromium.py
	@OMP_NUM_THREADS=1 $(BIN)/pytest -m "not long" -n 3 --dist loadfile --no-loadscope-reorder

test-long: bootstrap ## Run the tests that take long as well
	@$(BIN)/python deploy/chromium.py
	@OMP_NUM_THREADS=1 $(BIN)/pytest

drill: bootstrap ## Break a running system in every way there is, ten times over (most of an hour)
	@OMP_NUM_THREADS=1 CLIPWARDEN_DRILL_ROUNDS=$${CLIPWARDEN_DRILL_ROUNDS:-10} $(BIN)/pytest tests/drills -q

check: bootstrap ## Check format, style, types and import rules
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy -p clipwarden
	@$(BIN)/lint-imports
	@$(BIN)/deno fmt --check --quiet
	@$(BIN)/deno lint --quiet
	@$(BIN)/deno check --quiet api/page/main.js

bench: bootstrap ## Measure, print a table and write build/bench.json
	@$(BIN)/python -m tests.bench.bench
