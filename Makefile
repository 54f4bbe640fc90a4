.PHONY: run test check smoke bench weights wheel constraints

run:          ## the main job on the embedded model
	uv run toast run

test:         ## all tests; TOAST_TEST_ASSETS=<dir> adds those on real weights
	uv run pytest

check:        ## style and types
	uv run ruff check . && uv run ruff format --check . && uv run mypy

smoke:        ## every stage in seconds
	uv run toast run experiment=smoke/digits fresh=true

bench:        ## the sweep beside a plain procedure, on the embedded model
	uv run python scripts/bench_sweep.py --quick

weights:      ## train the embedded model again
	uv run python scripts/train_digits_vit.py

wheel:        ## build what is installed elsewhere
	uv build --wheel

constraints:  ## record the versions that the tests have just passed with
	uv run pytest && uv pip freeze --exclude-editable > constraints.txt
