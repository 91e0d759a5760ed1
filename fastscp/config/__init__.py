"""The settings: declared once, read in layers, with the kinds of values they take."""
