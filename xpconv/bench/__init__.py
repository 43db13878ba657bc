"""Side by side with other libraries: ``python -m xpconv bench``."""
