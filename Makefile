.PHONY: run test fast check ci smoke bench weights wheel constraints

run:          ## the main job on the embedded model
	uv run toast run

test:         ## all tests; TOAST_TEST_ASSETS=<dir> adds those on real weights
	uv run pytest

fast:         ## all tests but the slow ones
	uv run pytest -m "not slow"

check:        ## style, types, the order of the wings
	uv run ruff check . && uv run ruff format --check . && uv run mypy && uv run lint-imports

ci:           ## everything that must hold before a change lands
	.ci/run

smoke:        ## every stage in seconds
	uv run toast run experiment=smoke/digits fresh=true

bench:        ## the sweep and a plain procedure, compared on the embedded model
	uv run python scripts/bench_sweep.py --quick

weights:      ## train the embedded model again
	uv run python scripts/train_digits_vit.py

wheel:        ## build what is installed elsewhere
	uv build --wheel

constraints:  ## record the versions that the tests have just passed with
	uv run pytest && uv pip freeze --exclude-editable > constraints.txt
