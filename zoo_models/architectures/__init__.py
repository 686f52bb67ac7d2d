"""Networks that are shipped in packages: one file = one network, torch and stdlib only."""
