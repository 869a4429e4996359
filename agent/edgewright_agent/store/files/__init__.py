"""What a store's folder holds besides blobs: its layout, version, lock, state and releases."""
