"""`python -m hpcbench`: the command line."""

import sys

if __name__ == "__main__":
    if not sys.flags.safe_path:
        del sys.path[0]  # the current folder, whose random.py would be imported in place of the standard library's
    from hpcbench.cli import main

    main()
