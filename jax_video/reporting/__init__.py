"""A run as a page: what was trained, how well it does, and where it errs, in one HTML file that needs no network."""
