"""The harness: grids of cells, run on the machines at hand, into curves."""

__version__ = "0.1.0"
