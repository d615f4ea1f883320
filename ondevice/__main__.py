"""``python -m ondevice``, which is ``ondevice``: for torchrun, which starts modules and not commands."""

from ondevice.cli.main import run_console

if __name__ == "__main__":
    run_console()
