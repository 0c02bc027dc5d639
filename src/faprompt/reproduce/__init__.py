"""Reproduce the paper: benchmarks, studies, published numbers and figures."""
