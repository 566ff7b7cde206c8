"""Tests of the serving stage."""
