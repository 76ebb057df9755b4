# Two commands: `make local` sets everything up and runs the main job; `make test` passes.

# cargo-lambda builds for a named target; naming it everywhere lets the SDKs compile once.
TARGET    := $(shell rustc -vV | sed -n 's/^host: //p')
VENV      := infra/local/venv.sh
LAMBDA    := PATH="$(CURDIR)/.venv/cargo-lambda/bin:$$PATH" cargo lambda build --output-format zip
SAM       := SAM_CLI_TELEMETRY=0 .venv/sam/bin/sam
STACK     ?= chainloop
SEEDS     ?= 1000000
# Of the template, for `make deploy`: PARAMETERS="RetentionDays=365 AlarmTopicArn=…"
PARAMETERS ?=
# Of infra/local/load.py and kill.py: `make load LOAD="--attachments 10 --rate 5 --count 200"`
LOAD ?=
KILL ?=
# Of infra/local/bench.py: `make bench BENCH="--runs 50 --only registered"`
BENCH ?=

.DEFAULT_GOAL := help
.PHONY: help local parties local-down tools functions cli test test-peers test-mail simulate plants load bench kill-run lint deploy clean tools peers

help: ## What can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

local: tools functions cli ## Set everything up on this machine and run the main job
	@infra/local/cloud.py up
	@.venv/sam/bin/python infra/local/deploy.py
	@infra/local/receiver.py up
	@. .local/env && infra/local/bootstrap.sh .local
	@. .local/env && .venv/sam/bin/python infra/local/tour.py \
	  $(if $(ATTESTATION),--attestation "$(ATTESTATION)" $(foreach material,$(MATERIALS),--material "$(material)"))

parties: ## Third parties to deliver to, one of each kind: where they are, and what they were sent
	@$(VENV) aiosmtpd
	@infra/local/debian.sh docker-registry
	@cargo build --target $(TARGET) --profile local --package peers --bin parties
	@mkdir -p target/bin && ln -sf ../$(TARGET)/local/parties target/bin/parties
	@infra/local/parties.py up

local-down: ## Stop both; `make local` continues with what was there
	@infra/local/parties.py down
	@infra/local/receiver.py down
	@infra/local/cloud.py down

test: tools peers ## Everything, from unit to deployed
	@infra/test.sh

test-peers: ## What we send against the vendors' OpenAPI documents: make test-peers SAMPLES_DIR=…
	@test -d "$(SAMPLES_DIR)/specs" || { echo "SAMPLES_DIR is to be a directory with specs/dependency-track-v5-openapi-v1.yaml and specs/discord-openapi.json"; exit 1; }
	@infra/local/npm.sh prism
	@cargo test --target $(TARGET) --profile local --package attestation --package integrations --package peers --test prism

test-mail: ## Mail through exim, OpenSMTPD, Postfix and sendmail, unpacked from Debian: as root, or with its package uidmap
	@infra/local/debian.sh mail-servers
	@cargo test --target $(TARGET) --profile local --package attestation --package integrations --package peers --test mail_servers

simulate: ## The pipeline where everything goes wrong: make simulate SEEDS=1000000
	@cargo run --quiet --target $(TARGET) --profile local --package simulation -- --seeds $(SEEDS)

plants: ## Bugs planted into the pipeline, each of which the simulation must find
	@tests/simulation/plants.sh

load: tools functions cli ## Put load on a stack of its own: what arrives, and how fast
	@infra/local/load.py $(LOAD)

bench: tools functions cli ## How long each command takes, beside what it could not do without
	@infra/local/bench.py $(BENCH)

kill-run: tools functions cli ## Deliver while everything that delivers is killed: nothing is lost
	@infra/local/kill.py $(KILL)

lint: tools ## Formatting, clippy, dependencies, the template
	@infra/lint.sh

deploy: ## To AWS, with its credentials in the environment: make deploy STACK=prod
	@test -z "$$AWS_ENDPOINT_URL" || { echo "AWS_ENDPOINT_URL is set: this shell points at the local cloud"; exit 1; }
	@$(VENV) sam
	@$(VENV) cargo-lambda
	rm -rf target/lambda
	$(LAMBDA) --release --arm64 --package functions
	$(SAM) deploy --template-file infra/template.yaml --stack-name $(STACK) --resolve-s3 --language-extensions \
	  --capabilities CAPABILITY_IAM CAPABILITY_AUTO_EXPAND --no-fail-on-empty-changeset --no-confirm-changeset \
	  $(if $(PARAMETERS),--parameter-overrides $(PARAMETERS))
	cargo build --release --package chainloop
	@infra/bootstrap.sh $(STACK)

tools:
	@for name in ministack sam cargo-lambda syft; do $(VENV) $$name; done

# The third parties that tests deliver to, and what asks the API all kinds of things.
peers:
	@for name in aiosmtpd schemathesis; do $(VENV) $$name; done
	@for name in azurite maildev; do infra/local/npm.sh $$name; done
	@infra/local/debian.sh docker-registry

# The package by its name: with the whole workspace the command line's features would leak into the functions.
functions:
	@$(LAMBDA) --compiler cargo --profile local --package functions

cli:
	@cargo build --target $(TARGET) --profile local --package chainloop
	@mkdir -p target/bin && ln -sf ../$(TARGET)/local/chainloop target/bin/chainloop

clean: local-down ## Remove what was built and what the local cloud holds
	rm -rf target .local .venv
