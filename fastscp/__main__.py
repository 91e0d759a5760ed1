"""`python -m fastscp`: the same program as the `fastscp` command."""

from fastscp.cli.app import main

if __name__ == "__main__":
    raise SystemExit(main())
