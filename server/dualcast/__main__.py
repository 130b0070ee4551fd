"""`python -m dualcast` is the same as `dualcast`."""

from dualcast.cli import main

if __name__ == "__main__":
    main()
