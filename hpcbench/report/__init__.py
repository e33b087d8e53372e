"""Collection in, tables out."""
