"""What serving a model costs: measured on a board and as its callers see it, or on this machine; saved and compared."""
