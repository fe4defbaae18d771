"""Tests of the Python package. Run them with `pytest grilly/tests` in `bindings/python`."""
