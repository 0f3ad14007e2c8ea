"""Benchmark and evaluation harness for vision-language pretrained models."""

__version__ = "0.1.0"
