# Two commands: `make local` sets everything up and runs the demo; `make test` runs all tests.

# cargo-lambda builds for a named target; naming it everywhere lets the SDKs compile once.
TARGET    := $(shell rustc -vV | sed -n 's/^host: //p')
VENV      := infra/local/venv.sh
LAMBDA    := PATH="$(CURDIR)/.venv/cargo-lambda/bin:$$PATH" cargo lambda build --output-format zip
SAM       := SAM_CLI_TELEMETRY=0 .venv/sam/bin/sam
# As infra/run-tests.sh builds them, and with a test, whose features are more: otherwise crates are compiled again.
PEERS     := --target $(TARGET) --profile local --package attestation --package api --package integrations --package peers
STACK     ?= chainloop
SEEDS     ?= 1000000
MINUTES   ?= 10
# Parameters of the template, for `make deploy`: PARAMETERS="RetentionDays=365 AlarmTopicArn=…"
PARAMETERS ?=
# Of `make undeploy`: what else to delete, and the stack's name instead of a question.
REMOVE ?=
CONFIRM ?=
# Tags of the stack and all that it makes: TAGS="team=security cost-centre=4711"
TAGS ?=
# Of `make deploy`: the functions' architecture, and the folder of a release to deploy instead of one that is built now.
ARCH ?= arm64
DIST ?=
# This machine's, as Lambda calls it.
HERE := $(shell uname -m | sed s/aarch64/arm64/)
# Options of infra/local/load.py and kill.py: `make load LOAD="--attachments 10 --rate 5 --count 200"`
LOAD ?=
KILL ?=
# Options of infra/local/bench.py and of tests/bench: `make bench BENCH="--runs 50 --only registered"`
BENCH ?=

# As AWS's own tools have it. SAM and boto3 read AWS_DEFAULT_REGION and the profile alone.
ifdef AWS_REGION
export AWS_DEFAULT_REGION := $(AWS_REGION)
endif

.DEFAULT_GOAL := help
.PHONY: help local peers local-down tools functions cli test check test-peers test-mail test-networks test-restore test-upgrade test-events test-console recording simulate fuzz mutants load bench bench-functions kill-run lint deploy release release-again test-release undeploy clean tools peer-tools browser

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

local: ## Deploy to the local cloud, and run the demo
	@infra/local.sh $(if $(ATTESTATION),--attestation "$(ATTESTATION)" $(foreach material,$(MATERIALS),--material "$(material)"))

peers: ## Start one local third party of each kind, to deliver to
	@$(VENV) aiosmtpd
	@infra/local/debian.sh docker-registry
	@cargo build $(PEERS) --bin peers --test memory
	@mkdir -p target/bin && ln -sf ../$(TARGET)/local/peers target/bin/peers
	@infra/local/peers.py up

local-down: ## Stop the local cloud and the third parties; `make local` continues with their data
	@infra/local/peers.py down
	@infra/local/receiver.py down
	@infra/local/cloud.py down

test: tools peer-tools ## Run all tests, from unit tests to the deployed stack
	@infra/test.sh

check: ## Check without a cloud or peers: formatting, clippy, unit tests, the pipeline over memory, short simulations
	@infra/check.sh

test-peers: ## Check requests against the vendors' OpenAPI documents: make test-peers SAMPLES_DIR=…
	@test -d "$(SAMPLES_DIR)/specs" || { echo "set SAMPLES_DIR to a directory with specs/dependency-track-v5-openapi-v1.yaml and specs/discord-openapi.json"; exit 1; }
	@infra/local/npm.sh prism
	@cargo test $(PEERS) --test prism

test-mail: ## Send mail through exim, OpenSMTPD, Postfix and sendmail from Debian; needs root, or the package uidmap
	@infra/local/debian.sh mail-servers
	@cargo test $(PEERS) --test mail_servers

simulate: ## Simulate the pipeline with injected faults: make simulate SEEDS=1000000
	@cargo run --quiet --target $(TARGET) --profile local --package simulation -- --seeds $(SEEDS)

test-networks: functions cli ## Deliver to a private network, through the list of networks and through a proxy
	@infra/local/networks.py

test-restore: tools functions cli ## Lose a stack on a local cloud, and restore it from its table and bucket
	@.venv/sam/bin/python infra/local/restore.py

test-upgrade: functions cli ## Upgrade from the release before and roll back, under load
	@infra/local/upgrade.py

test-events: functions cli ## Throttle the table under pushes; make each operator event happen, and see it arrive at a webhook
	@.venv/sam/bin/python infra/local/events.py

test-console: functions cli browser ## Walk through the console in a browser: REFRESH=1 writes the pictures of docs/console.md
	@.venv/sam/bin/python infra/local/console.py

recording: tools functions cli ## Record a session of the command line on a local cloud, into docs/pictures/session.svg
	@.venv/sam/bin/python infra/local/recording.py

