"""``python -m edgecls.cli``."""

from edgecls.cli.main import main

if __name__ == "__main__":
    main()
