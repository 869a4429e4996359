"""What `import edgewright` offers: `edgewright/__init__.py` names it, and imports it from here when it is used."""
