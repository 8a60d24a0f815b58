# Everything runs in the project's own .venv; the first command makes it.
PYTHON ?= python3
RUN := .venv/bin/

.PHONY: help demo test test-slow test-fast fuzz cover types docs wheel bench study study-dense study-default lint clean

help: ## what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

.venv/ready: pyproject.toml
	$(PYTHON) -m venv .venv
	$(RUN)pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

demo: .venv/ready ## the whole method on real images, in a few minutes; leaves runs/demo
	$(RUN)python examples/demo.py

test: .venv/ready lint types test-fast docs wheel ## all that CI runs

test-fast: .venv/ready ## the fast tests, two at a time
	OMP_NUM_THREADS=1 $(RUN)python -m pytest -n 2 --dist loadscope --no-loadscope-reorder

cover: .venv/ready ## the fast tests, a third slower, and the share of lines that they run
	OMP_NUM_THREADS=1 $(RUN)python -m pytest -n 2 --dist loadscope --no-loadscope-reorder --cov --cov-report=

types: .venv/ready ## mypy, strict
	$(RUN)mypy

docs: .venv/ready ## the pages, into build/site
	NO_MKDOCS_2_WARNING=1 $(RUN)mkdocs build --quiet --strict

wheel: .venv/ready ## the wheel, tried in an environment of its own
	$(RUN)python .ci/wheel.py

test-slow: .venv/ready ## the tests marked slow
	$(RUN)python -m pytest -m slow

fuzz: .venv/ready ## readers of files and texts, half a minute each; needs the extra fuzz
	$(RUN)python tests/fuzz_readers.py --seconds 30

lint: .venv/ready ## style
	$(RUN)ruff check .
	$(RUN)ruff format --check .

bench: .venv/ready ## speed, as ratios measured in one run
	$(RUN)python benchmarks/speed.py
	$(RUN)python benchmarks/proxies.py
	$(RUN)python benchmarks/budgets.py
	$(RUN)python benchmarks/distill.py
	$(RUN)python benchmarks/spaces.py
	$(RUN)python benchmarks/workers.py
	$(RUN)python benchmarks/gpu.py
	$(RUN)python benchmarks/scale.py

CIFAR ?= cifar100
TEACHER ?= teacher.safetensors
study: .venv/ready ## scores against all tables; CIFAR=DIR is CIFAR-100 as a folder; hours, resumable
	$(RUN)diswot rank --study benchmarks/targets.toml --data $(CIFAR) --teacher resnet110 --out runs/targets --resume

CAMVID ?= camvid
study-dense: .venv/ready ## scores against tables of segmentation; CAMVID=DIR has images and masks; resumable
	$(RUN)diswot rank --study benchmarks/targets_dense.toml --data $(CAMVID) --out runs/dense --resume

study-default: .venv/ready ## the default score, chosen without the table that it is looked at on
	$(RUN)python benchmarks/leave_one_out.py record --data $(CIFAR)
	$(RUN)python benchmarks/leave_one_out.py choose

clean: ## remove the environment and caches
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache
