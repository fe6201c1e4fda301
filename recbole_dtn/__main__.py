"""``python -m recbole_dtn`` is ``python run_recbole_dtn.py``."""

import sys

from recbole_dtn.cli import main

if __name__ == "__main__":
    sys.exit(main())
