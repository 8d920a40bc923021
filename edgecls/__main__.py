"""``python -m edgecls``: the command line without its script."""

from edgecls.cli.main import main

if __name__ == "__main__":
    main()
