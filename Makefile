# The two words a new user needs are demo and test; `make help` lists all.
GO      ?= go
RELEASE ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS  = -s -w -X main.release=$(RELEASE)

.PHONY: help build demo test test-vm test-zfs test-others lint race race-all bench bench-cow bench-sets bench-providers soak clean packages

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

build: ## build the static binary ./stillpoint
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o stillpoint ./cmd/stillpoint

packages: ## install the Debian packages that the tests use
	./test/packages test

demo: build ## back up a busy btrfs volume, restore it, show that it is of one moment
	./test/packages demo
	$(GO) run ./test/demo ./stillpoint

test: packages ## run all tests; as root, on scratch loop devices; some ten minutes
	$(GO) test -p 1 -timeout 20m ./... # one package at a time: what one test leaves, clean-up in another would find

VM ?= .
VM_INSIDE ?= .
VM_KERNELS ?= bookworm trixie backports
ZFS ?= .
ZFS_KERNEL ?= trixie
test-vm: ## run the tests in virtual machines: VM=PATTERN of power cuts, / and systemd, VM_INSIDE=PATTERN of packages on VM_KERNELS
	./test/packages vm
	$(GO) test -tags vm -count=1 -timeout 180m -v -run '$(VM)' ./test/vm
	./test/vm/matrix '$(VM_INSIDE)' $(VM_KERNELS)

test-zfs: ## run the tests of ZFS snapshots in a virtual machine, for which it builds the module, ten minutes the first time; ZFS=PATTERN some of them, ZFS_KERNEL=bookworm with Debian 12's
	./test/packages vm
	dir=$$(mktemp -d) && trap 'rm -rf "$$dir"' EXIT && $(GO) build -o "$$dir/inside" ./test/vm/inside && \
	STILLPOINT_VM_ZFS=1 STILLPOINT_VM_KERNEL=$(ZFS_KERNEL) CGO_ENABLED=0 $(GO) test -tags 'zfs faults' -exec "$$dir/inside" -count=1 -timeout 90m -v -run '$(ZFS)' ./internal/snapshot/zfs
	STILLPOINT_VM_KERNEL=$(ZFS_KERNEL) $(GO) test -tags 'vm zfs' -count=1 -timeout 90m -v -run '^TestZFS(PowerCut)?$$' ./test/vm

test-others: ## run the tests of writers against Valkey and MySQL, which Debian 12 has not
	./test/others

lint: ## gofmt, vet, staticcheck
	@test -z "$$(gofmt -l cmd internal bench test *.go)" || { gofmt -l cmd internal bench test *.go; exit 1; }
	$(GO) vet ./...
	$(GO) vet -tags faults ./...
	$(GO) vet -tags bench ./bench/...
	$(GO) tool staticcheck ./...
	$(GO) tool staticcheck -tags bench ./bench/...
	$(GO) vet -tags vm ./...
	$(GO) tool staticcheck -tags vm ./test/vm/... ./internal/snapshot/...
	$(GO) vet -tags 'zfs faults' ./internal/snapshot/zfs
	$(GO) vet -tags 'vm zfs' ./test/vm
	$(GO) tool staticcheck -tags 'zfs faults' ./internal/snapshot/zfs

race: packages ## run the packages that are all goroutines under the race detector; some minutes
	$(GO) test -race -short -p 1 -timeout 10m ./internal/agent ./internal/coordinator ./internal/guard ./internal/holder ./internal/job ./internal/notify ./internal/quiesce ./internal/snapshot/fake ./internal/sys/fanotify

race-all: packages ## run everything under the race detector; some half an hour
	$(GO) test -race -short -p 1 -timeout 30m ./internal/...

soak: packages ## run what takes too long for every day: a directory with a million names, snapshots in a row under databases, power cuts
	STILLPOINT_TEST_NAMES=1000000 $(GO) test -count=1 -timeout 30m -v -run '^TestManyNames$$' ./internal/backup
	STILLPOINT_TEST_CAPTURES=100 $(GO) test -count=1 -timeout 60m -v -run '^TestSet$$' ./cmd/stillpoint
	STILLPOINT_TEST_CAPTURES=20 $(GO) test -count=1 -timeout 30m -v -run '^Test(Bank|Town)$$' ./cmd/stillpoint
	STILLPOINT_TEST_FILES=1000000 $(GO) test -count=1 -timeout 60m -v -run '^TestScale$$' ./internal/snapshot/cow
	STILLPOINT_TEST_CAPTURES=1000 $(GO) test -count=1 -timeout 120m -v -run '^TestStress$$' ./internal/snapshot/cow
	STILLPOINT_TEST_CAPTURES=100 $(GO) test -count=1 -timeout 90m -v -run '^(TestRecords|TestSQLite|TestPostgreSQL)$$' ./internal/snapshot/cow
	./test/packages vm
	STILLPOINT_TEST_CUTS=50 $(GO) test -tags vm -count=1 -timeout 300m -v -run '^TestPowerCut$$/^trixie$$' ./test/vm

bench: build ## compare with restic, borg and kopia on the same data; takes a while
	./test/packages bench
	$(GO) run ./bench

bench-cow: ## measure snapshots of plain volumes against none, side by side; as root, some twenty minutes
	./test/packages bench
	$(GO) test -tags bench -count=1 -timeout 60m -v -run '^TestBench$$' ./bench/cow

bench-sets: ## measure how long writers and applications wait for sets of volumes, beside fsfreeze; as root, some five minutes
	./test/packages bench
	$(GO) test -tags bench -count=1 -timeout 60m -v -run '^TestBench$$' ./bench/sets

bench-providers: ## measure providers of device-mapper, LVM and btrfs side by side in a virtual machine; some ten minutes
	./test/packages vm
	dir=$$(mktemp -d) && trap 'rm -rf "$$dir"' EXIT && $(GO) build -o "$$dir/inside" ./test/vm/inside && \
	CGO_ENABLED=0 $(GO) test -tags bench -exec "$$dir/inside" -count=1 -timeout 60m -v -run '^TestBench$$' ./bench/providers

clean: ## remove what was built
	rm -f stillpoint
