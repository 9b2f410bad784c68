"""`python -m nanolab`."""

import sys

from nanolab.cli import main

if __name__ == "__main__":
    sys.exit(main())
