"""Looks at data and writes figures and pages: one self-contained HTML file each."""
