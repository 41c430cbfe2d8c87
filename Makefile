# The doors: make demo | test | test-shops | test-faults | test-long | test-tall | check-the-checks | check | bench | servers | clean. Python 3.11+ and make are all that must be there.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BENCH_STAMP := $(VENV)/.installed-bench
APSCHEDULER4 := bench/alternatives/apscheduler4

# Where this is set, as in many containers, each of the hundreds of processes that tests, demo and bench start would
# compile all that it imports: 4.7 s instead of 1.4.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-shops test-long test-tall test-faults faults check-the-checks check format bench bench-quick servers clean

# uv installs in a second what takes pip twenty; pip does where uv has no wheel.
$(STAMP): pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 …")'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv 2>/dev/null || true
	@if test -x $(BIN)/uv; then $(BIN)/uv pip install --quiet --python $(BIN)/python --editable . --group test --group check; \
	else $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable . --group test --group check; fi
	@touch $@

demo: $(STAMP)
	@$(BIN)/python -m tasks.demo

# Under ten minutes on two cores: values, functions, docs, types, the store on three databases and the command line,
# side by side; then real workers and the demo, alone with their clocks. Those of batches run with test-faults.
BATCHES := tests/integration/test_batches.py tests/store/test_sharing.py tests/store/test_holding.py
test: $(STAMP)
	@failed=0; \
	$(BIN)/python -m pytest -n 2 --dist loadfile tests/unit tests/docs tests/typing tests/store tests/cli $(BATCHES:%=--ignore=%) || failed=1; \
	$(BIN)/python -m pytest tests/integration tests/demo $(BATCHES:%=--ignore=%) || failed=1; \
	exit $$failed

# Async and Django shops: their own tests on three databases.
test-shops: $(STAMP)
	$(BIN)/python -m pytest tests/contrib/test_async.py tests/contrib/test_django_suite.py

# Redis, RabbitMQ classic and quorum, pytest-celery's clusters, hostile messages, an old shop moving in,
# Flower, beat, deploy/, a tiny benchmark, Django with real workers: twenty-five minutes.
test-long: $(STAMP)
	$(BIN)/python -m pytest tests/brokers tests/cluster tests/security tests/legacy tests/flower tests/beat \
		tests/deploy tests/bench tests/contrib/test_django_worker.py

# A table of ten million rows, and two of three million: four minutes.
test-tall: $(STAMP)
	$(BIN)/python -m pytest tests/tall

# Kill -9 at the seams, wrong clocks, poison, backlogs, small campaigns, batches, properties: ten minutes.
test-faults: $(STAMP)
	$(BIN)/python -m pytest tests/faults $(BATCHES) tests/property

# A stream of jobs for five minutes while workers, broker, database and connections break; docs/faults.md.
faults: $(STAMP)
	$(BIN)/python -m tests.faults.campaign $(ARGS)

# One guard after the other is taken out of the package: the property test must notice each; docs/guarantees.md.
check-the-checks: $(STAMP)
	$(BIN)/python -m tests.property.check_the_checks $(ARGS)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/yamllint --strict deploy
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec deploy/compose.yaml
	$(BIN)/kubernetes-validate --strict --quiet deploy/kubernetes/[!k]*.yaml

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Ours beside native Celery, peers and the servers' limits; ARGS="--only schedule,lag --rounds 5", `--help` tells more.
bench bench-quick: export PEERS_PYTHON_APSCHEDULER4 ?= $(wildcard $(CURDIR)/$(VENV)/apscheduler4/bin/python)
bench: $(BENCH_STAMP)
	$(BIN)/python -m bench $(ARGS)

# One round of everything, smaller: under three minutes on two cores that nobody else uses.
bench-quick: $(BENCH_STAMP)
	$(BIN)/python -m bench --quick $(ARGS)

$(BENCH_STAMP): $(STAMP) $(APSCHEDULER4).txt
	@if test -x $(BIN)/uv; then $(BIN)/uv pip install --quiet --python $(BIN)/python --group bench; \
	else $(BIN)/python -m pip install --quiet --disable-pip-version-check --group bench; fi
	@$(BIN)/python -m venv --clear $(VENV)/apscheduler4
	@$(VENV)/apscheduler4/bin/python -m pip install --quiet --disable-pip-version-check --requirement $(APSCHEDULER4).txt \
		|| rm -rf $(VENV)/apscheduler4
	@touch $@

servers:
	@.ci/servers

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
