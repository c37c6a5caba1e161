# The commands a person types. `make help` lists them.
#
# Everything that a target needs is installed or built by the project's own scripts; a step that
# cannot be done here says why and how to go on.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

# Where `make install` puts things, below DESTDIR (for packages).
PREFIX ?= /opt/aifb
DESTDIR ?=

# Folder with Slurm's spank.h; empty: where the system has it.
AIFB_SLURM_INCLUDE ?=
export AIFB_SLURM_INCLUDE

# Cargo profile of what is built and installed: dist is small and fast, dev is quick to build.
PROFILE ?= dist
TARGET ?= x86_64-unknown-linux-gnu
OUT := $(if $(filter dev,$(PROFILE)),debug,$(PROFILE))
BUILD := target/$(TARGET)/$(OUT)
STATIC := target/static/$(TARGET)/$(OUT)

.PHONY: help setup build install uninstall lint test test-more test-long bench fuzz cluster demo clean-cache

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what building and testing need (apt, as root)
	@tests/support/setup-host

build: ## build all programs and the plugin, as they are installed
	cargo build --locked --profile $(PROFILE) --target $(TARGET) -p aifb -p aifb-agent -p aifb-spank
	RUSTFLAGS='-C target-feature=+crt-static' cargo build --locked --profile $(PROFILE) \
	  --target $(TARGET) --target-dir target/static -p aifb-loadgen

install: ## copy what `make build` made to $(DESTDIR)$(PREFIX)
	@for file in $(BUILD)/aifb $(BUILD)/aifb-agent $(BUILD)/libaifb_spank.so $(STATIC)/aifb-loadgen; do \
	  [[ -f $$file ]] || { echo "install: '$$file' is missing" >&2; echo "hint: run make build first" >&2; exit 2; }; \
	done
	install -d '$(DESTDIR)$(PREFIX)/bin' '$(DESTDIR)$(PREFIX)/lib/slurm' \
	  '$(DESTDIR)$(PREFIX)/share/aifb/sbatch-wrappers' '$(DESTDIR)$(PREFIX)/share/aifb/recipes' \
	  '$(DESTDIR)$(PREFIX)/share/aifb/plugstack.conf.d'
	install -m 0755 $(BUILD)/aifb $(BUILD)/aifb-agent $(STATIC)/aifb-loadgen '$(DESTDIR)$(PREFIX)/bin/'
	# By rename: a running job may have the old file mapped.
	install -m 0755 $(BUILD)/libaifb_spank.so '$(DESTDIR)$(PREFIX)/lib/slurm/.aifb_spank.so.new'
	mv -f '$(DESTDIR)$(PREFIX)/lib/slurm/.aifb_spank.so.new' '$(DESTDIR)$(PREFIX)/lib/slurm/aifb_spank.so'
	install -m 0755 sbatch-wrappers/*.sbatch '$(DESTDIR)$(PREFIX)/share/aifb/sbatch-wrappers/'
	install -m 0644 recipes/*.yaml '$(DESTDIR)$(PREFIX)/share/aifb/recipes/'
	# Whole folders, without what an older version had there.
	rm -rf '$(DESTDIR)$(PREFIX)/share/aifb'/{docs,monitoring}
	for file in $$(find docs monitoring -type f); do \
	  install -D -m 0644 "$$file" "$(DESTDIR)$(PREFIX)/share/aifb/$$file"; \
	done
	$(BUILD)/aifb man '$(DESTDIR)$(PREFIX)/share/man/man1'
	sed 's|@PREFIX@|$(PREFIX)|g' packaging/plugstack.conf.d/aifb.conf \
	  > '$(DESTDIR)$(PREFIX)/share/aifb/plugstack.conf.d/aifb.conf'

uninstall: ## remove what `make install` put there
	rm -rf '$(DESTDIR)$(PREFIX)/share/aifb'
	rm -f '$(DESTDIR)$(PREFIX)/lib/slurm/aifb_spank.so' '$(DESTDIR)$(PREFIX)'/bin/aifb{,-agent,-loadgen} \
	  '$(DESTDIR)$(PREFIX)'/share/man/man1/aifb{,-*}.1
	@for folder in lib/slurm lib bin share/man/man1 share/man share .; do \
	  rmdir --ignore-fail-on-non-empty '$(DESTDIR)$(PREFIX)'/$$folder 2>/dev/null || true; \
	done

lint: ## formatting, clippy, import cycles, shell scripts
	@tests/run lint

test: setup ## everything that has to be green: about 25 minutes on 2 cores the first time
	@tests/run test

test-more: setup ## tests with large services
	@tests/run test-more

test-long: setup ## an hour of load, ten minutes of random bytes for each parser; not in CI
	@tests/run test-long

# One part of the benchmark: agent, cluster, exports, loadgen, logs or perturbation; empty: all.
PART ?=

bench: setup ## speed and size, with figures; PART=loadgen for one part
	@tests/run bench $(PART)

# Seconds for each target of `make fuzz`.
SECONDS_EACH ?= 600

fuzz: ## random bytes into the parsers of answers, SECONDS_EACH=600 for each
	@tests/fuzz '' $(SECONDS_EACH)

cluster: setup ## bring up a 3-node Slurm on this machine and say how to enter it
	@tests/run cluster

demo: ## from nothing to a report: cluster, service in a container, load, report
	@tests/demo

clean-cache: ## remove root file systems and images made for tests
	rm -rf .cache
