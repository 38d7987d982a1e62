"""Stores around stores: each obeys the same protocol and passes the same contract tests."""
