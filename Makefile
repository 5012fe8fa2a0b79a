# The front door of the template repository. `make` prints the targets; python3, git and make are all it asks for.
SHELL := /bin/sh
.DEFAULT_GOAL := help

installed := .venv/installed
# The one place that puts uv on PATH, for the tools below and for the services that they generate.
python = uv=$$(scripts/uv) && exec env PATH="$${uv%/*}:$$PATH" .venv/bin/python

.PHONY: help demo test prove test-cluster test-full check bench docs servers release-check clean

help: ## Print the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1 \2/p' Makefile | while read -r target text; do printf '%-14s %s\n' "$$target" "$$text"; done

demo: $(installed) ## Generate a service with default answers and serve it (HOST, PORT, DEMO_DIR)
	@$(python) -m scripts.demo

test: $(installed) ## Prove each promise on real servers (ARGS goes to pytest)
	@$(python) -m tests --tier test $(ARGS)

prove: $(installed) ## Show that the proofs can fail (sabotages), and assert latencies
	@$(python) -m tests --tier prove $(ARGS)

test-cluster: $(installed) ## Prove deploy/k8s on a real Kubernetes node (root and Go; or KUBECONFIG, GATEWAY)
	@$(python) -m tests --tier cluster $(ARGS)

test-full: export PROOF := full
test-full: $(installed) ## Run all of that at full counts
	@$(python) -m tests $(ARGS)

check: $(installed) ## Check format, lint and types of the code that stays here
	@.venv/bin/ruff format --check
	@.venv/bin/ruff check
	@.venv/bin/mypy

bench: $(installed) ## Measure the emitted service, copy and update
	@$(python) -m bench

docs: $(installed) ## Build the documentation into site/
	@$(python) docs/build.py
	@.venv/bin/zensical build --strict

servers: $(installed) ## Make ready the servers that tests talk to, and print their versions
	@$(python) -m tests.servers

release-check: $(installed) ## Check what must hold before a tag (VERSION=1.2.0; some minutes)
	@test -n "$(VERSION)$(ARGS)" || { echo 'type: make release-check VERSION=1.2.0' >&2; exit 2; }
	@$(python) hooks/release.py $(VERSION) $(ARGS)

clean: ## Remove what the targets above made
	rm -rf .cache .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis site

$(installed): pyproject.toml
	@rm -rf .venv
	@uv=$$(scripts/uv) && "$$uv" venv --quiet .venv && "$$uv" pip install --quiet --compile-bytecode --python .venv/bin/python -r pyproject.toml
	@touch $@
