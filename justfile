# The everyday commands. None is needed: each calls a script or cargo, as the README has it.

# what there is
default:
    @just --list --unsorted

# start a server for development
dev:
    cargo run -- server --dev

# format, lints, dependencies, documentation
check:
    .ci/check

# install what the tests lack, run the whole suite
test:
    tests/run

# the tests that need no other program
quick:
    cargo test

# the tests whose name contains NAME
only NAME:
    cargo test {{ NAME }} -- --include-ignored

# the benchmarks
bench:
    cargo bench

# every fuzzer for SECONDS
fuzz SECONDS="60":
    fuzz/run {{ SECONDS }}

# test image, packages, chart and release with the tools that they are for; needs `cargo build --release`
packaging *PARTS:
    packaging/test {{ PARTS }}

# make the development certificates again
certs:
    certs/make

# what must pass before a change lands
ci:
    .ci/run
