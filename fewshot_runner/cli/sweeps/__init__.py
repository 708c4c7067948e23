"""Sweeps: what fsl train -m adds to a single run. multirun.py is where it begins."""
