"""One file a comparison; each has `figures(bench)`, which measures and yields the lines of the table."""
