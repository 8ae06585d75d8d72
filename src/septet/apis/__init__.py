"""One folder per spoken API."""
