"""How good a result is, with its uncertainty, and the report that says so."""
