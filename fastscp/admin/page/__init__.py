"""The page of the service: what a browser shows of it, and may have it do."""
