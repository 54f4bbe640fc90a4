"""Replace spans of a vision transformer's blocks by closed-form maps, and measure what that costs and what it saves."""

__version__ = "0.1.0"
