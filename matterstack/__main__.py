"""``python -m matterstack``: the command line, where its script is not on PATH."""

import sys

from matterstack.cli.main import main

sys.exit(main())
