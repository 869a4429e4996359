"""Sampling: the thread that asks the collectors, and the power it adds up to."""
