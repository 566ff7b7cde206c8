"""The chart (`slipway/`), and what makes its generated files: `python -m helm.dashboard`. Not part of the package."""
