"""Power cuts on a disk whose cache lies: writes are logged with their flushes, and each prefix is what a cut leaves."""
