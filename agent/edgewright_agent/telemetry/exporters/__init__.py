"""Exporters: each file brings snapshots to one kind of reader."""
