"""The project folder: artifacts, human work, locks, and schema versions."""
