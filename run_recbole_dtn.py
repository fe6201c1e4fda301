#!/usr/bin/env python
"""`python run_recbole_dtn.py --model=DTN --dataset=ml-100k` trains and tests; `--help` teaches the rest."""

import sys

from recbole_dtn.cli import main

if __name__ == "__main__":
    sys.exit(main())
