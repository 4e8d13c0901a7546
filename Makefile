# Every target needs Go and git, the tests also a C compiler (for the race
# detector), and nothing else. `make` lists them.

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
FUZZTIME ?= 30s
# How many random operations are compared with etcd's answers, without the race
# detector, which makes them slow.
OPERATIONS ?= 20000
BENCHFLAGS ?=
# Six of each, since a comparison by benchstat needs some.
MICROFLAGS ?= -count 6 -benchtime 0.3s

# The same source and Go version give the same bytes, wherever they are built.
GOBUILD = CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w -X main.version=$(VERSION)'

STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.1
GOVULNCHECK = golang.org/x/vuln/cmd/govulncheck@v1.9.0

.PHONY: help
help: ## list the targets
	@sed -nE 's/^([a-z0-9-]+):.*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 12

.PHONY: build
build: ## build bin/etcdseal
	$(GOBUILD) -o bin/etcdseal ./cmd/etcdseal

.PHONY: quickstart
quickstart: ## show it: an etcd, a proxy, a secret, and what etcd holds (ONCE=1 ends after that)
	@$(MAKE) -s build
	@$(GOBUILD) -o bin/quickstart ./cmd/quickstart
	@bin/quickstart

.PHONY: test
test: unit e2e ## run every test

.PHONY: unit
unit: ## run the tests of the main module, fuzz seeds included, under the race detector
	go test -race -timeout 15m ./...
	cd kek/kmsv2/interop && go test ./...
	go test -timeout 10m ./proxy/socket ./proxy/relay
	go test -timeout 10m ./proxy ./crypto/envelope -run Allocations
	go test -timeout 10m ./proxy/difftest -run EqualsEtcd -difftest.operations $(OPERATIONS)

.PHONY: e2e
e2e: ## run the built binary against a real etcd and a real kube-apiserver
	cd e2e && go run ./build
	cd e2e && go test -timeout 45m ./...

.PHONY: bench
bench: bin/bench/bench ## measure etcdseal side by side with what it is compared with, kube-apiserver included: a report with plots in bin/bench/report (BENCHFLAGS=-h for flags)
	bin/bench/bench -out bin/bench/report $(BENCHFLAGS) || test $$? -eq 1 # a goal that is missed is in the report

.PHONY: bench-quick
bench-quick: bin/bench/bench ## measure what matters most of it, in little time
	bin/bench/bench -quick $(BENCHFLAGS) || test $$? -eq 1

.PHONY: bench-micro
bench-micro: ## run the benchmarks of single packages; benchstat reads what it prints (MICROFLAGS for flags of go test)
	@go test -run '^$$' -bench . -benchmem $(MICROFLAGS) ./crypto/envelope ./crypto/dek ./proxy/wire ./proxy/relay

.PHONY: bench-docs
bench-docs: bin/bench/bench ## write the last `make bench` to docs: BENCHMARKS.md, its plots and its data
	bin/bench/bench render -out docs bin/bench/report/benchmarks.json >/dev/null || test $$? -eq 1

# The go command knows by itself whether it is up to date. It is run as it is, not by `go run`, so that an interrupt reaches it.
.PHONY: bin/bench/bench
bin/bench/bench:
	@go build -o $@ ./bench

.PHONY: lint
lint: ## vet, gofmt, staticcheck, and govulncheck where its database can be reached
	go vet ./...
	cd e2e && go vet ./...
	cd kek/kmsv2/interop && go vet ./...
	@unformatted=$$(gofmt -l .); test -z "$$unformatted" || { echo "not gofmted:"; echo "$$unformatted"; exit 1; }
	go run $(STATICCHECK) ./...
	cd e2e && go run $(STATICCHECK) ./...
	cd kek/kmsv2/interop && go run $(STATICCHECK) ./...
	@if curl -fsS --max-time 10 -o /dev/null https://vuln.go.dev/index/db.json; then go run $(GOVULNCHECK) ./...; \
	else echo "govulncheck: left out, https://vuln.go.dev cannot be reached"; fi

.PHONY: fuzz
fuzz: ## run every fuzz target for FUZZTIME
	@set -e; for package in $$(go list ./...); do \
		for target in $$(go test -list '^Fuzz' $$package | grep '^Fuzz' || true); do \
			echo "== $$package $$target"; \
			go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1s $$package; \
		done; \
	done

.PHONY: clean
clean: ## remove what was built
	rm -rf bin e2e/bin
