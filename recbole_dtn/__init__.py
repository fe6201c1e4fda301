"""Multi-task CTR / CVR recommendation for RecBole, trained under Lightning."""

__version__ = "0.1.0"
