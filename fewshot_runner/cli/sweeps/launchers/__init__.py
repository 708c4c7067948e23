"""Where a sweep's jobs run: one launcher a file, named by `conf/launcher`."""
