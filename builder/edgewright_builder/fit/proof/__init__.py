"""What has been proved equal to transformers: of which configuration, by which figures. Doing it is `prove`'s work."""
