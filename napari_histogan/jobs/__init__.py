"""Stages as child processes with run folders, and the interactive compute process."""
