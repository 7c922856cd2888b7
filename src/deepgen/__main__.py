"""`python -m deepgen …` and `torchrun … -m deepgen …`: the same as the command `deepgen`."""

from deepgen.cli import main

if __name__ == "__main__":
    main()
