"""Run the command line: `python -m faprompt`."""

from faprompt.cli.main import run

if __name__ == "__main__":
    run()
