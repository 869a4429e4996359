"""Deployment: staging a release, activating it, probation, rollback, and keeping the active release running."""
