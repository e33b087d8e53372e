"""`python -m hpcbench`: the command line."""

from hpcbench.cli import main

if __name__ == "__main__":
    main()
