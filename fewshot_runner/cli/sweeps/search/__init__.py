"""How a sweep chooses its jobs: one search a file, named by `conf/sweep`."""
