"""Many instances over several associations: what `fastscp send` does."""
