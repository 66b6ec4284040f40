"""``python -m graphwright`` is the command ``graphwright``."""

from graphwright.cli import main

main()
