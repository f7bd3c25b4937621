"""Outcomes <-> database."""
