"""``python -m benchmarks``: every benchmark, one table each."""

from benchmarks.meta_step import main

main()
