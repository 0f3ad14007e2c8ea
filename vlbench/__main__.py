"""`python -m vlbench`, so that launchers (`torchrun -m vlbench run ...`) can start it."""

from vlbench.cli.main import entry

if __name__ == "__main__":
    entry()
