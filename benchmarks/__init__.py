"""Measures what probeline costs, each figure against something measured in the same run.

    python -m benchmarks --quick              the whole table in minutes
    python -m benchmarks --full --only P1,P4  full sizes, two rows

A figure is a ratio of two things timed in turn on the same inputs and with the same cores, so that
it hardly depends on the machine. No number here is a test: nothing fails when a target is missed.
"""
