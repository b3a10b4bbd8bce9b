"""`python -m harness` is `ttc`."""

from harness.cli import main

if __name__ == "__main__":
    main()
