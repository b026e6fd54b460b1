"""Attackers, and what they are held against: tests/test_security.py has the heart of it, docs/explanation/threat-model
the list."""