fuzz: ## Fuzz with libFuzzer: make fuzz MINUTES=60, or TARGET=envelope MINUTES=10
	@infra/fuzz.py --minutes $(MINUTES) --target "$(if $(filter command line,$(origin TARGET)),$(TARGET))"

mutants: ## Check that the simulation finds each seeded bug
	@tests/simulation/mutants.sh

load: tools functions cli ## Measure throughput and latency under load, on a separate stack
	@infra/local/load.py $(LOAD)

bench: tools functions cli ## Measure the duration of each command, against that of its requests
	@infra/local/bench.py $(BENCH)

bench-functions: ## Measure the functions as for AWS against the least of all functions: REFRESH=1 writes docs/performance.md
	@$(VENV) cargo-lambda
	@infra/local/functions_bench.py $(BENCH)

kill-run: tools functions cli ## Check that no delivery is lost while functions are killed
	@infra/local/kill.py $(KILL)

lint: tools ## Check formatting, clippy, dependencies and the template
	@infra/lint.sh

deploy: ## Deploy to AWS, with credentials from the environment: make deploy STACK=prod [DIST=dist]
	@test -z "$$AWS_ENDPOINT_URL" || { echo "AWS_ENDPOINT_URL is set: this shell points at the local cloud"; exit 1; }
	@infra/stack-name.sh "$(STACK)"
	$(if $(filter Architecture=%,$(PARAMETERS)),@echo "the zips are for $(ARCH): say ARCH=… instead of the parameter Architecture"; exit 2)
	@$(VENV) sam
	@.venv/sam/bin/python infra/concurrency.py "$(STACK)" $(foreach parameter,$(PARAMETERS),'$(parameter)')
	$(if $(DIST),,@$(VENV) cargo-lambda && infra/release.py --arch $(ARCH) --to target/dist)
	$(if $(DIST),@cd "$(DIST)" && sha256sum --check --quiet SHA256SUMS && $(HERE)/chainloop --version)
	$(SAM) deploy --template-file "$(or $(DIST),target/dist)/$(ARCH)/template.yaml" --stack-name $(STACK) --resolve-s3 \
	  --language-extensions --capabilities CAPABILITY_IAM CAPABILITY_AUTO_EXPAND \
	  --no-fail-on-empty-changeset --no-confirm-changeset \
	  --parameter-overrides Architecture=$(ARCH) Revision=$$({ cat "$(or $(DIST),target/dist)/SHA256SUMS"; \
	    echo "$(ARCH)" $(foreach parameter,$(PARAMETERS),'$(parameter)'); } | sha256sum | cut -c-16) $(foreach parameter,$(PARAMETERS),'$(parameter)') \
	  $(if $(TAGS),--tags $(foreach tag,$(TAGS),'$(tag)')) || \
	  { echo "if it was the first deployment, remove what is left: make undeploy STACK=$(STACK) REMOVE=table,bucket"; exit 1; }
	$(if $(DIST),,cargo build --release --locked --package chainloop)
	@infra/bootstrap.sh $(STACK) "$(if $(DIST),$(DIST)/$(HERE)/chainloop,target/release/chainloop)"

release: ## Build all functions and the command line for arm64 and x86_64, with checksums, into dist
	@$(VENV) cargo-lambda
	@infra/release.py --command-line

release-again: ## Build a second time from a copy elsewhere, and compare with dist
	@$(VENV) cargo-lambda
	@infra/release.py --command-line --compare dist/SHA256SUMS

test-release: tools functions cli ## Build three functions as for AWS, and run the demo with them on a local cloud
	@infra/local/release.sh

undeploy: ## Delete a stack and, if told, what it leaves: make undeploy STACK=prod REMOVE=table,bucket,secrets,key
	@$(VENV) sam
	@.venv/sam/bin/python infra/undeploy.py "$(STACK)" --remove "$(REMOVE)" $(if $(CONFIRM),--confirm "$(CONFIRM)")

tools:
	@for name in ministack sam cargo-lambda syft; do $(VENV) $$name; done

# Third parties that tests deliver to, and schemathesis, which tests the API.
peer-tools:
	@for name in aiosmtpd schemathesis moto; do $(VENV) $$name; done
	@for name in azurite maildev; do infra/local/npm.sh $$name; done
	@infra/local/debian.sh docker-registry
	@$(MAKE) --no-print-directory browser || echo "There is no browser: the console will not be walked through."

browser:
	@infra/local/debian.sh chromium
	@infra/local/npm.sh axe

# The package by its name: with the whole workspace the command line's features would leak into the functions.
functions:
	@$(LAMBDA) --compiler cargo --profile local --package functions

cli:
	@cargo build --target $(TARGET) --profile local --package chainloop
	@mkdir -p target/bin && ln -sf ../$(TARGET)/local/chainloop target/bin/chainloop
	@ln -sf chainloop target/bin/chainloop-integrations

clean: local-down ## Remove all build output and the local cloud's data
	rm -rf target dist dist.unfinished .local .venv
