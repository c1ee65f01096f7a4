# The interpreter that makes .venv, and a way to take arguments with blanks in them as they are.
python := env("PYTHON", "python3")
set shell := ["bash", "-euc"]
set positional-arguments

# Compiled once, not by each of the hundreds of processes that the tests start, also where images say otherwise.
export PYTHONDONTWRITEBYTECODE := ""

_default:
    @'{{just_executable()}}' --list --unsorted

# create .venv and install into it; does nothing when nothing has changed
[private]
setup:
    #!/usr/bin/env bash
    set -euo pipefail
    want=$(cat pyproject.toml constraints.txt | cksum)
    [ "$(cat .venv/.setup-stamp 2>/dev/null || true)" != "$want" ] || exit 0
    echo "setting up .venv (once; again when the dependencies change)" >&2
    [ -x .venv/bin/python ] || '{{python}}' -m venv .venv
    if command -v uv >/dev/null; then
        uv pip install -q --python .venv/bin/python -c constraints.txt -e '.[app,dev,docs]'
    else
        .venv/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[app,dev,docs]'
    fi
    echo "$want" > .venv/.setup-stamp

# start the shop on http://127.0.0.1:8000: just run --port 9000
run *ARGS: setup
    @exec .venv/bin/python -m app serve "$@"

# show the product in half a minute: failing mail, kill -9, dead letter, replay
demo *ARGS: setup
    @exec .venv/bin/python -m app.demo "$@"

# run the tests, on all cores, at most three cases of each; all cases of some: just test -k dead_letter
test *ARGS: setup
    @.venv/bin/python -m pytest -n auto --dist worksteal --cases 3 "$@"

# run what `just test` leaves out: further cases, PostgreSQL, the browser, type checkers on examples, longer rounds of kill -9
test-rest *ARGS: setup
    @.venv/bin/python -m pytest -n auto --dist worksteal --cases 3 --rest "$@"

# run all tests that can run on PostgreSQL, also those of workers and queues; they start a server, whose programs must be installed
test-postgres *ARGS: setup
    @CI=1 JOBRUNNER_TEST_ON_POSTGRES=all .venv/bin/python -m pytest -n auto --dist worksteal -k postgres "$@"

# a minute of tests below HTTP: two cases of each, without the slow ones and those that start processes; much of it is waiting
quick *ARGS: setup
    @JOBRUNNER_TEST_ON_POSTGRES=none .venv/bin/python -m pytest -n $(( {{num_cpus()}} * 3 / 2 )) --dist worksteal -m "not slow and not process and not browser" --cases 2 --ignore tests/fastapi --ignore tests/app --ignore tests/browser "$@"

# build the single-file executable and try it; takes minutes, CI does it in a step of its own
test-binary *ARGS: setup
    @.venv/bin/python -m pytest -m binary tests/cli/test_binary.py "$@"

# format, lint, imports, types: all of it must be green before a commit
check: setup
    .venv/bin/ruff format --check .
    .venv/bin/ruff check .
    .venv/bin/lint-imports
    .venv/bin/mypy

# rewrite the format and fix what can be fixed
fmt: setup
    .venv/bin/ruff format .
    .venv/bin/ruff check --fix .

# build the documentation into site/, strict about links; or show it while you write: just docs serve
docs command="build" *ARGS: setup
    #!/usr/bin/env bash
    set -euo pipefail
    [ "$1" = build ] || exec .venv/bin/python -m zensical "$@"
    status=0
    said=$(.venv/bin/python -m zensical build --strict --clean "${@:2}" 2>&1) || status=$?
    echo "$said"
    # Warnings about docstrings are no part of what `--strict` counts.
    if grep -q '^griffe:' <<< "$said"; then exit 1; fi
    exit "$status"

# build dist/shop: the shop and the commands in one file that needs no Python (PyInstaller)
binary: setup
    @.venv/bin/python -m PyInstaller --noconfirm --log-level WARN --distpath dist --workpath build app/shop.spec
    @ls -l dist/shop

# build dist/*.whl and the sdist that it is built from
wheel: setup
    @.venv/bin/python -m build --outdir dist .

# install the wheel in a new environment and run the README's first file; CI does it in a step of its own
test-wheel *ARGS: setup
    @.venv/bin/python -m pytest -m wheel tests/test_wheel.py "$@"

# how fast it is, beside raw sqlite3: just bench --only drain --runs 5; or beside an older one: just bench --against REV
bench *ARGS: setup
    @.venv/bin/python -m tests.benchmarks "$@"

# kill -9, fuzzing, large files, for as long as you like: just soak --part kill stories --seconds 600
soak *ARGS: setup
    @.venv/bin/python -m tests.soak "$@"

# resolve the dependencies anew into constraints.txt (needs uv)
lock:
    uv pip compile -q --no-header --no-annotate --no-emit-index-url --no-emit-find-links --upgrade --universal --python-version 3.11 \
        --extra app --extra fast --extra dev --extra docs pyproject.toml -o constraints.txt
