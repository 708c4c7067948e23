"""What scripts/bench is made of. The package never imports it."""
