# Shorthands; .ci/run is what a change must pass.
.PHONY: build check test bench clean

build: # the compiled modules, beside their sources
	python setup.py -q build_ext --inplace

test:
	pip install -q ".[test]" && pytest

check: # the C storey alone
	$(MAKE) -C csrc check

bench:
	pip install -q ".[bench]" && pytest benches

clean:
	rm -rf build dist *.egg-info fastnn/_core/*.so
	find . -name __pycache__ -prune -exec rm -rf {} +
