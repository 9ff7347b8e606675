"""Tests of the benchmarks: that they still run, and that nothing has become far more expensive."""
