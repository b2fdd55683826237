# Shorthands; .ci/run is what a change must pass.
.PHONY: build check test bench wheel lint docs clean

build: # the compiled modules, beside their sources
	python setup.py -q build_ext --inplace

test:
	pip install -q ".[test]" && pytest

check: # the C storey alone
	$(MAKE) -C csrc check

bench:
	pip install -q ".[bench]" && pytest benches

wheel: # built, repaired, audited, and tested where there is no compiler
	.ci/wheel $(PYTHON)

lint:
	pip install -q ruff mypy && ruff check . && mypy

docs: # help() is the reference; this runs the examples of README.md and of the package
	pip install -q ".[test]" && pytest -q tests/test_readme.py tests/test_config.py

clean:
	rm -rf build dist *.egg-info fastnn/_core/*.so
	find . -name __pycache__ -prune -exec rm -rf {} +
