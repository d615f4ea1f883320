"""``ondevice peers`` in a checkout: python export/peers.py --help."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ondevice.cli.main import run_twin

if __name__ == "__main__":
    run_twin("peers", "export/peers.py")
