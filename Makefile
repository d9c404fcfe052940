# Virtfleet's commands; `make` lists them.

export CARGO_TARGET_DIR ?= $(or $(VIRTFLEET_CACHE),$(HOME)/.cache/virtfleet)/target
BED = $(CARGO_TARGET_DIR)/debug/bed

.PHONY: help
help:
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: packages
packages:
	@e2e/packages.sh

.PHONY: packages-node
packages-node:
	@e2e/packages.sh node

.PHONY: build
build: packages
	@cargo build --quiet --workspace --bins

.PHONY: up
up: build ## a Kubernetes control plane and two libvirt hosts, left running; then: source .dev/env
	@$(BED) up --cluster "$$(e2e/cluster/build.sh)" --guest "$$(e2e/guest/build.sh)"

.PHONY: demo
demo: up ## the same, and step by step what a user does with it
	@$(BED) demo

.PHONY: down
down: ## end what `make up` started
	@cargo build --quiet --package e2e --bin bed
	@$(BED) down

.PHONY: check
check: packages ## format, lints and the pure crates' tests
	cargo fmt --all --check
	cargo clippy --quiet --workspace --all-targets -- -D warnings
	cargo test --quiet --package crds --package libvirt-xml --package plan
	cargo test --quiet --package e2e --bin mutants
	cd e2e/cluster && other=$$(gofmt -l .) && test -z "$$other"

.PHONY: test
test: build ## everything, from unit tests to end to end
	cargo test --workspace --exclude e2e
	cargo test --package e2e --lib
	e2e/stories.sh

.PHONY: images
images: build packages-node ## container images of the built binaries; prints the folder with their archives
	@e2e/images/build.sh "$(CARGO_TARGET_DIR)/debug"

.PHONY: host-tarball
host-tarball: packages ## the agent and its systemd unit for hosts outside the cluster; prints the file
	cargo build --quiet --release --package agent
	@deploy/systemd/pack.sh "$(CARGO_TARGET_DIR)/release/virtfleet-agent" "$(CARGO_TARGET_DIR)/virtfleet-agent.tar.gz"
	@echo "$(CARGO_TARGET_DIR)/virtfleet-agent.tar.gz"

.PHONY: test-install
test-install: packages-node ## charts, images and agents in pods, on a real node: install, upgrade, uninstall, and what guests notice of it
	@e2e/suite.sh install

.PHONY: test-flux
test-flux: build ## Flux's own controllers bring machines from a Git server, put them right and prune them
	@VIRTFLEET_FLUX="$$(e2e/flux/build.sh)" e2e/suite.sh stories flux

.PHONY: test-versions
test-versions: build ## an agent and a controller of the version before this one beside those of this one
	@VIRTFLEET_PREVIOUS="$$(e2e/previous/build.sh)" e2e/suite.sh stories versions::

.PHONY: outages
outages: build ## the API server away for five minutes, libvirtd for one; `make test` takes a short way through the same
	AWAY=300 e2e/suite.sh stories api_server_gone
	AWAY=60 e2e/suite.sh stories libvirtd_away

.PHONY: mutants
mutants: packages ## puts bugs into the plan on purpose, one at a time: a test must catch each
	@cargo run --quiet --package e2e --bin mutants

.PHONY: bench
bench: packages ## what the work costs: counts that gate, ratios beside their targets (docs/measurements.md)
	@e2e/bench.sh $(BENCH)

.PHONY: bench-counts
bench-counts: packages ## only the counts that gate, in three minutes
	@e2e/bench.sh counts

.PHONY: generate
generate: ## write the CRDs and docs/reference.md from the types
	cargo run --quiet --package crds --bin crdgen charts/virtfleet-crds/templates docs/reference.md
