"""Adapters to other frameworks, one subpackage each; imported on demand."""
