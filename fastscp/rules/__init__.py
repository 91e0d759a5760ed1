"""What decides how an association is treated: built from the settings, and matched to a peer."""
