"""How workers come to life."""
