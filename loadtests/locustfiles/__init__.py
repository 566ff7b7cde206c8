"""Locustfiles, each runnable with the `locust` command."""
