"""A run, told: from its journal to JSON for programs and one HTML file for people."""
