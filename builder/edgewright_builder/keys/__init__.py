"""Keys and certificates, trust documents and revocations."""
